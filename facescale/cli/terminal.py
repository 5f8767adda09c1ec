"""Standard output and error of the commands: nothing printed acts on a terminal or ends a training."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from facescale.guard.shown import shown_lines


class Terminal(io.TextIOBase):
    """Prints control characters as escapes, and goes on in silence when its reader has gone (``| head``).

    Args:
        stream: what it prints to.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.raw_stream = stream

    def write(self, text: str) -> int:
        """Print ``text``."""
        self.write_raw(shown_lines(text))
        return len(text)

    def write_raw(self, text: str) -> None:
        """Print text of our own that moves the cursor."""
        try:
            self.raw_stream.write(text)
        except BrokenPipeError:
            self._silence()

    def flush(self) -> None:
        """Print what is buffered."""
        try:
            self.raw_stream.flush()
        except BrokenPipeError:
            self._silence()

    def _silence(self) -> None:
        """Print to nowhere from now on; else the interpreter reports the lost buffer when it ends."""
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), self.raw_stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return self.raw_stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """How the stream treats what it cannot encode."""
        return self.raw_stream.errors

    def fileno(self) -> int:
        """That of the stream."""
        return self.raw_stream.fileno()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self.raw_stream.isatty()

    def writable(self) -> bool:
        """It is."""
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw_stream, name)


class _Unescaped:
    """A terminal for what moves the cursor: a progress bar."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def write(self, text: str) -> int:
        self._terminal.write_raw(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)


def for_progress(stream: TextIO) -> TextIO:
    """The stream without escaping of control characters, for a progress bar."""
    return _Unescaped(stream) if isinstance(stream, Terminal) else stream  # type: ignore[return-value]


@contextmanager
def safe_terminal() -> Iterator[None]:
    """Let ``print`` and all else that writes to standard output and error go through `Terminal`."""
    before = sys.stdout, sys.stderr
    for stream in before:  # a file's name may hold letters that the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = Terminal(before[0]), Terminal(before[1])
    try:
        yield
    finally:
        for terminal in (sys.stdout, sys.stderr):
            terminal.flush()
        sys.stdout, sys.stderr = before
