"""The index of a gallery: it answers as the exact search does, follows changes, and is never trusted."""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from facescale.files import remove_unfinished
from facescale.gallery import Face, Gallery, PeopleSearch, index, index_file, nearest_people, people_search
from facescale.gallery.codes import encode, num_parts, require_extra, sample_of, train
from facescale.gallery.database import connected, log_change, transaction
from facescale.gallery.index import GalleryIndex
from facescale.gallery.index_file import path_of, read_index, write_index

faiss = pytest.importorskip("faiss")

D, PEOPLE = 36, 300  # D is no multiple of 8: the last part of a code is filled with zeros


def units(count: int, seed: int = 0) -> np.ndarray:
    """Vectors around a few directions, as embeddings are: many are each other's neighbours."""
    rng = np.random.default_rng(seed)
    x = np.random.default_rng(9).standard_normal((12, D))[rng.integers(12, size=count)]
    x = x + 0.6 * rng.standard_normal((count, D))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with an index, for tests that copy it."""
    gallery = Gallery.create(tmp_path_factory.mktemp("made") / "people.gallery", "ab12", D, "m")
    with connected(gallery.path) as db, transaction(db):
        for number, row in enumerate(units(PEOPLE), 1):
            db.execute("INSERT INTO people VALUES (?, ?)", (number, f"p{number}"))
            db.execute("INSERT INTO faces VALUES (?, ?, 'a', 1.0, ?)", (number, number, row.tobytes()))
        log_change(db, [0])
    write_index(gallery)
    return gallery.path


@pytest.fixture
def gallery(made: Path, tmp_path: Path) -> Gallery:
    path = tmp_path / "people.gallery"
    path.write_bytes(made.read_bytes())
    path_of(path).write_bytes(path_of(made).read_bytes())
    return Gallery(path)


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_SHORTLIST", 100)
    monkeypatch.setattr(index, "_BLOCK", 70)
    monkeypatch.setattr(index, "_QUERIES", 40)


def same_as_exact(gallery: Gallery, search: GalleryIndex | PeopleSearch, query_QD: np.ndarray) -> bool:
    exact = nearest_people(query_QD, *gallery.templates(), 3)
    found = search.search(query_QD, 3)
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose([m.cosine for m in one], [m.cosine for m in other], atol=1e-6)
    return [[m.name for m in row] for row in found] == [[m.name for m in row] for row in exact]


@pytest.mark.parametrize("queries", [1, 20, index.BATCH], ids=["one", "some", "batch"])
def test_it_answers_as_the_exact_search(gallery: Gallery, short_lists: None, queries: int) -> None:
    assert same_as_exact(gallery, GalleryIndex(gallery), units(queries, seed=1))


@pytest.mark.parametrize("queries", [20, index.BATCH])
def test_changes_are_followed_without_a_new_index(gallery: Gallery, short_lists: None, queries: int) -> None:
    opened, query_QD, before = GalleryIndex(gallery), units(queries, seed=1), path_of(gallery.path).stat()
    new = [Face("b", row) for row in query_QD[:3]]
    gallery.add("new", new[:1])
    gallery.add("p7", new[1:2])
    gallery.remove(opened.search(query_QD[5:6], 1)[0][0].name)
    gallery.merge("p20", "p21")
    gallery.rename("p30", "other")
    gallery.add("p40", new[2:])
    gallery.split("p40", "half", ["b"])
    assert opened.follow()
    assert same_as_exact(gallery, opened, query_QD)
    assert opened.search(query_QD[:1], 1)[0][0].name == "new"
    assert same_as_exact(gallery, GalleryIndex(gallery), query_QD), "a new process follows, too"
    assert path_of(gallery.path).stat() == before


def test_people_who_are_alike_the_query_in_nothing_are_found_in_a_batch_despite_removals(
    gallery: Gallery, short_lists: None
) -> None:
    opened = GalleryIndex(gallery)
    for number in range(1, 60):
        gallery.remove(f"p{number}")
    assert opened.follow()
    assert same_as_exact(gallery, opened, -units(index.BATCH, seed=1))


def test_an_index_that_missed_too_much_is_made_again(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_STALE", 2)
    monkeypatch.setattr(index_file, "_BLOCK", 100)
    search = PeopleSearch(gallery, use_index=True)
    assert search.note == ""
    for number in range(1, PEOPLE // 10 + 2):
        gallery.remove(f"p{number}")
    assert same_as_exact(gallery, search, units(3, seed=1))
    assert search.note == (
        f"an index of {len(gallery.people())} people was made, since the index '{path_of(gallery.path)}' is"
        " of another state of the gallery; make it again with: facescale gallery index"
    )
    assert PeopleSearch(gallery, use_index=True).note == ""


def test_a_copy_that_went_another_way_is_another_state(gallery: Gallery, tmp_path: Path) -> None:
    other = tmp_path / "other.gallery"
    other.write_bytes(gallery.path.read_bytes())
    Gallery(other).remove("p1")
    gallery.remove("p2")
    write_index(gallery)
    path_of(gallery.path).rename(path_of(other))
    with pytest.raises(ValueError, match=r"is of another state of the gallery; make it again with"):
        GalleryIndex(Gallery(other))


def test_an_index_of_another_model_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    other = Gallery.create(tmp_path / "other.gallery", "cd34", D, "m")
    path_of(other.path).write_bytes(path_of(gallery.path).read_bytes())
    with pytest.raises(ValueError, match=r"is not one of the gallery '.*other\.gallery'"):
        GalleryIndex(other)


def test_a_gallery_of_before_the_log_gets_one(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "old.gallery", "ab12", D, "m")
    gallery.add("Ada", [Face("a", units(1)[0])])
    with connected(gallery.path) as db:
        db.execute("DROP TABLE changes")
    assert Gallery(gallery.path).state() is None
    write_index(gallery)
    assert same_as_exact(gallery, GalleryIndex(gallery), units(2, seed=1))
    gallery.add("Bob", [Face("a", units(2)[1])])
    assert same_as_exact(gallery, GalleryIndex(gallery), units(2, seed=1))


def damaged(path: Path) -> Iterator[tuple[str, bytes]]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    yield "its size or format is another", data[:-1]
    yield "its size or format is another", data.replace(b"facescale index 1", b"facescale index 9", 1)
    yield "its header is too long", b"\xff" * 8 + data[8:]
    yield "its header is another", data.replace(b'"F16"', b'"F32"', 1)
    yield "its header is another", data.replace(b'"data_offsets": [0,', b'"data_offsets": [8,', 1)
    yield "it claims to hold nobody", data.replace(f"[{PEOPLE}, {D}]".encode(), b"[-30, 36]", 1)
    yield "its checksum is another", data[:-1] + bytes([data[-1] ^ 1])
    yield "cannot read the index", data[:8] + b"[" * length + data[8 + length :]
    yield (
        "cannot read the index",
        data[:8] + data[8 : 8 + length].replace(b'"shape"', b'"shapf"') + data[8 + length :],
    )
    yield "cannot read the index", b""


def test_a_damaged_index_is_told_and_made_again(gallery: Gallery) -> None:
    path = path_of(gallery.path)
    whole = path.read_bytes()
    for reason, data in damaged(path):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"make it again with: facescale gallery index") as told:
            read_index(path)
        assert reason in str(told.value)
        search = PeopleSearch(gallery, use_index=True)
        assert search.note.startswith(f"an index of {PEOPLE} people was made, since cannot read the index")
        assert path.read_bytes() == whole, "it is a pure function of the gallery"


def test_wrong_templates_in_the_file_change_no_cosine(gallery: Gallery) -> None:
    path = path_of(gallery.path)
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    data[start : start + 2 * D] = bytes(2 * D)  # the first person's
    path.write_bytes(data)
    found = GalleryIndex(gallery).search(units(PEOPLE)[1:2], 2)[0]
    assert (found[0].name, found[0].cosine) == ("p2", pytest.approx(1))


def test_an_index_needs_people_and_embeddings_of_the_right_size(gallery: Gallery, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="faces have 8-d embeddings and the gallery 36-d ones"):
        GalleryIndex(gallery).search(np.zeros((1, 8), np.float32))
    empty = Gallery.create(tmp_path / "empty.gallery", "ab12", D, "m")
    with pytest.raises(ValueError, match=r"is empty; add people with: facescale enrol"):
        write_index(empty)
    for use_index in (True, False):
        with pytest.raises(ValueError, match=r"is empty; add people with: facescale enrol"):
            PeopleSearch(empty, use_index)


def test_codes_are_as_short_as_promised_and_repeatable() -> None:
    assert [num_parts(size) for size in (512, 256, 36, 1)] == [128, 64, 10, 2]
    x_PD = units(50)
    centroids = train(x_PD)
    assert centroids.shape == (10, 16, 4) and np.array_equal(centroids, train(x_PD))
    assert encode(x_PD, centroids).shape == (50, 5)
    assert sample_of(10).tolist() == list(range(10))
    drawn = sample_of(100_000)
    assert len(drawn) == 65_536 and np.array_equal(drawn, np.unique(drawn))


def test_the_nearest_centroid_of_each_part_is_the_code() -> None:
    x_PD = units(40)
    centroids = train(x_PD)
    padded = np.pad(x_PD, ((0, 0), (0, 4))).reshape(40, 10, 1, 4)
    distance = ((padded - centroids) ** 2).sum(axis=-1)
    codes = encode(x_PD, centroids).astype(np.int64)
    chosen = np.stack([codes & 15, codes >> 4], axis=-1).reshape(40, 10)
    # Two centroids may be equally near up to rounding, and processors round differently.
    of_chosen = np.take_along_axis(distance, chosen[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(of_chosen, distance.min(axis=-1), atol=1e-6)


class TestWhenAnIndexIsUsed:
    def test_small_galleries_are_searched_exactly(self, gallery: Gallery) -> None:
        path_of(gallery.path).unlink()
        search = PeopleSearch(gallery)
        assert search.note == "" and not path_of(gallery.path).exists()
        query_QD = units(2, seed=1)
        assert same_as_exact(gallery, search, query_QD)
        gallery.add("new", [Face("b", query_QD[0])])
        gallery.rename("p3", "other")
        assert same_as_exact(gallery, search, query_QD), "a change is seen"

    def test_large_ones_get_one(self, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(people_search, "LARGE", PEOPLE)
        path = path_of(gallery.path)
        path.unlink()
        assert PeopleSearch(gallery).note == (
            f"an index of {PEOPLE} people was made, since there is no index at '{path}'"
        )
        assert path.exists()
        path.unlink()
        assert PeopleSearch(gallery, use_index=False).note == "" and not path.exists()

    def test_without_faiss_large_ones_are_searched_exactly_and_that_is_said(
        self, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(people_search, "LARGE", PEOPLE)
        monkeypatch.setitem(sys.modules, "faiss", None)
        monkeypatch.setattr(people_search.importlib.util, "find_spec", lambda name: None)
        search = PeopleSearch(gallery)
        assert search.note == (
            f"searched {PEOPLE} people exactly; an index is faster: pip install 'facescale[index]'"
        )
        assert same_as_exact(gallery, search, units(2, seed=1))
        with pytest.raises(ValueError, match=r"an index needs faiss; install it with: pip install 'facesc"):
            PeopleSearch(gallery, use_index=True)
        with pytest.raises(ValueError, match="an index needs faiss"):
            require_extra()

    def test_where_no_index_can_be_written_a_large_one_is_searched_exactly(
        self, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(gallery: Gallery) -> Path:
            raise PermissionError(13, "Permission denied", str(path_of(gallery.path)))

        monkeypatch.setattr(people_search, "LARGE", PEOPLE)
        monkeypatch.setattr(people_search, "write_index", refused)
        path_of(gallery.path).unlink()
        search = PeopleSearch(gallery)
        assert "searched exactly, without an index" in search.note and "Permission denied" in search.note
        assert same_as_exact(gallery, search, units(2, seed=1))
        with pytest.raises(PermissionError):
            PeopleSearch(gallery, use_index=True)


def rewrite_for_ever(path: Path) -> None:
    """Change the gallery and make its index, in a process that is killed."""
    try:
        while True:
            gallery = Gallery(path)
            gallery.add("p1", [Face("a", units(1)[0])])
            write_index(gallery)
    finally:
        os._exit(1)  # it is a copy of the test's process, which must not go on


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_a_whole_index(gallery: Gallery) -> None:
    """200 kills, each after a random time."""
    faiss.omp_set_num_threads(1)  # a forked process has none of the other threads
    for _ in range(200):
        writer = os.fork()
        if not writer:
            rewrite_for_ever(gallery.path)
        time.sleep(random.uniform(0, 0.2))
        os.kill(writer, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) == -signal.SIGKILL
        assert len(GalleryIndex(Gallery(gallery.path))) == PEOPLE
    remove_unfinished(gallery.path.parent)
    assert sorted(path.name for path in gallery.path.parent.iterdir() if "journal" not in path.name) == [
        "people.gallery",
        "people.gallery.index",
    ]
