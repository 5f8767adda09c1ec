"""A file of a checkpoint that is not what was written is noticed and named."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from facescale.checksums import MANIFEST, Checksums, model_damage, write_manifest
from facescale.checksums.manifest import read_manifest
from tests.damage import dangling, made_a_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint that two processes wrote."""
    (tmp_path / "centres").mkdir()
    files = {
        "meta.json": b'{"checksums": true}',
        "centres/rows": b"rows" * 9,
        "model.safetensors": b"weights",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    Checksums().write_part(tmp_path, [tmp_path / "centres/rows"], 1)
    Checksums().write_part(tmp_path, [tmp_path / "meta.json", tmp_path / "model.safetensors"], 0)
    write_manifest(tmp_path, world_size=2)
    return tmp_path


def damage(folder: Path) -> str:
    first, count = Checksums().first_damaged(folder)
    return Checksums().describe(folder, first) if first < count else ""


def test_the_manifest_lists_every_file_with_size_and_crc32(folder: Path) -> None:
    assert not damage(folder)
    assert json.loads((folder / MANIFEST).read_text())["files"] == {
        "centres/rows": [[36, crc32(b"rows" * 9)]],
        "meta.json": [[19, crc32(b'{"checksums": true}')]],
        "model.safetensors": [[7, crc32(b"weights")]],
    }
    names = {path.name for path in folder.iterdir()}
    assert names == {MANIFEST, "centres", "meta.json", "model.safetensors"}, "the processes' notes are gone"


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.unlink()
    path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3])


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("centres/rows", Path.unlink, "centres/rows is missing"),
        ("centres/rows", truncated, "centres/rows has 3 bytes instead of 36"),
        ("centres/rows", flipped, "centres/rows is not what was written (its checksum differs)"),
        ("centres/rows", made_a_folder, "centres/rows is not a file"),
        ("centres/rows", pipe, "centres/rows is not a file"),
        ("model.safetensors", dangling, "model.safetensors is missing"),
        ("meta.json", flipped, "meta.json is not what was written (its checksum differs)"),
        (MANIFEST, Path.unlink, "manifest.json is missing"),
        (MANIFEST, flipped, "manifest.json is damaged"),
        (MANIFEST, truncated, "manifest.json is damaged"),
        (MANIFEST, made_a_folder, "manifest.json is damaged"),
        (MANIFEST, dangling, "manifest.json is missing"),
    ],
)
def test_damage_is_named(folder: Path, name: str, change: Callable[[Path], None], words: str) -> None:
    change(folder / name)
    assert damage(folder) == words


def test_no_byte_of_the_manifest_changes_unnoticed(folder: Path) -> None:
    whole = (folder / MANIFEST).read_bytes()
    assert len(whole) > 100
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        (folder / MANIFEST).write_bytes(changed)
        assert damage(folder), changed


def test_an_old_checkpoint_has_none(folder: Path) -> None:
    (folder / "meta.json").write_text('{"step": 3}')
    (folder / MANIFEST).unlink()
    assert not damage(folder)
    assert not model_damage(folder / "model.safetensors")


def test_each_process_reads_its_share(folder: Path) -> None:
    flipped(folder / "meta.json")  # number 1 of 3
    assert Checksums().first_damaged(folder, rank=0, world_size=2) == (3, 3)
    assert Checksums().first_damaged(folder, rank=1, world_size=2) == (1, 3)


def test_the_weights_alone_can_be_checked(folder: Path) -> None:
    model = folder / "model.safetensors"
    (folder / "centres/rows").unlink()
    assert not model_damage(model)
    flipped(model)
    assert model_damage(model) == "model.safetensors is not what was written (its checksum differs)"
    (folder / MANIFEST).unlink()
    assert model_damage(model) == "manifest.json is missing"
    (folder / "meta.json").unlink()
    assert not model_damage(model), "a copy of the file elsewhere has nothing to be compared with"


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/passwd"])
def test_files_outside_are_not_read(folder: Path, name: str) -> None:
    (folder / "meta.json").rename(folder / ".checksums_0.json")
    (folder / ".checksums_0.json").write_text(json.dumps({name: [[1, 2]]}))
    write_manifest(folder, world_size=1)
    with pytest.raises(ValueError, match=r"manifest.json names files outside the checkpoint"):
        read_manifest(folder)


def test_another_format_is_refused(folder: Path) -> None:
    tree = json.loads((folder / MANIFEST).read_text()) | {"format": 2}
    (folder / MANIFEST).write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"manifest.json has format 2, this version reads 1"):
        read_manifest(folder)


def test_a_file_with_many_names_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checksums, read = Checksums(), []
    monkeypatch.setattr("facescale.checksums.manifest.zlib.crc32", lambda *x: read.append(x) or 5)
    os.link(folder / "centres/rows", folder / "again")
    assert checksums.of(folder / "centres/rows") == checksums.of(folder / "again") == (36, 5)
    assert len(read) == 1
