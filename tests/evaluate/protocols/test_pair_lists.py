"""Pair lists: what is read, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facescale.data.images import ReaderImages
from facescale.data.readers.folder import FolderReader
from facescale.evaluate.protocols.draw import make_pairs
from facescale.evaluate.protocols.pair_lists import read_csv, read_lfw, write_csv
from facescale.evaluate.protocols.pairs import Pairs


def make_images(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / name)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def people(tmp_path: Path) -> Path:
    make_images(
        tmp_path, [f"{name}/{name}_000{i}.jpg" for name in ("Ann_Lee", "Bo", "Cy") for i in (1, 2, 3)]
    )
    return tmp_path


def test_lfw_list_gives_pairs_in_its_own_folds_and_each_image_once(people: Path) -> None:
    lines = ["2\t1", "Ann_Lee\t1\t2", "Ann_Lee\t1\tBo\t3", "Bo\t3\t2", "Bo\t2\tCy\t1"]
    pairs = read_lfw(write(people / "pairs.txt", *lines))
    assert pairs.is_same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]
    keys = [pairs.images.key(i) for i in range(len(pairs.images))]
    assert keys == [
        f"{n}/{n}_000{i}.jpg" for n, i in (("Ann_Lee", 1), ("Ann_Lee", 2), ("Bo", 3), ("Bo", 2), ("Cy", 1))
    ]
    assert (pairs.a.tolist(), pairs.b.tolist()) == ([0, 0, 2, 3], [1, 2, 3, 4])
    assert pairs.images[2] == (people / "Bo/Bo_0003.jpg").read_bytes()


@pytest.mark.parametrize("header", [[], ["2"]])
def test_lfw_list_without_folds_is_cut_so_that_every_fold_has_both_kinds(
    people: Path, header: list[str]
) -> None:
    lines = [*header, "Ann_Lee 1 2", "Bo 1 2", "Ann_Lee 1 Bo 1", "Ann_Lee 1 Cy 1"]
    pairs = read_lfw(write(people / "pairs.txt", *lines))
    assert pairs.fold.tolist() == [0, 1, 0, 1]


def test_lfw_images_may_lie_in_a_sub_folder_or_elsewhere_and_be_png(tmp_path: Path) -> None:
    names = [f"A/A_000{i}.png" for i in (1, 2)] + [f"B/B_000{i}.png" for i in (1, 2)]
    lines = ["A 1 2", "B 1 2", "A 1 B 1", "A 2 B 2"]
    make_images(tmp_path / "one" / "images", names)
    assert len(read_lfw(write(tmp_path / "one" / "pairs.txt", *lines)).images) == 4
    (tmp_path / "list").mkdir()
    listed = write(tmp_path / "list" / "pairs.txt", *lines)
    assert len(read_lfw(listed, root=tmp_path / "one" / "images").images) == 4
    with pytest.raises(ValueError, match=r"no image 'A/A_0001' .*PATH\?root=FOLDER"):
        read_lfw(listed)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["10 300", "Bo 1 2"], "announces 6000 pairs but 1 follow"),
        (["ten", "Bo 1 2"], "first line is 'ten', not numbers such as '10 300'"),
        (["Bo 1 2 3 4"], "cannot read the line 'Bo 1 2 3 4'; a genuine pair is 'NAME 1 2'"),
        (["Bo 1 x"], "cannot read the line 'Bo 1 x'"),
        (["Bo 1 2", "Bo 1 Cy 9", "Bo 2 3", "Bo 1 Cy 1"], "1 of 5 images are not in .*Cy_0009'"),
        (["Bo 1 2", "Bo 1 3"], "2 genuine and 0 impostor pairs; folds need at least two of each"),
        ([""], "is empty"),
        (["Bo 1 2", "../Bo 1 2", "Bo 1 Cy 1", "Bo 2 Cy 2"], r"'../Bo/../Bo_0001' is outside"),
    ],
)
def test_wrong_lfw_lists_are_answered_in_a_sentence(people: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_lfw(write(people / "pairs.txt", *lines))


def test_csv_with_folds_keeps_them(people: Path) -> None:
    rows = ["a,b,same,fold", "Bo/Bo_0001.jpg,Bo/Bo_0002.jpg,1,x", "Bo/Bo_0001.jpg,Cy/Cy_0001.jpg,0,y"]
    pairs = read_csv(write(people / "p.csv", *rows))
    assert (pairs.is_same.tolist(), pairs.fold.tolist(), len(pairs.images)) == ([True, False], [0, 1], 3)


def test_csv_reads_words_for_truth_a_byte_order_mark_and_another_root(people: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    names = ["Bo_0001.jpg,Bo_0002.jpg,TRUE", "Bo_0001.jpg,Bo_0003.jpg, yes", "Bo_0001.jpg,Bo_0003.jpg,no"]
    listed = write(elsewhere / "p.csv", "\ufeffa,b,same", *names, "Bo_0002.jpg,Bo_0003.jpg,0")
    assert read_csv(listed, root=people / "Bo").is_same.tolist() == [True, True, False, False]


def test_written_csv_is_read_back_the_same(people: Path) -> None:
    lines = ["2\t1", "Ann_Lee\t1\t2", "Ann_Lee\t1\tBo\t3", "Bo\t3\t2", "Bo\t2\tCy\t1"]
    pairs = read_lfw(write(people / "pairs.txt", *lines))
    write_csv(people / "p.csv", pairs)
    again = read_csv(people / "p.csv")
    for column in ("a", "b", "is_same", "fold"):
        np.testing.assert_array_equal(getattr(again, column), getattr(pairs, column))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a;b;same"], "is 'a;b;same'|its columns are ''"),
        (["a,b", "x,y"], "its columns are 'a, b'; the first line must be 'a,b,same'"),
        (["a,b,same", "x,y,maybe"], "pair 1 reads a='x', b='y', same='maybe'; .*true"),
        (["a,b,same", "x,y"], "pair 1 reads .*same=''"),
        (
            ["a,b,same", "/etc/passwd,Bo/Bo_0001.jpg,1", "a,b,0", "a,b,1", "a,b,0"],
            "'/etc/passwd' is outside",
        ),
        (["a,b,same", "../x,Bo/Bo_0001.jpg,1", "a,b,0", "a,b,1", "a,b,0"], r"'\.\./x' is outside"),
    ],
)
def test_wrong_csv_is_answered_in_a_sentence(people: Path, rows: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_csv(write(people / "p.csv", *rows))


def test_a_link_may_not_lead_out_of_the_folder(
    people: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.jpg"
    make_images(outside.parent, [outside.name])
    (people / "Bo/link.jpg").symlink_to(outside)
    rows = ["a,b,same", "Bo/link.jpg,Bo/Bo_0001.jpg,1", "Bo/Bo_0002.jpg,Bo/Bo_0001.jpg,1"]
    with pytest.raises(ValueError, match=r"'Bo/link.jpg' is outside"):
        read_csv(write(people / "p.csv", *rows, *[row.replace(",1", ",0") for row in rows[1:]]))


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="cannot read the pair list"):
        read_csv(tmp_path / "p.csv")


def test_each_lfw_image_may_have_a_suffix_of_its_own(tmp_path: Path) -> None:
    names = ["A/A_0001.JPG", "A/A_0002.png", "B/B_0001.jpe", "B/B_0002.jpg", "B/B_0002.txt"]
    make_images(tmp_path, [name for name in names if name[-3:] in ("JPG", "png", "jpg")])
    make_images(tmp_path, ["one.jpg"])
    (tmp_path / "one.jpg").rename(tmp_path / "B/B_0001")
    (tmp_path / "B/B_0002.txt").write_text("no picture")
    pairs = read_lfw(write(tmp_path / "pairs.txt", "A 1 2", "B 1 2", "A 1 B 1", "A 2 B 2"))
    keys = [pairs.images.key(i) for i in range(4)]
    assert keys == ["A/A_0001.JPG", "A/A_0002.png", "B/B_0001", "B/B_0002.jpg"]


@pytest.mark.parametrize(
    "who",
    [
        " Ann Lee",
        "Ann ",
        'An"n',
        "An,n",
        "A\nn",
        "A\r\nn",
        "A\tn",
        "Zoë",
        os.fsdecode(b"J\xfcrgen"),
        "1",
        "a\\nb",
    ],
)
def test_names_of_any_bytes_make_the_round_trip(tmp_path: Path, who: str) -> None:
    make_images(tmp_path, [f"{name}/{i}.jpg" for name in (who, "Bo") for i in (1, 2, 3)])
    reader = FolderReader(tmp_path)
    write_csv(tmp_path / "p.csv", Pairs("x", ReaderImages(reader), *make_pairs(reader.ids, 4, 2)))
    again = read_csv(tmp_path / "p.csv")
    assert {again.images.key(i).rpartition("/")[0] for i in range(len(again.images))} == {who, "Bo"}
    assert len(again) == 4


def test_a_list_written_by_hand_may_have_blanks_and_empty_lines(people: Path) -> None:
    rows = ["a, b, same", "Bo/Bo_0001.jpg, Bo/Bo_0002.jpg, 1", " ", "", "Bo/Bo_0001.jpg, Cy/Cy_0001.jpg, 0"]
    assert read_csv(write(people / "p.csv", *rows, *rows[1:])).is_same.tolist() == [True, False] * 2
