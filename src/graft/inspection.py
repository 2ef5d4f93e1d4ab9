"""Every record of a source looked at once, in parallel processes: what it is, its resized pixels, or why not."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import signal
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
from joblib.externals.loky import ProcessPoolExecutor
from PIL import Image

from graft.duplicates import perceptual_hash, thumbnail
from graft.errors import GraftError
from graft.images import ImageError, read, resize
from graft.records import Record

STATISTICS = ("brightness", "mean_r", "mean_g", "mean_b", "std_r", "std_g", "std_b")
COLUMNS = (
    *("image_id", "pixel_id", "label", "split", "group", "source", "width", "height", "format", "mode", "bytes"),
    *STATISTICS,
    *("reason", "detail"),
)
FEW = 64  # records that are looked at sooner than processes start
BATCH = 32  # records that travel between processes together, unless they have more than
BATCH_BYTES = 8 * 2**20  # before they are decoded, or after
FEWER = "lower data.max_pixels, or set LOKY_MAX_CPU_COUNT in the environment to decode in fewer processes"
PIXEL_BYTES, HEADER_BYTES = 8, 16 * 2**20  # no file needs more: for a pixel (16-bit RGBA), and for all else


@dataclass(frozen=True)
class Inspected:
    """One record, looked at.

    Attributes:
        row: COLUMNS. image_id and pixel_id are SHA-256 of the file's bytes, and of the decoded shape and pixels; width
            and height are px, upright; brightness (of all channels), means and standard deviations are in levels,
            0..255. Where there is no image, reason and detail say why, and what is not known is 0, NaN or None.
        image: uint8 RGB (size, size, 3), or None.
        thumbnail: the whole picture, stretched to uint8 (32, 32, 3), or None.
        hash: its packed perceptual hash, uint8 (8,), or None.
    """

    row: dict[str, Any]
    image: np.ndarray | None = None
    thumbnail: np.ndarray | None = None
    hash: np.ndarray | None = None


def inspect(
    records: Iterable[Record],
    *,
    image_size: int,
    how: Literal["stretch", "crop", "pad"],
    min_side: int,
    max_pixels: int,
) -> Generator[Inspected]:
    """Look at each record, in their order; of a long source only a few batches are in memory at a time.

    Args:
        records: read by this process; the files that they name are read by others.
        image_size: px per side of the resized images.
        how: they are resized.
        min_side: px; see images.read.
        max_pixels: see images.read.

    Raises:
        GraftError: a process was killed, or had not enough memory for an image.
    """
    look = partial(_look, image_size=image_size, how=how, min_side=min_side, max_pixels=max_pixels)
    remaining = iter(records)
    first = list(islice(remaining, FEW))
    processes = joblib.cpu_count()  # of those that this process may use
    if len(first) < FEW or processes == 1:
        yield from map(look, chain(first, remaining))
        return
    most = max(1, min(BATCH, BATCH_BYTES // (3 * image_size**2)))
    yield from _in_processes(look, _batches(chain(first, remaining), most), processes)


def _batches(records: Iterable[Record], most: int) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.content) if isinstance(record.content, bytes) else 0
        if len(batch) == most or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _in_processes(
    look: Callable[[Record], Inspected], batches: Iterator[list[Record]], processes: int
) -> Iterator[Inspected]:
    """Not joblib.Parallel, whose generator reads the source on even where nobody takes the results.

    Nor loky's reusable executor, of which there is one in a process and which joblib.Parallel expects to be its own.
    """
    executor = ProcessPoolExecutor(max_workers=processes, initializer=_end_with, initargs=(os.getpid(),))
    waiting: deque[tuple[str, Future[list[Inspected]]]] = deque()
    source = ""
    try:
        for batch in batches:
            waiting.append((batch[0].source, executor.submit(_look_at_all, look, batch)))
            if len(waiting) == 2 * processes:
                source, future = waiting.popleft()
                yield from future.result()
        while waiting:
            source, future = waiting.popleft()
            yield from future.result()
    except BrokenExecutor:
        raise GraftError(
            f"a process that decoded images was killed, probably for want of memory, at {source} or soon after; "
            f"{FEWER} (now {processes})"
        ) from None
    except BaseException:
        executor.shutdown(kill_workers=True)  # what they still do is of no use, and an interrupt should not wait for it
        raise
    executor.shutdown()


def _end_with(parent: int) -> None:
    """Let this process end when its parent does, also where that was killed and could tell nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    for number in (signal.SIGINT, signal.SIGTERM):  # which also reach the parent, who then ends this process
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _look_at_all(look: Callable[[Record], Inspected], batch: list[Record]) -> list[Inspected]:
    return [look(record) for record in batch]


def _look(
    record: Record, *, image_size: int, how: Literal["stretch", "crop", "pad"], min_side: int, max_pixels: int
) -> Inspected:
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | dict.fromkeys(STATISTICS, math.nan)
    row |= {"label": record.label, "split": record.split, "group": record.group, "source": record.source}
    row |= {"width": 0, "height": 0, "bytes": 0}
    try:
        content = _content(record, max_pixels)
        row |= {"image_id": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        picture = read(content, max_pixels=max_pixels, min_side=min_side)
    except OSError as error:
        return Inspected(row | {"reason": "unreadable-file", "detail": error.strerror or str(error)})
    except ImageError as error:
        if isinstance(error.__context__, MemoryError):  # a lack of this moment: no reason to do without the image
            raise GraftError(f"there was not enough memory to decode {record.source}; {FEWER}") from None
        return Inspected(row | {"reason": error.reason, "detail": error.detail})
    pixels = picture.pixels
    height, width, _ = pixels.shape
    row |= {"width": width, "height": height, "format": picture.format, "mode": picture.mode}
    row |= {"pixel_id": _pixel_id(pixels)} | _statistics(pixels)
    return Inspected(row, resize(pixels, image_size, how), thumbnail(pixels), perceptual_hash(pixels))


def _content(record: Record, max_pixels: int) -> bytes:
    """The bytes of the record's file.

    Raises:
        OSError: the file cannot be read.
        ImageError: the file is larger than any picture of max_pixels.
    """
    if isinstance(record.content, Path):
        status = record.content.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_size > PIXEL_BYTES * max_pixels + HEADER_BYTES:
            raise ImageError("too-large", f"{status.st_size:,} bytes, which no picture of {max_pixels:,} pixels needs")
    return record.read()


def _pixel_id(pixels: np.ndarray) -> str:
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _statistics(pixels: np.ndarray) -> dict[str, float]:
    """STATISTICS of an image (height, width, 3)."""
    levels = np.arange(256)
    counts = np.array(Image.fromarray(pixels).histogram()).reshape(3, 256)
    means = counts @ levels / counts[0].sum()
    deviations = np.sqrt(
        [count @ (levels - mean) ** 2 / count.sum() for count, mean in zip(counts, means, strict=True)]
    )
    return dict(zip(STATISTICS, [float(value) for value in (means.mean(), *means, *deviations)], strict=True))
