"""The same images in another form."""

import json
import os

import numpy as np
import pytest

from facescale.data import open_reader
from facescale.data.loading.decode import decode
from facescale.data.readers.base import people_of
from facescale.data.readers.info_file import data_info
from facescale.data.writers import WRITERS
from facescale.files import one_line
from facescale.prepare.convert_data import convert_data


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_back_the_same_images_under_the_same_labels(make_folder, tmp_path, form: str):
    source = open_reader(make_folder())
    report = convert_data(source, tmp_path / "out" / "set", form=form)
    assert (report.folder, report.form) == (tmp_path / "out" / "set", form)
    assert (report.num_images, report.num_ids, report.bad) == (6, 3, {})
    converted = open_reader(report.folder)
    assert [converted[i] for i in range(6)] == [source[i] for i in range(6)]
    assert np.array_equal(converted.ids, source.ids)
    assert json.loads((report.folder / "labels.json").read_text()) == {"0": "ann", "1": "bob", "2": "cy"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["set"]


@pytest.mark.parametrize("back", WRITERS)
@pytest.mark.parametrize("form", WRITERS)
def test_images_licence_and_source_make_every_way_there_and_back(make_folder, tmp_path, form: str, back: str):
    source = open_reader(make_folder())
    info = {"licence": "CC-BY-4.0", "source": "drawn, Zoë"}
    first = open_reader(convert_data(source, tmp_path / "first", form=form, info=info).folder)
    second = open_reader(convert_data(first, tmp_path / "second", form=back).folder)
    assert [second[i] for i in range(6)] == [source[i] for i in range(6)]
    assert data_info(second) == info
    labels = json.loads((tmp_path / "second" / "labels.json").read_text())
    assert list(labels.values()) == ["ann", "bob", "cy"]


def test_joined_sources_keep_what_each_tells_of_itself(make_folder, tmp_path):
    source = open_reader(make_folder())
    for name in "ab":
        convert_data(source, tmp_path / name, form="lmdb", info={"licence": name.upper()})
    a, b = tmp_path / "a", tmp_path / "b"
    joined = open_reader([a, b], min_images=2)
    assert data_info(joined) == {"licence": f"{a}: A; {b}: B"}
    assert joined.num_ids == 4 and joined[9] == (source[4][0], 3)
    packed = convert_data(joined, tmp_path / "packed", form="shards").folder
    names = [f"{a}/ann", f"{a}/bob", f"{b}/ann", f"{b}/bob"]
    assert list(people_of(open_reader(packed)).names) == names


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "is not a JSON table of texts; correct it, or remove it"),
        ('{"licence": 3}', "is not a JSON table of texts; correct it, or remove it"),
        ("{", "cannot read the facts"),
        ("{}" + " " * (1 << 20), "has 1,048,578 bytes, and 1,048,576 are the most"),
    ],
)
def test_a_damaged_table_of_facts_is_named(make_folder, text: str, sentence: str):
    folder = make_folder()
    (folder / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        data_info(open_reader(folder))


@pytest.mark.parametrize("form", WRITERS)
def test_raw_pixels_become_images(make_reader, make_picture, tmp_path, form: str):
    source = make_reader([0, 0])
    source.images = [make_picture(0), make_picture(1)]
    converted = open_reader(convert_data(source, tmp_path / "out", form=form).folder)
    assert all(np.abs(decode(converted[i][0]).astype(int) - make_picture(i)).mean() < 2 for i in range(2))


@pytest.mark.parametrize("form", WRITERS)
def test_unreadable_images_are_left_out_and_named(make_reader, tmp_path, form: str):
    report = convert_data(make_reader([0, 0, 1], bad=frozenset({1})), tmp_path / "out", form=form)
    assert report.num_images == 2
    assert report.bad == {"memory/1": "made to fail"}
    assert len(open_reader(report.folder)) == 2


def test_folders_sort_as_their_labels_and_files_have_the_suffix_of_their_format(make_reader, tmp_path):
    source = make_reader(list(range(12)))
    source.images[3:6] = [b"\x89PNG\r\n...", b"BM....\0\0\0\0", b"RIFF....WEBP"]
    convert_data(source, tmp_path / "out", form="folder")
    converted = open_reader(tmp_path / "out")
    assert [converted[i] for i in range(12)] == [source[i] for i in range(12)]
    assert [converted.key(i) for i in (2, 3, 4, 5)] == ["02/02.jpg", "03/03.png", "04/04.bmp", "05/05.webp"]


def test_names_of_a_source_cannot_lead_outside(make_reader, tmp_path):
    source = make_reader([0, 1])
    source.names = ["../../evil", "/etc/evil"]
    convert_data(source, tmp_path / "out", form="folder")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg")) == [
        "out/0/0.jpg",
        "out/1/1.jpg",
    ]


def test_an_unknown_form_is_refused(make_reader, tmp_path):
    with pytest.raises(ValueError, match="unknown form 'h5'; choose one of: recordio, im2rec, folder"):
        convert_data(make_reader([0]), tmp_path / "out", form="h5")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_place_that_is_taken_is_refused(make_reader, make_folder, tmp_path, kind: str):
    place = make_folder() if kind == "folder" else tmp_path / "file"
    if kind == "file":
        place.write_text("mine")
    with pytest.raises(ValueError, match="is not an empty folder; choose a new one"):
        convert_data(make_reader([0]), place)


def test_a_failure_leaves_nothing_behind(make_reader, tmp_path):
    source = make_reader([0, 0])
    source.images[1] = None  # as a defect of a reader would give
    with pytest.raises(ValueError, match="dimensions"):
        convert_data(source, tmp_path / "out", form="folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", WRITERS)
def test_names_of_any_bytes_make_the_round_trip(make_reader, tmp_path, form: str):
    source = make_reader([0, 1, 2])
    source.names = ["Zoë 李", os.fsdecode(b"J\xfcrgen"), 'a\n"b"\t\\']
    source.key = lambda index: f"{source.names[index]}/1.jpg"
    folder = convert_data(source, tmp_path / "out", form=form).folder
    text = (folder / "labels.json").read_text("utf-8")
    assert list(json.loads(text).values()) == source.names
    assert "Zoë 李" in text
    if form in ("recordio", "im2rec"):
        rows = (folder / "train.lst").read_text("utf-8", "surrogateescape").splitlines()
        keys = {row.split("\t")[1 if form == "recordio" else 2] for row in rows}
        assert keys == {one_line(source.key(i)) for i in range(3)}
