"""From scores to findings: what reaches its threshold is proposed, what comes close is shown.

N images, C identities, D embedding size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.clean.against import TestSet
from facescale.clean.finding import (
    CONFLICT,
    COPY,
    MERGED,
    MISLABELLED,
    SPLIT,
    TEST_IMAGE,
    TEST_PERSON,
    Finding,
    Picture,
)
from facescale.clean.identities import Merges, Splits
from facescale.clean.labels import Labels
from facescale.clean.overlap import SharedPeople
from facescale.data.images import Images
from facescale.prepare.duplicates import thin_out
from facescale.prepare.near_copies import Copies

LOOK = 20  # findings of a kind below the threshold that are shown all the same
_PICTURES = 4  # of an identity


@dataclass(frozen=True)
class Judged:
    """The data set in rows.

    Attributes:
        images: N images.
        ids: (N,), 0 to C - 1.
        names: of the identities.
        own_N: cosine of each image to the others of its identity.
    """

    images: Images
    ids: IntArray
    names: Sequence[str]
    own_N: FloatArray

    def pictures(self, identity: int, but: int = -1) -> tuple[Picture, ...]:
        """The most typical images of an identity."""
        rows = np.flatnonzero(self.ids == identity)
        rows = rows[rows != but]
        return tuple((0, int(row)) for row in rows[np.argsort(-self.own_N[rows], kind="stable")][:_PICTURES])


def _with_looks(score_P: npt.NDArray[np.floating], threshold: float) -> Iterator[tuple[int, bool]]:
    """Places by score: all from the threshold on, and the next few above 0; with whether they reach it."""
    order = np.argsort(-score_P, kind="stable")
    order = order[score_P[order] > min(threshold, 0)]
    num = int((score_P >= threshold).sum())
    for place, index in enumerate(order[: num + LOOK].tolist()):
        yield index, place < num


def mislabelled(data: Judged, labels: Labels) -> Iterator[Finding]:
    """Images nearer to another identity: moved there if it stands out, else dropped."""
    for row, is_found in _with_looks(labels.margin_N, labels.threshold.score):
        own, other = int(data.ids[row]), int(labels.nearest_N[row])
        moves = bool(labels.sure_N[row])
        yield Finding(
            MISLABELLED,
            data.images.key(row),
            data.names[other],
            float(labels.margin_N[row]),
            ("move_image" if moves else "drop_image") if is_found else None,
            data.names[other] if is_found and moves else "",
            shown=(
                (data.images.key(row), ((0, row),)),
                (data.names[own], data.pictures(own, row)[:2]),
                (data.names[other], data.pictures(other)[:2]),
            ),
        )


def split(data: Judged, splits: Splits) -> Iterator[Finding]:
    """Two identities that are one person: the smaller becomes part of the larger."""
    counts = np.bincount(data.ids)
    for place, is_found in _with_looks(splits.score_P, splits.threshold.score):
        pair = int(splits.first_P[place]), int(splits.second_P[place])
        small, large = sorted(pair, key=lambda one: (counts[one], -one))
        yield Finding(
            SPLIT,
            data.names[small],
            data.names[large],
            float(splits.score_P[place]),
            "merge_identity" if is_found else None,
            data.names[large] if is_found else "",
            shown=tuple((data.names[one], data.pictures(one)) for one in (small, large)),
        )


def merged(data: Judged, merges: Merges) -> Iterator[Finding]:
    """Identities that are two people: the images of the smaller part are dropped."""
    for identity, is_found in _with_looks(merges.score_C, merges.threshold.score):
        rows = np.flatnonzero(data.ids == identity)
        part = rows[merges.part_N[rows]]
        rest = rows[~merges.part_N[rows]]
        yield Finding(
            MERGED,
            data.names[identity],
            f"{len(part)} of {len(rows)} images show someone else",
            float(merges.score_C[identity]),
            "drop_image" if is_found else None,
            images=tuple(data.images.key(int(row)) for row in part),
            shown=tuple(
                (f"{data.names[identity]}: {heading}", tuple((0, int(row)) for row in rows[:_PICTURES]))
                for heading, rows in (("smaller part", part), ("larger part", rest))
            ),
        )


def duplicated(data: Judged, copies: Copies, worth_N: FloatArray) -> Iterator[Finding]:
    """Copies of one photo: within an identity the best one stays, across identities the one that fits best.

    Args:
        data: the set.
        copies: within it.
        worth_N: pixels of each image before scaling; of equal ones the first is the best.
    """
    first, second = copies.first_P, copies.second_P
    same_P = data.ids[first] == data.ids[second]
    score = {
        frozenset((a, b)): agreement
        for a, b, agreement in zip(first.tolist(), second.tolist(), copies.agreement_P.tolist(), strict=True)
    }
    found: list[Finding] = []
    for kind, which_P, worth in ((COPY, same_P, worth_N), (CONFLICT, ~same_P, data.own_N)):
        # Only images that are in a pair are asked for their worth.
        gone = thin_out(first[which_P], second[which_P], [(float(value),) for value in worth])
        for row, better in gone.items():
            pair = data.images.key(row), data.images.key(better)
            shown = (pair[0], ((0, row),)), (pair[1], ((0, better),))
            found.append(Finding(kind, *pair, score[frozenset((row, better))], "drop_image", shown=shown))
    yield from sorted(found, key=lambda one: -one.score)


def in_test_set(
    data: Judged, number: int, test: TestSet, copies: Copies, people: SharedPeople, wrong_N: BoolArray
) -> Iterator[Finding]:
    """Photos and people of a test set.

    An identity is dropped if it has a photo of the test set under a right label, the name of one of its
    people, or an embedding near enough to one of them.

    Args:
        data: the set.
        number: of the test set, for pictures.
        test: the test set.
        copies: photos that are in both, the data set's first.
        people: pairs of people by embedding.
        wrong_N: whether the label of an image is wrong; then its photo says nothing of the identity.
    """
    by_photo: dict[int, tuple[int, float]] = {}
    for place in np.argsort(-copies.agreement_P, kind="stable").tolist():
        row, theirs = int(copies.first_P[place]), int(copies.second_P[place])
        score, pair = float(copies.agreement_P[place]), (data.images.key(row), test.images.key(theirs))
        shown = (pair[0], ((0, row),)), (pair[1], ((number, theirs),))
        yield Finding(TEST_IMAGE, *pair, score, "drop_image", where=test.name, shown=shown)
        if not wrong_N[row]:
            by_photo.setdefault(int(data.ids[row]), (int(test.person_N[theirs]), score))
    by_name = {i: (person, 1.0) for i, person in _same_names(data, test) if i not in by_photo}
    for evidence, found in (("photo", by_photo), ("name", by_name)):
        for identity, (person, score) in found.items():
            yield _of_test(data, number, test, (identity, person), score, evidence, True)
    for place, is_found in _with_looks(people.score_P, people.threshold.score):
        both = int(people.identity_P[place]), int(people.person_P[place])
        if both[0] not in by_photo and both[0] not in by_name:
            score = float(people.score_P[place])
            yield _of_test(data, number, test, both, score, "embedding", is_found)


def _same_names(data: Judged, test: TestSet) -> Iterator[tuple[int, int]]:
    """Identities and people of one name, whatever its case and separators."""
    theirs = {plain: person for person, name in enumerate(test.names) if (plain := _plain(name))}
    for identity, name in enumerate(data.names):
        if (person := theirs.get(_plain(name))) is not None:
            yield identity, person


def _plain(name: str) -> str:
    """Letters and digits of a name; empty for a number, which many sets use for different people."""
    plain = "".join(letter for letter in name.casefold() if letter.isalnum())
    letters = [letter for letter in plain if letter.isalpha()]
    return plain if len(letters) > 2 else ""


def _of_test(
    data: Judged,
    number: int,
    test: TestSet,
    both: tuple[int, int],
    score: float,
    evidence: str,
    is_found: bool,
) -> Finding:
    identity, person = both
    rows = np.flatnonzero(test.person_N == person)[:_PICTURES]
    name = test.names[person] if test.names else test.images.key(int(rows[0]))
    return Finding(
        TEST_PERSON,
        data.names[identity],
        name,
        score,
        "drop_identity" if is_found else None,
        where=test.name,
        evidence=evidence,
        shown=(
            (data.names[identity], data.pictures(identity)),
            (name, tuple((number, int(row)) for row in rows)),
        ),
    )
