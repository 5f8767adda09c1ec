"""Identification and verification among distractors, as the MegaFace challenge defines them.

Kemelmacher-Shlizerman et al., "The MegaFace Benchmark", CVPR 2016 (arXiv 1512.00596). Shapes: Q probes, G
distractors, P ordered pairs (i, j) of two probes of one person, D embedding width; q and g are blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.blocks import products
from facescale.evaluate.highest import Highest, RowHighest
from facescale.evaluate.roc import MIN_FALSE_ACCEPTS, ROUND_UP

MOST_COUNTED = 300_000  # false accepts of which the people are counted, for intervals
PROBES, GALLERY = 1024, 4096  # compared at once
NUM_RANKS = 100


@dataclass(frozen=True)
class AmongDistractors:
    """Probes searched among distractors.

    Attributes:
        rank_P: int64, place of probe j in the list of probe i, when j is added alone to the distractors: 1 +
            the number of distractors with at least its similarity; places beyond ``num_ranks`` are that + 1.
        num_ranks: how many places were told apart.
        tar: true-accept rate by false-accept rate; genuine are the pairs of probes, impostors every probe
            with every distractor.
        thresholds: by false-accept rate: a pair is accepted if its cosine is higher.
        unsupported: false-accept rates with fewer than ten false accepts.
        num_impostor: number of impostor pairs.
        probe_P: int64, probe i of each pair.
        genuine_P: similarity of each pair.
        highest: the highest similarities of a probe and a distractor, descending, and which they are: the
            number of the probe times the number of distractors, plus that of the distractor.
    """

    rank_P: IntArray
    num_ranks: int
    tar: dict[float, float]
    thresholds: dict[float, float]
    unsupported: tuple[float, ...]
    num_impostor: int
    probe_P: IntArray
    genuine_P: FloatArray
    highest: tuple[FloatArray, IntArray]

    def at_rank(self, k: int) -> float:
        """Share of the pairs whose second image is among the first ``k``.

        Raises:
            ValueError: a rank that was not counted.
        """
        if not 1 <= k <= self.num_ranks:
            raise ValueError(f"rank {k} was not counted; use 1 to {self.num_ranks}")
        return float(np.mean(self.rank_P <= k))


def search_distractors(
    probe_QD: FloatArray,
    probe_ids: IntArray,
    distractor_GD: FloatArray,
    fars: Sequence[float] = (),
    num_ranks: int = NUM_RANKS,
) -> AmongDistractors:
    """Compare every probe with every distractor; no array has the size Q x G.

    Args:
        probe_QD: rows of length 1.
        probe_ids: int64 (Q,), identity of each.
        distractor_GD: rows of length 1, of nobody among the probes.
        fars: false-accept rates.
        num_ranks: places to tell apart.

    Raises:
        ValueError: no person has two images.
    """
    if len(np.unique(probe_ids)) == len(probe_ids):
        raise ValueError(
            f"each of the {len(probe_ids)} probes has a different identity; add a second image of some"
        )
    num_impostor = len(probe_QD) * len(distractor_GD)
    allowed = {far: int(far * num_impostor * ROUND_UP) for far in fars}
    supported = {far: number for far, number in allowed.items() if number >= MIN_FALSE_ACCEPTS}
    counted = max((number for number in supported.values() if number <= MOST_COUNTED), default=0)
    highest = Highest(max([2 * counted, *supported.values()], default=0) + 1)  # intervals look further down
    of_probe = RowHighest(len(probe_QD), num_ranks)
    for rows, columns, sim_qg in products(probe_QD, distractor_GD, PROBES, GALLERY):
        bar_q = np.minimum(of_probe.bound[rows], highest.bound) if supported else of_probe.bound[rows]
        candidate_q = np.flatnonzero(sim_qg.max(axis=1) > bar_q)
        place, column = np.nonzero(sim_qg[candidate_q] > bar_q[candidate_q, None])
        probe, score = candidate_q[place], sim_qg[candidate_q[place], column]
        kept = score > of_probe.bound[rows][probe]
        of_probe.add(rows.start + probe[kept], score[kept])
        if supported:
            is_high = score > highest.bound
            tags = (rows.start + probe[is_high]) * len(distractor_GD) + columns.start + column[is_high]
            highest.add(score[is_high], tags)
    rank_P, genuine_P, probe_P = _mates(probe_QD, probe_ids, of_probe.table())
    ranked, tags = highest.ranked_with_tags()
    thresholds = {far: float(ranked[n]) if n < len(ranked) else -1.0 for far, n in supported.items()}
    return AmongDistractors(
        rank_P=rank_P,
        num_ranks=num_ranks,
        tar={far: float(np.mean(genuine_P > threshold)) for far, threshold in thresholds.items()},
        thresholds=thresholds,
        unsupported=tuple(far for far in fars if far not in supported),
        num_impostor=num_impostor,
        probe_P=probe_P,
        genuine_P=genuine_P,
        highest=(ranked[: 4 * counted + 1], tags[: 4 * counted + 1]),
    )


def _mates(
    probe_QD: FloatArray, probe_ids: IntArray, top_QK: FloatArray
) -> tuple[IntArray, FloatArray, IntArray]:
    """Rank, similarity and first probe of every ordered pair of one person; top_QK: highest distractors."""
    ranks, genuine, probes = [], [], []
    for start in range(0, len(probe_QD), PROBES):
        rows = np.arange(start, min(start + PROBES, len(probe_QD)))
        is_pair_qQ = (probe_ids[rows, None] == probe_ids) & (rows[:, None] != np.arange(len(probe_ids)))
        probe, mate = np.nonzero(is_pair_qQ)
        own = (probe_QD[rows] @ probe_QD.T)[probe, mate]
        genuine.append(own)
        probes.append(rows[probe])
        ranks.append(1 + np.count_nonzero(top_QK[rows[probe]] >= own[:, None], axis=1))
    return np.concatenate(ranks), np.concatenate(genuine), np.concatenate(probes)
