"""Where the files of a tar archive lie, from its headers alone (POSIX ustar and pax, GNU long names)."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")
_GNU_NAME, _PAX = b"L", b"x"
_LONGEST = 1 << 16  # bytes of a name, or of a file's pax records


class Member(NamedTuple):
    """A file of an archive: ``size`` bytes from ``offset`` on."""

    name: str
    offset: int
    size: int


def tar_members(read: Callable[[int, int], bytes], total: int, path: str) -> Iterator[Member]:
    """The regular files of an archive in their order.

    Args:
        read: (offset, size) -> bytes of the archive.
        total: bytes of the archive.
        path: of the archive, for messages.

    Raises:
        ValueError: not a tar archive, compressed, damaged or truncated.
    """
    place, name, size = 0, "", -1
    while place + BLOCK <= total:
        head = read(place, BLOCK)
        if not any(head):
            return
        _check(head, place, path)
        kind, length = head[156:157], _number(head[124:136], place, path)
        start, place = place + BLOCK, place + BLOCK + (length + BLOCK - 1) // BLOCK * BLOCK
        if start + length > total:
            raise ValueError(
                f"'{path}' has {total:,} bytes, and the file at byte {start:,} has {length:,}; it is"
                " truncated, copy it again"
            )
        if kind in (_GNU_NAME, _PAX):
            if length > _LONGEST:
                raise ValueError(f"'{path}' has a name of {length:,} bytes at byte {start:,}; it is damaged")
            text = read(start, length)
            if kind == _GNU_NAME:
                name = _text(text)
            else:
                records = _pax(text)
                name, size = records.get("path", name), int(records.get("size", size))
            continue
        if kind in _REGULAR and size not in (-1, length):
            raise ValueError(
                f"'{path}' has a file of more than 8 GB at byte {start:,}, which is not an image"
            )
        if kind in _REGULAR:
            yield Member(name or _name(head), start, length)
        name, size = "", -1
    if place == 0 or place > total:
        raise ValueError(
            f"'{path}' ends within its last file, at byte {total:,}; it is truncated, copy it again"
        )


def _check(head: bytes, place: int, path: str) -> None:
    stated = head[148:156].strip(b" \0")
    if stated and not stated.strip(b"01234567") and int(stated, 8) == sum(head) - sum(head[148:156]) + 8 * 32:
        return
    if place == 0 and head[:2] in (b"\x1f\x8b", b"BZ", b"\x28\xb5", b"\xfd7"):
        raise ValueError(
            f"'{path}' is compressed, so no image is found without unpacking all before it; unpack it to a"
            " plain .tar, or read it forward with stream:"
        )
    what = "is not a tar archive" if place == 0 else f"is damaged at byte {place:,}"
    raise ValueError(f"'{path}' {what}; copy it again, or name the shards")


def _number(field: bytes, place: int, path: str) -> int:
    if field[0] & 0x80:  # GNU: base 256
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise ValueError(f"'{path}' is damaged at byte {place:,}; copy it again") from None


def _name(head: bytes) -> str:
    name = _text(head[:100])
    prefix = _text(head[345:500]) if head[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(raw: bytes) -> dict[str, str]:
    """Records "length key=value" of a pax header; what is malformed ends them."""
    records: dict[str, str] = {}
    while raw:
        length, _, _ = raw.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(raw):
            break
        key, _, value = raw[len(length) + 1 : int(length)].rstrip(b"\n").partition(b"=")
        records[_text(key)] = _text(value)
        raw = raw[int(length) :]
    if not records.get("size", "0").isdecimal():
        del records["size"]
    return records
