"""Write a file atomically: a reader sees the old file or the whole new one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends, the file written there becomes ``path``.

    A reader (or a crash, or an error inside the block) sees either the old file or the whole new one. Missing
    parent folders are made. The temporary name keeps the suffix, as some writers choose the format by it.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
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
        raise type(error)(error.errno, error.strerror, str(path)) from None  # the name that the user knows
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


def one_line(name: str) -> str:
    """A file's name for a file of lines and tabs: line ends, tabs and backslashes as escapes."""
    return name.replace("\\", r"\\").replace("\n", r"\n").replace("\r", r"\r").replace("\t", r"\t")


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that a reader (or a crash) sees either the old file or the whole new one."""
    with replacing(path) as temporary:
        temporary.write_text(text)
