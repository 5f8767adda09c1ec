"""What every writer of a data set does: images as encoded bytes, the unreadable ones left out and named."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from facescale.data.loading.decode import encode_jpeg
from facescale.data.readers.base import BadRecordError, Reader
from facescale.data.readers.pictures import picture_suffix


@dataclass(frozen=True)
class Written:
    """What a converted set holds.

    Attributes:
        num_images: images written.
        num_ids: identities of the source, with or without images written.
        bad: key -> reason of images that could not be read and were left out.
    """

    num_images: int
    num_ids: int
    bad: dict[str, str]


class EncodedImage(NamedTuple):
    """An image of the source: its number there, its identity, its bytes and the suffix that fits them."""

    number: int
    identity: int
    data: bytes
    suffix: str


def encoded_images(
    reader: Reader, bad: dict[str, str], indices: Iterable[int] | None = None
) -> Iterator[EncodedImage]:
    """The readable images of a source, byte for byte; raw pixels become JPEG.

    Args:
        reader: the source.
        bad: receives key -> reason of those that cannot be read.
        indices: which, in which order; all, if absent.
    """
    for index in range(len(reader)) if indices is None else indices:
        try:
            image, identity = reader[index]
        except BadRecordError as error:
            bad[reader.key(index)] = str(error)
            continue
        data = image if isinstance(image, bytes) else encode_jpeg(image)
        yield EncodedImage(index, identity, data, picture_suffix(data[:12]) or ".jpg")
