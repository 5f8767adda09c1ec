"""Damage a valid file in one of many ways: bytes, blocks, lengths, and the structure of what is in it."""

import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence

# Numbers that overflow something, as text and as bytes
_NUMBERS = (
    0,
    1,
    -1,
    2,
    127,
    255,
    32768,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
)
_TEXTS = (
    b"", b"\0", b"\xff\xfe", b"\x1b[31m", b"\r\n", b"=1+1", b"nan", b"inf", b"-1", b"1e999", b"null", b"true",
    b"[]", b"{}", b"[[[[[[", b'""', b"'", b"../../etc/passwd", b"/dev/zero", b"\xf0\x9f\x98\x80", b"9" * 5000,
    b"\xed\xa0\x80", b",,,,", b"\t\t", b"a" * 3000, b"#", b"=",
)  # fmt: skip


def mutated(data: bytes, rng: random.Random, kind: str, donors: Sequence[bytes]) -> bytes:
    """``data`` damaged in one to four ways.

    Args:
        data: a valid file.
        rng: decides how.
        kind: "text", "zip", "safetensors" or "bytes": what else is known of its structure.
        donors: other files, parts of which are spliced in.
    """
    own = {"text": _TEXT, "zip": [_in_zip], "safetensors": [_in_header]}.get(kind, [])
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        way = rng.choice(own) if own and rng.random() < 0.6 else rng.choice(_WAYS)
        data = way(data, rng) if way is not _splice else _splice(data, rng, rng.choice(donors))
    return data[: 1 << 20]


def _place(data: bytes, rng: random.Random) -> int:
    """Somewhere; more often near the start, where headers are."""
    return rng.randrange(max(1, min(len(data), 64 if rng.random() < 0.4 else len(data))))


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        out[_place(out, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _set(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[_place(out, rng)] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
    return bytes(out)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)] if rng.random() < 0.5 else data[_place(data, rng) :]


def _remove(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    return data[:start] + data[start + rng.choice((1, 2, 4, 8, 100)) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    part = data[start : start + rng.choice((1, 2, 4, 16, 200, 2000))]
    return data[:start] + part * rng.choice((2, 3, 10, 300)) + data[start:]


def _length(data: bytes, rng: random.Random) -> bytes:
    start, form = _place(data, rng), rng.choice(("<I", ">I", "<Q", ">Q", "<H", ">H"))
    number = rng.choice(_NUMBERS) % (1 << 8 * struct.calcsize(form))
    return data[:start] + struct.pack(form, number) + data[start + struct.calcsize(form) :]


def _grow(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0", b"\xff", b" ", b"\n", rng.randbytes(7))) * rng.choice((1, 3, 4, 1000))


def _splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[: _place(data, rng)] + other[_place(other, rng) :]


def _token(data: bytes, rng: random.Random) -> bytes:
    """Replace a number, word or separator of a text."""
    tokens = list(re.finditer(rb"-?\d+(?:\.\d+)?|[A-Za-z_]+|[^\w\s]|\s", data[: 1 << 16]))
    if not tokens:
        return rng.choice(_TEXTS)
    found = rng.choice(tokens)
    number = str(rng.choice(_NUMBERS)).encode()
    return data[: found.start()] + rng.choice((number, *_TEXTS)) + data[found.end() :]


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    action = rng.randrange(4)
    place = rng.randrange(len(lines))
    if action == 0:
        del lines[place]
    elif action == 1:
        lines.insert(place, rng.choice(lines))
    elif action == 2:
        rng.shuffle(lines)
    else:
        lines[place] = rng.choice(_TEXTS)
    return b"\n".join(lines)


def _json_value(data: bytes, rng: random.Random) -> bytes:
    """Replace a value somewhere in a JSON text."""
    try:
        tree = json.loads(data)
    except ValueError:
        return _token(data, rng)
    places: list[tuple[dict | list, str | int]] = []
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict | list):
            for key, value in item.items() if isinstance(item, dict) else enumerate(item):
                places.append((item, key))
                waiting.append(value)
    strange = (
        None,
        True,
        -1,
        0,
        2**63,
        1e308,
        "",
        "a" * 999,
        "../x",
        [],
        {},
        [[]],
        {"a": {}},
        [None],
        "\0",
        0.5,
    )
    if not places:
        return json.dumps(rng.choice(strange)).encode()
    owner, key = rng.choice(places)
    if rng.random() < 0.2:
        del owner[key]  # type: ignore[arg-type]
    else:
        owner[key] = rng.choice(strange)  # type: ignore[index,call-overload]
    return json.dumps(tree).encode()


def rewritten_zip(data: bytes, contents: Mapping[str, bytes]) -> bytes:
    """A zip archive with other contents of the entries whose names end so, and right checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = next((c for end, c in contents.items() if name.endswith(end)), old.read(name))
            new.writestr(name, content)
    return out.getvalue()


def _in_zip(data: bytes, rng: random.Random) -> bytes:
    """Damage an entry of a zip archive, and write the archive anew, with right checksums."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            names = old.namelist()
            chosen = rng.choice([name for name in names if name.endswith((".pkl", ".npy"))] * 3 + names)
            with zipfile.ZipFile(out, "w") as new:
                for name in names:
                    content = old.read(name)
                    if name == chosen:
                        way = rng.choice((_flip, _set, _cut, _remove, _repeat, _length, _opcode, _token))
                        content = way(content, rng)
                    new.writestr(name, content)
    except Exception:  # an earlier damage may have hit the archive itself
        return _flip(data, rng)
    return out.getvalue()


def _opcode(data: bytes, rng: random.Random) -> bytes:
    """Put pickle instructions somewhere."""
    start = _place(data, rng)
    parts = (
        b"cos\nsystem\n", b"(S'touch x'\ntR", b"R", b"b", b"\x81", b"}", b"]", b"(", b"u", b"s", b"a", b"e",
        b"0", b"2", b"h\x00", b"q\x00", b"\x86", b"\x93", b"N", b"\x8f", b"Q", b"cnumpy\ndtype\n", b".",
        b"\x8a\xff",
    )  # fmt: skip
    return data[:start] + b"".join(rng.choices(parts, k=rng.choice((1, 2, 5, 40)))) + data[start:]


def _in_header(data: bytes, rng: random.Random) -> bytes:
    """Damage the header of a safetensors file, and state its length right."""
    if len(data) < 8:
        return data
    size = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + size], data[8 + size :]
    way = rng.choice((_json_value, _json_value, _token, _flip, _in_card))
    header = way(header, rng)
    return struct.pack("<Q", len(header)) + header + rest


def _in_card(header: bytes, rng: random.Random) -> bytes:
    try:
        tree = json.loads(header)
        tree["__metadata__"]["facescale"] = _json_value(
            tree["__metadata__"]["facescale"].encode(), rng
        ).decode()
    except (ValueError, KeyError, TypeError, AttributeError):
        return _token(header, rng)
    return json.dumps(tree).encode()


_WAYS: list[Callable[..., bytes]] = [_flip, _set, _cut, _remove, _repeat, _length, _grow, _splice, _opcode]
_TEXT: list[Callable[[bytes, random.Random], bytes]] = [_token, _token, _lines, _json_value]
