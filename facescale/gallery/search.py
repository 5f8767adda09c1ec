"""Exact search: the people of a gallery who are most like a face."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from facescale.arrays import BoolArray, IntArray
from facescale.gallery.gallery import Embeddings

# Q queries, P people, d embedding size, K matches

_BLOCK = 1 << 16  # people whose cosines with a block of queries are in memory at once
_QUERIES = 256


@dataclass(frozen=True)
class Match:
    """A person of the gallery beside a face.

    Attributes:
        name: who.
        cosine: of the face and the person's template, -1 to 1.
    """

    name: str
    cosine: float


def strangers_named(far: float, num_people: int) -> float:
    """Share of strangers who are above the threshold with somebody of a gallery, 0 to 1.

    A stranger is compared with everybody. 1 - (1 - far)^P holds for independent comparisons; those of one
    face are not quite, so the share is a little lower.

    Args:
        far: false-accept rate of one comparison.
        num_people: P.
    """
    return float(-np.expm1(num_people * np.log1p(-min(far, 1 - 1e-12))))


def nearest_people(
    query_QD: Embeddings, names: Sequence[str], template_PD: Embeddings, top: int = 5
) -> list[list[Match]]:
    """The ``top`` people of highest cosine for each face, best first; ties by order of enrolment.

    Args:
        query_QD: unit embeddings.
        names: of the people.
        template_PD: their unit templates, see ``Gallery.templates``.
        top: how many at most.

    Raises:
        ValueError: the embeddings have another size than the templates.
    """
    if query_QD.shape[1] != template_PD.shape[1]:
        raise ValueError(
            f"faces have {query_QD.shape[1]}-d embeddings and the gallery {template_PD.shape[1]}-d ones"
        )
    found: list[list[Match]] = []
    for start in range(0, len(query_QD), _QUERIES):
        blocks = (template_PD[first : first + _BLOCK] for first in range(0, len(template_PD), _BLOCK))
        place_QK, cosine_QK = top_places(
            query_QD[start : start + _QUERIES], ((block, None) for block in blocks), top
        )
        found += [
            [Match(names[place], float(cosine)) for place, cosine in zip(places, cosines, strict=True)]
            for places, cosines in zip(place_QK.tolist(), cosine_QK.tolist(), strict=True)
        ]
    return found


def top_places(
    query_QD: Embeddings, blocks: Iterable[tuple[Embeddings, BoolArray | None]], top: int
) -> tuple[IntArray, Embeddings]:
    """Places (Q, K) and cosines (Q, K) of the best templates, best first.

    Args:
        query_QD: unit embeddings.
        blocks: templates (B, d) and who of them is hidden (B,), if anybody; a hidden one has the cosine -2.
        top: how many at most.
    """
    best_place_QK = np.empty((len(query_QD), 0), np.int64)
    best_QK = np.empty((len(query_QD), 0), np.float32)
    start = 0
    for template_BD, hidden_B in blocks:
        cosine_QB = query_QD @ template_BD.T
        if hidden_B is not None:
            cosine_QB[:, hidden_B] = -2.0
        size = min(top, cosine_QB.shape[1])
        part = np.argpartition(-cosine_QB, size - 1, axis=1)[:, :size]
        # argpartition may keep any of those that tie with the last one: take the first of them
        least = np.take_along_axis(cosine_QB, part, 1).min(axis=1, keepdims=True)
        for row in np.flatnonzero((cosine_QB >= least).sum(axis=1) > size):
            part[row] = np.argsort(-cosine_QB[row], kind="stable")[:size]
        part.sort(axis=1)
        place_QK = np.concatenate([best_place_QK, part + start], axis=1)
        value_QK = np.concatenate([best_QK, np.take_along_axis(cosine_QB, part, 1)], axis=1)
        order = np.argsort(-value_QK, axis=1, kind="stable")[:, :top]
        best_place_QK = np.take_along_axis(place_QK, order, 1)
        best_QK = np.take_along_axis(value_QK, order, 1)
        start += len(template_BD)
    return best_place_QK, best_QK


def too_alike(
    names: Sequence[str], template_PD: Embeddings, threshold: float
) -> tuple[list[Match], list[tuple[str, str, float]]]:
    """The nearest other person of everybody, and all pairs at or above a threshold.

    Args:
        names: of the people.
        template_PD: their unit templates.
        threshold: cosine.

    Returns:
        For each person the best match among the others (none if there are no others); (name, name, cosine) of
        the pairs, highest first: the same person under two names, or two whom the model mistakes.
    """
    nearest: list[Match] = []
    pairs: list[tuple[str, str, float]] = []
    for start in range(0, len(template_PD), _QUERIES):
        part_QD = template_PD[start : start + _QUERIES]
        best_Q = np.full(len(part_QD), -2.0, np.float32)
        place_Q = np.zeros(len(part_QD), np.int64)
        row_Q = start + np.arange(len(part_QD))
        for first in range(0, len(template_PD), _BLOCK):
            cosine_QB = part_QD @ template_PD[first : first + _BLOCK].T
            number_B = first + np.arange(cosine_QB.shape[1])
            cosine_QB[row_Q[:, None] == number_B] = -2.0  # nobody is a stranger to themselves
            top_Q = cosine_QB.argmax(axis=1)
            value_Q = cosine_QB[np.arange(len(part_QD)), top_Q]
            better = value_Q > best_Q
            best_Q[better], place_Q[better] = value_Q[better], first + top_Q[better]
            high = np.argwhere((cosine_QB >= threshold) & (number_B > row_Q[:, None]))
            pairs += [(names[start + q], names[first + b], float(cosine_QB[q, b])) for q, b in high.tolist()]
        if len(template_PD) > 1:
            nearest += [Match(names[p], float(c)) for p, c in zip(place_Q.tolist(), best_Q, strict=True)]
    return nearest, sorted(pairs, key=lambda pair: -pair[2])
