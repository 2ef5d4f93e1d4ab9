"""Kills in a row of one copy of the tiny pipeline, which then finishes and is compared with an undisturbed one."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from disturbed_project import RECORDED, AtMoment, AtPoint, DisturbedProject
from project_copies import partial_files, state_before
from tiny_project import TinyProject, every_kind_of_stage, new_project

FAULTS = ("kill", "group", "term", "power", "int", "enospc", "oom")  # at named points, in turn
SIGNALS = (  # at random moments, each as often as the others
    *(("group", "kill"), ("group", "kill"), ("group", "power"), ("group", "int"), ("group", "term")),
    *(("dvc", "kill"), ("dvc", "term"), ("stage", "kill"), ("stage", "kill"), ("stage", "term"), ("stage", "int")),
)
MOST_RERUNS = 2  # until a project that is left alone must have finished
IN_A_ROW = 8  # kills of one journey
MOMENTS = 0.02, 0.35  # parts of the time of an undisturbed run, between which a random kill falls
OF_MANY = re.compile(r"(?<=^publish file ).*|(?<= of )(head|tail|repeat)-\d+|(?<=register tag ).*|(?<=[a-z])-\d+(?=\.)")
STORED = re.compile(r"(write|rename|aside|shard) (?!.*\.checkpoint)")
RENAME = "rename"
EPOCH, SAMPLED = "epoch", "journal system"  # the second one in a thread, where an exception ends nothing else
FOLLOWER = (("publish run", "publish curves", "publish end"), ("publish start",))  # in an order that reaches them all
UNFINISHED = re.compile(r"\.work/((\.gone-)?[0-9a-f]{64}|\.[0-9a-f]{64}\.over|locks/.)")  # the rest of .work is kept
Which = Literal["once", "kinds", "every"]


@dataclass(frozen=True)
class Journey:
    """Kills in a row.

    Attributes:
        name: of the copy's folder.
        stages: that have never run when it begins; None: all, from a fresh checkout.
        kills: one after the other.
    """

    name: str
    stages: tuple[str, ...] | None
    kills: tuple[AtPoint | AtMoment, ...]

    @property
    def at_points(self) -> bool:
        """Whether they are at named points; else at moments."""
        return isinstance(self.kills[0], AtPoint)


@dataclass(frozen=True)
class Arrival:
    """What became of a journey.

    Attributes:
        journey: that it was.
        struck: how many of its kills fell; the next one did not before the pipeline had finished.
        runs: of `dvc repro` in all.
        repairs: of DVC's own files between them.
        epochs: trained beyond those of an undisturbed run.
        differences: of the results; none where all is well.
        seconds: wall time.
    """

    journey: Journey
    struck: int
    runs: int
    repairs: int
    epochs: int
    differences: tuple[str, ...]
    seconds: float

    def fell(self) -> tuple[AtPoint | AtMoment, ...]:
        """The kills that did."""
        return self.journey.kills[: self.struck]

    def rest(self) -> list[Journey]:
        """The kills at points that did not fall, the one that failed to last and alone; none if it was the only one."""
        if not self.journey.at_points:
            return []
        name, kills = self.journey.name, self.journey.kills
        missed, later = kills[self.struck : self.struck + 1], kills[self.struck + 1 :]
        groups = {"on": later, "again": missed if len(kills) > 1 else ()}
        return [replace(self.journey, name=f"{name}-{what}", kills=group) for what, group in groups.items() if group]


@dataclass(frozen=True)
class Twin:
    """The undisturbed run.

    Attributes:
        project: where it lies.
        outputs: of every stage, in the order of the pipeline.
        reached: every stage and named point, in the order of the run.
        seconds: that it took.
    """

    project: TinyProject
    outputs: Mapping[str, Sequence[str]]
    reached: Sequence[tuple[str, str]]
    seconds: float

    def epochs(self, stages: Sequence[str] | None) -> int:
        """Trained in these stages, None: in all."""
        return sum(point == EPOCH and (stages is None or stage in stages) for stage, point in self.reached)


def undisturbed(root: Path) -> Twin:
    """Run the pipeline in a new project."""
    from graft.workspace_differences import pipeline_outputs

    twin = DisturbedProject(new_project(root, every_kind_of_stage))
    started = time.monotonic()
    twin.finish(1)
    return Twin(twin.project, pipeline_outputs(root), tuple(twin.reached()), time.monotonic() - started)


def point_journeys(twin: Twin, which: Which) -> list[Journey]:
    """One kill at each named point, in the order in which a stage reaches them.

    Args:
        twin: which reached them.
        which: every; of those that differ in the name of a file or of a candidate alone one in each stage; or once in
            the whole pipeline, apart from the last rename of each stage.
    """
    faults = itertools.cycle(FAULTS)
    kills, journeys = list[AtPoint](), []
    for stage in twin.outputs:
        points = [point for name, point in twin.reached if name == stage]
        own = [point for point in points if stage == "track" or not point.startswith("publish ")]
        known = {kind_of(kill.point) for kill in kills} - {RENAME} if which == "once" else set()
        chosen = list(dict.fromkeys(own)) if which == "every" else _one_of_each_kind(own)
        for point, number in _in_order(own, [point for point in chosen if kind_of(point) not in known]):
            kills.append(AtPoint(stage, point, "kill" if point == SAMPLED else next(faults), number))
        if RECORDED in own and not (which == "once" and journeys):
            for number, row in enumerate(FOLLOWER, start=1):
                followed = tuple(AtPoint(stage, point, next(faults), follower=True) for point in row)
                journeys.append(Journey(f"follower-{number}-{stage}", (stage,), followed))
    for number, first in enumerate(range(0, len(kills), IN_A_ROW), start=1):
        row = tuple(kills[first : first + IN_A_ROW])
        journeys.append(Journey(f"points-{number:02d}", tuple(dict.fromkeys(kill.stage for kill in row)), row))
    return journeys


def _in_order(points: Sequence[str], chosen: Iterable[str]) -> list[tuple[str, int]]:
    """Each chosen point, and at which of its times to kill there, in the order of these moments.

    That is its first time, but an epoch before which another one has ended.
    """
    moments = []
    for point in chosen:
        times = [moment for moment, name in enumerate(points) if name == point]
        number = min(point == EPOCH, len(times) - 1)
        moments.append((times[number], point, number + 1))
    return [(point, number) for _, point, number in sorted(moments)]


def _one_of_each_kind(points: Iterable[str]) -> list[str]:
    """The last rename, by which all is there, and else the middle one."""
    kinds: dict[str, list[str]] = {}
    for point in dict.fromkeys(points):
        kinds.setdefault(kind_of(point), []).append(point)
    return [of[-1] if kind == RENAME else of[len(of) // 2] for kind, of in kinds.items()]


def kind_of(point: str) -> str:
    """The point without what there are many of: files, candidates, tags."""
    return found[1] if (found := STORED.match(point)) else OF_MANY.sub("*", point)


def random_journeys(seed: int, twin: Twin) -> Iterator[Journey]:
    """Kills at random moments, without end: every other journey through all stages, the rest from a random one on."""
    stages = list(twin.outputs)
    for number in itertools.count(1):
        chance = random.Random(f"{seed} {number}")
        kills = [
            AtMoment(round(chance.uniform(*MOMENTS) * twin.seconds, 1), *chance.choice(SIGNALS), chance.randrange(1000))
            for _ in range(IN_A_ROW)
        ]
        first = chance.randrange(len(stages))
        yield Journey(f"random-{number}", None if number % 2 else tuple(stages[first:]), tuple(kills))


def travel(journey: Journey, *, twin: Twin, folder: Path) -> Arrival:
    """Make the copy, let the kills fall, let it finish and compare it with the twin; where all is well, delete it."""
    started, root = time.monotonic(), folder / journey.name
    if journey.stages is None:
        project = new_project(root, every_kind_of_stage)
    else:
        project = state_before(twin.project, root, journey.stages, twin.outputs)
    disturbed, struck = DisturbedProject(project), 0
    try:
        while struck < len(journey.kills) and disturbed.strike(journey.kills[struck]):
            struck += 1
        disturbed.finish(MOST_RERUNS)
        found = tuple(_differences(twin.project, project))
    except AssertionError as error:
        found = (str(error),)
    if not found:
        shutil.rmtree(root)
    epochs = sum(point == EPOCH for _, point in disturbed.reached()) - twin.epochs(journey.stages)
    seconds = time.monotonic() - started
    return Arrival(journey, struck, disturbed.runs, len(disturbed.repairs), epochs, found, seconds)


def _differences(twin: TinyProject, project: TinyProject) -> Iterator[str]:
    """Of the results and of MLflow's runs, and what an interrupted run has left that no finished one has."""
    from graft.workspace_differences import differences

    yield from differences(twin.root, project.root, tracked=True)
    yield from _journal_differences(project)
    work = [path for path in project.root.glob(".work/**/*") if UNFINISHED.match(f"{path.relative_to(project.root)}/")]
    yield from (f"{path.relative_to(project.root)} is left over" for path in [*partial_files(project.root), *work])
    stale = [line for line in project.dvc("status").splitlines() if line.endswith(":") and not line[0].isspace()]
    yield from (f"dvc status: {line}" for line in stale if line != "track:")


def _journal_differences(project: TinyProject) -> Iterator[str]:
    """Where MLflow does not hold a journal's points, each once, in one run."""
    from logged_content import assert_epochs, model_runs, system_rows

    from graft.journal import read_journal
    from graft.mlflow_server import MlflowClient

    client, runs = MlflowClient(project.store), model_runs(project.store)
    for path in sorted((project.root / "reports" / "runs").glob("*/journal.jsonl")):
        journal = read_journal(path)
        run = runs[journal.header["key"]]
        try:
            assert_epochs(client, run, journal.epochs)
        except AssertionError:
            yield f"MLflow: epochs of {journal.header['model']} are not those of its journal"
        for name, rows in system_rows(journal).items():
            held = client.get_metric_history(run.info.run_id, name)
            if len(held) != len(rows):
                yield f"MLflow: {journal.header['model']} has {len(held)} of {name}, its journal {len(rows)}"
