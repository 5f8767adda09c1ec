"""Decide which examined photos are kept, and why the others are not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from facescale.data.images import ReaderImages
from facescale.data.readers.base import Reader
from facescale.prepare.duplicates import NEAR, exact_duplicates, thin_out
from facescale.prepare.examine import Finding
from facescale.prepare.near_copies import copy_threshold, near_copies
from facescale.prepare.quality import Limits
from facescale.prepare.scan import Source

SEVERAL, FEW_IMAGES = "several faces", "identity with too few images"


@dataclass(frozen=True)
class Fate:
    """What became of a photo.

    Attributes:
        source: the photo.
        finding: what was found in it.
        reason: why it was dropped; empty if it was kept.
        like: the photo that it equals, for duplicates.
    """

    source: Source
    finding: Finding
    reason: str = ""
    like: str = ""


@dataclass(frozen=True)
class Selection:
    """The fates of all photos, in the order of their paths.

    Attributes:
        fates: one per photo.
        lookalikes: (photo, photo of another identity, cosine) of near-duplicates that are both kept.
    """

    fates: tuple[Fate, ...]
    lookalikes: tuple[tuple[str, str, float], ...] = ()

    @property
    def kept(self) -> list[Source]:
        """The photos that are kept."""
        return [fate.source for fate in self.fates if not fate.reason]

    def reasons(self) -> dict[str, int]:
        """Dropped photos by reason, the most frequent first."""
        counts = Counter(fate.reason for fate in self.fates if fate.reason)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def images_per_identity(self) -> dict[str, int]:
        """Kept photos of every identity that has any photo, in the order of names."""
        counts = Counter(source.identity for source in self.kept)
        return {name: counts[name] for name in sorted({fate.source.identity for fate in self.fates})}

    def without_small_identities(self, min_images: int) -> "Selection":
        """Drop what is kept of identities with fewer than ``min_images`` photos."""
        counts = self.images_per_identity()
        return replace(
            self,
            fates=tuple(
                replace(fate, reason=FEW_IMAGES)
                if not fate.reason and counts[fate.source.identity] < min_images
                else fate
                for fate in self.fates
            ),
        )


def select(
    sources: Sequence[Source], findings: Mapping[str, Finding], limits: Limits, single_face: bool
) -> Selection:
    """Decide about every photo: exact duplicates go first, then what has no crop, then what fails a limit."""
    identities = {source.key: source.identity for source in sources}
    digests = {key: findings[key].digest for key in identities if findings[key].digest}
    duplicates = exact_duplicates(digests, identities)
    fates = []
    for source in sources:
        finding = findings[source.key]
        reason, like = finding.problem, ""
        if finding.digest and finding.quality and source.key in duplicates:
            reason, like = duplicates[source.key]
        elif finding.quality:
            several = single_face and finding.num_faces > 1
            reason = SEVERAL if several else limits.problem(finding.quality)
        fates.append(Fate(source, finding, reason, like))
    return Selection(tuple(fates))


def drop_near_duplicates(
    selection: Selection, reader: Reader, model: str, near: float | None = None
) -> Selection:
    """Drop crops that show the photo of a better one of their identity; name those of other identities.

    Embeddings propose pairs, their pixels decide (`facescale.prepare.near_copies`). Of the copies of a
    photo the one with most pixels of face, then the sharpest, stays.

    Args:
        selection: its kept photos are the images of ``reader``.
        reader: the crops.
        model: what `facescale.load` takes.
        near: cosine from which pixels are compared; None: what copies of these crops reach.

    Raises:
        ValueError: no such model.
    """
    from facescale.data.loading.iterate import iter_images  # torch takes seconds to import
    from facescale.inference.load import load

    encoder = load(model)
    images, size = ReaderImages(reader), encoder.contract.size
    # One thread reads: the crops come from one open file.
    batches = iter_images(images, batch_size=128, size=size, workers=1, resize=True)
    embeddings_ND = np.concatenate([encoder.embed(batch) for batch, _ in batches])
    near = copy_threshold(encoder.embed, images, size, embeddings_ND) if near is None else near
    copies = near_copies(images, embeddings_ND, near)
    first_P, second_P = copies.first_P, copies.second_P
    same_P = reader.ids[first_P] == reader.ids[second_P]
    kept = [number for number, fate in enumerate(selection.fates) if not fate.reason]
    gone = thin_out(first_P[same_P], second_P[same_P], [_worth(selection.fates[n].finding) for n in kept])
    fates = list(selection.fates)
    for image, better in gone.items():
        fates[kept[image]] = replace(fates[kept[image]], reason=NEAR, like=reader.key(better))
    across_P = ~same_P & ~np.isin(first_P, list(gone)) & ~np.isin(second_P, list(gone))
    across = zip(
        first_P[across_P].tolist(), second_P[across_P].tolist(), copies.cosine_P[across_P], strict=True
    )
    lookalikes = tuple((reader.key(a), reader.key(b), round(float(cosine), 4)) for a, b, cosine in across)
    return Selection(tuple(fates), lookalikes)


def _worth(finding: Finding) -> tuple[float, float]:
    quality = finding.quality
    assert quality is not None  # kept photos have a crop
    return quality.face_px, quality.sharpness
