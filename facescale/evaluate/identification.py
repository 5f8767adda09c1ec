"""One-to-many identification: search probes in a gallery; some probes have no mate in it.

Shapes: Q probes, G gallery entries, D embedding width, M mated probes (their person is in the gallery),
U the others. Features are rows of length 1; a similarity is their dot product.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.histogram import HistogramRoc

CHUNK = 1024  # probes compared at once: with a million gallery entries, 4 GB of similarities


@dataclass(frozen=True)
class Identification:
    """The result of searching probes in a gallery.

    Attributes:
        rank_M: int64, place of the mate in the list of each mated probe: 1 + the number of other people's
            entries with at least its similarity.
        mate_M: similarity of the mate (the best one, where a person has several entries).
        other_U: highest similarity of each probe whose person is not in the gallery.
    """

    rank_M: IntArray
    mate_M: FloatArray
    other_U: FloatArray

    def at_rank(self, k: int) -> float:
        """Share of mated probes whose mate is among the first ``k`` (closed set)."""
        return float(np.mean(self.rank_M <= k))

    def threshold_at(self, fpir: float) -> float:
        """Threshold that lets ``fpir`` of the non-mated probes raise a (strictly higher) candidate.

        Raises:
            ValueError: a rate outside (0, 1], or no non-mated probe.
        """
        if not 0 < fpir <= 1 or not len(self.other_U):
            raise ValueError(
                f"no threshold at FPIR {fpir} from {len(self.other_U)} non-mated probes; use a rate above 0 "
                "and at most 1, and add probes of people who are not in the gallery"
            )
        ranked = np.sort(self.other_U)[::-1]
        return float(ranked[max(int(len(ranked) * fpir) - 1, 0)])

    def tpir_at(self, fpir: float) -> float:
        """Share of mated probes whose mate is first and strictly above the threshold (open set)."""
        return float(np.mean((self.rank_M == 1) & (self.mate_M > self.threshold_at(fpir))))


def search(
    gallery_GD: FloatArray, gallery_ids: IntArray, probe_QD: FloatArray, probe_ids: IntArray
) -> Identification:
    """Compare every probe with every gallery entry.

    Raises:
        ValueError: no probe's person is in the gallery, or rows and identities that differ in number.
    """
    if (len(gallery_GD), len(probe_QD)) != (len(gallery_ids), len(probe_ids)):
        raise ValueError(
            f"{len(gallery_GD)} gallery and {len(probe_QD)} probe features do not fit {len(gallery_ids)} and "
            f"{len(probe_ids)} identities; pass one identity per feature"
        )
    is_mated = np.isin(probe_ids, gallery_ids)
    if not is_mated.any():
        raise ValueError(
            f"none of the {len(probe_ids)} probes is of a person in the gallery; "
            "check that both use the same identity numbers"
        )
    rank, mate, best = [], [], []
    for rows, sim_qG in _similarities(probe_QD, gallery_GD):
        is_mate_qG = probe_ids[rows, None] == gallery_ids
        mate_q = np.where(is_mate_qG, sim_qG, -np.inf).max(axis=1)
        rank.append(1 + np.sum((sim_qG >= mate_q[:, None]) & ~is_mate_qG, axis=1))
        mate.append(mate_q)
        best.append(sim_qG.max(axis=1))
    return Identification(
        rank_M=np.concatenate(rank)[is_mated],
        mate_M=np.concatenate(mate)[is_mated],
        other_U=np.concatenate(best)[~is_mated],
    )


@dataclass(frozen=True)
class MeanIdentification:
    """Several galleries searched with the same probes, as IJB's two.

    Attributes:
        parts: one for each gallery.
    """

    parts: Sequence[Identification]

    def at_rank(self, k: int) -> float:
        """Share of the mated probes of all galleries whose mate is among the first ``k``."""
        return float(np.mean(np.concatenate([part.rank_M for part in self.parts]) <= k))

    def tpir_at(self, fpir: float) -> float:
        """Mean TPIR over the galleries, each at a separate threshold."""
        return float(np.mean([part.tpir_at(fpir) for part in self.parts]))


def pooled_recall(
    gallery_GD: FloatArray, gallery_ids: IntArray, probe_QD: FloatArray, probe_ids: IntArray, rate: float
) -> tuple[float, float]:
    """The released insightface figure "TPIR@FPIR" of ijb_1n.py: (recall, threshold).

    All similarities of different people are pooled; the threshold is the ``ceil(rate * Q)``-th largest of
    them, and recall the share of mates strictly above it, whatever their rank. It is not the open-set TPIR
    of `Identification.tpir_at`, and must not be compared with it.
    """
    num_kept = int(np.ceil(rate * len(probe_ids)))
    mates, highest = [], np.empty(0)
    for rows, sim_qG in _similarities(probe_QD, gallery_GD):
        is_mate_qG = probe_ids[rows, None] == gallery_ids
        mates.append(sim_qG[is_mate_qG])
        pool = np.concatenate([highest, sim_qG[~is_mate_qG]])
        highest = np.partition(pool, max(len(pool) - num_kept, 0))[-num_kept:]
    threshold = float(highest.min())
    return float(np.mean(np.concatenate(mates) > threshold)), threshold


def distractor_rank1(probe_QD: FloatArray, probe_ids: IntArray, distractor_GD: FloatArray) -> float:
    """MegaFace's rank-1: share of ordered pairs of one person that score above all distractors of the first.

    Each other image of the probe's person is added alone to the distractors.

    Raises:
        ValueError: no person has two images.
    """
    num_hits, num_pairs = 0, 0
    for rows, sim_qG in _similarities(probe_QD, distractor_GD):
        bar_q1 = sim_qG.max(axis=1, keepdims=True)
        own_qQ = probe_QD[rows] @ probe_QD.T
        is_pair_qQ = (probe_ids[rows, None] == probe_ids) & (rows[:, None] != np.arange(len(probe_ids)))
        num_hits += int(np.sum(is_pair_qQ & (own_qQ > bar_q1)))
        num_pairs += int(is_pair_qQ.sum())
    if not num_pairs:
        raise ValueError(
            f"each of the {len(probe_ids)} probes has a different identity; add a second image of some"
        )
    return num_hits / num_pairs


def search_histogram(
    gallery_GD: FloatArray,
    gallery_ids: IntArray,
    probe_QD: FloatArray,
    probe_ids: IntArray,
    self_matches: int = 0,
    num_bins: int = 10_000,
) -> HistogramRoc:
    """ROC over all probe-gallery pairs without holding them: ``num_bins`` bins over [-1, 1].

    Args:
        gallery_GD: gallery.
        gallery_ids: identity of each entry.
        probe_QD: probes.
        probe_ids: identity of each.
        self_matches: how many pairs are an image with itself (probes that are in the gallery too); they are
            taken out of the highest bin.
        num_bins: resolution; F2C's tool uses 10,000.
    """
    span = np.float32(2 + 1e-5)
    counts = np.zeros((2, num_bins), np.int64)
    for rows, sim_qG in _similarities(probe_QD, gallery_GD):
        is_mate_qG = probe_ids[rows, None] == gallery_ids
        # In float32 and in this order, as torch.histc does: scores on an edge fall where they fall there.
        bin_qG = ((sim_qG.astype(np.float32) + 1) * num_bins / span).astype(np.int64).clip(0, num_bins - 1)
        for kind in (0, 1):
            counts[kind] += np.bincount(bin_qG[is_mate_qG == kind], minlength=num_bins)
    counts[1, -1] -= self_matches
    share = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1] / counts.sum(axis=1, keepdims=True)
    return HistogramRoc(far=share[0], tar=share[1], thresholds=np.arange(num_bins) / num_bins * span - 1)


def _similarities(probe_QD: FloatArray, gallery_GD: FloatArray) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield (row numbers q, similarities (q, G)) of stretches of probes."""
    for start in range(0, len(probe_QD), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(probe_QD)))
        yield rows, probe_QD[rows] @ gallery_GD.T
