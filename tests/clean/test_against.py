"""facescale.clean.against: any protocol or data set as images and people."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from facescale.clean.against import open_test_set
from facescale.evaluate.protocols.write import write_protocol


@pytest.fixture
def people(make_folder) -> Path:  # type: ignore[no-untyped-def]
    from facescale.data.loading.decode import encode_jpeg
    from tests.pictures import picture

    files = {
        f"{who}/{n}.jpg": encode_jpeg(picture(10 * i + n, 32))
        for i, who in enumerate("abcdefgh")
        for n in range(4)
    }
    folder: Path = make_folder(files, "people")
    return folder


def test_a_data_set_has_its_identities(people: Path) -> None:
    found = open_test_set(f"mine={people}", 32)
    assert (found.name, found.names) == ("mine", tuple("abcdefgh"))
    assert Counter(found.person_N.tolist()) == dict.fromkeys(range(8), 4)
    assert open_test_set(str(people), 32).name == str(people)


def test_a_list_of_pairs_has_the_people_of_its_folders(people: Path, tmp_path: Path) -> None:
    write_protocol(str(people), tmp_path / "pairs.csv", 24, 4, 0)
    found = open_test_set(f"{tmp_path / 'pairs.csv'}?root={people}", 32)
    assert set(found.names) <= set("abcdefgh") and len(found.names) > 1
    for index, person in enumerate(found.person_N.tolist()):
        assert found.images.key(index).startswith(found.names[person] + "/")


def test_a_bin_has_the_people_that_its_genuine_pairs_connect(people: Path, tmp_path: Path) -> None:
    write_protocol(str(people), tmp_path / "pairs.bin", 24, 4, 0)
    found = open_test_set(str(tmp_path / "pairs.bin"), 32)
    assert found.names == () and len(found.images) == len(found.person_N)
    assert found.person_N.max() + 1 == len(np.unique(found.person_N))


def test_drawn_pairs_and_data_sets_are_told_apart() -> None:
    pairs = open_test_set("synthetic:pairs=20,folds=2", 32)
    drawn = open_test_set("synthetic:ids=5,images=2,size=32", 32)
    assert len(pairs.images) > 10 and len(drawn.images) == 10
    assert len(open_test_set("all_pairs:synthetic:ids=5,images=2,size=32", 32).images) == 10


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        open_test_set(f"lfw={tmp_path / 'nothing'}", 32)
