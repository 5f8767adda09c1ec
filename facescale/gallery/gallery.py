"""People and the embeddings of their photos, in one SQLite file that a crash leaves whole."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facescale.guard.reading import check_file, reading

# P people, N faces, d embedding size

Embeddings = npt.NDArray[np.float32]

_FORMAT = 1
_APPLICATION = 0x46414345  # "FACE", in the header of the file
_MOST_NUMBERS = 1 << 16  # of an embedding
_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE faces (id INTEGER PRIMARY KEY, person INTEGER NOT NULL REFERENCES people (id),"
    " key TEXT NOT NULL, quality REAL NOT NULL, embedding BLOB NOT NULL, UNIQUE (person, key))",
    "CREATE INDEX faces_of_person ON faces (person)",
)


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
            if application == _APPLICATION:
                self._check_tables(db)
            meta = dict(db.execute("SELECT key, value FROM meta")) if application == _APPLICATION else {}
            if meta.get("format") != str(_FORMAT):
                raise ValueError(f"'{path}' is not a gallery of this version; enrol the photos again")
            self.fingerprint, self.model = str(meta["fingerprint"]), str(meta["model"])
            self.embedding_size = int(meta["embedding_size"])
        if not 1 <= self.embedding_size <= _MOST_NUMBERS:
            raise ValueError(
                f"the gallery '{path}' claims embeddings of {self.embedding_size:,} numbers; 1 to"
                f" {_MOST_NUMBERS:,} are possible, so it is damaged: use a backup of it"
            )

    def _check_tables(self, db: sqlite3.Connection) -> None:
        """A view in place of a table could compute without end, a trigger change what is enrolled."""
        made = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
        if sorted(map(str, made)) != sorted(_TABLES):
            raise ValueError(f"the gallery '{self.path}' has other tables than a gallery; use a backup of it")

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
        with _connected(path) as db, _transaction(db):
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            for table in _TABLES:
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
        rows = [(_stored(face.key), face.quality, self._packed(name, face)) for face in faces]
        with self._changing() as db:
            db.execute("INSERT OR IGNORE INTO people (name) VALUES (?)", (_stored(name),))
            (person,) = db.execute("SELECT id FROM people WHERE name = ?", (_stored(name),)).fetchone()
            db.executemany(
                "INSERT OR REPLACE INTO faces (person, key, quality, embedding) VALUES (?, ?, ?, ?)",
                [(person, *row) for row in rows],
            )

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
            db.execute("UPDATE people SET name = ? WHERE id = ?", (_stored(new_name), person))

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

    def split(self, name: str, new_name: str, keys: Sequence[str]) -> None:
        """Give some photos of ``name`` to a new person.

        Raises:
            ValueError: an unknown name or photo, a new name that is taken, or no photo would be left.
        """
        with self._changing() as db:
            person = self._id(db, name)
            rows = db.execute("SELECT key FROM faces WHERE person = ?", (person,))
            known = {_shown(key) for (key,) in rows}
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
            new = db.execute("INSERT INTO people (name) VALUES (?)", (_stored(new_name),)).lastrowid
            db.executemany(
                "UPDATE faces SET person = ? WHERE person = ? AND key = ?",
                [(new, person, _stored(key)) for key in dict.fromkeys(keys)],
            )

    def people(self) -> list[Person]:
        """Everybody, by name."""
        found: dict[str, list[str]] = {}
        with self._reading() as db:
            for name, key in db.execute(
                "SELECT name, key FROM people JOIN faces ON faces.person = people.id ORDER BY name, key"
            ):
                found.setdefault(_shown(name), []).append(_shown(key))
        return [Person(name, tuple(keys)) for name, keys in found.items()]

    def templates(self) -> tuple[list[str], Embeddings]:
        """Names by order of enrolment, and a unit template (P, d) of each: the mean weighted by quality."""
        names: list[str] = []
        with self._reading() as db:
            (count,) = db.execute("SELECT count(DISTINCT person) FROM faces").fetchone()
            sum_PD = np.zeros((count, self.embedding_size), np.float32)
            last = None
            for person, name, quality, packed in db.execute(
                "SELECT person, name, quality, embedding FROM faces JOIN people ON faces.person = people.id "
                "ORDER BY person, faces.id"
            ):
                if person != last:
                    names.append(_shown(name))
                    last = person
                sum_PD[len(names) - 1] += quality * self._unpacked(packed)
        norm_P1 = np.linalg.norm(sum_PD, axis=1, keepdims=True)
        return names, sum_PD / np.maximum(norm_P1, np.finfo(np.float32).tiny)

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
        return [Face(_shown(key), self._unpacked(packed), quality) for key, packed, quality in rows]

    def _unpacked(self, packed: bytes) -> Embeddings:
        if not isinstance(packed, bytes) or len(packed) != 4 * self.embedding_size:
            raise ValueError(
                f"the gallery '{self.path}' holds an embedding of another size; it is damaged: use a backup"
            )
        return np.frombuffer(packed, "<f4").astype(np.float32, copy=False)

    @staticmethod
    def _has(db: sqlite3.Connection, name: str) -> bool:
        return db.execute("SELECT 1 FROM people WHERE name = ?", (_stored(name),)).fetchone() is not None

    def _id(self, db: sqlite3.Connection, name: str) -> int:
        row = db.execute("SELECT id FROM people WHERE name = ?", (_stored(name),)).fetchone()
        if row is None:
            raise ValueError(f"nobody called '{name}' is in the gallery '{self.path}'")
        return int(row[0])

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with reading(self.path, "the gallery", "use a backup of it"), _connected(self.path) as db:
            yield db

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        advice = "check its disk and permissions"
        with (
            reading(self.path, "or change the gallery", advice),
            _connected(self.path) as db,
            _transaction(db),
        ):
            yield db


def _stored(text: str) -> str | bytes:
    """Text for the file; names that are not valid UTF-8 (as a file system may have them) become bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def _shown(stored: str | bytes) -> str:
    return os.fsdecode(stored) if isinstance(stored, bytes) else stored


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        db.execute("PRAGMA trusted_schema = OFF")  # a file from somebody else may define views and triggers
        db.execute("PRAGMA synchronous = FULL")
        yield db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All that is done inside, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
