"""The protobuf message ``Datum`` that image databases hold, read and written without a generated class.

F2C's has one field, ``bytes data = 1``. Caffe's has ``bytes data = 4`` and ``bool encoded = 7``, beside
height, width and label; pixels that are not encoded (``encoded`` unset) are not read.
"""

from facescale.data.readers.base import BadRecordError
from facescale.data.readers.pictures import picture_suffix

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_F2C_DATA, _CAFFE_DATA = 1, 4  # field numbers


def write_datum(image: bytes) -> bytes:
    """The image as F2C's message."""
    head, length = bytearray([_F2C_DATA << 3 | _BYTES]), len(image)
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + image


def read_datum(value: bytes) -> bytes:
    """The image of a message of either kind; a value that is a picture itself comes back as it is.

    Raises:
        BadRecordError: it is neither.
    """
    if picture_suffix(value[:12]):
        return value
    found: dict[int, bytes] = {}
    place = 0
    while place < len(value):
        tag, place = _varint(value, place)
        kind = tag & 7
        if kind == _VARINT:
            _, place = _varint(value, place)
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            length, start = _varint(value, place)
            place = start + length
            found.setdefault(tag >> 3, value[start:place])
        else:
            raise BadRecordError(f"value is neither an image nor a Datum (wire type {kind})")
        if place > len(value):
            raise BadRecordError("value is not an image, and ends within a field of its Datum")
    image = found.get(_F2C_DATA) or found.get(_CAFFE_DATA)
    if not image:
        raise BadRecordError("value is a Datum without an image")
    return image


def _varint(value: bytes, place: int) -> tuple[int, int]:
    """A number of up to 64 bits and the place behind it."""
    number = 0
    for count, byte in enumerate(value[place : place + 10]):
        number |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return number, place + count + 1
    raise BadRecordError("value is not an image, and has a number of its Datum that does not end")
