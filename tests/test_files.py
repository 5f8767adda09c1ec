"""Files appear whole or not at all."""

import os
from pathlib import Path

import pytest

from facescale.files import one_line, replacing, require_writable


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


def test_a_name_becomes_one_line_from_which_it_can_be_had_again():
    name = "a\nb\r\tc\\n"
    line = one_line(name)
    assert line == r"a\nb\r\tc\\n"
    assert line.encode().decode("unicode_escape") == name
    assert one_line("Zoë/1.jpg") == "Zoë/1.jpg"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_mode_that_the_umask_asks_for(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        with replacing(tmp_path / "a.safetensors") as temporary:
            temporary.touch(0o600)  # as safetensors makes its files
        assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
        assert os.umask(mask) == mask
    finally:
        os.umask(old)


def test_a_refused_write_names_the_file_and_not_its_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(OSError) as stop, replacing(tmp_path / "folder" / "a.txt") as temporary:
        temporary.write_text("x")
    assert stop.value.filename == str(tmp_path / "folder" / "a.txt")
    with pytest.raises(FileNotFoundError) as missing, replacing(tmp_path / "b.txt"):
        (tmp_path / "elsewhere").read_text()
    assert missing.value.filename == str(tmp_path / "elsewhere")


def test_a_place_that_cannot_be_written_is_found_out_early(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(ValueError, match=r"cannot write '.*folder/a.txt' \(.+\); give --out FILE"):
        require_writable(tmp_path / "folder" / "a.txt", "give --out FILE")
    require_writable(tmp_path / "new" / "a.txt", "give --out FILE")
    assert list((tmp_path / "new").iterdir()) == []
