"""Verification .bin files: every dialect is read, and nothing in them is run."""

import contextlib
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facescale.data.images import IndexedImages
from facescale.evaluate.protocols.pair_bin import read_bin, write_bin
from facescale.evaluate.protocols.pairs import Pairs

IMAGES = [bytes([255, 216, i // 2]) for i in range(40)]  # every image occurs twice
LABELS = [i % 2 == 0 for i in range(20)]

as_array = [np.frombuffer(image, np.uint8) for image in IMAGES]
writable = [array.copy() for array in as_array]
DIALECTS: dict[str, tuple[Any, Any]] = {
    "bytes and bool": (IMAGES, LABELS),
    "bytes and 0/1": (IMAGES, [int(x) for x in LABELS]),
    "bytes and numpy bool": (IMAGES, [np.bool_(x) for x in LABELS]),
    "bytes and a bool array": (IMAGES, np.array(LABELS)),
    "uint8 arrays": (as_array, LABELS),
    "writable uint8 arrays": (writable, LABELS),
}

# What Python 2 wrote: strings instead of bytes, numpy's old module name.
PYTHON_2 = b"(lp0\nS'\\xff\\xd8a'\np1\naS'\\xff\\xd8b'\np2\naS'c'\naS'd'\naa(lp3\nI01\naI00\naa."
PYTHON_2_ARRAY = (
    b"((lp0\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I3\ntcnumpy\ndtype\n"
    b"(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\xff\\xd8a'\ntbaS'b'\naS'c'\naS'd'\na(lI01\naI00\nat."
)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_of_every_pickle_protocol_is_read(tmp_path: Path, dialect: str, protocol: int) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps(DIALECTS[dialect], protocol=protocol))
    pairs = read_bin(tmp_path / "x.bin")
    assert [pairs.images[i] for pair in zip(pairs.a, pairs.b, strict=True) for i in pair] == IMAGES
    assert pairs.is_same.tolist() == LABELS
    assert len(pairs.images) == 20
    assert pairs.images.key(3) == "x.bin#6"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("values", [128, 256])  # bytes above 127 take two in the file, the others one
def test_large_bytearrays_are_read_from_every_pickle_protocol(
    tmp_path: Path, values: int, protocol: int
) -> None:
    rng = np.random.default_rng(0)
    images = [bytearray(rng.integers(values, size=4000, dtype=np.uint8).tobytes()) for _ in range(20)]
    (tmp_path / "x.bin").write_bytes(pickle.dumps((images, LABELS[:10]), protocol=protocol))
    pairs = read_bin(tmp_path / "x.bin")
    assert [pairs.images[i] for i in range(20)] == images


def test_files_of_numpy_before_version_two_are_read(tmp_path: Path) -> None:
    data = pickle.dumps((as_array, LABELS), protocol=2).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    (tmp_path / "x.bin").write_bytes(data)
    assert read_bin(tmp_path / "x.bin").images[0] == IMAGES[0]


def test_files_of_python_two_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(PYTHON_2_ARRAY)
    pairs = read_bin(tmp_path / "x.bin", num_folds=2)
    assert [pairs.images[i] for i in range(4)] == [b"\xff\xd8a", b"b", b"c", b"d"]
    assert pairs.is_same.tolist() == [True, False]


def test_folds_are_contiguous_as_in_insightface(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps((IMAGES, LABELS)))
    assert read_bin(tmp_path / "x.bin").fold.tolist() == [i // 2 for i in range(20)]


def test_written_bin_is_a_plain_pickle_that_others_read(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 3), 90, np.uint8)
    images = IndexedImages([IMAGES[0], pixels, IMAGES[2]], ["x", "y", "z"])
    index, fold = np.array([0, 1]), np.array([0, 1])
    write_bin(tmp_path / "x.bin", Pairs("test", images, index, index + 1, np.array([True, False]), fold))
    encoded, labels = pickle.loads((tmp_path / "x.bin").read_bytes())
    assert labels == [True, False]
    assert encoded[1] == encoded[2] and encoded[1][:2] == b"\xff\xd8"
    assert (encoded[0], encoded[3]) == (IMAGES[0], IMAGES[2])
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops((tmp_path / "x.bin").read_bytes())}
    assert not opcodes & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}


class Runs:
    """Unpickled in the ordinary way, this calls a function with arguments of its choice."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, np.load, np.frombuffer, pickle.loads])
def test_functions_in_a_file_are_not_run(tmp_path: Path, function: Any, protocol: int) -> None:
    victim = tmp_path / "victim"
    harmful = Runs(function, f"touch {victim}" if function is os.system else f"open({str(victim)!r}, 'w')")
    (tmp_path / "x.bin").write_bytes(pickle.dumps(([harmful, b""], LABELS), protocol=protocol))
    with pytest.raises(ValueError, match=r"is not a verification \.bin .*asks to run .*facescale pairs"):
        read_bin(tmp_path / "x.bin")
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, r"does not contain \(images, labels\)"),
        ((IMAGES, "yes"), "images or labels are not a list"),
        (("abc", LABELS), "images or labels are not a list"),
        ((IMAGES[:-1], LABELS), "39 images do not make 20 pairs"),
        ((["text"] * 40, LABELS), "neither bytes nor a uint8 array"),
        ((IMAGES, [2] * 20), "labels are not booleans"),
        ((IMAGES, ["x"] * 20), "labels are not booleans"),
        (([np.zeros(3, np.float32)] * 40, LABELS), "neither bytes nor a uint8 array"),
        (([np.zeros(3, np.complex64)] * 40, LABELS), "array of type 'c8'"),
        (([np.array([{}], object)] * 40, LABELS), "neither bytes nor a uint8 array"),
        ((IMAGES, [0.5] * 20), "labels are not booleans, nor 0 and 1"),
        ((np.array(IMAGES, object), "yes"), "images or labels are not a list"),
        ((IMAGES, [True] * 20), "20 of 20 pairs are genuine"),
    ],
)
def test_other_content_is_answered_in_a_sentence(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_bin(tmp_path / "x.bin")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8 a photo, not a pickle",
        pickle.dumps((IMAGES, LABELS))[:-20],
        b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"few bytes.",  # claims an exabyte
        b"\x80\x02]r\xff\xff\xff\xff.",  # numbers an entry 2^32 - 1: CPython makes room for all below
        b"\x80\x02cnumpy\nndarray\n}X\x04\x00\x00\x00dataK\x01sb.",  # sets an attribute of a stand-in itself
        b"\x80\x02c_codecs\nencode\nN}X\x08\x00\x00\x00__call__K\x01s\x86b.",
    ],
    ids=["empty", "photo", "cut", "exabyte", "memo", "attribute of array", "attribute of encode"],
)
def test_damaged_files_are_answered_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(ValueError, match=r"is not a verification \.bin"):
        read_bin(tmp_path / "x.bin")


@settings(deadline=None)
@given(st.data())
def test_any_damage_is_a_value_error_or_still_a_protocol(tmp_path_factory: Any, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("bin") / "x.bin"
    content = bytearray(pickle.dumps((as_array, LABELS), protocol=data.draw(st.sampled_from([0, 2, 5]))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        assert isinstance(read_bin(path), Pairs)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the pairs '.*none\.bin'"):
        read_bin(tmp_path / "none.bin")


SAME = [number % 2 == 0 for number in range(20)]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "content",
    [
        (IMAGES, [np.int64(same) for same in SAME]),
        (IMAGES, np.array(SAME, np.int64)),
        (IMAGES, np.array(SAME, ">i4")),
        (IMAGES, np.array(SAME, np.float32)),
        (IMAGES, np.array(SAME, object)),
        (IMAGES, [float(same) for same in SAME]),
        (IMAGES, [int(same) for same in SAME]),
        (tuple(IMAGES), tuple(SAME)),
        ([bytearray(image) for image in IMAGES], SAME),
        (np.array(IMAGES, object), SAME),
        ([np.frombuffer(image, np.uint8) for image in IMAGES], SAME),
    ],
)
def test_every_harmless_spelling_is_read_to_the_same_pairs(
    tmp_path: Path, content: Any, protocol: int
) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps(content, protocol))
    pairs = read_bin(tmp_path / "x.bin")
    assert pairs.is_same.tolist() == SAME
    index = np.stack([pairs.a, pairs.b], axis=1).ravel()
    assert [pairs.images[int(i)] for i in index] == IMAGES


@pytest.mark.parametrize(("num_pairs", "num_folds"), [(4, 2), (6, 3), (9, 4), (10, 10), (12, 10)])
def test_few_pairs_make_few_folds(tmp_path: Path, num_pairs: int, num_folds: int) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps((IMAGES[: 2 * num_pairs], SAME[:num_pairs])))
    assert len(np.unique(read_bin(tmp_path / "x.bin").fold)) == num_folds


def test_too_few_pairs_for_folds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps((IMAGES[:6], SAME[:3])))
    with pytest.raises(ValueError, match=r"x.bin' holds 3 pairs; give at least 4"):
        read_bin(tmp_path / "x.bin")


def test_a_bytearray_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"cbuiltins\nbytearray\n(I1000000000000\ntR.")
    with pytest.raises(ValueError, match="makes a bytearray of something else than bytes"):
        read_bin(tmp_path / "x.bin")
