from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest

from graft import pieces
from graft.pieces import Piece, Pieces
from graft.storage import DiskFullError

ROW = {"text": "é\n\ud800", "number": 3, "share": 0.1 + 0.2, "none": None}


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MOST_ROWS", 2)


def write(folder: Path, first: int, last: int, *, accept: bool = True) -> None:
    """Add rows by their numbers, each with two bytes of `a`, and every second one with three of `b`."""
    with Pieces(folder, ("a", "b")) as kept:
        while accept and (piece := kept.next()):
            kept.accept(piece)
        for number in range(first, last):
            arrays = {"a": bytes([number] * 2)} | ({} if number % 2 else {"b": bytes([100 + number] * 3)})
            kept.add(ROW | {"number": number}, f"stamp {number}", arrays)


def read(folder: Path) -> list[Piece]:
    found = []
    with Pieces(folder, ("a", "b")) as kept:
        while piece := kept.next():
            kept.accept(piece)
            found.append(piece)
    return found


def test_rows_come_back_as_they_were_piece_by_piece(tmp_path: Path) -> None:
    write(tmp_path, 0, 5)
    found = read(tmp_path)
    assert [[row["number"] for row in piece.rows] for piece in found] == [[0, 1], [2, 3], [4]]
    assert found[0].rows[1] == ROW | {"number": 1}
    assert found[1].stamps == ["stamp 2", "stamp 3"]
    assert [piece.ends for piece in found] == [{"a": 4, "b": 3}, {"a": 8, "b": 6}, {"a": 10, "b": 9}]
    assert (tmp_path / "a").read_bytes() == bytes([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert (tmp_path / "b").read_bytes() == bytes([100] * 3 + [102] * 3 + [104] * 3)


def test_a_number_that_is_none_comes_back(tmp_path: Path) -> None:
    with Pieces(tmp_path, ("a",)) as kept:
        kept.add({"brightness": math.nan}, "", {})
    [piece] = read(tmp_path)
    assert math.isnan(piece.rows[0]["brightness"])


def test_what_is_added_follows_what_was_accepted(tmp_path: Path) -> None:
    write(tmp_path, 0, 4)
    write(tmp_path, 4, 6)
    assert [piece.stamps for piece in read(tmp_path)] == [[f"stamp {n}", f"stamp {n + 1}"] for n in (0, 2, 4)]
    write(tmp_path, 7, 8, accept=False)
    assert [piece.stamps for piece in read(tmp_path)] == [["stamp 7"]]
    assert (tmp_path / "a").read_bytes()[:2] == bytes([7, 7])


def test_an_error_or_interrupt_loses_nothing_that_was_added(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Pieces(tmp_path, ("a", "b")) as kept:
            for number in range(3):
                kept.add({"number": number}, "", {"a": b"1"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [len(piece.rows) for piece in read(tmp_path)] == [2, 1]


@pytest.mark.parametrize(
    ("limit", "value", "sizes"), [("MOST_BYTES", 6, [2, 2]), ("MOST_BYTES", 5, [1, 2, 1]), ("MOST_SECONDS", 0, [1] * 4)]
)
def test_a_piece_ends_by_its_bytes_and_by_the_clock_too(
    limit: str, value: int, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "MOST_ROWS", 1000)
    monkeypatch.setattr(pieces, limit, value)
    write(tmp_path, 0, 4)
    assert [len(piece.rows) for piece in read(tmp_path)] == sizes


@pytest.mark.parametrize(("name", "size", "left"), [("a", 7, 1), ("a", 3, 0), ("b", 8, 2), ("piece-00001.json", 40, 1)])
def test_pieces_count_up_to_the_first_that_is_torn(name: str, size: int, left: int, tmp_path: Path, capsys) -> None:
    write(tmp_path, 0, 6)
    os.truncate(tmp_path / name, size)
    assert len(read(tmp_path)) == left
    assert "is damaged; what " in capsys.readouterr().out


def test_an_absent_array_or_record_ends_them(tmp_path: Path) -> None:
    write(tmp_path, 0, 6)
    (tmp_path / "piece-00002.json").unlink()
    assert len(read(tmp_path)) == 2
    (tmp_path / "b").unlink()
    assert read(tmp_path) == []


def test_a_full_disk_keeps_the_rows_that_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = os.pwrite

    def bounded(descriptor: int, content: memoryview, offset: int) -> int:
        if offset >= 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(descriptor, content[: 6 - offset], offset)

    monkeypatch.setattr(os, "pwrite", bounded)
    with pytest.raises(DiskFullError, match=r"^no room for a in .*: 2 bytes are needed, [\d,]+ are free"):
        write(tmp_path, 0, 6)
    monkeypatch.setattr(os, "pwrite", written)
    assert [piece.stamps for piece in read(tmp_path)] == [["stamp 0", "stamp 1"], ["stamp 2"]]
