"""Find the photos below a folder, and whose they are: by folder, by a pattern in the path, or by a CSV."""

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from facescale.data.readers.pictures import is_system_folder
from facescale.guard.limits import LIST_BYTES
from facescale.guard.reading import check_depth, read_text, reading
from facescale.guard.shown import from_csv_cell
from facescale.prepare.photos import is_photo
from facescale.registry import nearest

# Why a file or folder is passed over.
SYSTEM, LINK, SPECIAL = "hidden or system file", "link", "pipe, socket or device"
NO_FOLDER = "outside of identity folders"
NO_MATCH, NOT_IN_CSV, NOT_ON_DISK = "path does not match the pattern", "not in the CSV", "in the CSV only"

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Source:
    """A file that may be a photo.

    Attributes:
        key: path below the root, with forward slashes.
        identity: whom it shows.
    """

    key: str
    identity: str


@dataclass(frozen=True)
class Scan:
    """What lies below a folder.

    Attributes:
        sources: files to open, in the order of their paths.
        passed_over: path -> reason of everything else.
    """

    sources: list[Source]
    passed_over: dict[str, str]


def scan(root: Path, *, pattern: str | None = None, labels: Path | None = None) -> Scan:
    """List the files below ``root`` with their identities.

    Args:
        root: folder of photos.
        pattern: regular expression; its first group, matched from the start of the path below ``root``, is
            the identity. Without it (and without ``labels``) the folder that holds a photo is the identity.
        labels: CSV with the columns ``path`` (below ``root``) and ``identity``.

    Raises:
        ValueError: no such folder, no file in it, a pattern or CSV that cannot be used, a folder that holds
            photos and identity folders.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise ValueError(f"'{root}' {what}; give the folder that holds the photos")
    if pattern and labels:
        raise ValueError("both a pattern and a CSV would name the identities; give one of them")
    passed: dict[str, str] = {}
    with reading(root, "the photos", "check the folder and its permissions"):
        keys = sorted(_files(root, "", passed))
    if not keys:
        raise ValueError(f"'{root}' holds no files; give the folder that holds the photos")
    if labels:
        sources = _by_csv(keys, _read_csv(labels), passed)
    elif pattern:
        sources = _by_pattern(keys, _compiled(pattern), passed)
    else:
        sources = _by_folder(root, keys, passed)
    if not sources:
        reason = next(iter(sorted(set(passed.values()))))
        raise ValueError(
            f"no file of '{root}' belongs to an identity ({reason}); make one folder per identity, or give a"
            " pattern or a CSV"
        )
    return Scan(sources, dict(sorted(passed.items())))


def _files(root: Path, below: str, passed: dict[str, str]) -> Iterator[str]:
    check_depth(root, below, "move the photos up")
    with os.scandir(root / below) as entries:
        for entry in entries:
            key = f"{below}/{entry.name}" if below else entry.name
            if _is_system(entry.name):
                passed[key] = SYSTEM
            elif entry.is_symlink():
                passed[key] = LINK  # it may lead outside of the root, or round in a circle
            elif entry.is_dir():
                yield from _files(root, key, passed)
            elif entry.is_file():
                yield key
            else:
                passed[key] = SPECIAL  # opening a pipe would wait for its writer


def _is_system(name: str) -> bool:
    return name.startswith(".") or is_system_folder(name) or name.lower() in _SYSTEM_FILES


def _by_folder(root: Path, keys: list[str], passed: dict[str, str]) -> list[Source]:
    sources = []
    for key in keys:
        folder = key.rpartition("/")[0]
        if folder:
            sources.append(Source(key, folder))
        else:
            passed[key] = NO_FOLDER
    members: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        members[source.identity].append(source.key)
    for folder in sorted(members):
        for parent in map(str, PurePosixPath(folder).parents):
            if any(is_photo(root / key) for key in members.get(parent, [])):
                raise ValueError(
                    f"'{root / parent}' holds photos and the folder '{folder}', so an identity cannot be told"
                    " from an album; for the first folder of a path, pass --identity '([^/]+)/'"
                )
    return sources


def _by_pattern(keys: list[str], pattern: re.Pattern[str], passed: dict[str, str]) -> list[Source]:
    sources = []
    for key in keys:
        found = pattern.match(key)
        if found and found[1]:
            sources.append(Source(key, found[1]))
        else:
            passed[key] = NO_MATCH
    return sources


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the pattern '{pattern}' is not a regular expression: {error}") from None
    if not compiled.groups:
        raise ValueError(
            f"the pattern '{pattern}' has no group; put the identity in parentheses, such as '(.+)_[0-9]+'"
        )
    return compiled


def _by_csv(keys: list[str], identities: dict[str, str], passed: dict[str, str]) -> list[Source]:
    sources = []
    for key in keys:
        if key in identities:
            sources.append(Source(key, identities[key]))
        else:
            passed[key] = NOT_IN_CSV
    passed.update(dict.fromkeys(identities.keys() - set(keys) - passed.keys(), NOT_ON_DISK))
    return sources


def _read_csv(path: Path) -> dict[str, str]:
    """Identity by path.

    Raises:
        ValueError: unreadable, a column missing, an empty identity, a path with two identities.
    """
    identities: dict[str, str] = {}
    text = read_text(path, "the CSV", LIST_BYTES, "surrogateescape")
    with reading(path, "the CSV", "save it as a CSV with the columns path and identity"):
        rows = csv.DictReader(io.StringIO(text, newline=""))
        columns = rows.fieldnames or []
        for column in ("path", "identity"):
            if column not in columns:
                raise ValueError(
                    f"'{path}' has no column '{column}'{nearest(column, columns)}; its first line must"
                    f" name path and identity, it has: {', '.join(columns) or 'nothing'}"
                )
        for row in rows:
            # A short row has None in place of its missing values.
            key = _tidy(from_csv_cell(row["path"] or ""))
            identity = from_csv_cell(row["identity"] or "").strip()
            if not identity:
                raise ValueError(f"'{path}' line {rows.line_num}: '{key}' has no identity; fill it in")
            if identities.setdefault(key, identity) != identity:
                raise ValueError(
                    f"'{path}' line {rows.line_num}: '{key}' is '{identity}' and '{identities[key]}';"
                    " keep one"
                )
    return identities


def _tidy(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")
