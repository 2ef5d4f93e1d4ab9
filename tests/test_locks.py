import fcntl
import os

import pytest

from graft import locks


def test_one_block_at_a_time(tmp_path):
    path = tmp_path / "folder" / "lock"
    with locks.locked(path), pytest.raises(BlockingIOError):
        locks.acquire(path, locks.ALONE | locks.AT_ONCE)
    os.close(locks.acquire(path, locks.ALONE | locks.AT_ONCE))


def test_an_error_gives_the_lock_up(tmp_path):
    with pytest.raises(RuntimeError), locks.locked(tmp_path / "lock"):
        raise RuntimeError
    os.close(locks.acquire(tmp_path / "lock", locks.ALONE | locks.AT_ONCE))


def test_waiting_is_said(tmp_path, monkeypatch, capsys):
    asked = []

    def held_by_another(descriptor, kind):
        asked.append(kind)
        if kind & locks.AT_ONCE:
            raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", held_by_another)
    with locks.locked(tmp_path / "lock", "waiting for another"):
        pass
    assert asked == [locks.ALONE | locks.AT_ONCE, locks.ALONE]
    assert capsys.readouterr().out == "waiting for another\n"


def test_a_lock_whose_file_was_deleted_while_waiting_is_taken_anew(tmp_path, monkeypatch):
    path, flock = tmp_path / "lock", fcntl.flock

    def deleted_once(descriptor, kind):
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", deleted_once)
    descriptor = locks.acquire(path, locks.ALONE)
    assert locks.holds(descriptor, path)
    os.close(descriptor)


def test_a_shared_lock_is_raised_only_where_it_is_the_only_one(tmp_path):
    first = locks.acquire(tmp_path / "lock", locks.SHARED)
    with locks.raised(first) as alone:
        assert alone
        with pytest.raises(BlockingIOError):
            locks.acquire(tmp_path / "lock", locks.SHARED | locks.AT_ONCE)
    second = locks.acquire(tmp_path / "lock", locks.SHARED | locks.AT_ONCE)
    with locks.raised(first) as alone:
        assert not alone
    os.close(second)
    with pytest.raises(BlockingIOError):  # the first is still shared
        locks.acquire(tmp_path / "lock", locks.ALONE | locks.AT_ONCE)
    os.close(first)
