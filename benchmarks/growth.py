"""How do time and memory of the stages on frozen features grow with the data?

    python benchmarks/growth.py                      # 1, 4 and 16 times 600 images: about 8 minutes on two cores
    python benchmarks/growth.py --case resnet50 --images 200

Images are generated, half of them to train on, each different. Each stage runs in a process of its own, which reports
its seconds and its peak memory: all that is resident, and the same without mapped files. What counts is the last
columns: time per image, and memory, relative to the smallest size.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from cases import CASES, environment
from children import markdown, measure, pin
from speed import prepare
from summary import Row

STAGES = ("augment", "features", "finetune", "svm")


def relative(rows: list[Row]) -> list[Row]:
    """Each stage's lines, its time per image and memory relative to its first."""
    first = {row["stage"]: row for row in reversed(rows)}
    lines = []
    for row in sorted(rows, key=lambda row: STAGES.index(row["stage"])):
        base = first[row["stage"]]
        each, least = row["seconds"] / row["images"], base["seconds"] / base["images"]
        lines.append(
            row
            | {"time per image": each / least}
            | {"peak": row["peak MiB"] / base["peak MiB"]}
            | {"without files": row["without files MiB"] / base["without files MiB"]}
        )
    return lines


def main(
    out: Annotated[Path, typer.Option(help="Folder for growth.md, growth.jsonl and the workspace.")] = Path(
        ".work/bench"
    ),
    case: Annotated[str, typer.Option(help=f"One of {', '.join(CASES)}.")] = "mobilenet",
    images: Annotated[int, typer.Option(help="At 1x; half of them are trained on.")] = 600,
    factors: str = "1,4,16",
    views: int = 2,
    cores: int = 2,
) -> None:
    """Measure, print a Markdown table and keep it in the out folder."""
    pin(cores)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for factor in map(int, factors.split(",")):
        workspace = (out / f"growth-{case}").resolve()
        prepare(case, views, workspace, generate=images * factor)
        for stage in STAGES:
            measured = measure("graft_stages.py", workspace, "--stages", stage, "--store", "warm",
                               environment=environment(workspace))  # fmt: skip
            row: Row = {"stage": stage, "images": images * factor, "seconds": measured.parts[stage]}
            row |= {"CPU seconds": measured.cpu_parts[stage]}
            row |= {"peak MiB": measured.peak_mib, "without files MiB": measured.anonymous_mib}
            rows.append(row)
            with (out / "growth.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"case": case, "factor": factor, "stage": stage, **asdict(measured)}) + "\n")
            print(f"{case} x{factor} {stage}: {measured.seconds:.1f} s, {measured.peak_mib:.0f} MiB", flush=True)
        shutil.rmtree(workspace)
    title = f"Growth: {CASES[case].application} at {CASES[case].input_size} px, {views} views, {cores} cores"
    text = f"## {title}\n\n{markdown(relative(rows))}\n"
    print(f"\n{text}", flush=True)
    with (out / "growth.md").open("a", encoding="utf-8") as stream:
        stream.write(f"{text}\n")


if __name__ == "__main__":
    typer.run(main)
