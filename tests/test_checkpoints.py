from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from graft import checkpoints, storage
from graft.checkpoints import NOTHING_KEPT, Checkpoints, Saved
from graft.storage import DiskFullError

MACHINE = {"processor": "one", "threads": "2"}
ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64), np.array([1, 2], np.uint32),
    np.array([np.nan, -0.0]), np.zeros((0, 4)), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
]  # fmt: skip


def place(folder: Path, machine: dict[str, str] = MACHINE, content: dict[str, object] | None = None) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", machine).at("first/head-01", content)


def test_what_was_saved_is_loaded_to_the_bit(tmp_path: Path) -> None:
    facts = {"history": [{"loss": 0.1 + 0.2, "epoch": 1}], "failure": "", "n": None}
    place(tmp_path).save(Saved(ARRAYS, facts))
    loaded = place(tmp_path).load()
    assert loaded is not None
    assert loaded.facts == facts
    for mine, theirs in zip(loaded.arrays, ARRAYS, strict=True):
        assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())


def test_the_latest_counts_and_nothing_else_lies_there(tmp_path: Path) -> None:
    here = place(tmp_path)
    for number in (1, 2):
        here.save(Saved([np.full(3, number)], {}))
    loaded = place(tmp_path).load()
    assert loaded is not None
    assert loaded.arrays[0].tolist() == [2, 2, 2]
    assert [path.name for path in (tmp_path / "checkpoints" / "first").iterdir()] == ["head-01.checkpoint"]


def test_one_that_is_damaged_anywhere_is_not_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = place(tmp_path)
    here.save(Saved([np.arange(3.0)], {"a": 1}))
    (path,) = (tmp_path / "checkpoints" / "first").iterdir()
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))] + [whole + b"\0"]
    damaged += [bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]) for at in range(len(whole))]
    for content in damaged:
        path.write_bytes(content)
        assert here.load() is None
    lines = capsys.readouterr().out.splitlines()
    assert set(lines) == {f"{path} is damaged: its checksum is wrong; this part of the training starts over"}
    assert len(lines) == len(damaged)


def test_one_of_another_machine_training_or_schema_is_not_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place(tmp_path, content={"seed": 1})
    here.save(Saved([], {}))
    assert here.load() == Saved([], {})
    assert place(tmp_path, MACHINE | {"threads": "4", "gpus": "x"}, {"seed": 1}).load() is None
    assert place(tmp_path, content={"seed": 2}).load() is None
    assert place(tmp_path).load() is None
    monkeypatch.setattr(checkpoints, "SCHEMA", 2)
    assert here.load() is None
    path = tmp_path / "checkpoints" / "first" / "head-01.checkpoint"
    assert capsys.readouterr().out.splitlines() == [
        f"{path} {reason}; this part of the training starts over"
        for reason in (
            "is of another machine: gpus, threads differ",
            *["is of another content: seed differ"] * 2,
            "must have schema 2, received 1",
        )
    ]


def test_content_is_inherited_by_what_lies_below(tmp_path: Path) -> None:
    outer = Checkpoints(tmp_path, MACHINE, {"row": 1}).at("outer", {"seed": 5})
    outer.at("inner", {"rate": 0.1}).save(Saved([], {}))
    below = Checkpoints(tmp_path / "outer", MACHINE)
    assert below.at("inner", {"row": 1, "seed": 5, "rate": 0.1}).load() is not None
    assert below.at("inner", {"row": 2, "seed": 5, "rate": 0.1}).load() is None


def test_no_pickle_is_written_or_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle=False"):
        place(tmp_path).save(Saved([np.array([{}])], {}))
    assert place(tmp_path).load() is None


def test_on_a_full_disk_the_one_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place(tmp_path)
    here.save(Saved([np.arange(3)], {}))

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "sync", full)
    with pytest.raises(DiskFullError, match=r"head-01\.checkpoint could not be written, the disk is full"):
        here.save(Saved([np.arange(4)], {}))
    loaded = here.load()
    assert loaded is not None
    assert loaded.arrays[0].tolist() == [0, 1, 2]


def test_clear_removes_a_place_and_all_below_it(tmp_path: Path) -> None:
    root = Checkpoints(tmp_path, MACHINE)
    for name in ("one", "one/inner", "other"):
        root.at(name).save(Saved([], {}))
    root.at("one").clear()
    root.at("never saved").clear()
    assert [path.name for path in tmp_path.iterdir()] == ["other.checkpoint"]


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = NOTHING_KEPT.at("one")
    here.save(Saved([], {}))
    here.clear()
    assert here.load() is None
    assert not here.due()
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_a_temporary_one_keeps_what_a_process_reads_again(tmp_path: Path) -> None:
    with NOTHING_KEPT.lasting() as places:
        places.at("one").save(Saved([np.arange(2)], {}))
        assert places.at("one").load() is not None
        assert not places.at("one").due()
    assert places.at("one").load() is None
    kept = Checkpoints(tmp_path, MACHINE)
    with kept.lasting() as places:
        assert places is kept


class Clock:
    """Seconds that pass when told to, and in every save."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float = 0.0) -> None:
        self.now = 100.0
        monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: self.now)
        write = checkpoints._write

        def slow(*arguments: object) -> None:
            self.now += cost
            write(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(checkpoints, "_write", slow)


@pytest.mark.parametrize("epoch", [0.01, 1.0, 100.0])
def test_saving_takes_its_share_of_the_time_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: float
) -> None:
    """Of half a second each, in thousands of epochs."""
    clock = Clock(monkeypatch, cost=0.5)
    here, saves, began = Checkpoints(tmp_path, MACHINE).at("one"), 0, clock.now
    for _ in range(int(2000 / epoch)):
        clock.now += epoch
        if here.due():
            here.save(Saved([], {}))
            saves += 1
            assert 0.5 * saves <= max(0.5, checkpoints.SHARE * (clock.now - began))
    assert saves >= (20 if epoch == 100 else 75)


def test_seconds_add_up_over_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the last checkpoint of each life; two phases count apart."""
    clock = Clock(monkeypatch)
    for before, expected in ((0.0, 12.0), (10.0, 22.0), (20.0, 32.0)):
        root = Checkpoints(tmp_path, MACHINE)
        clock.now += 1000  # between the lives
        phase = root.phase("unfrozen")
        tail = phase.at("tail-01")
        tail.load()
        assert phase.seconds == before
        clock.now += 10
        tail.save(Saved([], {}))
        clock.now += 2  # of an epoch that is lost
        assert phase.seconds == expected
        assert root.phase("frozen").seconds == 0
