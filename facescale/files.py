"""Write a file atomically: a reader sees the old file or the whole new one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facescale.guard.shown import escaped


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends, the file written there becomes ``path``.

    A reader (or a crash, or an error inside the block) sees either the old file or the whole new one. Missing
    parent folders are made. The temporary name keeps the suffix, as some writers choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # else a crash may leave an empty file under the new name
        follow_umask(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def follow_umask(path: Path) -> None:
    """Give a file the mode that the umask asks for (safetensors makes its files private)."""
    mask = os.umask(0o077)  # what another thread creates just now is private rather than public
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def one_line(name: str) -> str:
    """A file's name for a file of lines and tabs: control characters and backslashes as escapes."""
    return escaped(name.replace("\\", r"\\"))


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that a reader (or a crash) sees either the old file or the whole new one."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
