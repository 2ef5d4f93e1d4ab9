"""The tiny pipeline, killed again and again and rerun until it finishes, against one that nobody disturbed.

`python tests/chaos.py --random 50 --seed 0` prints what was struck and how, and every difference of the results.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from disturbed_project import AtMoment, AtPoint
from journeys import IN_A_ROW, Arrival, Journey, Twin, point_journeys, random_journeys, travel, undisturbed


def all_arrivals(journeys: Sequence[Journey], twin: Twin, folder: Path, jobs: int) -> Iterator[Arrival]:
    """Of the journeys, several at once, those with most kills first; then of what is left of them."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        while journeys:
            longest_first = sorted(journeys, key=lambda journey: -len(journey.kills))
            arriving = [pool.submit(partial(travel, twin=twin, folder=folder), journey) for journey in longest_first]
            arrivals = []
            for future in as_completed(arriving):
                arrivals.append(future.result())
                yield arrivals[-1]
            journeys = [rest for arrival in arrivals for rest in arrival.rest()]


def described(arrival: Arrival) -> str:
    """A table of the kills, and what came of them."""
    name, kills = arrival.journey.name, arrival.journey.kills
    lines = [f"{name:26} {kill!s:68.68} {kill.how}" for kill in arrival.fell()]
    if arrival.struck < len(kills):
        lines.append(f"{name:26} {kills[arrival.struck]!s:68.68} not before the end")
    lines.append(
        f"{name:26} finished after {arrival.runs} runs and {arrival.seconds:.0f} s, {arrival.epochs} epochs more than "
        f"undisturbed, torn files of DVC: {arrival.repairs}, differences: {len(arrival.differences)}"
    )
    return "\n".join([*lines, *(f"    {difference}" for difference in arrival.differences)])


def main(arguments: Sequence[str]) -> int:
    """Returns 1 where anything differs."""
    options = _options(arguments)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="graft-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    twin = undisturbed(folder / "twin")
    print(f"undisturbed: {len(set(twin.reached))} named points were reached, {len(twin.reached)} times", flush=True)
    at_points: list[Arrival] = []
    if options.points != "none":
        journeys = point_journeys(twin, options.points)
        at_points = _told(all_arrivals(journeys, twin, folder, options.jobs))
    at_moments: list[Arrival] = []
    drawn = random_journeys(options.seed, twin)
    while (lacking := options.random - sum(arrival.struck for arrival in at_moments)) > 0:
        journeys = list(itertools.islice(drawn, -(-lacking // IN_A_ROW)))
        new = _told(all_arrivals(journeys, twin, folder, options.jobs))
        at_moments += new
        if not any(arrival.struck for arrival in new):  # the pipeline fails by itself, or is too fast to be hit
            break
    struck = [sum(arrival.struck for arrival in arrivals) for arrivals in (at_points, at_moments)]
    found = sum(len(arrival.differences) for arrival in [*at_points, *at_moments])
    torn = sum(arrival.repairs for arrival in [*at_points, *at_moments])
    print(f"{struck[0]} at named points, {struck[1]} at random moments; files of DVC repaired: {torn}")
    print(f"kills survived: {sum(struck)}, differences: {found}")
    if missed := [
        str(kill) for arrival in at_points for kill in arrival.journey.kills if kill not in fallen(at_points)
    ]:
        print(f"never reached: {'; '.join(missed)}")
        found += len(missed)
    if sum(struck[1:]) < options.random:
        print(f"only {struck[1]} of {options.random} kills at random moments fell")
        found += 1
    if not found and not options.folder:
        shutil.rmtree(folder)
    return int(found > 0)


def fallen(arrivals: Sequence[Arrival]) -> set[AtPoint | AtMoment]:
    """All kills that fell."""
    return {kill for arrival in arrivals for kill in arrival.fell()}


def _told(arrivals: Iterator[Arrival]) -> list[Arrival]:
    told = []
    for arrival in arrivals:
        print(described(arrival), flush=True)
        told.append(arrival)
    return told


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--points", choices=("once", "kinds", "every", "none"), default="kinds", help="named points to kill at"
    )
    parser.add_argument("--random", type=int, default=50, help="kills at random moments")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="copies of the project at once")
    parser.add_argument(
        "--folder",
        help="for projects and logs; by default a temporary one, which stays where anything differs",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
