"""How the loops are compiled: without the interpreter's lock, and kept between processes if possible.

Importing this needs numba.
"""

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that compiles a function at its first call, as ``numba.njit`` does.

    The machine code is kept in a folder beside the package, or in the user's cache. Where neither can be
    written (a container with a foreign user id), each process compiles for itself, which takes seconds.
    """

    def decorated(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # "cannot cache function ...: no locator available"
            return numba.njit(nogil=True, **options)(function)

    return decorated
