"""Samplers of several images per item: who is drawn, and that nothing depends on who asks when."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from facescale.config import AugmentConfig
from facescale.data.loading.augment import Augment, stronger
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.sampling.attention import AttentionSampler, ReleasedAttentionSampler
from facescale.data.sampling.base import ImageSampler
from facescale.data.sampling.multiview import make_sampler
from facescale.data.sampling.pairs import PairSampler

# Identity i has COUNTS[i] images; identity 4 is not there at all.
COUNTS = [1, 2, 3, 6, 0, 9, 4]
IDS = np.random.default_rng(0).permutation(np.arange(7).repeat(COUNTS))
EPOCH = np.arange(len(IDS))


def test_queries_are_every_image_once_and_another_order_each_epoch() -> None:
    sampler = AttentionSampler(IDS, keys=2, seed=0)
    first, second = (sampler.indices(epoch, EPOCH)[0] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == EPOCH.tolist()
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("keys", [1, 2, 4])
def test_keys_are_other_images_of_the_identity_each_once_if_there_are_enough(keys: int) -> None:
    sampler = AttentionSampler(IDS, keys, seed=1)
    for epoch in range(5):
        indices = sampler.indices(epoch, EPOCH)
        assert indices.shape == (1 + keys, len(IDS))
        assert (IDS[indices] == IDS[indices[0]]).all()
        for query, *others in indices.T.tolist():
            available = COUNTS[IDS[query]] - 1
            if available == 0:
                assert others == [query] * keys
                continue
            assert query not in others
            assert len(set(others)) == min(keys, available)
            times = np.bincount(others)[others]
            assert times.max() - times.min() <= 1  # too few: each comes again in turn
    assert sampler.num_single == 1


def test_all_other_images_are_equally_likely_keys() -> None:
    ids = np.zeros(6, np.int64)
    sampler = AttentionSampler(ids, keys=3, seed=2)
    counts = np.zeros((6, 6), int)
    for epoch in range(1000):
        query_B, *keys = sampler.indices(epoch, np.arange(6))
        for key_B in keys:
            np.add.at(counts, (query_B, key_B), 1)
    assert (counts.diagonal() == 0).all()
    off = counts[~np.eye(6, dtype=bool)]
    assert off.sum() == 6 * 3 * 1000
    assert abs(off - 600).max() < 100  # four standard deviations are 62


@pytest.mark.parametrize("kind", ["attention", "released", "pairs"])
def test_an_item_depends_on_seed_epoch_and_position_only(kind: str) -> None:
    def make(seed: int):
        return make_sampler(IDS, seed, keys=2, identity_pairs=kind == "pairs", released=kind == "released")

    sampler = make(3)
    whole = sampler.indices(1, EPOCH)
    sampler.indices(0, EPOCH[:4])
    assert np.array_equal(make(3).indices(1, EPOCH[7:11]), whole[:, 7:11])  # resumed, or another process
    assert np.array_equal(sampler.indices(1, EPOCH[[9, 2]]), whole[:, [9, 2]])
    assert not np.array_equal(make(4).indices(1, EPOCH), whole)
    assert not np.array_equal(sampler.indices(2, EPOCH), whole)


def test_the_released_sampler_draws_with_replacement() -> None:
    ids = np.zeros(100, np.int64)
    query_B, *keys = ReleasedAttentionSampler(ids, keys=2, seed=0).indices(0, np.arange(100))
    assert 55 < len(set(query_B.tolist())) < 72  # 1 - 1/e of the images
    assert any((key_B == query_B).any() for key_B in keys)


def test_two_of_three_items_are_identity_pairs_and_one_is_an_instance_pair() -> None:
    sampler = PairSampler(IDS, seed=0)
    assert len(sampler) == 3 * (len(IDS) // 2)
    indices = sampler.indices(0, np.arange(len(sampler)))
    identity = indices[:, np.arange(len(sampler)) % 3 < 2]
    assert (IDS[identity[0]] == IDS[identity[1]]).all()
    for x, y in identity.T.tolist():
        assert (x == y) == (COUNTS[IDS[x]] == 1)
    present = sorted(set(IDS.tolist()))
    seen = IDS[identity[0]].tolist()
    for start in range(0, len(seen) - 5, 6):  # all six identities in turn, each time in another order
        assert sorted(seen[start : start + 6]) == present
    assert seen[:6] != seen[6:12]
    instance = indices[:, np.arange(len(sampler)) % 3 == 2]
    assert len(set(instance.flatten().tolist())) == instance.size == 2 * (len(IDS) // 2)
    assert (IDS[instance[0]] != IDS[instance[1]]).any()


def test_plain_heads_get_the_plain_sampler() -> None:
    assert isinstance(make_sampler(IDS, 0), ImageSampler)


def test_the_loader_decodes_each_view_once_and_tells_repeats(make_reader) -> None:
    reader = make_reader(IDS.tolist())
    sampler = make_sampler(IDS, 0, keys=2)
    loader = TrainLoader(reader, batch_size=5, seed=0, workers=0, size=24, sampler=sampler)
    batches = list(loader.epoch(0))
    assert len(reader.asked) == 5 * 5 * 3
    single = torch.cat([batch.ids for batch in batches]) == 0
    repeats = torch.cat([batch.repeats for batch in batches], 1)
    assert repeats[0].sum() == 0
    assert repeats[:, single].tolist() == [[False], [True], [True]]
    two_images = torch.cat([batch.ids for batch in batches]) == 1
    assert repeats[1][two_images].tolist() == [False, False]
    assert repeats[2][two_images].tolist() == [True, True]


@pytest.mark.parametrize("pairs", [False, True], ids=["attention", "pairs"])
def test_processes_workers_and_resumes_see_the_same_items(make_reader, pairs: bool) -> None:
    reader = make_reader(IDS.tolist())
    sampler = make_sampler(IDS, 0, keys=2, identity_pairs=pairs)

    def read(start: int = 0, **options):
        loader = TrainLoader(reader, seed=0, size=24, sampler=sampler, **options)
        return [replace(batch, images=batch.images.clone()) for batch in loader.epoch(1, start)]

    whole = read(batch_size=6, workers=0)
    assert whole[0].ids.shape == ((2, 6) if pairs else (6,))
    halves = [read(batch_size=3, workers=2, rank=rank, world_size=2) for rank in (0, 1)]
    for one, left, right in zip(whole, *halves, strict=True):
        assert torch.equal(one.images, torch.cat([left.images, right.images], 1))
        assert torch.equal(one.ids, torch.cat([left.ids, right.ids], -1))
        assert torch.equal(one.random, torch.cat([left.random, right.random], 1))
    later = read(start=2, batch_size=6, workers=1)
    assert all(torch.equal(a.images, b.images) for a, b in zip(later, whole[2:], strict=True))
    parts = list(whole[0].split(4))
    assert torch.equal(torch.cat([part.ids for part in parts], -1), whole[0].ids)
    assert torch.equal(torch.cat([part.repeats for part in parts], 1), whole[0].repeats)


def test_stronger_augmentation_changes_an_image_far_more() -> None:
    images = torch.randint(0, 256, (8, 24, 24, 3), dtype=torch.uint8)
    plain = AugmentConfig(flip=False, erase=0.9)
    strong = stronger(plain)
    assert strong.erase == 0.9
    assert strong.flip
    assert strong.rotate > plain.rotate
    random = torch.rand(8, 16, generator=torch.Generator().manual_seed(0))
    still = Augment(AugmentConfig(flip=False))(images, random)
    assert (Augment(stronger(AugmentConfig()))(images, random) - still).abs().mean() > 0.2
