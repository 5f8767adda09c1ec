"""Read files that may be missing, damaged, too large or no files at all; every failure is one sentence."""

import json
import opcode
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facescale.guard.limits import FOLDER_DEPTH, JSON_BYTES
from facescale.guard.shown import shown

_RAISE = opcode.opmap["RAISE_VARARGS"]
_LONGEST = 200  # letters of a library's own text that are quoted
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_sentence(error: BaseException) -> bool:
    """Whether an error was raised by this package for the user, rather than by a library or by Python."""
    if not isinstance(error, ValueError):
        return False
    if type(error) is not ValueError:
        return type(error).__module__.startswith("facescale.")
    return error.__traceback__ is None or raised_here(error)


def raised_here(error: BaseException) -> bool:
    """Whether a ``raise`` of this package raised an error: ``int("x")`` in it raises one of Python's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code, name = trace.tb_frame.f_code, str(trace.tb_frame.f_globals.get("__name__"))
    return name.startswith("facescale.") and code.co_code[trace.tb_lasti] == _RAISE


def reason(error: BaseException) -> str:
    """Why something failed, on one line: what the system or a library says, without its details."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start:,} is not UTF-8 text"
    text = str(error).strip().partition("\n")[0]
    if text.startswith("Exceeds the limit ("):  # of Python, with advice for programmers
        return "it has a number of thousands of digits"
    return shown(text[:_LONGEST]) if text else type(error).__name__


@contextmanager
def reading(
    path: str | os.PathLike[str], what: str, advice: str = "get a complete copy of it"
) -> Iterator[None]:
    """Turn whatever a library raises while it reads a file into a sentence.

    Args:
        path: of the file.
        what: it is, such as "the weights".
        advice: what to do about a file that cannot be read.

    Raises:
        ValueError: reading failed; the one raised inside, where that is a sentence already.
    """
    try:
        yield
    except Exception as error:  # libraries raise nearly anything on damaged files
        if is_sentence(error):
            raise
        raise ValueError(f"cannot read {what} '{path}': {reason(error)}; {advice}") from error


def check_file(path: str | os.PathLike[str], what: str, most: int | None = None) -> int:
    """The size of a regular file in bytes. Opening a pipe would wait for its writer, a device may never end.

    Raises:
        ValueError: no such file, no regular file, or larger than ``most`` bytes.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {what} '{path}': {reason(error)}; check the path") from None
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ValueError(f"cannot read {what} '{path}': it is {kind}, not a file; give a regular file")
    if most is not None and status.st_size > most:
        raise ValueError(
            f"cannot read {what} '{path}': it has {status.st_size:,} bytes, and {most:,} are the most"
            " that is read; give a smaller file"
        )
    return status.st_size


def check_depth(root: os.PathLike[str], below: str, advice: str) -> None:
    """Check that a folder, by its path below ``root``, is not too deep to go on.

    Args:
        root: where the search began.
        below: the folder, with forward slashes.
        advice: what to do about deep folders.

    Raises:
        ValueError: it is.
    """
    if below.count("/") >= FOLDER_DEPTH:
        raise ValueError(
            f"'{root}' has more than {FOLDER_DEPTH} folders within folders, such as '{below[:80]}...'; "
            f"{advice}"
        )


def read_bytes(path: str | os.PathLike[str], what: str, most: int) -> bytes:
    """All bytes of a regular file.

    Raises:
        ValueError: as `check_file`, or the file cannot be read.
    """
    check_file(path, what, most)
    with reading(path, what, "check the file and its permissions"), open(path, "rb", buffering=0) as file:
        return file.read()


def read_text(path: str | os.PathLike[str], what: str, most: int, errors: str = "strict") -> str:
    """The text of a UTF-8 file, whatever the locale; a byte-order mark is left out.

    Raises:
        ValueError: as `read_bytes`, or not UTF-8.
    """
    data = read_bytes(path, what, most)
    with reading(path, what, "save it as UTF-8"):
        return data.decode("utf-8-sig", errors)


def parse_json(text: str, path: str | os.PathLike[str], what: str) -> Any:
    """The value of a JSON text that stands in a file.

    Raises:
        ValueError: not JSON.
    """
    with reading(path, what, "it is damaged: get a complete copy of it"):
        return json.loads(text)


def read_object(
    path: Path, what: str, *keys: str, advice: str = "it is damaged: get a complete copy of it"
) -> dict[str, Any]:
    """The object of a JSON file that this package wrote, which must have ``keys``.

    Args:
        path: the file.
        what: it is.
        keys: that it must have.
        advice: what to do if it is missing or damaged.

    Raises:
        ValueError: no such file, too large, not JSON, or something else than an object with these keys.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > JSON_BYTES:
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "too large")
            raise ValueError(f"cannot read {what} '{path}': it is {kind}; {advice}")
        value = json.loads(path.read_bytes())
    except Exception as error:
        if is_sentence(error):
            raise
        raise ValueError(f"cannot read {what} '{path}': {reason(error)}; {advice}") from None
    if not isinstance(value, dict) or any(key not in value for key in keys):
        raise ValueError(f"cannot read {what} '{path}': it has no {', '.join(keys) or 'object'}; {advice}")
    return value
