"""Write a file atomically: a reader sees the old file or the whole new one; a full disk is named."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from facescale.guard.shown import escaped

# What libraries say of a full disk instead of passing on the error: safetensors, NumPy.
_FULL = re.compile(r"No space left on device|os error (28|122)\b|\d+ requested and \d+ written")
_AGAIN = "free space there and run the same command again"

_UNFINISHED = re.compile(r"\.([1-9]\d{0,8})\..+", re.DOTALL)  # as ``replacing`` names it


class NoSpaceError(OSError):
    """A disk is full; the message names it, the file, and the bytes that are missing."""


@dataclass(frozen=True)
class Writing:
    """Files that can be written at any time: all that goes into them is fixed.

    Attributes:
        num_bytes: how much it is, about.
        write: writes them and returns their paths.
    """

    num_bytes: int
    write: Callable[[], list[Path]]


def is_full_disk(error: BaseException) -> bool:
    """Whether a write failed because the disk is full or the quota used up."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or _FULL.search(str(error)) is not None


def no_space(path: str | Path, needed: int = 0, what: str = "", then: str = _AGAIN) -> NoSpaceError:
    """The error of a full disk.

    Args:
        path: what was to be written; what there is of it should be deleted before this call.
        needed: its bytes; 0: unknown.
        what: how to call it; by default its path.
        then: what to do.
    """
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    while not place.is_mount():
        place = place.parent
    if needed > free:
        missing = f"{_size(needed - free)} are missing ({_size(needed)} needed, {_size(free)} free)"
    else:
        missing = f"it takes more than is free ({_size(free)})"
    named = what or f"'{path}'"
    return NoSpaceError(f"no space left on the disk at {place} for {named}: {missing}; {then}")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes} bytes"


@contextmanager
def naming_full_disk(path: str | Path, needed: int = 0, what: str = "") -> Iterator[None]:
    """Turn the error of a full disk inside the block, whichever library tells it, into ``no_space``."""
    try:
        yield
    except NoSpaceError:
        raise
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise no_space(path, needed, what) from None


@contextmanager
def replacing(path: str | Path, needed: int = 0) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends, the file written there becomes ``path``.

    A reader (or a crash, or an error inside the block) sees either the old file or the whole new one. Missing
    parent folders are made. The temporary name keeps the suffix, as some writers choose the format by it.

    Args:
        path: the file.
        needed: its bytes, for the message of a full disk; 0: unknown.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with naming_full_disk(path, needed):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # else a crash may leave an empty file under the new name
            follow_umask(temporary)
            temporary.replace(path)
        except OSError as error:
            if error.filename is None or Path(error.filename) not in (temporary, path.parent):
                raise
            raise type(error)(
                error.errno, error.strerror, str(path)
            ) from None  # the name that the user knows
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def require_writable(path: Path, advice: str) -> None:
    """Find out before hours of work whether ``path`` can be written; what is there stays as it is.

    Args:
        path: a file, there already or not.
        advice: what to do if not.

    Raises:
        ValueError: it cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise ValueError(f"cannot write '{path}' ({error.strerror}); {advice}") from None


def follow_umask(path: Path) -> None:
    """Give a file the mode that the umask asks for (safetensors makes its files private)."""
    mask = os.umask(0o077)  # what another thread creates just now is private rather than public
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def put_on_disk(path: Path) -> None:
    """Wait until a file's content, or the entries of a folder, would survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def one_line(name: str) -> str:
    """A file's name for a file of lines and tabs: control characters and backslashes as escapes."""
    return escaped(name.replace("\\", r"\\"))


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that a reader (or a crash) sees either the old file or the whole new one."""
    with replacing(path, len(text)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_unfinished(folder: Path) -> None:
    """Delete what ``replacing`` left in a folder when its process was killed; a living one keeps its own."""
    for path in folder.glob(".*"):
        found = _UNFINISHED.fullmatch(path.name)
        if found and not _lives(int(found[1])):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
