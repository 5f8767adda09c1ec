"""What a training says of its data before it starts."""

import numpy as np
import pytest

from facescale.data import open_reader
from facescale.data.loading.decode import encode_jpeg
from facescale.data.notes import data_notes
from facescale.data.synthetic.faces import SyntheticFaces


def test_aligned_faces_need_no_word():
    assert data_notes(SyntheticFaces(40, 2)) == []


def test_few_drawn_people_are_not_called_unaligned():
    assert data_notes(open_reader("synthetic:ids=20,images=8,size=56")) == []


def test_pictures_of_several_sizes_look_unaligned(make_folder, make_picture):
    files = {f"ann/{side}.jpg": encode_jpeg(make_picture(side, side)) for side in (20, 24, 30)}
    (note,) = data_notes(open_reader(make_folder(files)))
    assert note == (
        "3 sampled images have 3 different sizes (20x20, 24x24, 30x30): they look unaligned;"
        " facescale prepare aligns photos"
    )


def test_faces_at_different_places_look_unaligned(make_reader):
    rng, drawn = np.random.default_rng(0), SyntheticFaces(60, 1)
    reader = make_reader([0] * 60)
    reader.images = []
    for index in range(60):
        pixels = drawn[index][0]
        moved = np.roll(pixels, rng.integers(0, 112, 2), (0, 1))
        reader.images.append(np.ascontiguousarray(moved[:50, :50]))
    (note,) = data_notes(reader)
    assert note.startswith("sampled faces are at different places (likeness to their mean 0.")


def test_few_or_unreadable_images_are_not_judged(make_reader):
    assert data_notes(make_reader([0, 0, 1], bad=frozenset({1}))) == []


def test_the_same_source_twice_is_named(make_folder, tmp_path):
    folder = make_folder()
    (tmp_path / "link").symlink_to(folder)
    for spec in ([folder, folder], [folder, tmp_path / "link"]):
        reader = open_reader(spec, min_images=2)
        assert data_notes(reader) == [
            f"'{folder}' is there twice, and its identities count as different people each time"
        ]


@pytest.mark.parametrize("other", ["synthetic:ids=2,images=2,seed=1"])
def test_different_sources_are_not_named(make_folder, other: str):
    assert open_reader([make_folder(), other]).repeated == []
