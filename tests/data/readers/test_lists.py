"""Lists of images: im2rec's .lst, InsightFace's, PLSC's label.txt, WebFace42M's; its folders by roots."""

import os

import pytest

from facescale.data import open_reader
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.key_lists import read_list
from facescale.data.writers import folder as writing
from facescale.files import one_line
from facescale.prepare.convert_data import convert_data


@pytest.mark.parametrize(
    "lines",
    [
        "0\t4.000000\tann/0.jpg\n1\t2.000000\tbob/1 of 2.jpg\n",
        "0\t4.0\t1.5\t7\tann/0.jpg\n5\t2\t3\t3\tbob/1 of 2.jpg",
        "1\tann/0.jpg\t4\n1\tbob/1 of 2.jpg\t2\n",
        "ann/0.jpg\t4\n\nbob/1 of 2.jpg\t2\r\n",
        "ann/0.jpg 4\nbob/1 of 2.jpg 2\n",
    ],
    ids=["im2rec", "several labels", "insightface", "plsc", "f2c and webface"],
)
def test_every_kind_of_line_is_understood(make_folder, lines: str):
    folder = make_folder({"ann/0.jpg": b"a", "bob/1 of 2.jpg": b"b"})
    (folder / "some.lst").write_text(lines)
    reader = open_reader(folder / "some.lst")
    assert [reader[0], reader[1]] == [(b"a", 1), (b"b", 0)]
    assert (list(reader.names), reader.key(1)) == (["2", "4"], "bob/1 of 2.jpg")
    assert reader.image_size(0) == 1


def test_paths_may_start_elsewhere(make_folder, tmp_path):
    folder = make_folder({"ann/0.jpg": b"a"})
    (tmp_path / "any.txt").write_text("ann/0.jpg 0\nann/none.jpg 0\n")
    reader = open_reader(f"list:{tmp_path}/any.txt?root={folder}")
    assert reader[0] == (b"a", 0)
    with pytest.raises(BadRecordError, match=r"cannot read '.*ann/none.jpg': No such file"):
        reader[1]
    assert reader.image_size(1) == -1
    with pytest.raises(ValueError, match="'/no' is not a folder; name the one where the paths of"):
        open_reader(f"list:{tmp_path}/any.txt?root=/no")


def test_names_of_any_bytes_are_read_as_they_were_written(make_folder, tmp_path):
    names = [os.fsdecode(b"J\xfcrgen.jpg"), "a\tb\\n.jpg", "line\nend.jpg", " lead.jpg"]
    rows = [f"{n}\t{n:f}\t{one_line(name)}" for n, name in enumerate(names)]
    (tmp_path / "x.lst").write_text("\n".join(rows), errors="surrogateescape")
    images, labels = read_list(tmp_path / "x.lst")
    assert [images[n] for n in range(4)] == names and labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("/etc/passwd 0", "names '/etc/passwd', which is not below its root; write paths below one folder"),
        ("a/../../x.jpg 0", "names 'a/../../x.jpg', which is not below its root"),
        ("a.jpg one", "line 1 of '.*' has the label 'one'; a label is a whole number from 0"),
        ("a.jpg 0.5", "has the label '0.5'"),
        ("a.jpg -1", "has the label '-1'"),
        ("a.jpg nan", "has the label 'nan'"),
        ("a.jpg 99999999999999999999", "has the label '99999999999999999999'"),
        ("3", "line 1 of '.*' is '3'; it must have an image and its label"),
        ("", "names no images; it must have a line for each"),
        ("x" * 70000, "line 1 of '.*' has 65,538 characters; this is not a list of images"),
    ],
)
def test_a_list_that_cannot_be_is_answered_in_one_sentence(tmp_path, text: str, sentence: str):
    (tmp_path / "bad.lst").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        open_reader(tmp_path / "bad.lst")


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the list '.*no.lst': No such file"):
        open_reader(f"list:{tmp_path}/no.lst")


def test_roots_of_webface_are_chosen(make_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_WEBFACE_ROOT", 1)
    source = open_reader(make_folder())
    folder = convert_data(source, tmp_path / "wf", form="webface").folder
    assert (folder / "1" / "1_0_0000001" / "1_2.jpg").read_bytes() == source[4][0]
    assert (folder / "label.txt").read_text().splitlines()[0] == "0/0_0_0000000/0_0.jpg 0"
    assert open_reader(f"webface:{folder}").num_ids == 3
    part = open_reader(f"webface:{folder}?roots=1-2")
    assert list(part.names) == ["1/1_0_0000001", "2/2_0_0000002"]
    assert [part[i] for i in range(4)] == [(source[i][0], source[i][1] - 1) for i in range(2, 6)]
    with pytest.raises(ValueError, match="has no roots 5; it has: 0, 1, 2"):
        open_reader(f"webface:{folder}?roots=5")
    with pytest.raises(ValueError, match="roots = '3-1' must be a digit or a range of digits"):
        open_reader(f"webface:{folder}?roots=3-1")
