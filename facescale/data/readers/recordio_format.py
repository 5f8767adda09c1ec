"""How MXNet frames records.

A record is framed as: magic, word (kind << 29 | length), payload, zeros up to a multiple of 4 bytes. A
payload that holds the magic at a multiple of 4 is split there into parts (kind 1 first, 2 middle, 3 last; a
whole record is 0), and the magic between the parts is not stored. The payload is a header (flag uint32,
label float32, id uint64, id2 uint64), ``flag`` float32 labels that take the place of ``label`` when flag >
0, and the image.

InsightFace's sets start with a record of labels only, (N + 1, N + 1 + C): keys 1..N are images, the C keys
after them identities, whose records hold the range (start, end) of the keys of their images. im2rec's sets
are images only.
"""

import struct

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]  # a .rec file as 32-bit words

MAGIC = 0xCED7230A
FRAME = struct.Struct("<II")
HEADER = struct.Struct("<IfQQ")
KIND_BIT = 29
MAX_LENGTH = (1 << KIND_BIT) - 1
EXACT_FLOAT32 = 1 << 24  # float32 holds every integer up to here, not beyond
LABELS_ONLY = FRAME.size + HEADER.size + 8  # bytes of a framed record of two labels and no image


def padded(size: int) -> int:
    """Bytes with the zeros up to a multiple of 4."""
    return (size + 3) // 4 * 4


def is_set_header(words: Words, key: int, offset: int, gap: int) -> bool:
    """Whether the record at ``offset``, ``gap`` bytes long, is the record of counts of an InsightFace set."""
    return key == 0 and gap == LABELS_ONLY and int(words[offset // 4 + 2]) == 2
