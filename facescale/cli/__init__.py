"""The commands. Each imports its dependencies when it runs, so that help is instant."""

import io
import os
import sys

from facescale.cli import bench, data, exporting, models, people, prepare, training  # noqa: F401  (they register their commands)
from facescale.cli.app import app
from facescale.machine import tune


def main() -> None:
    """Run a command. User errors print one sentence and exit with 2; internal failures exit with 1."""
    tune()
    for stream in (sys.stdout, sys.stderr):  # a file's name may hold bytes that the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (ValueError, FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError) as error:
        _fail(error, 2)
    except (RuntimeError, OSError) as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: Exception, code: int) -> None:
    if os.environ.get("FACESCALE_TRACEBACK"):
        raise error
    print(f"facescale: {error}", file=sys.stderr)
    sys.exit(code)
