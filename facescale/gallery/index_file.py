"""The file of an index, in the layout of safetensors: fp16 templates, codes, and whose they are."""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray
from facescale.files import replacing
from facescale.gallery import codes as short
from facescale.gallery.codes import Codes, Floats
from facescale.gallery.database import State
from facescale.gallery.gallery import Gallery
from facescale.guard.limits import CARD_BYTES
from facescale.guard.reading import check_file, reading

# P people, d embedding size, M parts of a code

Mapped = np.memmap[Any, np.dtype[Any]]
Half = npt.NDArray[np.float16]
Mode: TypeAlias = Literal["r", "r+"]
_FORMAT = "facescale index 1"
_BLOCK = 8192  # people in memory while an index is made
_AGAIN = "make it again with: facescale gallery index"
_TYPES = {"row": ("F16", "<f2"), "person": ("I64", "<i8"), "code": ("U8", "u1"), "centroid": ("F32", "<f4")}


@dataclass(frozen=True)
class IndexFile:
    """What an index file holds.

    Attributes:
        fingerprint: of the model that the gallery belongs to.
        state: of the gallery that it was made from.
        row_PD: templates; pages of the file, read when used.
        person_P: their numbers in the gallery.
        code_PM: codes (P, M / 2).
        centroid: (M, 16, 4).
    """

    fingerprint: str
    state: State
    row_PD: Half
    person_P: IntArray
    code_PM: Codes
    centroid: Floats


def path_of(gallery: Path) -> Path:
    """Where the index of a gallery is: beside it."""
    return gallery.with_name(gallery.name + ".index")


def write_index(gallery: Gallery) -> Path:
    """Make the index of a gallery and put it beside it; a crash leaves the old one or the new one.

    Raises:
        ValueError: faiss is missing, or nobody is enrolled.
    """
    short.require_extra()
    path = path_of(gallery.path)
    with gallery.all_templates(_BLOCK) as blocks:
        if not blocks.num_people:
            raise ValueError(f"the gallery '{gallery.path}' is empty; add people with: facescale enrol")
        shapes = _shapes(blocks.num_people, gallery.embedding_size)
        head = _header(shapes, _origin(gallery.fingerprint, blocks.state))
        size = len(head) + _num_bytes(shapes)
        with replacing(path, size) as temporary:
            with temporary.open("wb") as file:
                file.write(head)
                file.truncate(size)
            parts = _mapped(temporary, len(head), shapes, "r+")
            start = 0
            for number_P, template_PD in blocks:
                stop = start + len(number_P)
                parts["row"][start:stop], parts["person"][start:stop] = template_PD, number_P
                start = stop
            _encode(parts)
            summed = _header(shapes, _origin(gallery.fingerprint, blocks.state, _checksum(parts)))
            for part in parts.values():
                part.flush()
            with temporary.open("r+b") as file:
                file.write(summed)
    return path


def _encode(parts: Mapping[str, Mapped]) -> None:
    row_PD = parts["row"]
    place = short.sample_of(len(row_PD))
    centroid = short.train(row_PD[place].astype(np.float32))
    parts["centroid"][:] = centroid
    for start in range(0, len(row_PD), _BLOCK):
        some = slice(start, start + _BLOCK)
        parts["code"][some] = short.encode(row_PD[some].astype(np.float32), centroid)


def read_index(path: Path) -> IndexFile:
    """Open an index; the templates stay in the file.

    Raises:
        ValueError: no such file, or damaged.
    """
    size = check_file(path, "the index")
    with reading(path, "the index", _AGAIN):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > CARD_BYTES:
                raise _other(path, "its header is too long")
            header = json.loads(file.read(length))
        origin = header.pop("__metadata__")
        num_people, embedding_size = header["row"]["shape"]
        shapes = _shapes(num_people, embedding_size)
        if min(num_people, embedding_size) < 1:
            raise _other(path, "it claims to hold nobody")
        if origin["format"] != _FORMAT or size != 8 + length + _num_bytes(shapes):
            raise _other(path, "its size or format is another")
        if json.loads(_header(shapes, origin)[8:]) != header | {"__metadata__": origin}:
            raise _other(path, "its header is another")
        parts = _mapped(path, 8 + length, shapes, "r")
        if origin["checksum"] != _checksum(parts):
            raise _other(path, "its checksum is another")
        state = State(int(origin["number"]), origin["token"])
        return IndexFile(
            origin["fingerprint"], state, parts["row"], parts["person"], parts["code"], parts["centroid"]
        )


def _other(path: Path, why: str) -> ValueError:
    return ValueError(f"cannot read the index '{path}': {why}; {_AGAIN}")


def _shapes(num_people: int, embedding_size: int) -> dict[str, tuple[int, ...]]:
    parts = short.num_parts(embedding_size)
    return {
        "row": (num_people, embedding_size),
        "person": (num_people,),
        "code": (num_people, parts // 2),
        "centroid": (parts, 16, short.PART),
    }


def _origin(fingerprint: str, state: State, checksum: str = "0" * 8) -> dict[str, str]:
    return {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "number": str(state.number),
        "token": state.token,
        "checksum": checksum,
    }


def _header(shapes: Mapping[str, tuple[int, ...]], origin: Mapping[str, str]) -> bytes:
    """The start of a safetensors file; its length does not depend on the checksum."""
    entries: dict[str, object] = {"__metadata__": dict(origin)}
    start = 0
    for name, end in _ends(shapes).items():
        entries[name] = {
            "dtype": _TYPES[name][0],
            "shape": list(shapes[name]),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 64 + 56)  # so that what follows the length and this is aligned
    return struct.pack("<Q", len(text)) + text


def _ends(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Where each part ends, counted from the end of the header."""
    ends, end = {}, 0
    for name, shape in shapes.items():
        end += int(np.prod([*shape, np.dtype(_TYPES[name][1]).itemsize], dtype=object))
        ends[name] = end
    return ends


def _num_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return max(_ends(shapes).values())


def _mapped(path: Path, start: int, shapes: Mapping[str, tuple[int, ...]], mode: Mode) -> dict[str, Mapped]:
    starts = dict(zip(shapes, [0, *_ends(shapes).values()], strict=False))
    return {
        name: np.memmap(path, _TYPES[name][1], mode, start + starts[name], shape)
        for name, shape in shapes.items()
    }


def _checksum(parts: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """Of what decides where is looked; the templates themselves are looked up in the gallery again."""
    summed = 0
    for name in ("person", "code", "centroid"):
        summed = zlib.crc32(np.ascontiguousarray(parts[name]).reshape(-1).view(np.uint8).data, summed)
    return f"{summed:08x}"
