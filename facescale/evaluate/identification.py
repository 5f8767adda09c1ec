"""One-to-many identification: search probes in a gallery; some probes have no mate in it.

Shapes: Q probes, G gallery entries, D embedding width, M mated probes (their person is in the gallery),
U the others, q and g a block of probes and of the gallery. Features are rows of length 1; a similarity is
their dot product. No array has the size Q x G.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.blocks import products
from facescale.evaluate.highest import Highest
from facescale.evaluate.histogram import HistogramRoc

PROBES, GALLERY = 1024, 4096  # compared at once: 16 MB of similarities, whatever the gallery's size
PAIRS = 20_000  # mates compared at once


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
    mate_Q = _best_mates(gallery_GD, gallery_ids, probe_QD, probe_ids)
    # A product of matrices rounds by its shape, so an equal entry may seem a little lower than the mate.
    slack = 4 * np.finfo(probe_QD.dtype).eps * np.sqrt(probe_QD.shape[1])
    high_Q, low_Q = ((mate_Q + sign * slack).astype(probe_QD.dtype) for sign in (1, -1))
    best_Q = np.full(len(probe_QD), -np.inf, probe_QD.dtype)
    num_above_Q = np.zeros(len(probe_QD), np.int64)
    near_probe, near_entry = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for rows, columns, sim_qg in _similarities(probe_QD, gallery_GD):
        best_q = sim_qg.max(axis=1)
        np.maximum(best_Q[rows], best_q, out=best_Q[rows])
        open_ = np.flatnonzero(is_mated[rows] & (best_q > low_Q[rows]))
        probe = rows.start + open_
        sim_qg = sim_qg[open_]
        above_qg, from_low_qg = sim_qg > high_Q[probe, None], sim_qg > low_Q[probe, None]
        num_above_q = np.count_nonzero(above_qg, axis=1)
        num_above_Q[probe] += num_above_q
        unsure = np.flatnonzero(np.count_nonzero(from_low_qg, axis=1) > num_above_q)
        place, entry = np.nonzero(from_low_qg[unsure] & ~above_qg[unsure])
        near_probe.append(probe[unsure][place])
        near_entry.append(columns.start + entry)
    probe, entry = np.concatenate(near_probe), np.concatenate(near_entry)
    other = probe_ids[probe] != gallery_ids[entry]
    probe, entry = probe[other], entry[other]
    ahead = _dot(probe_QD, probe, gallery_GD, entry) >= mate_Q[probe]
    num_above_Q += np.bincount(probe[ahead], minlength=len(probe_QD))
    return Identification(
        rank_M=1 + num_above_Q[is_mated], mate_M=mate_Q[is_mated], other_U=best_Q[~is_mated]
    )


def _best_mates(
    gallery_GD: FloatArray, gallery_ids: IntArray, probe_QD: FloatArray, probe_ids: IntArray
) -> FloatArray:
    """Highest similarity of each probe to an entry of its person, float64 (Q,); infinity without one."""
    best_Q = np.full(len(probe_QD), np.inf)
    order = np.argsort(gallery_ids, kind="stable")
    first = np.searchsorted(gallery_ids, probe_ids, "left", sorter=order)
    count = np.searchsorted(gallery_ids, probe_ids, "right", sorter=order) - first
    mated = np.flatnonzero(count)
    starts = np.cumsum(count[mated]) - count[mated]
    probe = np.repeat(mated, count[mated])
    entry = order[np.arange(len(probe)) + np.repeat(first[mated] - starts, count[mated])]
    best_Q[mated] = np.maximum.reduceat(_dot(probe_QD, probe, gallery_GD, entry), starts)
    return best_Q


def _dot(a_ND: FloatArray, a: IntArray, b_ND: FloatArray, b: IntArray) -> FloatArray:
    """Dot product of row a[i] of one array with row b[i] of the other, float64, of any order the same."""
    parts = [
        np.einsum("pd,pd->p", a_ND[a[i : i + PAIRS]], b_ND[b[i : i + PAIRS]], dtype=np.float64)
        for i in range(0, len(a), PAIRS)
    ]
    return np.concatenate([np.empty(0), *parts])


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
    mates, highest = [], Highest(num_kept)
    for rows, columns, sim_qg in _similarities(probe_QD, gallery_GD):
        is_mate_qg = probe_ids[rows, None] == gallery_ids[columns]
        mates.append(sim_qg[is_mate_qg])
        highest.add(sim_qg[~is_mate_qg & (sim_qg > highest.bound)])
    threshold = float(highest.ranked()[-1])
    return float(np.mean(np.concatenate(mates) > threshold)), threshold


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
    for rows, columns, sim_qg in _similarities(probe_QD, gallery_GD):
        # In float32 and in this order, as torch.histc does: scores on an edge fall where they fall there.
        bin_qg = ((sim_qg.astype(np.float32) + 1) * num_bins / span).astype(np.int64).clip(0, num_bins - 1)
        is_mate_qg = probe_ids[rows, None] == gallery_ids[columns]
        mates = np.bincount(bin_qg[is_mate_qg], minlength=num_bins)
        counts += np.bincount(bin_qg.ravel(), minlength=num_bins) - mates, mates
    counts[1, -1] -= self_matches
    share = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1] / counts.sum(axis=1, keepdims=True)
    return HistogramRoc(far=share[0], tar=share[1], thresholds=np.arange(num_bins) / num_bins * span - 1)


def _similarities(probe_QD: FloatArray, gallery_GD: FloatArray) -> Iterator[tuple[slice, slice, FloatArray]]:
    """Yield (rows q, columns g, similarities (q, g)) of blocks; the array is overwritten by the next one."""
    return products(probe_QD, gallery_GD, PROBES, GALLERY)
