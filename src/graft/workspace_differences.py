"""What the results of two workspaces differ in: every output of the pipeline, and what MLflow was told of the runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from graft.file_differences import file_difference

EVERYTHING = ("*",)
MOMENTS = ("started", "ended", "time", "timings")
ORIGIN = ("commit", "dirty", "experiment")
SPEED = ("latency_ms*", "throughput", "*seconds", "pareto")
TAGS, METRICS = "mlflow.db/tags", "mlflow.db/metrics"  # of a run; they are compared as if they were files


@dataclass(frozen=True)
class Excluded:
    """What equal runs may differ in.

    Attributes:
        files: a pattern of their paths from the workspace on.
        fields: patterns of columns, of keys at any depth and of kinds of records.
        reason: why it is no result.
    """

    files: str
    fields: tuple[str, ...]
    reason: str


EXCLUDED = (
    Excluded("*/timings.json", EVERYTHING, "seconds, and milliseconds of a prediction"),
    Excluded("*/timings.csv", EVERYTHING, "seconds"),
    Excluded("reports/runs/*/journal.jsonl", MOMENTS, "when something happened and how long it took"),
    Excluded("reports/runs/*/journal.jsonl", ORIGIN, "of Git and DVC, where the same files may have another commit"),
    Excluded("reports/runs/*/journal.jsonl", ("system",), "samples of what else the machine did"),
    Excluded("reports/leaderboard.*", SPEED, "how long something took; pareto is the frontier of accuracy and speed"),
    Excluded("reports/leaderboard.md", EVERYTHING, "leaderboard.json for people, with its times"),
    Excluded("reports/tables/curve.csv", SPEED, "seconds"),
    Excluded("reports/model_card.json", SPEED, "how long something took"),
    Excluded("reports/model_card.json", ("environment",), "commit, packages and machine; verify names the machine"),
    Excluded("reports/model_card.md", EVERYTHING, "model_card.json for people, with its times"),
    Excluded("reports/index.html", EVERYTHING, "shows the times and the commit beside the results"),
    Excluded("reports/figures/*pareto.*", EVERYTHING, "draws accuracy over milliseconds"),
    Excluded(METRICS, (*SPEED, "system/*"), "how long something took, and what else the machine did"),
    Excluded(TAGS, ("graft.started", "git.*", "mlflow.source.git.commit", "dvc.experiment"), "dates and commits"),
    Excluded(TAGS, ("graft.report", "mlflow.note.content"), "hash and text of a page that shows times"),
    Excluded(TAGS, ("mlflow.parentRunId", "mlflow.user", "dvc.md5.*"), "numbers drawn by MLflow, and who ran it"),
)


def differences(left: Path, right: Path, *, stages: Sequence[str] = (), tracked: bool = False) -> Iterator[str]:
    """Every file whose results differ, with its first difference, in the order in which the pipeline makes them.

    Args:
        left: a workspace whose pipeline has run; its stages say which outputs are compared.
        right: another one.
        stages: those whose outputs are compared, such as svm@vgg16; none: all.
        tracked: compare the runs in the two workspaces' own MLflow databases, too.

    Returns:
        Texts such as `reports/runs/cnn/predictions.parquet: row 3, column p:ants: 0.25 against 0.5`; left's value is
        the first one.
    """
    made = pipeline_outputs(left)
    yield from output_differences(left, right, [path for stage in stages or made for path in made[stage]])
    if tracked:
        from graft.run_differences import run_differences

        yield from run_differences(left, right)


def output_differences(left: Path, right: Path, outputs: Sequence[str]) -> Iterator[str]:
    """As differences, of these files and folders alone, in their order; an output that both lack is one, too."""
    for output in outputs:
        files = result_files(left, output), result_files(right, output)
        for name in sorted({*files[0], *files[1]}):
            there = [name in one for one in files]
            if not all(there):
                yield f"{name}: only in {left if there[0] else right}"
            elif found := file_difference(left / name, right / name, excluded_fields(name)):
                yield f"{name}: {found}"
        if not any((root / output).exists() for root in (left, right)):
            yield f"{output}: in neither workspace"


def pipeline_outputs(root: Path) -> dict[str, list[str]]:
    """The outputs of every stage that dvc.yaml and params.yaml describe now, by stage, as paths from root on."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        stages = [stage for stage in repo.index.stages if not stage.is_data_source]
        return {
            stage.name: [Path(out.fs_path).relative_to(root.resolve()).as_posix() for out in stage.outs]
            for stage in stages
        }


def result_files(root: Path, output: str) -> list[str]:
    """The files of an output, as paths from root on, sorted, without those that hold no result."""
    path = root / output
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    names = [file.relative_to(root).as_posix() for file in files]
    return [name for name in names if "*" not in excluded_fields(name)]


def excluded_fields(path: str) -> tuple[str, ...]:
    """The patterns of what is no result in a file; `*` alone where nothing of it is one."""
    fields = tuple(field for rule in EXCLUDED if fnmatchcase(path, rule.files) for field in rule.fields)
    return EVERYTHING if EVERYTHING[0] in fields else fields
