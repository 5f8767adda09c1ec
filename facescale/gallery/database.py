"""The SQLite file of a gallery: its tables, connections, transactions, and the log of who changed."""

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

APPLICATION = 0x46414345  # "FACE", in the header of the file
_CHANGES = "CREATE TABLE changes (number INTEGER PRIMARY KEY, token TEXT NOT NULL, person INTEGER NOT NULL)"
TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE faces (id INTEGER PRIMARY KEY, person INTEGER NOT NULL REFERENCES people (id),"
    " key TEXT NOT NULL, quality REAL NOT NULL, embedding BLOB NOT NULL, UNIQUE (person, key))",
    "CREATE INDEX faces_of_person ON faces (person)",
)
_LOGGED = 100_000  # changes that are remembered; an index that missed more is built anew


@dataclass(frozen=True)
class State:
    """Which version of a gallery: two files with the same state have the same people.

    Attributes:
        number: of the last change.
        token: random, so that a copy which was changed in another way has another state.
    """

    number: int
    token: str


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that is closed at the end of the block."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        db.execute("PRAGMA trusted_schema = OFF")  # a file from somebody else may define views and triggers
        db.execute("PRAGMA synchronous = FULL")
        yield db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All that is done inside, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def check_tables(db: sqlite3.Connection, path: Path) -> None:
    """A view in place of a table could compute without end, a trigger change what is enrolled.

    Raises:
        ValueError: the file has other tables than a gallery.
    """
    made = sorted(str(sql) for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    if made not in (sorted(TABLES), sorted([*TABLES, _CHANGES])):
        raise ValueError(f"the gallery '{path}' has other tables than a gallery; use a backup of it")


def log_change(db: sqlite3.Connection, people: Iterable[int]) -> None:
    """Remember whose template changed, within the transaction that changes it."""
    last = state_of(db)
    db.execute(_CHANGES.replace("TABLE", "TABLE IF NOT EXISTS", 1))
    first = last.number + 1 if last else 1
    rows = [(number, secrets.token_hex(8), person) for number, person in enumerate(people, first)]
    db.executemany("INSERT INTO changes VALUES (?, ?, ?)", rows)
    db.execute("DELETE FROM changes WHERE number <= ?", (rows[-1][0] - _LOGGED,))


def state_of(db: sqlite3.Connection) -> State | None:
    """The last change, or None where none was ever logged."""
    if not _has_log(db):
        return None
    row = db.execute("SELECT number, token FROM changes ORDER BY number DESC LIMIT 1").fetchone()
    return State(*row) if row else None


def changed_since(db: sqlite3.Connection, state: State) -> set[int] | None:
    """Numbers of the people who changed since then; None where the log does not know that state."""
    if not _has_log(db):
        return None
    found = db.execute("SELECT token FROM changes WHERE number = ?", (state.number,)).fetchone()
    if found is None or found[0] != state.token:
        return None
    rows = db.execute("SELECT DISTINCT person FROM changes WHERE number > ?", (state.number,))
    return {person for (person,) in rows}


def _has_log(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'changes'").fetchone() is not None


def stored(text: str) -> str | bytes:
    """Text for the file; names that are not valid UTF-8 (as a file system may have them) become bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def shown(text: str | bytes) -> str:
    """The opposite of `stored`."""
    return os.fsdecode(text) if isinstance(text, bytes) else text
