"""People and the embeddings of their photos, in one SQLite file that a crash leaves whole."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray
from facescale.gallery.database import (
    APPLICATION,
    TABLES,
    State,
    changed_since,
    check_tables,
    connected,
    log_change,
    shown,
    state_of,
    stored,
    transaction,
)
from facescale.gallery.templates import TemplateBlocks, templates_between, templates_by_number
from facescale.guard.reading import check_file, reading

# P people, N faces, d embedding size

Embeddings = npt.NDArray[np.float32]

_FORMAT = 1
_MOST_NUMBERS = 1 << 16  # of an embedding


@dataclass(frozen=True)
class Face:
    """One photo of a person.

    Attributes:
        key: where it came from; a person has each key once.
        embedding: unit float32 (d,).
        quality: above 0; weight of this photo in the person's template.
    """

    key: str
    embedding: Embeddings
    quality: float = 1.0


@dataclass(frozen=True)
class Person:
    """Someone who is enrolled.

    Attributes:
        name: unique within the gallery.
        keys: of the photos.
    """

    name: str
    keys: tuple[str, ...]


class Gallery:
    """People who can be searched for; every change is one transaction.

    Embeddings of different models cannot be compared, so a gallery belongs to the model whose fingerprint it
    was created with.

    Args:
        path: the file.

    Attributes:
        fingerprint: of the model.
        embedding_size: d.
        model: where the model was when people were last enrolled; a hint, the fingerprint decides.

    Raises:
        ValueError: no such file, or not a gallery.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise ValueError(f"the gallery '{path}' does not exist; make it with: facescale enrol")
        check_file(path, "the gallery")
        with self._reading() as db:
            application = db.execute("PRAGMA application_id").fetchone()[0]
            if application == APPLICATION:
                check_tables(db, self.path)
            meta = dict(db.execute("SELECT key, value FROM meta")) if application == APPLICATION else {}
            if meta.get("format") != str(_FORMAT):
                raise ValueError(f"'{path}' is not a gallery of this version; enrol the photos again")
            self.fingerprint, self.model = str(meta["fingerprint"]), str(meta["model"])
            self.embedding_size = int(meta["embedding_size"])
        if not 1 <= self.embedding_size <= _MOST_NUMBERS:
            raise ValueError(
                f"the gallery '{path}' claims embeddings of {self.embedding_size:,} numbers; 1 to"
                f" {_MOST_NUMBERS:,} are possible, so it is damaged: use a backup of it"
            )

    @classmethod
    def create(cls, path: str | Path, fingerprint: str, embedding_size: int, model: str) -> "Gallery":
        """Make an empty gallery.

        Raises:
            ValueError: there is something at ``path`` already.
        """
        path = Path(path)
        if path.exists():
            raise ValueError(
                f"'{path}' exists already; give another name, or add to it with: facescale enrol"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = {
            "format": str(_FORMAT),
            "fingerprint": fingerprint,
            "embedding_size": str(embedding_size),
            "model": model,
        }
        with connected(path) as db, transaction(db):
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            for table in TABLES:
                db.execute(table)
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        return cls(path)

    def check_model(self, fingerprint: str) -> None:
        """Refuse embeddings of another model.

        Raises:
            ValueError: the fingerprint is another.
        """
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"the gallery '{self.path}' was made with the model {self.fingerprint} and this one is "
                f"{fingerprint}: their embeddings cannot be compared; use that model, or enrol anew"
            )

    def add(self, name: str, faces: Sequence[Face]) -> None:
        """Enrol a person, or add photos to one; a photo with a known key replaces the old one.

        Raises:
            ValueError: a name without text, no face, or an embedding that does not fit.
        """
        if not name.strip():
            raise ValueError("a person needs a name that is not blank")
        if not faces:
            raise ValueError(f"there is no face to enrol for '{name}'")
        rows = [(stored(face.key), face.quality, self._packed(name, face)) for face in faces]
        with self._changing() as db:
            db.execute("INSERT OR IGNORE INTO people (name) VALUES (?)", (stored(name),))
            (person,) = db.execute("SELECT id FROM people WHERE name = ?", (stored(name),)).fetchone()
            db.executemany(
                "INSERT OR REPLACE INTO faces (person, key, quality, embedding) VALUES (?, ?, ?, ?)",
                [(person, *row) for row in rows],
            )
            log_change(db, [person])

    def _packed(self, name: str, face: Face) -> bytes:
        embedding = np.asarray(face.embedding, np.float32)
        norm = float(np.linalg.norm(embedding))
        if embedding.shape != (self.embedding_size,) or not np.isfinite(norm) or abs(norm - 1) > 1e-3:
            raise ValueError(
                f"the embedding of '{face.key}' for '{name}' has shape {embedding.shape} and norm "
                f"{norm:.3g}; the gallery takes ({self.embedding_size},) and norm 1"
            )
        if not (np.isfinite(face.quality) and face.quality > 0):
            raise ValueError(f"the quality of '{face.key}' is {face.quality}; it must be a number above 0")
        return embedding.astype("<f4").tobytes()

    def remove(self, name: str) -> None:
        """Forget a person and all their photos.

        Raises:
            ValueError: nobody has that name.
        """
        with self._changing() as db:
            person = self._id(db, name)
            db.execute("DELETE FROM faces WHERE person = ?", (person,))
            db.execute("DELETE FROM people WHERE id = ?", (person,))
            log_change(db, [person])

    def rename(self, name: str, new_name: str) -> None:
        """Call a person something else.

        Raises:
            ValueError: nobody has the old name, or somebody has the new one.
        """
        if not new_name.strip():
            raise ValueError("a person needs a name that is not blank")
        with self._changing() as db:
            person = self._id(db, name)
            if self._has(db, new_name):
                raise ValueError(f"'{new_name}' is enrolled already; to join the two, merge them")
            db.execute("UPDATE people SET name = ? WHERE id = ?", (stored(new_name), person))
            log_change(db, [person])

    def merge(self, name: str, other: str) -> None:
        """Give all photos of ``other``, who is the same person, to ``name``; ``other`` is gone then.

        Raises:
            ValueError: one of the names is unknown, or they are the same.
        """
        if name == other:
            raise ValueError(f"'{name}' cannot be merged with itself")
        with self._changing() as db:
            person, gone = self._id(db, name), self._id(db, other)
            db.execute("UPDATE OR REPLACE faces SET person = ? WHERE person = ?", (person, gone))
            db.execute("DELETE FROM people WHERE id = ?", (gone,))
            log_change(db, [person, gone])

    def split(self, name: str, new_name: str, keys: Sequence[str]) -> None:
        """Give some photos of ``name`` to a new person.

        Raises:
            ValueError: an unknown name or photo, a new name that is taken, or no photo would be left.
        """
        with self._changing() as db:
            person = self._id(db, name)
            rows = db.execute("SELECT key FROM faces WHERE person = ?", (person,))
            known = {shown(key) for (key,) in rows}
            missing = [key for key in keys if key not in known]
            if missing:
                raise ValueError(
                    f"'{name}' has no photo '{missing[0]}'; there are: {', '.join(sorted(known))}"
                )
            if not keys or known == set(keys):
                wrong = "all" if keys else "none"
                raise ValueError(f"name some of the photos of '{name}' to split off, not {wrong}")
            if self._has(db, new_name):
                raise ValueError(f"'{new_name}' is enrolled already; split off under another name")
            new = int(
                db.execute(
                    "INSERT INTO people (name) VALUES (?) RETURNING id", (stored(new_name),)
                ).fetchone()[0]
            )
            db.executemany(
                "UPDATE faces SET person = ? WHERE person = ? AND key = ?",
                [(new, person, stored(key)) for key in dict.fromkeys(keys)],
            )
            log_change(db, [person, new])

    def people(self) -> list[Person]:
        """Everybody, by name."""
        found: dict[str, list[str]] = {}
        with self._reading() as db:
            for name, key in db.execute(
                "SELECT name, key FROM people JOIN faces ON faces.person = people.id ORDER BY name, key"
            ):
                found.setdefault(shown(name), []).append(shown(key))
        return [Person(name, tuple(keys)) for name, keys in found.items()]

    def templates(self) -> tuple[list[str], Embeddings]:
        """Names by order of enrolment, and a unit template (P, d) of each: the mean weighted by quality."""
        with self._reading() as db:
            number_P, template_PD = templates_between(db, self._unpacked, self.embedding_size)
            name_of = {person: shown(name) for person, name in db.execute("SELECT id, name FROM people")}
        return [name_of[number] for number in number_P.tolist()], template_PD

    def templates_of(self, numbers: Iterable[int]) -> tuple[IntArray, list[str], Embeddings]:
        """Numbers, names and templates of those of these people who are enrolled."""
        with self._reading() as db:
            return templates_by_number(db, self._unpacked, self.embedding_size, numbers)

    def all_templates(self, size: int) -> TemplateBlocks:
        """All templates of one state of the gallery, in blocks of up to ``size`` people.

        A gallery whose changes were never logged starts its log.
        """
        with self._reading() as db:
            has_log = state_of(db) is not None
        if not has_log:
            with self._changing() as db:
                log_change(db, [0])
        return TemplateBlocks(self._reading, self._unpacked, self.embedding_size, size)

    def num_people(self) -> int:
        """How many people are enrolled."""
        with self._reading() as db:
            return int(db.execute("SELECT count(*) FROM people").fetchone()[0])

    def state(self) -> State | None:
        """The present version of the people; None where no change was ever logged."""
        with self._reading() as db:
            return state_of(db)

    def changed_since(self, state: State) -> tuple[State, set[int]] | None:
        """The present state, and who came, went or got other photos since ``state``.

        None where that state is not one of this gallery, or too long ago.
        """
        with self._reading() as db:
            db.execute("BEGIN")
            now, people = state_of(db), changed_since(db, state)
        return None if now is None or people is None else (now, people)

    def faces(self, name: str) -> list[Face]:
        """The photos of a person.

        Raises:
            ValueError: nobody has that name.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT key, embedding, quality FROM faces WHERE person = ? ORDER BY id",
                (self._id(db, name),),
            ).fetchall()
        return [Face(shown(key), self._unpacked(packed), quality) for key, packed, quality in rows]

    def _unpacked(self, packed: bytes) -> Embeddings:
        if not isinstance(packed, bytes) or len(packed) != 4 * self.embedding_size:
            raise ValueError(
                f"the gallery '{self.path}' holds an embedding of another size; it is damaged: use a backup"
            )
        return np.frombuffer(packed, "<f4").astype(np.float32, copy=False)

    @staticmethod
    def _has(db: sqlite3.Connection, name: str) -> bool:
        return db.execute("SELECT 1 FROM people WHERE name = ?", (stored(name),)).fetchone() is not None

    def _id(self, db: sqlite3.Connection, name: str) -> int:
        row = db.execute("SELECT id FROM people WHERE name = ?", (stored(name),)).fetchone()
        if row is None:
            raise ValueError(f"nobody called '{name}' is in the gallery '{self.path}'")
        return int(row[0])

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with reading(self.path, "the gallery", "use a backup of it"), connected(self.path) as db:
            yield db

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        advice = "check its disk and permissions"
        with (
            reading(self.path, "or change the gallery", advice),
            connected(self.path) as db,
            transaction(db),
        ):
            yield db
