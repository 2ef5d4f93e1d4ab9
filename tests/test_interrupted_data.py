"""prepare and augment, interrupted in every way, end with the bytes of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from interrupted import contents, ends, points, seconds
from networks_on_trial import tiny_params
from PIL import Image

from graft import collection, inspection, pieces, shards
from graft.sections import Augment
from graft.stages import augment, prepare
from graft.storage import DiskFullError
from graft.unfinished import unfinished

RANGES = {"views": 5, "horizontal_flip": True, "rotation": 0.2, "zoom": 0.2, "translation": 0.1, "contrast": 0.1}
VIEWS = Augment(**RANGES, fill="reflect")
Work = Callable[[], None]


@pytest.fixture(autouse=True)
def small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pieces and shards even of few images; the work folder in this test's own place."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(pieces, "MOST_ROWS", 10)
    monkeypatch.setattr(shards, "SHARD_BYTES", 10 * 3 * 16**2)
    monkeypatch.setattr(augment, "BATCH", 7)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty images of two classes: one unreadable, and the same bytes twice, in different pieces."""
    for number in range(40):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 14, 3), np.uint8)).save(path)
    shutil.copy(tmp_path / "photos/a/02.png", tmp_path / "photos/a/36.png")
    (tmp_path / "photos/b/11.png").write_bytes(b"no image")
    return tmp_path / "photos"


def preparing(root: Path, path: Path, kind: str = "folder") -> Work:
    """The prepare stage of a source, into a folder."""
    values = {"source": kind, "path": str(path), "image_size": 16, "train_per_class": None, "split": "stratified"}
    values |= {"validation": 0.2, "test": 0.2, "max_invalid_fraction": 1.0}
    data = tiny_params(**{f"data__{name}": value for name, value in values.items()}).data

    def work() -> None:
        with unfinished(f"prepare of {root.name}") as folder:
            prepare.run(data, 1, root / "prepared", root / "report", folder)

    return work


def augmenting(root: Path, prepared: Path) -> Work:
    """The augment stage of prepared images, into a folder."""

    def work() -> None:
        with unfinished(f"augment of {root.name}") as folder:
            augment.run(VIEWS, 1, prepared, root / "augmented", root / "preview.png", folder)

    return work


@pytest.fixture
def works(tmp_path: Path, photos: Path) -> Callable[[str, str], Work]:
    """Makes a stage's work, given its verb and the name of the folder below which its outputs go."""
    preparing(tmp_path / "first", photos)()

    def work(verb: str, name: str) -> Work:
        root = tmp_path / name
        return preparing(root, photos) if verb == "prepare" else augmenting(root, tmp_path / "first/prepared")

    return work


def work_of(verb: str, name: str) -> Path:
    return Path(os.environ["DVC_ROOT"]) / ".work" / f"{verb} of {name}"


def check_killed_at(named: Sequence[tuple[str, int]], verb: str, works: Callable[[str, str], Work], root: Path) -> None:
    """Kill a stage at each of some points, at the n-th time that it reaches it, and run it again."""
    for point, count in named:
        work = works(verb, "killed")
        assert ends(work, {"GRAFT_FAULT": f"{point}#{count}:kill"}) == -signal.SIGKILL, point
        assert ends(work) == 0
        assert contents(root / "killed") == contents(root / "calm"), f"killed at {point}, time {count}"
        assert not work_of(verb, "killed").exists()
        shutil.rmtree(root / "killed")


@pytest.mark.parametrize(
    ("verb", "named"),
    [
        ("prepare", ["write piece-00001.json", "rename piece-00003.json", "write images.json", "rename prepared"]),
        ("augment", ["shard images", "rename images.json", "write views.parquet", "rename augmented"]),
    ],
)
def test_killed_at_a_named_point_a_stage_ends_as_if_undisturbed(
    verb: str, named: list[str], works: Callable[[str, str], Work], tmp_path: Path
) -> None:
    works(verb, "calm")()
    check_killed_at([(point, 1) for point in named], verb, works, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["prepare", "augment"])
def test_killed_at_every_named_point_a_stage_ends_as_if_undisturbed(
    verb: str, works: Callable[[str, str], Work], tmp_path: Path
) -> None:
    reached = points(works(verb, "calm"), tmp_path / "points")
    assert len(reached) > 15
    named = [(point, reached[: number + 1].count(point)) for number, point in enumerate(reached)]
    check_killed_at(named, verb, works, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["prepare", "augment"])
def test_killed_again_and_again_at_random_a_stage_ends_as_if_undisturbed(
    verb: str, works: Callable[[str, str], Work], tmp_path: Path
) -> None:
    usual = seconds(works(verb, "calm"))
    chance = random.Random(1)
    for number in range(8):
        work = works(verb, f"killed {number}")
        while ends(work, after=chance.uniform(0, usual)) != 0:
            pass
        assert contents(tmp_path / f"killed {number}") == contents(tmp_path / "calm")


@pytest.mark.parametrize("how", ["term", "int", "enospc", "oom"])
@pytest.mark.parametrize("verb", ["prepare", "augment"])
def test_stopped_in_other_ways_a_stage_goes_on_where_it_was(
    verb: str, how: str, works: Callable[[str, str], Work], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    works(verb, "calm")()
    point = "write piece-00002.json" if verb == "prepare" else "shard images"
    status = {"term": 128 + signal.SIGTERM, "int": 128 + signal.SIGINT}.get(how, 1)
    assert ends(works(verb, "stopped"), {"GRAFT_FAULT": f"{point}#1:{how}"}) == status
    if how == "enospc":
        assert "DiskFullError: no room for" in capfd.readouterr().err
    kept = [path.name for path in work_of(verb, "stopped").rglob("*")]
    assert {"piece-00001.json"} <= set(kept) if verb == "prepare" else {"images-00000.npy"} <= set(kept)
    assert ends(works(verb, "stopped")) == 0
    assert contents(tmp_path / "stopped") == contents(tmp_path / "calm")


def looked_at(monkeypatch: pytest.MonkeyPatch, work: Work) -> list[str]:
    """The records that some work looks at, in this process."""
    seen: list[str] = []
    look = inspection._look

    def counting(record, **further):
        seen.append(record.source)
        return look(record, **further)

    monkeypatch.setattr(inspection, "_look", counting)
    work()
    monkeypatch.setattr(inspection, "_look", look)
    return seen


def kill_prepare(work: Work, piece: int) -> None:
    assert ends(work, {"GRAFT_FAULT": f"rename piece-{piece:05d}.json#1:kill"}) == -signal.SIGKILL


def test_what_was_looked_at_is_not_looked_at_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing(tmp_path / "calm", photos)()
    work = preparing(tmp_path / "killed", photos)
    kill_prepare(work, 2)
    assert len(looked_at(monkeypatch, work)) == 10  # of forty, ten in each piece
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


@pytest.mark.parametrize(
    ("name", "left"),
    [("pixels", 15 * 3 * 16**2), ("pixels", 0), ("hashes", 81), ("thumbnails", None), ("piece-00001.json", 300)],
)
def test_after_a_power_failure_whole_pieces_count_and_torn_ones_do_not(
    name: str, left: int | None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing(tmp_path / "calm", photos)()
    work = preparing(tmp_path / "killed", photos)
    kill_prepare(work, 2)
    path = work_of("prepare", "killed") / "arrays" / name
    if left is None:
        path.unlink()
    else:
        os.truncate(path, left)
    assert len(looked_at(monkeypatch, work)) == (40 if not left else 30)
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


def test_a_byte_that_changed_on_the_disk_is_noticed(photos: Path, tmp_path: Path, capsys) -> None:
    preparing(tmp_path / "calm", photos)()
    work = preparing(tmp_path / "killed", photos)
    kill_prepare(work, 2)
    path = work_of("prepare", "killed") / "arrays" / "pixels"
    content = bytearray(path.read_bytes())
    content[12 * 3 * 16**2] ^= 1
    path.write_bytes(content)
    work()
    assert "pixels is damaged; what piece-00001.json stood for is done again" in capsys.readouterr().out
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


def test_a_file_that_was_changed_in_between_is_read_anew(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = preparing(tmp_path / "killed", photos)
    kill_prepare(work, 2)
    path = photos / "a/24.png"  # the thirteenth
    status = path.stat()
    Image.fromarray(np.full((12, 14, 3), 99, np.uint8)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert len(looked_at(monkeypatch, work)) == 30
    preparing(tmp_path / "calm", photos)()
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


def test_images_of_an_archive_are_unpacked_again_but_not_looked_at(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.glob("*/*")):
            archive.write(path, path.relative_to(photos))
    preparing(tmp_path / "calm", tmp_path / "photos.zip", "archive")()
    work = preparing(tmp_path / "killed", tmp_path / "photos.zip", "archive")
    kill_prepare(work, 2)
    assert len(looked_at(monkeypatch, work)) == 10
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


def test_bytes_that_a_table_holds_are_compared(tmp_path: Path) -> None:
    one, other = (collection.Record(content, "a", None, None, "row 1") for content in (b"one", b"two"))
    assert collection._stamp(one, dated=True) != collection._stamp(other, dated=True)


def test_a_torn_shard_is_drawn_again(works: Callable[[str, str], Work], tmp_path: Path) -> None:
    works("augment", "calm")()
    work = works("augment", "killed")
    assert ends(work, {"GRAFT_FAULT": "shard images#4:kill"}) == -signal.SIGKILL
    path = work_of("augment", "killed") / "views" / "images-00002.npy"
    os.truncate(path, path.stat().st_size - 100)
    assert ends(work) == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


def test_views_that_are_all_drawn_are_not_drawn_again(
    works: Callable[[str, str], Work], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works("augment", "calm")()
    work = works("augment", "killed")
    assert ends(work, {"GRAFT_FAULT": "write augmented#1:kill"}) == -signal.SIGKILL
    monkeypatch.setattr(augment, "views", None)
    work()
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


def test_another_disk_without_links_gets_copies(
    works: Callable[[str, str], Work], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works("augment", "calm")()

    def refuse(source: Path, target: Path) -> None:
        raise OSError(augment.NO_LINKS[0], "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    works("augment", "copied")()
    assert contents(tmp_path / "copied") == contents(tmp_path / "calm")


@pytest.mark.parametrize("verb", ["prepare", "augment"])
def test_two_at_once_take_turns(
    verb: str, works: Callable[[str, str], Work], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    works(verb, "calm")()
    work = works(verb, "shared")
    first = os.fork()
    if not first:
        os._exit(ends(work))
    assert ends(work) == 0
    assert os.waitpid(first, 0)[1] == 0
    assert contents(tmp_path / "shared") == contents(tmp_path / "calm")
    assert "waiting for it to end" in capfd.readouterr().out


def test_a_full_disk_is_told_and_what_fitted_is_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing(tmp_path / "calm", photos)()
    work = preparing(tmp_path / "full", photos)
    written, room = os.pwrite, 25 * 3 * 16**2

    def bounded(descriptor: int, content: memoryview, offset: int) -> int:
        if offset + len(content) > room:
            raise OSError(28, "No space left on device")
        return written(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", bounded)
    with pytest.raises(
        DiskFullError,
        match=r"^no room for thumbnails in .*/\.work/prepare of full/arrays: 3,072 bytes are needed, [\d,]+ are free\. "
        "What was done before is kept: make room, then run the same command again$",
    ):
        work()
    monkeypatch.setattr(os, "pwrite", written)
    assert not (tmp_path / "full/prepared").exists()
    assert len(looked_at(monkeypatch, work)) == 40 - room // 3072
    assert contents(tmp_path / "full") == contents(tmp_path / "calm")
