"""Rows in a file that may be larger than memory, and snapshots of what changed in it."""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facescale import kernels
from facescale.centres.disk_snapshot import record_bytes, starts
from facescale.centres.initial import InitialRows
from facescale.centres.layout import BLOCK, RowField, Rows, numbers
from facescale.centres.record_index import RecordNumbers
from facescale.files import Writing, naming_full_disk

# N rows of this process, R rows read at once


class _Bits:
    """N flags at one bit each."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._bytes = np.zeros((size + 7) // 8, np.uint8)

    def get(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(self._bytes[index >> 3] >> (index & 7).astype(np.uint8) & 1, bool)

    def set(self, index: np.ndarray) -> None:
        np.bitwise_or.at(self._bytes, index >> 3, np.left_shift(1, index & 7).astype(np.uint8))

    def clear(self) -> None:
        self._bytes[:] = 0

    def nonzero(self) -> np.ndarray:
        return np.flatnonzero(np.unpackbits(self._bytes, count=self.size, bitorder="little"))


def begins_compiled(fields: Sequence[RowField]) -> bool:
    """Whether a compiled loop makes the first records of rows."""
    return kernels.available() and fields[0].dtype is torch.float32


class DiskRows:
    """Rows in a file: a record per row, all planes side by side, so that a row is one access.

    Rows that were never trained have no record; they are computed (``InitialRows``). Records stand in the
    order in which rows were first written, so that those of one step are written at one go: a file system
    needs several times as long for the same records at places far apart (``RecordNumbers`` says which record
    is whose). They are read and written with preadv and pwritev. A memory map would do the same through page
    faults, but would count all that was ever touched as memory of this process. Two bits per row are in
    memory: written at all, and written since the last snapshot.

    The files are scratch: they mean nothing without this process. What lasts are snapshots (``save``), made
    of files that are never changed after they were written: the records that changed since the snapshot
    before, and hard links to the files of that one. A process killed at any moment leaves them whole.

    Args:
        num_rows: N.
        planes: what is kept per row; the first one is the row itself.
        directory: folder for the files, on the fastest disk; one per process.
        initial: values of rows that were never written.
        first_row: global number of local row 0.

    Raises:
        ValueError: this platform has no preadv (Windows), or more than 2^31 rows.
    """

    def __init__(
        self, num_rows: int, fields: Sequence[RowField], directory: Path, initial: InitialRows, first_row: int
    ) -> None:
        if not hasattr(os, "preadv"):
            raise ValueError("placement 'disk' needs a POSIX system; use placement 'host' here")
        if num_rows > 2**31:
            raise ValueError(f"{num_rows} rows on the disk of one process; it takes 2^31, use more processes")
        self.fields = tuple(fields)
        self._start = starts(fields)
        self.record_bytes = record_bytes(fields)
        self._initial = initial
        self._first_row = first_row
        self._written, self._changed = _Bits(num_rows), _Bits(num_rows)
        self._saved: list[Path] = []  # snapshot files so far, oldest first
        self._sequence = 0
        self._links = directory / "snapshots"
        shutil.rmtree(self._links, ignore_errors=True)
        self._links.mkdir(parents=True)
        self._file = os.open(directory / "rows.bin", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._loops = kernels.loops("records")  # what they leave undone is done in Python
        self._begins_compiled = begins_compiled(fields)
        self._numbers = RecordNumbers(directory / "numbers.bin", num_rows, partial(self._move, False))

    def close(self) -> None:
        """Give the files back; the rows are lost unless they were saved."""
        os.close(self._file)
        self._numbers.close()

    def new_buffer(self, num_rows: int) -> dict[str, Tensor]:
        """Tensors for ``num_rows`` rows, as ``read`` and ``write`` take them: views of one block."""
        record_RX = torch.zeros(num_rows, self.record_bytes, dtype=torch.uint8)
        views = {
            p.name: record_RX[:, start : start + p.bytes].view(p.dtype)
            for p, start in zip(self.fields, self._start, strict=False)
        }
        return {**views, "record": record_RX}

    def read(self, rows: Rows, buffer: dict[str, Tensor], at: Tensor | None = None) -> None:
        """Copy rows, and no others, into ``buffer``: to its first places, or to the places ``at``."""
        row_R = numbers(rows)
        at_R = np.arange(len(row_R)) if at is None else at.numpy()
        written_R = self._written.get(row_R)
        self._begin(row_R[~written_R], at_R[~written_R], buffer)
        number_R = self._numbers.of(row_R[written_R])
        self._move(False, self._file, number_R, at_R[written_R], buffer["record"].numpy())

    def _move(
        self, writing: bool, file: int, number_R: np.ndarray, at_R: np.ndarray, record_RX: np.ndarray
    ) -> None:
        """Records between a file and places ``at_R`` of ``record_RX``."""
        if not len(number_R):
            return
        size, raw = record_RX.shape[1], record_RX.data.cast("B")
        done = self._loops.move(file, writing, number_R, at_R, record_RX) if self._loops else 0
        move = _write_all if writing else _read_all
        for number, place in zip(number_R[done:].tolist(), at_R[done:].tolist(), strict=True):
            move(file, raw[place * size : (place + 1) * size], number * size)

    def _begin(self, row_R: np.ndarray, at_R: np.ndarray, buffer: dict[str, Tensor]) -> None:
        """First records of rows that were never written, to places ``at_R``."""
        record_RX, first = buffer["record"], self.fields[0]
        row_R = row_R + self._first_row
        if self._loops and self._begins_compiled:
            self._loops.begin(row_R, at_R, *self._initial.tables, record_RX.numpy())
            return
        for start in range(0, len(row_R), BLOCK):
            at = torch.from_numpy(at_R[start : start + BLOCK])
            record_RX.index_fill_(0, at, 0)
            values_RD = self._initial(torch.from_numpy(row_R[start : start + BLOCK]))
            buffer[first.name][at] = values_RD.to(first.dtype)

    def write(self, rows: Rows, buffer: dict[str, Tensor]) -> None:
        """Copy the first places of ``buffer`` to rows, and to no others."""
        row_R = numbers(rows)
        written_R = self._written.get(row_R)
        old_R, new_R = np.flatnonzero(written_R), np.flatnonzero(~written_R)
        number_R = np.concatenate(
            [self._numbers.of(row_R[old_R]), self._numbers.count + np.arange(len(new_R))]
        )
        with naming_full_disk(
            self._links, len(new_R) * self.record_bytes, f"class centres in {self._links.parent}"
        ):
            self._move(True, self._file, number_R, np.concatenate([old_R, new_R]), buffer["record"].numpy())
            self._numbers.add(row_R[new_R])
        self._written.set(row_R)
        self._changed.set(row_R)

    def count_records(self) -> tuple[int, int]:
        """Records in the files of a snapshot taken now, and rows that were ever written."""
        old = sum(len(np.load(path, mmap_mode="r")) for path in self._saved)
        return old + len(self._changed.nonzero()), len(self._written.nonzero())

    def save(self, folder: Path, rank: int, compact: bool) -> Writing:
        """Copy what changed into files of their own; writing is to link them into ``folder``.

        Args:
            folder: where; the same for all processes.
            rank: number of this process.
            compact: copy every row anew instead of linking to earlier files.
        """
        row_R = (self._written if compact else self._changed).nonzero()
        path = self._links / f"disk-{self._sequence:06d}-{rank:05d}.npy"
        with naming_full_disk(path, len(row_R) * (self.record_bytes + 8)):
            try:
                self._copy(row_R, path)
            except OSError:
                _delete(path)
                raise
        if compact:
            self._drop_saved()
        self._saved.append(path)
        self._sequence += 1
        self._changed.clear()
        files = [one for saved in self._saved for one in (saved, saved.with_suffix(".records"))]
        return Writing(path.stat().st_size, lambda: [_link(file, folder / file.name) for file in files])

    def _copy(self, row_R: np.ndarray, path: Path) -> None:
        """Write the numbers of rows to ``path``, their records to a file beside it."""
        buffer = self.new_buffer(min(len(row_R), BLOCK))
        with path.with_suffix(".records").open("wb") as file:
            for start in range(0, len(row_R), BLOCK):
                part = row_R[start : start + BLOCK]
                self.read(torch.from_numpy(part), buffer)
                file.write(_raw(buffer["record"][: len(part)]))
        np.save(path, row_R + self._first_row)

    def adopt(self, folder: Path, mine: bool) -> None:
        """Go on from a snapshot that was just loaded: its files are part of the next one.

        Args:
            folder: the snapshot.
            mine: this process links to the files (one process does so for all).
        """
        names = sorted(path.name for path in folder.glob("disk-*.npy"))
        self._drop_saved()
        self._changed.clear()
        self._sequence = 1 + max((int(name.split("-")[1]) for name in names), default=-1)
        for name in names if mine else []:
            for file_name in (name, Path(name).with_suffix(".records").name):
                _link(folder / file_name, self._links / file_name)
            self._saved.append(self._links / name)

    def _drop_saved(self) -> None:
        for path in self._saved:
            _delete(path)
        self._saved = []


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".records").unlink(missing_ok=True)


def _raw(records: Tensor) -> memoryview:
    """The bytes of a contiguous tensor."""
    return records.numpy().data.cast("B")


def _read_all(file: int, into: memoryview, offset: int) -> None:
    while len(into):
        done = os.preadv(file, (into,), offset)
        if done == 0:
            raise ValueError(
                "the file of class centres is shorter than it should be; restart from a checkpoint"
            )
        into, offset = into[done:], offset + done


def _write_all(file: int, values: memoryview, offset: int) -> None:
    while len(values):
        done = os.pwrite(file, values, offset)
        values, offset = values[done:], offset + done


def _link(source: Path, target: Path) -> Path:
    """Hard link, or copy where the two folders are on different disks; returns ``target``."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
