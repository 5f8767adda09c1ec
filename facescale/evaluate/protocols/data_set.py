"""Protocols on any data set with identities: open-set identification, and every pair."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from facescale.arrays import IntArray
from facescale.data.images import ReaderImages
from facescale.data.readers.base import Reader
from facescale.evaluate.all_pairs import MOST_KEPT, verify_all_pairs
from facescale.evaluate.analyses import with_discard
from facescale.evaluate.embedding import Embedded, Extraction
from facescale.evaluate.figures import Figures
from facescale.evaluate.identification import search
from facescale.evaluate.identity_points import search_intervals
from facescale.evaluate.image_evaluator import ImageEvaluator
from facescale.evaluate.influence import kept_influences, tar_influence
from facescale.evaluate.intervals import mean_interval
from facescale.evaluate.protocols.subset import first_people, part_note
from facescale.evaluate.scored import ScoredImages, ScoredSearch

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed

FPIRS = (1e-1, 1e-2, 1e-3)
FARS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
MIN_FALSE_ALARMS = 10  # strangers that must decide a rate


@dataclass(frozen=True)
class DataSet(ImageEvaluator):
    """A data set to be embedded as a whole.

    Attributes:
        name: of the protocol.
        source: the data set's spec.
        reader: its images.
        size: side of the images that the network takes, in pixels; others are resized.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
        limit: most images; the first people by number, whole.
    """

    name: str
    source: str
    reader: Reader = field(repr=False)
    size: int = 112
    flip: bool = True
    batch_size: int = 128
    limit: int | None = None

    def measure(self, embed: "Embed", extraction: Extraction | None = None) -> Figures:
        """Embed every image once and measure.

        Args:
            embed: uint8 RGB tensor (B, size, size, 3) -> raw embeddings (B, D).
            extraction: where known embeddings are.

        Raises:
            ValueError: an image cannot be read, or the set is not fit for the protocol.
        """
        used = first_people(self.reader.ids, self.limit)
        embedded = self._embedded(embed, ReaderImages(self.reader), used.tolist(), extraction)
        figures = self._measured(embedded, used)
        note = part_note(len(used), len(self.reader), "images", "the first people by number, whole")
        return replace(figures, remarks=note + figures.remarks)

    @abstractmethod
    def _measured(self, embedded: Embedded, used: IntArray) -> Figures:
        """Figures from the embeddings of the images ``used``."""

    def _named(self, used: IntArray) -> Callable[[int], str]:
        """Place among the images ``used`` -> name."""
        return lambda place: self.reader.key(int(used[place]))


@dataclass(frozen=True)
class Identification(DataSet):
    """Open-set identification: half of the people are enrolled with one image each, the others are strangers.

    Every other person with two images or more, by number, is known: their first image is enrolled, the others
    are probes with a mate. All images of everybody else are probes of strangers.
    """

    def _measured(self, embedded: Embedded, used: IntArray) -> Figures:
        unit_ND, ids = embedded.unit_ND, self.reader.ids[used]
        people, first, count = np.unique(ids, return_index=True, return_counts=True)
        several = people[count > 1]
        known = several[::2]
        if len(known) < 2 or len(several) < 2:
            raise ValueError(
                f"'{self.source}' has {len(several)} people with two images or more; identification needs 4"
            )
        enrolled = first[np.isin(people, known)]
        probes = np.setdiff1d(np.arange(len(ids)), enrolled)
        found = search(unit_ND[enrolled], ids[enrolled], unit_ND[probes], ids[probes])
        values = {f"rank{k}": found.at_rank(k) for k in (1, 5, 20) if k <= len(enrolled)}
        is_mated = np.isin(ids[probes], known)
        mated, strangers = ids[probes[is_mated]], ids[probes[~is_mated]]
        intervals = {}
        for name in values:
            share = mean_interval(found.rank_M <= int(name.removeprefix("rank")), mated, mated)
            intervals[name] = (share.low, share.high)
        notes = []
        for fpir in FPIRS:
            if fpir * len(found.other_U) >= MIN_FALSE_ALARMS:
                values[f"tpir@fpir={fpir:g}"] = found.tpir_at(fpir)
                values[f"threshold@fpir={fpir:g}"] = found.threshold_at(fpir)
                intervals |= search_intervals(found, fpir, mated, strangers)
            else:
                need = round(MIN_FALSE_ALARMS / fpir)
                notes.append(
                    f"FPIR {fpir:g} needs {need:,} images of strangers, there are {len(found.other_U):,}"
                )
        counts = {
            "images": len(ids),
            "people enrolled": len(enrolled),
            "probes with a mate": len(found.rank_M),
            "probes of strangers": len(found.other_U),
        }
        ranks = np.arange(1, min(50, len(enrolled)) + 1)
        drawn = {"cmc": {"rank": ranks.tolist(), "rate": [found.at_rank(int(k)) for k in ranks]}}
        scored = ScoredSearch(
            key=self._named(used),
            person_N=ids,
            norm_N=embedded.norm_N,
            mated=probes[is_mated],
            mate_M=np.where(found.rank_M == 1, found.mate_M, -2.0),
            strangers=probes[~is_mated],
            other_U=found.other_U,
        )
        return Figures(
            self.name,
            "identification",
            self.source,
            values,
            counts,
            tuple(notes),
            drawn,
            intervals,
            scored=scored,
        )


@dataclass(frozen=True)
class EveryPair(DataSet):
    """Verification over all pairs of images, as MFR does it."""

    def _measured(self, embedded: Embedded, used: IntArray) -> Figures:
        ids = self.reader.ids[used]
        found = verify_all_pairs(embedded.unit_ND, ids, FARS)
        values = {f"tar@far={far:g}": tar for far, tar in found.tar.items()}
        values |= {f"threshold@far={far:g}": t for far, t in found.thresholds.items()}
        notes = _why_not(found.unsupported, found.num_impostor)
        counts = {
            "images": len(ids),
            "people": len(np.unique(ids)),
            "genuine pairs": found.num_genuine,
            "impostor pairs": found.num_impostor,
        }
        intervals = {key: ends for point in found.points.values() for key, ends in point.intervals().items()}
        figures = Figures(self.name, "all_pairs", self.source, values, counts, notes, intervals=intervals)
        scored = ScoredImages(
            self._named(used), ids, embedded.norm_N, found.genuine, found.highest, is_every_pair=True
        )
        people, genuine, impostor = np.unique(ids), scored.genuine_people, scored.impostor_people
        moved = {
            f"tar@far={far:g}": tar_influence(genuine, impostor, people, far, found.thresholds[far])
            for far in found.points
        }
        return with_discard(replace(figures, scored=scored, drawn=kept_influences(moved, ids)))


def _why_not(fars: Sequence[float], num_impostor: int) -> tuple[str, ...]:
    """Why false-accept rates have no figures: too few false accepts to decide them, or too many to keep."""
    many = [far for far in fars if far * num_impostor > MOST_KEPT]
    few = [f"{far:g}" for far in fars if far not in many]
    notes = [
        f"FAR {far:g} is {round(far * num_impostor):,} impostor pairs, more than are kept ({MOST_KEPT:,})"
        for far in many
    ]
    if few:
        notes.append(f"FAR {', '.join(few)}: {num_impostor:,} impostor pairs are too few")
    return tuple(notes)
