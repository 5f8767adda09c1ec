"""The gallery file: people come, go and are renamed; a crash or a damaged file loses nothing unsaid."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from facescale.gallery import Face, Gallery

D = 8


def unit(seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(D).astype(np.float32)
    return x / np.linalg.norm(x)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    made = Gallery.create(tmp_path / "people.gallery", "ab12", D, "/models/run")
    made.add("Ada", [Face("ada/1.jpg", unit(1)), Face("ada/2.jpg", unit(2), 3.0)])
    made.add("Bob", [Face("bob/1.jpg", unit(3))])
    return made


def names(gallery: Gallery) -> dict[str, tuple[str, ...]]:
    return {one.name: one.keys for one in Gallery(gallery.path).people()}


def test_people_are_kept_with_their_photos(gallery: Gallery) -> None:
    assert names(gallery) == {"Ada": ("ada/1.jpg", "ada/2.jpg"), "Bob": ("bob/1.jpg",)}
    again = Gallery(gallery.path)
    assert (again.fingerprint, again.embedding_size, again.model) == ("ab12", D, "/models/run")
    assert np.array_equal(again.faces("Bob")[0].embedding, unit(3))


def test_a_template_is_the_mean_weighted_by_quality(gallery: Gallery) -> None:
    people, template_PD = gallery.templates()
    expected = unit(1) + 3 * unit(2)
    assert people == ["Ada", "Bob"]
    np.testing.assert_allclose(template_PD[0], expected / np.linalg.norm(expected), rtol=1e-6)
    np.testing.assert_allclose(template_PD[1], unit(3), rtol=1e-6)


def test_a_photo_that_comes_again_replaces_the_old_one(gallery: Gallery) -> None:
    gallery.add("Bob", [Face("bob/1.jpg", unit(7)), Face("bob/2.jpg", unit(8))])
    assert [face.key for face in gallery.faces("Bob")] == ["bob/1.jpg", "bob/2.jpg"]
    assert np.array_equal(gallery.faces("Bob")[0].embedding, unit(7))


def test_people_are_removed_renamed_merged_and_split(gallery: Gallery) -> None:
    gallery.rename("Bob", "Robert")
    gallery.merge("Ada", "Robert")
    assert names(gallery) == {"Ada": ("ada/1.jpg", "ada/2.jpg", "bob/1.jpg")}
    gallery.split("Ada", "Bob", ["bob/1.jpg"])
    assert names(gallery) == {"Ada": ("ada/1.jpg", "ada/2.jpg"), "Bob": ("bob/1.jpg",)}
    gallery.remove("Ada")
    assert names(gallery) == {"Bob": ("bob/1.jpg",)}
    assert gallery.templates()[0] == ["Bob"]


def test_names_of_any_bytes_come_back(gallery: Gallery) -> None:
    strange = os.fsdecode(b"J\xfcrgen\n\t'; DROP TABLE people; --")
    gallery.add(strange, [Face(os.fsdecode(b"\xff.jpg"), unit(5))])
    assert names(gallery)[strange] == (os.fsdecode(b"\xff.jpg"),)
    gallery.rename(strange, "J\u00fcrgen")
    assert "J\u00fcrgen" in names(gallery) and strange not in names(gallery)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.remove("Eve"), "nobody called 'Eve' is in the gallery"),
        (lambda g: g.rename("Eve", "Eva"), "nobody called 'Eve'"),
        (lambda g: g.rename("Ada", "Bob"), "'Bob' is enrolled already; to join the two, merge them"),
        (lambda g: g.rename("Ada", " "), "a name that is not blank"),
        (lambda g: g.merge("Ada", "Ada"), "'Ada' cannot be merged with itself"),
        (lambda g: g.split("Ada", "Bob", ["ada/1.jpg"]), "'Bob' is enrolled already; split off"),
        (
            lambda g: g.split("Ada", "Eve", ["no.jpg"]),
            "'Ada' has no photo 'no.jpg'; there are: ada/1",
        ),
        (lambda g: g.split("Ada", "Eve", ["ada/1.jpg", "ada/2.jpg"]), "some of the photos .* not all"),
        (lambda g: g.split("Ada", "Eve", []), "some of the photos .* not none"),
        (lambda g: g.add(" ", [Face("a", unit(1))]), "a name that is not blank"),
        (lambda g: g.add("Eve", []), "there is no face to enrol for 'Eve'"),
        (lambda g: g.add("Eve", [Face("a", 2 * unit(1))]), r"shape \(8,\) and norm 2; the gallery takes"),
        (lambda g: g.add("Eve", [Face("a", unit(1)[:4])]), r"shape \(4,\)"),
        (lambda g: g.add("Eve", [Face("a", unit(1) * np.nan)]), "norm nan"),
        (
            lambda g: g.add("Eve", [Face("a", unit(1), 0.0)]),
            "quality of 'a' is 0.0; it must be",
        ),
        (lambda g: g.check_model("cd34"), "made with the model ab12 and this one is cd34"),
        (lambda g: Gallery.create(g.path, "x", D, ""), "exists already"),
        (lambda g: g.faces("Eve"), "nobody called 'Eve'"),
    ],
)
def test_a_change_that_cannot_be_made_is_one_sentence_and_changes_nothing(
    gallery: Gallery, change, message: str
) -> None:
    before = gallery.path.read_bytes()
    with pytest.raises(ValueError, match=message):
        change(gallery)
    assert gallery.path.read_bytes() == before


def test_what_is_not_a_gallery_is_said(tmp_path: Path, gallery: Gallery) -> None:
    with pytest.raises(ValueError, match="does not exist; make it with: facescale enrol"):
        Gallery(tmp_path / "none")
    (tmp_path / "text").write_text("hello" * 1000)
    with pytest.raises(ValueError, match=r"cannot read the gallery .*: file is not a database; use a backup"):
        Gallery(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    db.close()
    with pytest.raises(ValueError, match="is not a gallery of this version"):
        Gallery(tmp_path / "other.db")


def test_a_damaged_gallery_is_said(gallery: Gallery) -> None:
    data = bytearray(gallery.path.read_bytes())
    for start in range(4096, len(data)):
        data[start] ^= 0x55
    gallery.path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged|cannot be read"):
        Gallery(gallery.path).templates()


def test_an_embedding_that_was_cut_is_said(gallery: Gallery) -> None:
    with sqlite3.connect(gallery.path) as db:
        db.execute("UPDATE faces SET embedding = x'00'")
    db.close()
    with pytest.raises(ValueError, match="an embedding of another size; it is damaged"):
        gallery.templates()


KILLED = """
import os
import sys
import numpy as np
from facescale.gallery import Face, Gallery
gallery = Gallery(sys.argv[1])
x = np.zeros(8, np.float32); x[0] = 1
print("ready", flush=True)
for number in range(10**9):
    gallery.add(f"p{number}", [Face(f"{number}/{k}", x) for k in range(3)])
    gallery.merge("Ada", f"p{number}")
    gallery.split("Ada", f"q{os.getpid()}-{number}", [f"{number}/{k}" for k in range(3)])
    gallery.remove(f"q{os.getpid()}-{number}")
"""


def test_a_gallery_survives_being_killed_at_any_moment(gallery: Gallery) -> None:
    for delay in range(6):
        child = subprocess.Popen([sys.executable, "-c", KILLED, gallery.path], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.02 + 0.013 * delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with sqlite3.connect(gallery.path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
        for name, keys in names(gallery).items():
            others = [key for key in keys if not key.startswith(("ada", "bob"))]
            assert len(others) % 3 == 0, (name, keys)  # a person's photos come and go together
        assert {"Ada", "Bob"} <= names(gallery).keys()


@pytest.mark.slow
def test_a_gallery_survives_two_hundred_kills(gallery: Gallery) -> None:
    rng = random.Random(0)
    program = KILLED.partition("gallery = ")[2]
    for _ in range(200):
        child = os.fork()
        if child == 0:  # the parent's imports are there already, so a kill falls into the changes
            space = {"os": os, "np": np, "Face": Face, "Gallery": Gallery, "print": lambda *_, **__: None}
            exec("gallery = " + program.replace("sys.argv[1]", repr(str(gallery.path))), space)
        threading.Event().wait(rng.uniform(0.0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with closing(sqlite3.connect(gallery.path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for name, keys in names(gallery).items():
        assert len([key for key in keys if not key.startswith(("ada", "bob"))]) % 3 == 0, (name, keys)
    assert {"Ada", "Bob"} <= names(gallery).keys()
