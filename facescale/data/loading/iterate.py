"""Every image of a source once, in order."""

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from facescale.arrays import Pixels
from facescale.data.loading.decode import decode_into
from facescale.data.loading.prefetch import BATCHES_AHEAD, Buffers, chunks, in_order
from facescale.data.readers.base import BadRecordError, Reader
from facescale.data.readers.folder import read_file


def iter_images(
    source: Reader | Sequence[str | Path],
    *,
    batch_size: int,
    size: int,
    workers: int = 2,
    resize: bool = False,
    bad: dict[int, str] | None = None,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Every image once, in order: for evaluation and embedding.

    Args:
        source: a reader, or paths of image files.
        batch_size: images per batch; the last one may be smaller.
        size: height and width, pixels.
        workers: decoding threads.
        resize: scale images of another size instead of treating them as unreadable.
        bad: receives index -> reason of unreadable images, which are then left out.

    Yields:
        uint8 (B, size, size, 3) RGB images and their int64 (B,) indices in ``source``.

    Raises:
        ValueError: an unreadable image, unless ``bad`` is given.
    """
    if isinstance(source, Sequence):
        paths = source
        fetch: Callable[[int], bytes | Pixels] = lambda index: read_file(paths[index])  # noqa: E731
        name: Callable[[int], str] = lambda index: str(paths[index])  # noqa: E731
    else:
        reader = source
        fetch, name = (lambda index: reader[index][0]), reader.key
    buffers = Buffers((batch_size, size, size, 3), pin=torch.cuda.is_available())

    def fill(start: int, images: Tensor, part: range) -> list[tuple[int, str]]:
        pixels, failed = images.numpy(), []
        for place in part:
            try:
                decode_into(pixels[place], fetch(start + place), resize=resize)
            except BadRecordError as error:
                failed.append((place, str(error)))
        return failed

    def jobs() -> Iterator[tuple[tuple[int, Tensor], list[Callable[[], list[tuple[int, str]]]]]]:
        for start in range(0, len(source), batch_size):
            images = buffers.take()[: len(source) - start]
            yield (start, images), [partial(fill, start, images, part) for part in chunks(len(images))]

    for (start, images), reports in in_order(jobs(), workers, BATCHES_AHEAD):
        index = torch.arange(start, start + len(images))
        failed = [failure for report in reports for failure in report]
        if failed:
            if bad is None:
                place, reason = failed[0]
                raise ValueError(f"cannot read image '{name(start + place)}': {reason}")
            bad.update((start + place, reason) for place, reason in failed)
            keep = torch.ones(len(images), dtype=torch.bool)
            keep[[place for place, _ in failed]] = False
            images, index = images[keep], index[keep]
        yield images, index
