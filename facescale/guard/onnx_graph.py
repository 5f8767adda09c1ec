"""Look over an ONNX file before it is run: no loops, no files but its own, a bounded graph.

An ONNX graph is a program. Loop and Scan repeat a part of it as often as the file says, and a tensor may be
kept in any other file that it names. Networks that embed faces need neither loops nor files elsewhere. The
file is walked as protobuf messages (onnx.proto3), so that neither onnx nor a copy of the weights is needed.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from facescale.guard.limits import ONNX_BYTES, ONNX_NODES
from facescale.guard.reading import check_file, reading
from facescale.guard.shown import brief

_REPEATS = (b"Loop", b"Scan", b"SequenceMap")
_DEPTH = 8  # of graphs within attributes of nodes

# Numbers of fields in onnx.proto3
_GRAPH, _FUNCTIONS = 7, 25  # of a model
_NODE, _INITIALIZER = 1, 5  # of a graph
_FUNCTION_NODE = 7
_OP_TYPE, _ATTRIBUTE = 4, 5  # of a node
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS = 5, 6, 10, 11  # of an attribute
_EXTERNAL = 13  # of a tensor: (key, value) pairs
_KEY, _VALUE = 1, 2


def check_onnx(path: str | os.PathLike[str]) -> None:
    """Refuse an ONNX file that could run without end or read other files.

    Raises:
        ValueError: no such file, not ONNX, a loop, a tensor kept outside of the folder, or a huge graph.
    """
    size = check_file(path, "the ONNX file", ONNX_BYTES)
    if not size:
        raise ValueError(f"cannot read the ONNX file '{path}': it is empty; get a complete copy of it")
    with (
        reading(path, "the ONNX file"),
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        _Walk(path, data).model(size)


class _Walk:
    """One look at a file.

    Args:
        path: the file, for messages.
        data: its bytes.
    """

    def __init__(self, path: str | os.PathLike[str], data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._num_nodes = 0

    def model(self, size: int) -> None:
        for number, start, stop in self._fields(0, size):
            if number == _GRAPH:
                self._graph(start, stop, 0)
            elif number == _FUNCTIONS:
                for inner, first, last in self._fields(start, stop):
                    if inner == _FUNCTION_NODE:
                        self._node(first, last, 0)

    def _graph(self, start: int, stop: int, depth: int) -> None:
        if depth > _DEPTH:
            raise self._refused("graphs within graphs, deeper than any network needs")
        for number, first, last in self._fields(start, stop):
            if number == _NODE:
                self._node(first, last, depth)
            elif number == _INITIALIZER:
                self._tensor(first, last)

    def _node(self, start: int, stop: int, depth: int) -> None:
        self._num_nodes += 1
        if self._num_nodes > ONNX_NODES:
            raise self._refused(f"more than {ONNX_NODES:,} nodes, the most that is read")
        for number, first, last in self._fields(start, stop):
            if number == _OP_TYPE and self._data[first:last] in _REPEATS:
                operation = self._data[first:last].decode()
                raise self._refused(f"a {operation} node, which may run without end")
            if number == _ATTRIBUTE:
                for inner, begin, end in self._fields(first, last):
                    if inner in (_SUBGRAPH, _SUBGRAPHS):
                        self._graph(begin, end, depth + 1)
                    elif inner in (_TENSOR, _TENSORS):
                        self._tensor(begin, end)

    def _tensor(self, start: int, stop: int) -> None:
        for number, first, last in self._fields(start, stop):
            if number != _EXTERNAL:
                continue
            entry = {inner: self._data[begin:end] for inner, begin, end in self._fields(first, last)}
            if entry.get(_KEY) == b"location":
                self._beside(os.fsdecode(entry.get(_VALUE, b"")))

    def _beside(self, name: str) -> None:
        """Weights beyond 2 GB are kept in a file beside it; elsewhere it could be any file of the machine."""
        if len(PurePosixPath(name).parts) != 1 or name in (".", "..") or "\\" in name or "\0" in name:
            raise self._refused(f"weights in {brief(name)}, which is not a file beside it")
        check_file(Path(self._path).parent / name, "the weights of the ONNX file")
        if (Path(self._path).parent / name).is_symlink():
            raise self._refused(f"weights in {brief(name)}, which is a link")

    def _refused(self, what: str) -> ValueError:
        return ValueError(f"the ONNX file '{self._path}' has {what}; export the network again, without it")

    def _fields(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(number, start, stop) of the fields of a message that have a length; others are passed over."""
        place = start
        while place < stop:
            tag, place = self._varint(place, stop)
            kind = tag & 7
            if kind == 0:
                _, place = self._varint(place, stop)
            elif kind == 2:
                length, place = self._varint(place, stop)
                if length > stop - place:
                    raise self._damaged()
                yield tag >> 3, place, place + length
                place += length
            elif kind in (1, 5):
                place += 8 if kind == 1 else 4
            else:
                raise self._damaged()
        if place != stop:
            raise self._damaged()

    def _varint(self, place: int, stop: int) -> tuple[int, int]:
        value = shift = 0
        while place < stop and shift < 70:
            byte = self._data[place]
            value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
            if byte < 128:
                return value, place
        raise self._damaged()

    def _damaged(self) -> ValueError:
        return ValueError(f"cannot read '{self._path}' as ONNX: it is damaged; get a complete copy of it")
