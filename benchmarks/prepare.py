"""Does the cost of prepare grow linearly with the number of images, near-duplicate search included?

    python benchmarks/prepare.py                     # rendered characters, 1,000 to 50,000 of them
    python benchmarks/prepare.py --source mnist_png.tar.xz --split predefined

Characters are drawn from fonts and bent at random, so that their perceptual hashes cluster as real images' do; one in
fifty is a re-encoded copy of another. Each size runs in a process of its own, which reports its seconds and its peak
memory. What counts is the last column: the time per image, relative to the smallest
size of the same run.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from graft.artifacts import read_manifest
from graft.params import load_params
from graft.stages import prepare

ROOT = Path(__file__).resolve().parents[1]
COPIES = 50  # one image in so many is a copy


def write_characters(folder: Path, images: int) -> None:
    """Class folders with so many 32 px PNG and JPEG files in all."""
    from graft.glyphs import render_glyphs

    per_class = images // 49
    for index, (label, grey) in enumerate(render_glyphs(per_class, seed=1)):
        target = folder / f"{ord(label):04x}"
        target.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC)
        picture.save(target / f"{index:06d}.png")
        if index % COPIES == 0:
            picture.save(target / f"{index:06d}-copy.jpg", quality=90)


def run_once(source: Path, kind: str, split: str) -> None:
    """Prepare a source and print what it took as JSON; for a process of its own."""
    data = load_params(ROOT / "params.yaml").data.model_copy(
        update={"source": kind, "path": source, "split": split, "train_per_class": None, "image_size": 28}
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        prepare.run(data, 1, Path(folder) / "prepared", Path(folder) / "report")
        seconds = time.perf_counter() - started
        manifest = read_manifest(Path(folder) / "prepared")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # of this process, which holds all that grows
    print(json.dumps({"images": len(manifest.rows), "seconds": seconds, "peak_mib": peak}))


def measure(source: Path, kind: str, split: str) -> dict[str, float]:
    """The figures of run_once from a fresh process."""
    command = [sys.executable, __file__, "--worker", "--source", str(source), "--kind", kind, "--split", split]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main(
    source: Annotated[Path | None, typer.Option(help="A folder or archive instead of rendered characters.")] = None,
    kind: Annotated[str, typer.Option(help="folder or archive.")] = "folder",
    split: Annotated[str, typer.Option(help="As data.split.")] = "stratified",
    sizes: Annotated[str, typer.Option(help="Numbers of rendered characters.")] = "1000,5000,10000,50000",
    worker: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Print one line per size: images, seconds, peak memory, and the time per image relative to the first line's."""
    if worker:
        assert source is not None
        run_once(source, kind, split)
        return
    results = []
    if source is not None:
        results.append(measure(source, kind, split))
    else:
        for size in map(int, sizes.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                write_characters(Path(folder), size)
                results.append(measure(Path(folder), "folder", split))
    print(f"{'images':>8} {'seconds':>8} {'peak MiB':>9} {'ms/image':>9} {'relative':>9}")
    first = results[0]["seconds"] / results[0]["images"]
    for row in results:
        each = row["seconds"] / row["images"]
        print(
            f"{row['images']:>8,} {row['seconds']:>8.1f} {row['peak_mib']:>9,} {1000 * each:>9.2f} {each / first:>9.2f}"
        )


if __name__ == "__main__":
    typer.run(main)
