"""Files appear whole or not at all."""

from pathlib import Path

import pytest

from facescale.files import replacing, write_atomically
from tests.disk_calls import inode, record_calls


def test_the_file_and_its_folder_appear_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with replacing(path) as temporary:
        temporary.write_bytes(b"whole")
        assert not path.exists()
        assert temporary.suffix == ".bin"
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stop"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_calls(monkeypatch)
    write_atomically(tmp_path / "a.txt", "whole")
    file = inode(tmp_path / "a.txt")
    assert calls == [("sync", file), ("rename", file)]
