"""The commands. Each imports what it needs when it runs, so that help is instant."""

import os
import sys

from facescale.cli import bench, data, models, training  # noqa: F401  (they register their commands)
from facescale.cli.app import app
from facescale.machine import tune


def main() -> None:
    """Run a command; a user's mistake becomes a sentence and exit code 2, a failure of ours 1."""
    tune()
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
