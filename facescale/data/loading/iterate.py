"""Images of a source, decoded ahead by threads, batch by batch and in order."""

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from facescale.data.images import Images
from facescale.data.loading.decode import decode_into
from facescale.data.loading.prefetch import BATCHES_AHEAD, Buffers, chunks, in_order
from facescale.data.readers.base import BadRecordError

if TYPE_CHECKING:  # torch takes seconds to import, and protocols are read and drawn without it
    from torch import Tensor

Failures = list[tuple[int, str]]  # (place in the batch, reason)
Report = tuple[Failures, dict[int, tuple[int, int]]]  # and index -> (width, height)


def iter_images(
    images: Images,
    indices: Sequence[int] | None = None,
    *,
    batch_size: int,
    size: int,
    workers: int = 2,
    resize: bool = False,
    bad: dict[int, str] | None = None,
    sizes: dict[int, tuple[int, int]] | None = None,
) -> Generator[tuple["Tensor", "Tensor"], None, None]:
    """Images of a source in order: for evaluation and embedding.

    Args:
        images: the source, such as ``ReaderImages(reader)``.
        indices: which of them; all, if absent.
        batch_size: images per batch; the last one may be smaller.
        size: height and width, pixels.
        workers: decoding threads.
        resize: scale images of another size instead of treating them as unreadable.
        bad: receives index -> reason of unreadable images, which are then left out.
        sizes: receives index -> (width, height), as they were before scaling.

    Yields:
        uint8 (B, size, size, 3) RGB images and their int64 (B,) indices in ``images``.

    Raises:
        ValueError: an unreadable image, unless ``bad`` is given.
    """
    import torch

    chosen = range(len(images)) if indices is None else indices
    buffers = Buffers((batch_size, size, size, 3), pin=torch.cuda.is_available())

    def fill(batch: Sequence[int], out: "Tensor", part: range) -> Report:
        pixels, failed, found = out.numpy(), [], dict[int, tuple[int, int]]()
        for place in part:
            try:
                height, width = decode_into(pixels[place], images[batch[place]], resize=resize)
                found[batch[place]] = (width, height)
            except BadRecordError as error:
                failed.append((place, str(error)))
        return failed, found

    def jobs() -> Iterator[tuple[tuple[Sequence[int], "Tensor"], list[Callable[[], Report]]]]:
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            out = buffers.take()[: len(batch)]
            yield (batch, out), [partial(fill, batch, out, part) for part in chunks(len(batch))]

    for (batch, out), reports in in_order(jobs(), workers, BATCHES_AHEAD):
        index = torch.tensor(batch, dtype=torch.int64)
        failed = [failure for failures, _ in reports for failure in failures]
        if sizes is not None:
            for _, found in reports:
                sizes |= found
        if failed:
            if bad is None:
                place, reason = failed[0]
                raise ValueError(f"cannot read image '{images.key(batch[place])}': {reason}")
            bad.update((batch[place], reason) for place, reason in failed)
            keep = torch.ones(len(batch), dtype=torch.bool)
            keep[[place for place, _ in failed]] = False
            out, index = out[keep], index[keep]
        yield out, index
