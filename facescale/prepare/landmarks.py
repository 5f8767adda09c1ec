"""Files of landmarks, in place of a detector."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from facescale.guard.limits import LIST_BYTES
from facescale.guard.reading import read_text


def read_landmarks(path: Path) -> dict[str, tuple[npt.NDArray[np.float64], float]]:
    """Read a file of landmarks, as IJB's: lines of ``name x1 y1 ... x5 y5 [score]``.

    Values are separated by blanks, tabs or commas. A line without numbers before the first face is a header.

    Returns:
        Landmarks (5, 2) and score (1 where there is none) by name.

    Raises:
        ValueError: the file cannot be read, or a line is not of that form.
    """
    found: dict[str, tuple[npt.NDArray[np.float64], float]] = {}
    lines = read_text(path, "the landmarks", LIST_BYTES, "surrogateescape").splitlines()
    for number, line in enumerate(lines, 1):
        words = [word.strip() for word in line.split(",")] if "," in line else line.split()
        values = _trailing_numbers(words)
        if len(values) < 10 and not found and number == 1:
            continue
        if not words:
            continue
        if len(values) not in (10, 11):
            raise ValueError(
                f"'{path}' line {number} has {len(values)} numbers after the name; it must be: name x1 y1 ..."
                " x5 y5 [score]"
            )
        name = (", " if "," in line else " ").join(words[: len(words) - len(values)])
        found[name.removeprefix("./")] = (np.array(values[:10]).reshape(5, 2), (*values, 1.0)[10])
    if not found:
        raise ValueError(f"'{path}' holds no landmarks; its lines must be: name x1 y1 ... x5 y5 [score]")
    return found


def _trailing_numbers(words: list[str]) -> list[float]:
    """The last words that are numbers: all after the first, up to 11."""
    values: list[float] = []
    for word in reversed(words[1:][-11:]):
        try:
            values.append(float(word))
        except ValueError:
            break
    return values[::-1]
