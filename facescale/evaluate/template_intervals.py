"""Intervals of template protocols, where the subjects are in the lists. P pairs, T templates, S people."""

from collections.abc import Mapping, Sequence

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.distractors import MOST_COUNTED, AmongDistractors
from facescale.evaluate.identification import Identification
from facescale.evaluate.identity_points import ScoredPairs, identity_point, search_intervals
from facescale.evaluate.influence import tar_influence
from facescale.evaluate.intervals import PairTotals, mean_interval
from facescale.evaluate.roc import MIN_FALSE_ACCEPTS

Intervals = dict[str, tuple[float, float]]


def tar_certainty(
    scores: FloatArray, is_genuine: BoolArray, person_2P: IntArray, thresholds: Mapping[float, float]
) -> tuple[Intervals, dict[str, FloatArray]]:
    """Intervals of TAR at false-accept rates, and what each person adds to it (see `tar_influence`).

    Rates with fewer than ten or more than ``MOST_COUNTED`` false accepts have neither.

    Args:
        scores: (P,) cosines.
        is_genuine: (P,) label of each pair.
        person_2P: (2, P) number of the person on each side, from 0.
        thresholds: at which TAR was read, by the rate.
    """
    num_impostor = int((~is_genuine).sum())
    counted = {
        far: value
        for far, value in thresholds.items()
        if MIN_FALSE_ACCEPTS <= far * num_impostor <= MOST_COUNTED and np.isfinite(value)
    }
    if not counted:
        return {}, {}
    mates = person_2P[0, is_genuine]
    genuine = ScoredPairs.of(scores[is_genuine], mates, mates)
    impostor = _highest(scores, ~is_genuine, person_2P, 4 * int(max(counted) * num_impostor) + 1)
    found: Intervals = {}
    moved = {}
    for far, threshold in counted.items():
        point, name = identity_point(genuine, impostor, far, threshold, True), f"tar@far={far:g}"
        found[name] = point.tar_low, point.tar_high
        moved[name] = tar_influence(genuine, impostor, impostor.people, far, threshold)
    return found, moved


def _highest(scores: FloatArray, chosen: BoolArray, person_2P: IntArray, count: int) -> ScoredPairs:
    """The ``count`` highest of the chosen pairs, with the people of all of them."""
    rows = np.flatnonzero(chosen)
    people = int(person_2P.max()) + 1
    totals = PairTotals.of_pairs(person_2P[0, rows], person_2P[1, rows], people)
    if count < len(rows):
        rows = rows[np.argpartition(scores[rows], len(rows) - count)[-count:]]
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return ScoredPairs(scores[rows], person_2P[0, rows], person_2P[1, rows], totals, np.arange(people))


def rank_intervals(rank_M: IntArray, person_M: IntArray, ranks: Sequence[int]) -> Intervals:
    """Intervals of the share of mated probes whose mate is among the first so many.

    Args:
        rank_M: (M,) rank of each mate.
        person_M: (M,) person of each probe.
        ranks: which shares.
    """
    found: Intervals = {}
    for k in ranks:
        share = mean_interval(rank_M <= k, person_M, person_M)
        found[f"rank{k}"] = share.low, share.high
    return found


def distractor_intervals(found: AmongDistractors, people: IntArray, ranks: Sequence[int]) -> Intervals:
    """Intervals of rank and TAR among distractors, each of which is taken for a person of its own.

    Args:
        found: the search.
        people: (Q,) number of the person of each probe, from 0.
        ranks: which ranks were counted.
    """
    of_pair = people[found.probe_P]
    intervals = rank_intervals(found.rank_P, of_pair, ranks)
    scores, tags = found.highest
    num_distractors = found.num_impostor // len(people)
    probe, distractor = np.divmod(tags, num_distractors)
    num_people = int(people.max()) + 1
    images = np.concatenate([np.bincount(people), np.zeros(num_distractors, np.int64)])
    others = np.concatenate([np.zeros(num_people, np.int64), np.ones(num_distractors, np.int64)])
    numbers = np.arange(num_people + num_distractors)
    totals = PairTotals.between(images, others)
    impostor = ScoredPairs(scores, people[probe], num_people + distractor, totals, numbers)
    genuine = ScoredPairs.of(found.genuine_P, of_pair, of_pair)
    for far, threshold in found.thresholds.items():
        if far * found.num_impostor <= MOST_COUNTED:
            above = float(np.nextafter(np.float32(threshold), np.float32(2)))  # a pair must be above it
            point = identity_point(genuine, impostor, far, above, True)
            intervals |= point.intervals()
    return intervals


def mean_tpir_intervals(
    parts: Sequence[Identification], gallery_people: Sequence[IntArray], probe_people: IntArray, fpir: float
) -> Intervals:
    """Interval of the mean TPIR over galleries of different people.

    Their mated probes are of different people, so their distances are added as squares (MOVER).

    Args:
        parts: the search of each gallery.
        gallery_people: people of each gallery.
        probe_people: person of each probe, of all galleries.
        fpir: false-positive identification rate.
    """
    name, means, below, above = f"tpir@fpir={fpir:g}", [], [], []
    for part, people in zip(parts, gallery_people, strict=True):
        is_mated = np.isin(probe_people, people)
        tpir = part.tpir_at(fpir)
        low, high = search_intervals(part, fpir, probe_people[is_mated], probe_people[~is_mated])[name]
        means.append(tpir)
        below.append(tpir - low)
        above.append(high - tpir)
    mean, count = float(np.mean(means)), len(parts)
    ends = mean - float(np.linalg.norm(below)) / count, mean + float(np.linalg.norm(above)) / count
    return {name: (max(ends[0], 0.0), min(ends[1], 1.0))}
