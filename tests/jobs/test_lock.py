"""facescale.jobs.lock: one process in a folder, or several that share it."""

import errno
from pathlib import Path

import pytest

from facescale.jobs.lock import BusyError, lock_folder

fcntl = pytest.importorskip("fcntl")


def test_a_folder_is_locked_once_or_shared(tmp_path: Path) -> None:
    with (
        lock_folder(tmp_path / "a", shared=True),
        lock_folder(tmp_path / "a", shared=True),
        pytest.raises(BusyError, match=r"another process works in '.*a' right now; wait for it to end"),
    ):
        lock_folder(tmp_path / "a")
    with lock_folder(tmp_path / "a"), pytest.raises(BusyError):
        lock_folder(tmp_path / "a", shared=True)


def test_a_file_system_without_locks_is_used_without_them(tmp_path: Path, monkeypatch) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_folder(tmp_path), lock_folder(tmp_path) as second:
        assert not second.closed
