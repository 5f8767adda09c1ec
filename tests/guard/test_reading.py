"""Files that are missing, too large, or no files are answered in one sentence."""

import json
import os
import re
import socket
from pathlib import Path

import pytest

from facescale.guard import reading as reading_module
from facescale.guard.failures import explained
from facescale.guard.reading import (
    check_file,
    is_sentence,
    raised_here,
    read_bytes,
    read_object,
    read_text,
    reading,
)


def test_a_pipe_a_device_a_socket_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(".", os.O_RDONLY)
        os.chdir(tmp_path)  # the path of a socket is short
        try:
            server.bind("socket")
        finally:
            os.fchdir(here)
            os.close(here)
        for path, kind in (
            (tmp_path / "pipe", "a pipe"),
            (tmp_path / "socket", "a socket"),
            (Path("/dev/zero"), "a device"),
            (tmp_path, "a folder"),
        ):
            with pytest.raises(
                ValueError, match=rf"cannot read the list '.*': it is {kind}, not a file; give a"
            ):
                read_bytes(path, "the list", 100)


def test_a_file_beyond_its_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        ValueError, match=r"it has 1,099,511,627,776 bytes, and 100 are the most that is read"
    ):
        read_text(tmp_path / "sparse", "the list", 100)
    assert check_file(tmp_path / "sparse", "the list") == 1 << 40


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "Expecting property name .*; it is damaged: get a complete copy"),
        (b'"\xff"', "byte 1 is not UTF-8 text; it is damaged"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b"1" * 5000, "it has a number of thousands of digits"),
        (b"[1]", "it has no num_ids, names"),
        (b'{"num_ids": 1}', "it has no num_ids, names"),
    ],
)
def test_json_that_cannot_be_used_is_answered_in_a_sentence(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(ValueError, match=rf"cannot read the identities '.*x\.json': {message}") as error:
        read_object(tmp_path / "x.json", "the identities", "num_ids", "names")
    assert is_sentence(error.value)


def test_text_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert read_text(tmp_path / "x", "the list", 100) == "café"
    (tmp_path / "x").write_bytes(b"caf\xe9")
    with pytest.raises(
        ValueError, match=r"cannot read the list '.*x': byte 3 is not UTF-8 text; save it as UTF-8"
    ):
        read_text(tmp_path / "x", "the list", 100)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "it needs more memory than there is"),
        (RecursionError("maximum depth"), "it is nested too deeply"),
        (KeyError(), "KeyError"),
        (json.JSONDecodeError("Expecting value", "x", 0), "Expecting value: line 1 column 1"),
        (RuntimeError("first\nsecond"), "first"),
    ],
)
def test_an_error_of_a_library_becomes_a_sentence(error: Exception, why: str) -> None:
    sentence = rf"cannot read the weights 'w': {why}.*; copy it again$"
    with pytest.raises(ValueError, match=sentence), reading("w", "the weights", "copy it again"):
        raise error


def test_what_python_raises_in_our_own_lines_is_no_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "_KINDS", None)  # so that a line of ours fails
    with pytest.raises(AttributeError) as error:
        check_file("/", "a")
    assert not raised_here(error.value)
    with pytest.raises(ValueError, match="check the path") as sentence:
        check_file("a\0b", "a")
    assert raised_here(sentence.value) and is_sentence(sentence.value)


def test_a_sentence_passes_as_it_is() -> None:
    with pytest.raises(ValueError, match=r"^cannot read a '/': it is a folder"), reading("w", "b"):
        check_file("/", "a")


@pytest.mark.parametrize(
    ("error", "sentence", "status"),
    [
        (
            OSError(28, "No space left on device", "/d/f"),
            "cannot use '/d/f': No space left .*; free some space",
            1,
        ),
        (
            PermissionError(13, "Permission denied", "f"),
            "cannot use 'f': Permission denied; check its perm",
            2,
        ),
        (MemoryError(), "there is not enough memory for this; lower the batch size", 1),
        (RuntimeError("[x] DefaultCPUAllocator: can't allocate memory: 5"), "there is not enough memory", 1),
        (
            RuntimeError("mat1 and mat2\nshapes"),
            r"an internal step failed \(RuntimeError: mat1 and mat2\); set",
            1,
        ),
        (EOFError(), r"an internal step failed \(EOFError: EOFError\)", 1),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "an internal step failed .*byte 0 is not UTF-8", 1),
    ],
)
def test_no_error_of_a_library_reaches_the_user_alone(error: Exception, sentence: str, status: int) -> None:
    text, found = explained(error)
    assert re.match(sentence, text), text
    assert found == status
