"""How many seconds does each stage spend on importing, and on which packages?

    taskset -c 0,1 python benchmarks/imports.py

A stage's module is imported in a fresh process, then what the stage imports in functions on every run. Both are medians
of `repeats` processes; a package's share is the time of its own modules, without what they import from others.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from collections import Counter
from typing import Annotated

import typer

TRAINING = ("graft.preflight", "dvc.repo", "keras")
LATER = {
    "prepare": (),
    "augment": (),
    "pretrain": ("graft.preflight", "keras"),
    "features": ("keras",),
    "baseline": TRAINING,
    "finetune": TRAINING,
    "svm": ("dvc.repo",),
    "compare": (),
    "track": ("mlflow",),
}  # by functions, on every run
TIMER = """
import sys, time
started = time.perf_counter()
import graft.stages.{stage}
now = time.perf_counter()
import {later}
print(now - started, time.perf_counter() - started, "tensorflow" in sys.modules)
"""
SELF_TIME = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)")  # microseconds, module


def seconds(stage: str) -> tuple[float, float, bool]:
    """Of the stage's module, of everything; and whether TensorFlow is part of it."""
    code = TIMER.format(stage=stage, later=", ".join(("sys", *LATER[stage])))
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    module, everything, tensorflow = output.split()
    return float(module), float(everything), tensorflow == "True"


def packages(stage: str) -> Counter[str]:
    """Seconds by package."""
    code = f"import {', '.join((f'graft.stages.{stage}', *LATER[stage]))}"
    command = [sys.executable, "-X", "importtime", "-c", code]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    result: Counter[str] = Counter()
    for microseconds, module in SELF_TIME.findall(output):
        package = module.split(".")[0]
        result["Python" if package in sys.stdlib_module_names else package] += int(microseconds) / 1e6
    return result


def main(
    stages: Annotated[str, typer.Option(help="Which, comma-separated.")] = ",".join(LATER),
    repeats: Annotated[int, typer.Option()] = 3,
    heaviest: Annotated[int, typer.Option(help="Packages to name.")] = 5,
) -> None:
    """Print one line per stage: seconds of its module, of everything it imports, TensorFlow or not, the packages."""
    print(f"{'stage':<9} {'module':>7} {'all':>7}  TensorFlow  heaviest packages")
    for stage in stages.split(","):
        times = [seconds(stage) for _ in range(repeats)]
        module, everything = (statistics.median(column) for column in zip(*(time[:2] for time in times), strict=True))
        named = ", ".join(f"{name} {share:.2f}" for name, share in packages(stage).most_common(heaviest))
        print(
            f"{stage:<9} {module:>6.2f}s {everything:>6.2f}s  {'yes' if times[0][2] else 'no':<10}  {named}", flush=True
        )


if __name__ == "__main__":
    typer.run(main)
