"""Fixed parts of protocols: whole people, balanced folds, and a remark that says so."""

import dataclasses

import numpy as np
import pytest
import torch

from facescale.evaluate.protocols.open import open_protocol
from facescale.evaluate.protocols.subset import first_pairs, first_people, linked, part_note


def means(images: torch.Tensor) -> torch.Tensor:
    return images.float().reshape(len(images), 2, 16, 2, 16, 3).mean(dim=(2, 4)).flatten(1) - 100


def test_people_are_kept_whole_in_the_order_of_their_numbers() -> None:
    ids = np.array([5, 2, 9, 2, 5, 9, 9])
    assert first_people(ids, 5).tolist() == [0, 1, 3, 4]
    assert first_people(ids, 4).tolist() == [0, 1, 3, 4]
    assert first_people(ids, 3).tolist() == [1, 3]
    assert first_people(ids, None).tolist() == list(range(7))


def test_pairs_are_taken_from_every_fold_and_kind_in_turn() -> None:
    same = np.array([True] * 4 + [False] * 4 + [True] * 4 + [False] * 4)
    fold = np.repeat([0, 1], 8)
    assert first_pairs(same, fold, 4).tolist() == [0, 4, 8, 12]
    assert first_pairs(same, fold, 8).tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    assert first_pairs(same, fold, 16).tolist() == list(range(16))


def test_linked_items_are_one_group_however_long_the_chain() -> None:
    a = np.arange(99)
    rng = np.random.default_rng(0)
    names = rng.permutation(100)
    assert (linked(100, names[a], names[a + 1]) == 0).all()
    assert linked(4, np.array([3]), np.array([1])).tolist() == [0, 1, 2, 1]


def test_a_remark_says_what_was_left_out() -> None:
    assert part_note(5, 5, "images", "x") == ()
    assert part_note(4, 6000, "pairs", "the first")[0].startswith("limited to 4 of 6,000 pairs (the first)")


@pytest.mark.parametrize(
    ("spec", "limit", "said"),
    [
        ("synthetic:pairs=80,folds=2", 20, "limited to 20 of 80 pairs"),
        ("identification:synthetic:ids=20,images=4,size=32", 41, "limited to 40 of 80 images"),
        ("all_pairs:synthetic:ids=20,images=4,size=32", 41, "limited to 40 of 80 images"),
    ],
)
def test_limited_protocols_measure_a_part_and_say_so(spec: str, limit: int, said: str) -> None:
    result = open_protocol(spec, 32, flip=False, limit=limit).measure(means)
    assert any(said in note for note in result.notes())
    again = open_protocol(spec, 32, flip=False, limit=limit).measure(means)
    assert dict(result.figures()) == dict(again.figures())
    whole = open_protocol(spec, 32, flip=False, limit=10_000).measure(means)
    assert dict(whole.figures()) == dict(open_protocol(spec, 32, flip=False).measure(means).figures())
    assert not any("limited" in note for note in whole.notes())


def test_a_limit_below_one_person_is_refused() -> None:
    with pytest.raises(ValueError, match="a limit of 3 images is less than the 4 of the first person"):
        open_protocol("all_pairs:synthetic:ids=20,images=4,size=32", 32, limit=3).measure(means)


def test_a_limit_that_leaves_one_fold_is_refused() -> None:
    protocol = open_protocol("synthetic:pairs=80,folds=2", 32, limit=4)
    assert len(protocol.pairs) == 4 and dataclasses.is_dataclass(protocol.pairs)
    with pytest.raises(ValueError, match="all pairs are in one fold"):
        open_protocol("synthetic:pairs=80,folds=2", 32, limit=2)
