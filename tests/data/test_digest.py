"""The digest of a data set: the same wherever it lies, another one with any other person or image."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facescale.data import digest, open_reader
from facescale.data.digest import DataDigest, digest_of, image_changes, read_digest
from facescale.data.writers.recordio import write_records
from tests.pictures import fill

PEOPLE = ("anna", "ben", "cara")


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Three people with four images each; contents of any kind, as nothing decodes them."""
    return fill(
        tmp_path / "faces",
        {f"{name}/{number}.jpg": f"{name} {number}" for name in PEOPLE for number in range(4)},
    )


def changes(before: DataDigest, folder: Path | str) -> list[str]:
    reader = open_reader(folder)
    return image_changes(before, digest_of(reader), reader)


def test_a_set_that_was_moved_renamed_or_copied_is_the_same(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_of(open_reader(faces))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(faces, tmp_path / "copy")
    for other in ("faces", "faces/", "./faces", "copy"):
        assert digest_of(open_reader(other)).text == before.text
        assert changes(before, other) == []


def test_a_record_file_that_was_renamed_is_the_same_and_a_joined_set_too(faces: Path, tmp_path: Path) -> None:
    write_records(open_reader(faces), tmp_path / "rec")
    before = digest_of(open_reader(tmp_path / "rec"))
    joined = digest_of(open_reader([tmp_path / "rec", faces]))
    (tmp_path / "rec").rename(tmp_path / "elsewhere")
    for suffix in (".rec", ".idx"):
        (tmp_path / f"elsewhere/train{suffix}").rename(tmp_path / f"elsewhere/other{suffix}")
    assert changes(before, tmp_path / "elsewhere/other.rec") == []
    reader = open_reader([tmp_path / "elsewhere/other.rec", faces])
    assert (
        digest_of(reader).text
        == joined.text
        != digest_of(open_reader([faces, tmp_path / "elsewhere/other.rec"])).text
    )


def add(folder: Path) -> None:
    (folder / "ben/9.jpg").write_text("ben 9")


def remove(folder: Path) -> None:
    (folder / "ben/2.jpg").unlink()


def swap(folder: Path) -> None:
    (folder / "ben/2.jpg").unlink()
    add(folder)


def move(folder: Path) -> None:
    (folder / "ben/2.jpg").rename(folder / "cara/9.jpg")


def replace(folder: Path) -> None:
    (folder / "ben/2.jpg").write_text("somebody else")


def exchange(folder: Path) -> None:
    (folder / "ben/2.jpg").write_text("ben 3")
    (folder / "ben/3.jpg").write_text("ben 2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add, ["1 added (5 of 'ben', before 4)"]),
        (remove, ["1 removed (3 of 'ben', before 4)"]),
        (swap, ["others under the names of 1 people (such as 'ben')"]),
        (move, ["1 added (5 of 'cara', before 4)", "1 removed (3 of 'ben', before 4)"]),
        (replace, ["1 replaced under the same name (such as 'ben/2.jpg')"]),
        (exchange, ["2 replaced under the same name (such as 'ben/2.jpg')"]),
    ],
)
def test_every_change_of_images_is_said(faces: Path, change: Callable[[Path], None], said: list[str]) -> None:
    before = digest_of(open_reader(faces))
    change(faces)
    assert changes(before, faces) == said
    assert digest_of(open_reader(faces)).text != before.text


def test_a_replaced_record_and_another_order_are_said(faces: Path, tmp_path: Path) -> None:
    write_records(open_reader(faces), tmp_path / "rec")
    before = digest_of(open_reader(tmp_path / "rec"))
    replace(faces)
    write_records(open_reader(faces), tmp_path / "longer")
    assert changes(before, tmp_path / "longer")[0].startswith("others under the names of")
    exchanged = DataDigest(**{**vars(before), "order_1": before.order_1 + np.uint64(1)})
    assert changes(exchanged, tmp_path / "rec") == ["the same in another order"]


def test_a_large_set_is_not_read_whole(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "NUM_SIZES", 5)
    monkeypatch.setattr(digest, "NUM_CONTENTS", 3)
    made = digest_of(open_reader(faces))
    assert len(made.size_S) == 5 and len(made.content_C) == 3
    (faces / "cara/3.jpg").write_text("CARA 3")  # the last one is always among them
    assert changes(made, faces) == ["1 replaced under the same name (such as 'cara/3.jpg')"]


def test_an_image_that_cannot_be_read_is_not_taken_for_another(faces: Path) -> None:
    before = digest_of(open_reader(faces))
    reader = open_reader(faces)
    (faces / "ben/2.jpg").unlink()
    assert image_changes(before, digest_of(reader), reader) == []


def test_drawn_faces_are_told_apart_by_their_options_without_drawing() -> None:
    texts = [
        digest_of(open_reader(f"synthetic:ids=3,images=2{more}")).text
        for more in ("", ",seed=1", ",size=56", ",nuisance=2", ",split=test")
    ]
    assert len(set(texts)) == len(texts)
    assert digest_of(open_reader("synthetic:ids=3,images=2")).text == texts[0]


def test_identities_left_out_do_not_count(faces: Path) -> None:
    before = digest_of(open_reader(faces, min_images=4))
    fill(faces, {"dan/0.jpg": "dan 0"})
    assert digest_of(open_reader(faces, min_images=4)).text == before.text


def test_a_reader_without_hashes_of_its_own_is_known_by_its_keys(faces: Path) -> None:
    class Plain:
        num_ids = 2

        def __init__(self, *keys: str) -> None:
            self._keys, self.ids = keys, np.array([0, 0, 1])

        def __len__(self) -> int:
            return len(self._keys)

        def __getitem__(self, index: int) -> tuple[bytes, int]:
            return b"", int(self.ids[index])

        def key(self, index: int) -> str:
            return self._keys[index]

    before = digest_of(Plain("a", "b", "c"))
    other = Plain("a", "b", "d")
    assert image_changes(before, digest_of(Plain("a", "b", "c")), other) == []
    assert image_changes(before, digest_of(other), other) == [
        "others under the names of 1 people (such as '1')"
    ]


def test_a_digest_is_read_as_it_was_written_and_damage_is_one_sentence(faces: Path, tmp_path: Path) -> None:
    file = tmp_path / "data.safetensors"
    made = digest_of(open_reader(faces))
    made.write(file)
    assert read_digest(file).text == made.text
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(
        ValueError, match=r"data.safetensors' is damaged; put it back from a copy, or remove it"
    ):
        read_digest(file)
