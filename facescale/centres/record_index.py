"""Which record belongs to which row."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facescale.pools import EMPTY, SlotTable

# R rows, P places of the table

_Read = Callable[[int, np.ndarray, np.ndarray, np.ndarray], None]
RECENT = 1 << 17  # numbers in memory
_TYPE = np.int32
NUMBER_BYTES = 4  # of the file, per row
_BLOCK = 1 << 14  # rows whose numbers are read and written together
_FEW = 16  # rows of a block that are sooner written one by one


def table_bytes(num_rows: int) -> int:
    """Memory that ``RecordNumbers`` takes; from RECENT rows on it is the same for any number."""
    places = min(RECENT, max(num_rows, 1)) + 1
    return places * 8 + SlotTable.bytes_for(places)


class RecordNumbers:
    """Numbers 0, 1, 2, ... for rows in the order in which they are added.

    They stand in a sparse file, four bytes a row, so that memory does not follow the number of rows. The
    latest ones are in a table in memory: written row by row they would take as long as their records; many
    at once are written block by block.

    Args:
        path: the file.
        num_rows: of this process.
        read: reads records, which here are numbers: (file, number of each, places, bytes (places, 4)).
        recent: how many numbers the table holds.
    """

    def __init__(self, path: Path, num_rows: int, read: _Read, recent: int = RECENT) -> None:
        self._num_rows, self._read, recent = num_rows, read, min(recent, max(num_rows, 1))
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        os.ftruncate(self._file, num_rows * NUMBER_BYTES)
        self.count = 0  # numbers given so far
        self._lock = threading.Lock()  # rows are read on one thread while others are written on another
        self._row_P = np.full(recent + 1, EMPTY, np.int64)  # the rows of the last ``_pending`` numbers
        self._table, self._pending = SlotTable(self._row_P), 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def of(self, row_R: np.ndarray) -> np.ndarray:
        """Numbers, int64 (R,), of rows that have one."""
        with self._lock:
            place_R = self._table.find(row_R)
            number_R = place_R + (self.count - self._pending)
        older = np.flatnonzero(place_R == EMPTY)
        in_file_R1 = np.empty((len(older), 1), _TYPE)
        self._read(self._file, row_R[older], np.arange(len(older)), in_file_R1.view(np.uint8))
        number_R[older] = in_file_R1[:, 0]
        return number_R

    def add(self, row_R: np.ndarray) -> None:
        """Give rows that have none the next numbers."""
        most = len(self._row_P) - 1
        for start in range(0, len(row_R), most):
            part_R = row_R[start : start + most]
            with self._lock:
                if self._pending + len(part_R) > most:
                    self._write_out()
                places = np.arange(self._pending, self._pending + len(part_R))
                self._row_P[places] = part_R
                self._table.insert(places)
                self._pending += len(part_R)
                self.count += len(part_R)

    def _write_out(self) -> None:
        """Empty the table into the file."""
        row_P, whole_bytes = self._row_P[: self._pending], _BLOCK * NUMBER_BYTES
        order = np.argsort(row_P)
        row_R, number_R = row_P[order], (order + self.count - self._pending).astype(_TYPE)
        blocks, starts = np.unique(row_R // _BLOCK, return_index=True)
        for block, start, stop in zip(blocks.tolist(), starts, [*starts[1:], len(row_R)], strict=True):
            rows, numbers = row_R[start:stop], number_R[start:stop]
            if len(rows) <= _FEW:
                for row, number in zip(rows.tolist(), numbers, strict=True):
                    os.pwrite(self._file, number.tobytes(), row * NUMBER_BYTES)
                continue
            whole = np.empty(min(_BLOCK, self._num_rows - block * _BLOCK), _TYPE)
            os.preadv(self._file, (whole.data,), block * whole_bytes)
            whole[rows - block * _BLOCK] = numbers
            os.pwrite(self._file, whole.data, block * whole_bytes)
        row_P[:] = EMPTY
        self._pending = 0
