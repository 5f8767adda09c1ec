"""The commands. Each imports its dependencies when it runs, so that help is instant."""

import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from facescale.checksums import DamageWarning
from facescale.cli import bench, data, exporting, models, people, prepare, recipes, serving, training  # noqa: F401  (they register their commands)
from facescale.cli.app import app
from facescale.files import NoSpaceError, is_full_disk, no_space
from facescale.machine import tune


def main() -> None:
    """Run a command. User errors print one sentence and exit with 2; internal failures exit with 1."""
    tune()
    for stream in (sys.stdout, sys.stderr):  # a file's name may hold bytes that the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    warnings.simplefilter("always", DamageWarning)
    try:
        app()
    except (ValueError, FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError) as error:
        _fail(error, 2)
    except (RuntimeError, OSError) as error:
        _fail(no_space(_file_of(error)) if _is_raw_full_disk(error) else error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any) -> None:
    """Print a sentence of ours as one; any other warning as Python does."""
    if issubclass(category, DamageWarning):
        print(f"facescale: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, *rest[:2]), end="", file=sys.stderr)


def _is_raw_full_disk(error: Exception) -> bool:
    """Whether a write to some file that has no sentence of its own failed because the disk is full."""
    return is_full_disk(error) and not isinstance(error, NoSpaceError)


def _file_of(error: Exception) -> str:
    return str(getattr(error, "filename", None) or Path.cwd())


def _fail(error: Exception, code: int) -> None:
    if os.environ.get("FACESCALE_TRACEBACK"):
        raise error
    print(f"facescale: {error}", file=sys.stderr)
    sys.exit(code)
