"""A pickle builds data within limits, and calls nothing."""

import os
import pickle
import struct
from typing import Any

import pytest

from facescale.guard.pickles import Inert, Name, PickleError, load_closed


class Calls:
    def __reduce__(self) -> Any:
        return os.getcwd, ()


def test_plain_data_of_every_protocol_is_read() -> None:
    data = {"a": [1, 2.5, True, None, (1, "x"), b"\xff", 10**30], "b": {3: [[]]}}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        callables = {("_codecs", "encode"): lambda text, code: text.encode(code)}
        assert load_closed(pickle.dumps(data, protocol), callables, encoding="utf-8") == data


def test_a_call_of_a_name_that_is_not_listed_is_refused() -> None:
    for classes in (True, False):
        with pytest.raises(
            PickleError, match=r"it asks to run posix\.getcwd, which is not allowed in a file"
        ):
            load_closed(pickle.dumps(Calls()), {}, classes=classes)


def test_objects_of_classes_are_inert_where_they_are_allowed() -> None:
    import argparse

    found = load_closed(pickle.dumps({"args": argparse.Namespace(a=1)}, 2), {}, classes=True)
    assert type(found["args"]) is Inert
    assert type(load_closed(pickle.dumps(os.getcwd), {}, classes=True)) is Name


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02}" + b"N" + b"2\x86" * 40 + b"Ns.", "instruction b'2'"),
        (
            b"\x80\x02Nq\x01" + b"h\x01h\x01\x86q\x01" * 60 + b"}h\x01Ns.",
            "a key that is neither a number nor a text",
        ),
        (b"\x80\x04\x8fN.", r"instruction b'\\x8f'"),
        (b"N" * 2_100_000, "more than 2,000,000 instructions"),
        (b"(S'x'\nios\nsystem\n.", "instruction b'i'"),
        (b"\x80\x02K\x01)R.", "calls something that is not a function"),
        (b"\x80\x02K\x01}b.", "sets the state of something that has none"),
        (b"\x80\x02K\x01K\x02a.", "appends to something that is not a list"),
        (b"\x80\x02K\x01K\x02K\x03s.", "puts an entry into something that is not a dict"),
        (b"\x80\x02Nr\xff\xff\xff\xff", "damaged or cut short"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"abc.", "."),
        (b"I" + b"9" * 10**6 + b"\n.", "."),
    ],
    ids=range(12),
)
def test_bombs_are_refused_in_time(data: bytes, message: str) -> None:
    with pytest.raises(PickleError, match=message):
        load_closed(data, {})
