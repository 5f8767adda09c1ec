"""Inspect a data set before training: counts, sizes, colours, damaged and duplicate images."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from facescale.arrays import IntArray
from facescale.data.loading.decode import decode_noting
from facescale.data.loading.prefetch import in_order
from facescale.data.notes import alignment_notes, source_notes
from facescale.data.readers.base import BadRecordError, Reader, passed_over
from facescale.data.readers.pictures import listed
from facescale.data.sampling.counter_rng import ORDER, permuted

SAMPLE = 20_000
_CHUNK = 64
_SIZES_SHOWN = 5
_LISTED = 100  # bad or repeated images that are named; all are counted
_EDGES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)  # lower ends of the bins of images per identity


@dataclass(frozen=True)
class DataReport:
    """Summary of a data set.

    ``images`` and the figures per identity are of the whole set; everything below ``images_read`` is of the
    images that were read.

    Attributes:
        identities: number of identities.
        images: number of images.
        images_per_identity: least, median, mean and most.
        histogram: "from-to" images -> number of identities.
        images_read: images that were read and decoded for the figures below.
        sizes: "WIDTHxHEIGHT" -> images, the most frequent first.
        bytes_per_image: mean size of an encoded image.
        channel_mean: of red, green, blue; 0..255.
        channel_std: likewise.
        num_bad: unreadable images.
        bad: name -> reason of the first of them.
        num_repeated: images whose bytes occurred before, under the same identity.
        num_conflicts: images whose bytes occurred before, under another identity.
        repeated: names of (first, later) of the first such pairs.
        conflicts: likewise.
        passed_over: files that are not images, by suffix, and folders of the system, by name -> count.
        unusual: peculiarity -> images that are read in spite of it.
        hints: sentences about possible problems.
    """

    identities: int
    images: int
    images_per_identity: dict[str, float]
    histogram: dict[str, int]
    images_read: int
    sizes: dict[str, int]
    bytes_per_image: float
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    num_bad: int
    bad: dict[str, str]
    num_repeated: int
    num_conflicts: int
    repeated: list[tuple[str, str]]
    conflicts: list[tuple[str, str]]
    passed_over: dict[str, int]
    unusual: dict[str, int]
    hints: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        per = self.images_per_identity
        yield f"identities           {self.identities:,}"
        yield f"images               {self.images:,}"
        yield (
            f"images per identity  {per['least']:.0f} to {per['most']:.0f}, median {per['median']:g}, mean"
            f" {per['mean']:.1f}"
        )
        widest = max(self.histogram.values())
        for interval, count in self.histogram.items():
            yield f"  {interval:>9}  {count:>9,}  {'#' * round(40 * count / widest)}"
        yield f"read                 {self.images_read:,} images, {self.bytes_per_image:,.0f} bytes each"
        yield f"sizes                {_sizes_text(self.sizes)}"
        yield f"mean of R, G, B      {', '.join(f'{value:.1f}' for value in self.channel_mean)}"
        yield f"deviation            {', '.join(f'{value:.1f}' for value in self.channel_std)}"
        yield f"unreadable           {self.num_bad:,}"
        yield from (f"  {key}: {reason}" for key, reason in self.bad.items())
        if self.passed_over:
            yield f"passed over          {listed(self.passed_over)}"
        if self.unusual:
            yield f"unusual              {listed(self.unusual)}"
        yield f"repeated images      {self.num_repeated:,} within an identity, {self.num_conflicts:,} across"
        yield from (f"  {a} = {b}" for a, b in self.conflicts)
        yield from (f"! {hint}" for hint in self.hints)


def _sizes_text(sizes: dict[str, int]) -> str:
    """The most frequent sizes, and the range of the others."""
    shown = [f"{size} ({count:,})" for size, count in list(sizes.items())[:_SIZES_SHOWN]]
    others = list(sizes)[_SIZES_SHOWN:]
    if others:
        widths, heights = zip(*(map(int, size.split("x")) for size in others), strict=True)
        ranges = f"{min(widths)} to {max(widths)} wide, {min(heights)} to {max(heights)} high"
        shown.append(f"{len(others):,} others, {ranges}")
    return ", ".join(shown)


@dataclass(frozen=True)
class _Image:
    """One decoded image; equal bytes have equal digests."""

    index: int
    width: int
    height: int
    num_bytes: int
    digest: int


@dataclass
class _Findings:
    """Statistics of some images.

    Attributes:
        images: those that could be decoded.
        bad: (index, reason) of the others.
        values: (3, 256) pixels of each channel at each value.
        unusual: peculiarity -> images.
    """

    images: list[_Image]
    bad: list[tuple[int, str]]
    values: IntArray
    unusual: Counter[str] = field(default_factory=Counter)


def inspect_data(reader: Reader, *, sample: int | None = SAMPLE, workers: int = 2) -> DataReport:
    """Read a set (or ``sample`` of its images, chosen by a fixed shuffle) and summarise it."""
    indices = np.arange(len(reader))
    if sample is not None and sample < len(reader):
        indices = np.sort(permuted(np.arange(sample), len(reader), ORDER))
    chunks = [indices[start : start + _CHUNK].tolist() for start in range(0, len(indices), _CHUNK)]
    jobs: Iterator[tuple[None, list[Callable[[], _Findings]]]] = (
        (None, [partial(_read_chunk, reader, chunk)]) for chunk in chunks
    )
    total = _Findings([], [], np.zeros((3, 256), np.int64))
    for _, (found,) in in_order(jobs, workers, ahead=2 * workers):
        total.images += found.images
        total.bad += found.bad
        total.values += found.values
        total.unusual += found.unusual
    return _report(reader, total)


def _read_chunk(reader: Reader, indices: list[int]) -> _Findings:
    found = _Findings([], [], np.zeros((3, 256), np.int64))
    for index in indices:
        try:
            data = reader[index][0]
            pixels, unusual = decode_noting(data)
        except BadRecordError as error:
            found.bad.append((index, str(error)))
            continue
        found.unusual.update(unusual)
        encoded = data if isinstance(data, bytes) else data.tobytes()
        digest = int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")
        height, width, _ = pixels.shape
        found.images.append(_Image(index, width, height, len(encoded), digest))
        for channel in range(3):
            found.values[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
    return found


def _report(reader: Reader, found: _Findings) -> DataReport:
    counts = np.bincount(reader.ids, minlength=reader.num_ids)
    sizes = Counter(f"{image.width}x{image.height}" for image in found.images)
    mean, std = _colours(found.values)
    repeated, conflicts = _repeats(reader, found.images)

    def names(pairs: list[tuple[int, int]]) -> list[tuple[str, str]]:
        return [(reader.key(a), reader.key(b)) for a, b in pairs[:_LISTED]]

    return DataReport(
        identities=reader.num_ids,
        images=len(reader),
        images_per_identity={
            "least": float(counts.min()),
            "median": float(np.median(counts)),
            "mean": float(counts.mean()),
            "most": float(counts.max()),
        },
        histogram=_histogram(counts),
        images_read=len(found.images) + len(found.bad),
        sizes=dict(sizes.most_common()),
        bytes_per_image=sum(image.num_bytes for image in found.images) / max(1, len(found.images)),
        channel_mean=mean,
        channel_std=std,
        num_bad=len(found.bad),
        bad={reader.key(index): reason for index, reason in found.bad[:_LISTED]},
        num_repeated=len(repeated),
        num_conflicts=len(conflicts),
        repeated=names(repeated),
        conflicts=names(conflicts),
        passed_over=dict(passed_over(reader).most_common()),
        unusual=dict(found.unusual.most_common()),
        hints=[*_hints(counts, found, mean, len(repeated), len(conflicts)), *_notes(reader, found)],
    )


def _histogram(counts: IntArray) -> dict[str, int]:
    """Identities by number of images; empty bins at both ends are left out."""
    edges = [0, *_EDGES, int(max(counts.max(), _EDGES[-1])) + 1]
    found, _ = np.histogram(counts, edges)
    used = np.flatnonzero(found)
    return {
        f"{edges[i]}-{edges[i + 1] - 1}" if edges[i + 1] - edges[i] > 1 else str(edges[i]): int(found[i])
        for i in range(used[0], used[-1] + 1)
    }


def _colours(values: IntArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, from its histogram."""
    share = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    level = np.arange(256)
    mean = share @ level
    variance = share @ level**2 - mean**2
    return tuple(mean.tolist()), tuple(np.sqrt(np.maximum(variance, 0)).tolist())


def _repeats(reader: Reader, images: list[_Image]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(first, later) image pairs of equal bytes, under the same identity and under different ones."""
    same: list[tuple[int, int]] = []
    different: list[tuple[int, int]] = []
    first: dict[int, int] = {}
    for image in images:
        before = first.setdefault(image.digest, image.index)
        if before != image.index:
            pairs = same if reader.ids[before] == reader.ids[image.index] else different
            pairs.append((before, image.index))
    return same, different


def _differ_in_size(found: _Findings) -> bool:
    return len({side for image in found.images for side in (image.width, image.height)}) > 1


def _notes(reader: Reader, found: _Findings) -> list[str]:
    if _differ_in_size(found):
        return source_notes(reader)
    return [*source_notes(reader), *alignment_notes(reader, len(found.images) + len(found.bad))]


def _hints(
    counts: IntArray,
    found: _Findings,
    mean: tuple[float, ...],
    num_repeated: int,
    num_conflicts: int,
) -> Iterator[str]:
    singles = int((counts == 1).sum())
    if singles:
        yield f"{singles:,} identities have only one image; data.min_images = 2 excludes them"
    if _differ_in_size(found):
        yield "images differ in size or are not square; align the photos first (facescale prepare)"
    if mean[2] > mean[0] + 4:  # skin is redder than it is blue under nearly all light
        yield "blue is stronger than red, which is unusual for faces; were the images written as BGR?"
    if found.bad:
        yield f"{len(found.bad):,} images are unreadable; training skips them, up to data.max_bad_share"
    if num_conflicts:
        yield f"{num_conflicts:,} images also occur under another identity; one of the labels is wrong"
    if num_repeated:
        yield f"{num_repeated:,} images occur more than once under the same identity"
