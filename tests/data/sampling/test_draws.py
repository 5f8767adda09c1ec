"""The order of an epoch: every image once, sources by weight, identities in turn, P x K."""

from collections import Counter

import numpy as np
import pytest

from facescale.config import AugmentConfig
from facescale.data.loading.augment import Augment
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.sampling.counter_rng import permuted_each
from facescale.data.sampling.draws import EveryImage, drawn_per_epoch, make_draws
from facescale.data.sampling.multiview import make_sampler

COUNTS = [1, 2, 3, 6, 0, 9, 4]
IDS = np.random.default_rng(0).permutation(np.arange(7).repeat(COUNTS))
SOURCES = np.repeat([0, 1, 2], [10, 5, 10])

WAYS = {
    "images": {},
    "weighted": {"source_N": SOURCES, "weights": [2.0, 0.5, 1.0]},
    "balanced": {"sampling": "balanced"},
    "pxk": {"sampling": "pxk", "group": 3},
}


@pytest.mark.parametrize("way", WAYS)
def test_any_part_of_an_epoch_can_be_asked_for_alone(way: str):
    draws = make_draws(IDS, 5, **WAYS[way])
    whole = draws.at(3, np.arange(len(draws)))
    for place in (0, 7, len(draws) - 1):
        assert [int(x[place]) for x in whole] == [int(x[0]) for x in draws.at(3, np.array([place]))]
    assert (whole.index_B >= 0).all() and (whole.index_B < len(IDS)).all()
    assert whole.index_B.tolist() != draws.at(4, np.arange(len(draws))).index_B.tolist()
    assert (
        whole.index_B.tolist()
        != make_draws(IDS, 6, **WAYS[way]).at(3, np.arange(len(draws))).index_B.tolist()
    )
    repeats = Counter(zip(whole.index_B.tolist(), whole.turn_B.tolist(), strict=True))
    assert set(repeats.values()) == {1}, "an image that comes again has another turn"
    asked = {"sampling": "images", "group": 1, **WAYS[way]}
    counts = np.bincount(asked.get("source_N", np.zeros(25, int)))
    assert len(draws) == drawn_per_epoch(
        25, asked["sampling"], asked["group"], counts, asked.get("weights", ())
    )


def test_weights_say_how_often_the_images_of_a_source_come():
    draws = make_draws(IDS, 0, **WAYS["weighted"])
    assert len(draws) == 20 + 2 + 10
    halves = set()
    for epoch in range(12):
        times = np.bincount(draws.at(epoch, np.arange(len(draws))).index_B, minlength=25)
        assert (times[:10] == 2).all() and (times[15:] == 1).all()
        assert times[10:15].sum() == 2 and times[10:15].max() == 1
        halves |= set(np.flatnonzero(times[10:15]).tolist())
    assert halves == set(range(5)), "another part of a source in each epoch"


def test_identities_come_in_turn_and_their_images_too():
    draws = make_draws(IDS, 0, sampling="balanced")
    index_B = draws.at(0, np.arange(len(draws))).index_B
    for start in range(0, 24, 6):
        assert sorted(IDS[index_B[start : start + 6]]) == [0, 1, 2, 3, 5, 6], "every identity that has images"
    of_five = index_B[IDS[index_B] == 5]
    assert len(set(of_five.tolist())) == len(of_five), "nine images, at most five places"
    of_one = index_B[IDS[index_B] == 1]
    assert Counter(of_one[:4].tolist()).most_common()[0][1] <= 2


@pytest.mark.parametrize("group", [2, 3])
def test_groups_are_images_of_one_identity_distinct_where_it_has_them(group: int):
    draws = make_draws(IDS, 1, sampling="pxk", group=group)
    assert len(draws) == 25 // group * group
    for epoch in range(4):
        groups = draws.at(epoch, np.arange(len(draws))).index_B.reshape(-1, group)
        assert (IDS[groups] == IDS[groups[:, :1]]).all()
        assert len({*IDS[groups[:6, 0]]}) == min(6, len(groups))
        for members in groups.tolist():
            count = COUNTS[IDS[members[0]]]
            assert len(set(members)) == group or count % group, (members, count)
            assert len(set(members)) >= min(2, count)


def test_a_permutation_for_each_is_one_and_depends_on_its_streams():
    sizes = np.repeat([1, 2, 3, 4, 5, 17, 64, 65], [1, 2, 3, 4, 5, 17, 64, 65])
    position = np.concatenate([np.arange(n) for n in (1, 2, 3, 4, 5, 17, 64, 65)])
    for stream in (0, 1):
        found = permuted_each(position, sizes, 1, stream, sizes)
        for n in (1, 2, 3, 4, 5, 17, 64, 65):
            assert sorted(found[sizes == n]) == list(range(n))
    first, second = (permuted_each(position, sizes, 1, stream, sizes) for stream in (0, 1))
    assert (first != second).any() and first[sizes == 65].tolist() != list(range(65))


@pytest.mark.parametrize("asked", [{}, {"keys": 2}, {"identity_pairs": True}], ids=["full", "attfc", "f2c"])
@pytest.mark.parametrize("way", WAYS)
def test_every_head_may_have_every_order_and_resumes_it(make_reader, way: str, asked: dict):
    reader = make_reader(IDS.tolist())
    sampler = make_sampler(IDS, 2, **asked, draws=make_draws(IDS, 2, **WAYS[way]))

    def batches(start: int, rank: int = 0, world: int = 1):
        loader = TrainLoader(
            reader,
            batch_size=6 // world,
            seed=2,
            size=24,
            workers=2,
            sampler=sampler,
            rank=rank,
            world_size=world,
        )
        return list(loader.epoch(1, start))

    whole, rest = batches(0), batches(2)
    assert len(rest) == len(whole) - 2 > 0
    for a, b in zip(whole[2:], rest, strict=True):
        assert a.index.tolist() == b.index.tolist() and a.ids.tolist() == b.ids.tolist()
        assert (a.images == b.images).all() and (a.random == b.random).all()
    halves = [batches(0, rank, 2) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert batch.index.tolist() == [i for half in halves for i in half[step].index.tolist()]


def test_an_image_that_comes_again_is_augmented_anew(make_reader):
    reader = make_reader([0, 0, 1, 1])
    draws = make_draws(reader.ids, 0, source_N=np.zeros(4, int), weights=[4.0])
    loader = TrainLoader(
        reader, batch_size=16, seed=0, size=24, sampler=make_sampler(reader.ids, 0, draws=draws)
    )
    (batch,) = loader.epoch(0)
    for index in range(4):
        same = batch.random[0][batch.index == index]
        assert len(same) == 4 and len({tuple(row.tolist()) for row in same}) == 4
    augmented = Augment(AugmentConfig(shift=4))(batch.images[0], batch.random[0])
    assert len({tuple(x.flatten().tolist()) for x in augmented}) > 12


def test_what_comes_once_is_drawn_as_it_always_was(make_reader):
    reader = make_reader(IDS.tolist())
    plain = TrainLoader(reader, batch_size=5, seed=3, size=24)
    drawn = TrainLoader(
        reader, batch_size=5, seed=3, size=24, sampler=make_sampler(IDS, 3, draws=EveryImage(25, 3))
    )
    for a, b in zip(plain.epoch(2), drawn.epoch(2), strict=True):
        assert (a.index == b.index).all() and (a.random == b.random).all()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"weights": [1.0]}, "data.weights has 1 numbers for 3 sources; give one for each"),
        ({"weights": [1.0, 0.0, 1.0]}, "data.weights has 0.0; a weight lies above 0"),
        ({"weights": [1.0, 1.0, 1e6]}, "data.weights has 1000000.0; a weight lies above 0 and up to 1000"),
        ({"weights": [1.0] * 3, "sampling": "balanced"}, "data.weights go with data.sampling = 'images'"),
        ({"sampling": "random"}, "sampling 'random' must be one of: images, balanced, pxk"),
    ],
)
def test_an_order_that_cannot_be_is_refused(asked: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        make_draws(IDS, 0, source_N=SOURCES, **asked)


def test_the_order_of_attfcs_release_has_no_other():
    with pytest.raises(ValueError, match="the order of AttFC's release draws any image; remove"):
        make_sampler(IDS, 0, keys=2, released=True, draws=make_draws(IDS, 0, sampling="balanced"))
