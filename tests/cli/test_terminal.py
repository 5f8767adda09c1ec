"""What is printed neither acts on a terminal nor ends a training; each failure is a sentence and a status."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from facescale.cli.progress import Display
from facescale.cli.terminal import Terminal, for_progress

MODULE = [sys.executable, "-m", "facescale"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


def test_control_characters_are_printed_as_escapes_and_ours_are_not() -> None:
    raw = io.StringIO()
    terminal = Terminal(raw)
    print("a\x1b[2Jb\rc\nd", file=terminal)
    for_progress(terminal).write("\x1b[1A")  # type: ignore[arg-type]
    assert raw.getvalue() == "a\\x1b[2Jb\\rc\nd\n\x1b[1A"


def test_a_name_with_control_characters_does_not_reach_the_terminal(facescale) -> None:  # type: ignore[no-untyped-def]
    code, out, err = facescale("train", "x\x1b[31m\r.toml")
    assert (code, out) == (2, "")
    assert err.startswith("facescale: cannot read the config 'x\\x1b[31m\\r.toml': No such file")


class Refuses(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    flush = lambda self: self.write("")  # noqa: E731

    def fileno(self) -> int:
        return self.file


def test_a_reader_that_went_away_is_not_missed(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        raw = Refuses()
        raw.file = file.fileno()
        terminal = Terminal(raw)
        print("hello", file=terminal, flush=True)
        os.write(file.fileno(), b"what the interpreter flushes at its end")
    assert (tmp_path / "out").read_bytes() == b""


def test_a_command_whose_reader_goes_away_ends_quietly() -> None:
    with subprocess.Popen(
        [*MODULE, "config", "--explain"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as command:
        assert command.stdout and command.stderr
        command.stdout.close()
        assert command.stderr.read() == b""
        assert command.wait() == 0


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (KeyboardInterrupt(), 130, ""),
        (EOFError(), 1, "facescale: an internal step failed (EOFError: EOFError); set FACESCALE_TRACEBACK=1"),
        (
            OSError(30, "Read-only file system", "r/x"),
            1,
            "facescale: cannot use 'r/x': Read-only file system; it",
        ),
        (FileExistsError(17, "File exists", "r"), 2, "facescale: cannot use 'r': File exists"),
        (
            RuntimeError("[enforce fail] x\nat y"),
            1,
            "facescale: an internal step failed (RuntimeError: [enforce",
        ),
        (KeyError("x"), 1, "facescale: an internal step failed (KeyError: 'x')"),
    ],
)
def test_whatever_fails_is_told_in_one_sentence(
    facescale, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, sentence: str
) -> None:  # type: ignore[no-untyped-def]
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("facescale.cli.listing.as_text", fails)
    code, out, err = facescale("list", "heads")
    assert (code, out) == (status, "")
    assert err.strip().startswith(sentence) and "\n" not in err.strip() and "Aborted" not in err


def test_a_path_is_printed_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from facescale.run import RunDir
    from facescale.train import Result

    result = Result(RunDir(tmp_path / "[bold]a[/b]"), 3, True, {})
    Display(True).finish(result)
    assert capsys.readouterr().out == f"trained 3 steps; the run is in {tmp_path}/[bold]a[/b]\n"
