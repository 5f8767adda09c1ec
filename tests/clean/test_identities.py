"""facescale.clean.identities: identities of several people, people of several identities."""

import numpy as np

from facescale.clean.centres import robust_centres
from facescale.clean.identities import find_merges, find_splits
from facescale.evaluate.rows import unit_rows

PEOPLE, IMAGES, SIZE = 60, 8, 32


def cloud(labels: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings of people around their own directions; each person has eight images."""
    draw = np.random.default_rng(seed)
    people = np.repeat(np.arange(len(labels)), IMAGES)
    rows = draw.normal(size=(len(labels), SIZE))[people] + 0.4 * draw.normal(size=(len(people), SIZE))
    return unit_rows(rows).astype(np.float32), np.array(labels, np.int64)[people]


def test_two_people_of_one_label_are_found_with_their_images() -> None:
    unit, ids = cloud([*range(PEOPLE), 7])  # the last person has label 7 too
    unit[ids == 7] = unit[ids == 7][::-1]  # whoever comes first
    found = find_merges(unit, ids, robust_centres(unit, ids), 0.75)
    assert found.found.tolist() == [7]
    of_seven = np.flatnonzero(ids == 7)
    assert np.flatnonzero(found.part_N[of_seven]).tolist() in ([*range(8)], [*range(8, 16)])


def test_single_strangers_do_not_hide_the_second_person() -> None:
    unit, ids = cloud([*range(PEOPLE), 7])
    of_seven = np.flatnonzero(ids == 7)
    strangers = unit_rows(np.random.default_rng(5).normal(size=(2, SIZE)))
    unit[of_seven[[0, 9]]] = strangers
    found = find_merges(unit, ids, robust_centres(unit, ids), 0.75)
    assert found.found.tolist() == [7]
    part = set(np.flatnonzero(found.part_N[of_seven]).tolist()) - {0, 9}  # where strangers go does not matter
    assert part in (set(range(1, 8)), set(range(8, 16)) - {9})


def test_one_person_of_two_labels_is_found() -> None:
    unit, ids = cloud([*range(PEOPLE)])
    halves = np.flatnonzero(ids == 7)[::2]
    ids[halves] = PEOPLE
    found = find_splits(unit, ids, robust_centres(unit, ids), 0.75)
    assert [(found.first_P[n], found.second_P[n]) for n in found.found] == [(7, PEOPLE)]
    partners = found.partners(PEOPLE + 1)
    assert partners[[7, PEOPLE]].tolist() == [PEOPLE, 7] and partners[3] == 3


def test_people_of_one_label_each_are_left_alone() -> None:
    unit, ids = cloud([*range(PEOPLE)])
    centres = robust_centres(unit, ids)
    assert not len(find_splits(unit, ids, centres, 0.75).found)
    assert not len(find_merges(unit, ids, centres, 0.75).found)


def test_identities_of_one_image_are_not_judged() -> None:
    unit = unit_rows(np.random.default_rng(0).normal(size=(5, SIZE))).astype(np.float32)
    ids = np.arange(5)
    centres = robust_centres(unit, ids)
    assert not len(find_merges(unit, ids, centres, 0.75).found)
    assert not len(find_splits(unit, ids, centres, 0.75).found)
