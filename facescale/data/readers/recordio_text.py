"""The numbers of an .idx file (lines "key<TAB>offset"), a block of lines at a time.

Lines of one length that follow each other are a matrix of digits, so ten million lines take half a second and
no more memory than their numbers. Files of another form are left to NumPy's slower reader.
"""

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray
from facescale.data.readers.recordio_words import Keys, continued
from facescale.guard.limits import INDEX_BYTES
from facescale.guard.reading import check_file

_BLOCK = 1 << 22  # bytes read at a time
_MOST_RUNS = 64  # of lines of one length in a block; more are not worth it
_MOST_DIGITS = 15  # float64 is exact up to here
_ZERO, _TAB, _RETURN = ord("0"), ord("\t"), ord("\r")


def index_numbers(path: Path) -> tuple[Keys, IntArray]:
    """Keys and offsets in the order of the lines; keys that count up by one are a range.

    Raises:
        ValueError: not lines of two integers.
    """
    check_file(path, "the index", INDEX_BYTES)
    num_lines = sum(block.count(b"\n") for block in _blocks(path))
    offsets = np.empty(num_lines, np.int64)
    keys: Keys = range(0)
    done = 0
    for block in _blocks(path):
        numbers = _numbers(block)
        if numbers is None or done + len(numbers) > num_lines:
            return _by_numpy(path)
        stop = done + len(numbers)
        offsets[done:stop] = numbers[:, 1]
        keys = continued(keys, numbers[:, 0].astype(np.int64), done, num_lines)
        done = stop
    if done < num_lines or not num_lines:
        return _by_numpy(path)
    return keys, offsets


def _blocks(path: Path) -> Iterator[bytes]:
    """The file in parts that end with a line's end; a last line without one gets one."""
    rest = b""
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            lines, found, tail = block.rpartition(b"\n")
            if found:
                yield rest + lines + found
                rest = tail
            else:
                rest += block
    if rest:
        yield rest + b"\n"


def _numbers(block: bytes) -> npt.NDArray[np.float64] | None:
    """Both numbers of each line, (N, 2); None if the lines are not of the usual form."""
    letters = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(letters == ord("\n"))
    lengths = np.diff(ends, prepend=-1)
    breaks = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]
    if len(breaks) > _MOST_RUNS:
        return None
    numbers = np.empty((len(lengths), 2))
    for first, stop in itertools.pairwise(breaks):
        length = int(lengths[first])
        end = int(ends[stop - 1]) + 1
        line_NL = letters[end - (stop - first) * length : end].reshape(stop - first, length)
        if not _parse(line_NL, numbers[first:stop]):
            return None
    return numbers


def _parse(line_NL: npt.NDArray[np.uint8], numbers: npt.NDArray[np.float64]) -> bool:
    """Fill in the numbers of lines of one length; whether they are two numbers with a tab between."""
    tabs = np.flatnonzero(line_NL[0] == _TAB)
    if len(tabs) != 1:
        return False
    tab, end = int(tabs[0]), line_NL.shape[1] - 1
    if end and line_NL[0, end - 1] == _RETURN:
        end -= 1
    if not (line_NL[:, tab] == _TAB).all() or not (line_NL[:, end:-1] == _RETURN).all():
        return False
    for place, digits in enumerate((line_NL[:, :tab], line_NL[:, tab + 1 : end])):
        if not 1 <= digits.shape[1] <= _MOST_DIGITS:
            return False
        value = digits - np.uint8(_ZERO)
        if value.max() > 9:  # letters below "0" wrap round to large numbers
            return False
        numbers[:, place] = value.astype(np.float64) @ 10.0 ** np.arange(digits.shape[1] - 1, -1, -1)
    return True


def _by_numpy(path: Path) -> tuple[IntArray, IntArray]:
    """Any text of integers, as NumPy reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # what NumPy says of text that is not a number
        try:
            numbers = np.fromstring(path.read_text("ascii"), np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            numbers = np.empty(0, np.int64)
    if not numbers.size or numbers.size % 2:
        raise ValueError(f"'{path}' is not an index (lines of key and offset); remove it to have it rebuilt")
    return numbers[0::2], numbers[1::2]
