"""The commands. Each imports its dependencies when it runs, so that help is instant."""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from facescale.checksums import DamageWarning
from facescale.cli import (  # noqa: F401  (they register their commands)
    bench,
    clean,
    data,
    doctor,
    exporting,
    models,
    people,
    prepare,
    recipes,
    serving,
    training,
)
from facescale.cli.app import app
from facescale.cli.terminal import safe_terminal
from facescale.files import NoSpaceError, is_full_disk, no_space
from facescale.guard.failures import NoticeWarning, explained
from facescale.machine import Setting, tune

# Of options and arguments; some versions of typer bring their own copy of click.
_USAGE = typer.BadParameter.__mro__[2]
_SENTENCES = (DamageWarning, NoticeWarning)
_INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main() -> None:
    """Run a command; whatever fails is told in one sentence.

    The exit status is 2 where the user's input is wrong, 130 after Ctrl-C, and 1 for other failures.
    """
    chosen = tune()
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    for category in _SENTENCES:
        warnings.simplefilter("always", category)
    with safe_terminal():
        status = _run(chosen)
    sys.exit(status)


def _run(chosen: Sequence[Setting]) -> int:
    try:
        return int(app(standalone_mode=False, obj=chosen) or 0)
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort) as error:
        cause = error.__cause__
        return _told(cause) if isinstance(cause, EOFError) else _INTERRUPTED
    except Exception as error:
        if isinstance(error, _USAGE):
            error.show()  # type: ignore[attr-defined]
            return int(error.exit_code)  # type: ignore[attr-defined]
        return _told(no_space(_file_of(error)) if _is_raw_full_disk(error) else error)


def _told(error: Exception) -> int:
    """Print the sentence of an error; its exit status."""
    if os.environ.get("FACESCALE_TRACEBACK"):
        raise error
    sentence, status = explained(error)
    print(f"facescale: {sentence}", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any) -> None:
    """Print a sentence of ours as one; any other warning as Python does."""
    if issubclass(category, _SENTENCES):
        print(f"facescale: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, *rest[:2]), end="", file=sys.stderr)


def _is_raw_full_disk(error: Exception) -> bool:
    """Whether a write to some file that has no sentence of its own failed because the disk is full."""
    return is_full_disk(error) and not isinstance(error, NoSpaceError)


def _file_of(error: Exception) -> str:
    return str(getattr(error, "filename", None) or Path.cwd())
