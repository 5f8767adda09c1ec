"""Embeddings kept on disk: used when nothing that they depend on has changed, never otherwise."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from facescale.data.images import IndexedImages
from facescale.evaluate import embedding
from facescale.evaluate.embedding import Extraction, embed_set
from facescale.evaluate.feature_cache import FeatureCache, Features, content_digest, digests_of

SIZE = 8


class Net:
    """Sees pixels, and counts how many images it was asked about."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return images.flatten(1).float() - 127


def pictures(count: int, seed: int = 0, size: int = SIZE) -> IndexedImages:
    pixels = np.random.default_rng(seed).integers(0, 255, (count, size, size, 3), np.uint8)
    return IndexedImages(list(pixels), [str(i) for i in range(count)])


def embedded(net: Net, images: IndexedImages, cache: FeatureCache | None, **options: object):
    settings = {"size": SIZE, "flip": False, "batch_size": 2} | options
    return embed_set(net, images, range(len(images)), extraction=Extraction(cache), **settings)


def cache_in(folder: Path, weights: str = "w", **options: int) -> FeatureCache:
    return FeatureCache(folder, {"weights": weights}, **options)


def test_a_second_protocol_on_the_same_images_costs_no_forward_pass(tmp_path: Path) -> None:
    net, images = Net(), pictures(5)
    first = embedded(net, images, cache_in(tmp_path))
    asked = net.images
    again = embedded(net, images, cache_in(tmp_path))
    assert net.images == asked > 0
    for name in ("unit_ND", "norm_N", "sum_norm_N"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        np.testing.assert_array_equal(getattr(first, name), getattr(embedded(net, images, None), name))


def test_only_new_images_are_computed_and_the_order_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "CHUNK", 3)
    images = pictures(8)
    known = IndexedImages([images[i] for i in (6, 1, 4)], list("abc"))
    embedded(Net(), known, cache_in(tmp_path))
    net = Net()
    mixed = embedded(net, images, cache_in(tmp_path))
    np.testing.assert_array_equal(mixed.unit_ND, embedded(Net(), images, None).unit_ND)
    assert net.images == 5
    assert len(list(tmp_path.rglob("*.index.npy"))) == 4  # one of the first set, one for each chunk


@pytest.mark.parametrize("change", [{"weights": "other"}, {"flip": True}, {"size": 4}])
def test_other_weights_or_another_preparation_are_computed_again(tmp_path: Path, change: dict) -> None:
    images = pictures(4)
    embedded(Net(), images, cache_in(tmp_path))
    weights = change.pop("weights", "w")
    net = Net()
    got = embedded(net, images, cache_in(tmp_path, weights), **change)
    assert net.images >= 4
    np.testing.assert_array_equal(got.unit_ND, embedded(Net(), images, None, **change).unit_ND)


def test_a_changed_image_is_computed_again(tmp_path: Path) -> None:
    embedded(Net(), pictures(4), cache_in(tmp_path))
    changed = [pictures(4)[i].copy() for i in range(4)]
    changed[2][0, 0, 0] ^= 1
    images, net = IndexedImages(changed, list("abcd")), Net()
    np.testing.assert_array_equal(
        embedded(net, images, cache_in(tmp_path)).unit_ND, embedded(Net(), images, None).unit_ND
    )
    assert net.images == 1


def test_sizes_before_scaling_are_known_from_the_cache_too(tmp_path: Path) -> None:
    counted = []
    for _ in range(2):
        sizes: embedding.Counter[str] = embedding.Counter()
        embedded(Net(), pictures(3, size=12), cache_in(tmp_path), sizes=sizes)
        counted.append(dict(sizes))
    assert counted == [{"12x12": 3}] * 2


@pytest.mark.parametrize("kind", ["index", "units"])
@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 100), lambda path: path.unlink()])
def test_damaged_and_missing_files_are_computed_again(tmp_path: Path, kind: str, damage) -> None:
    images, net = pictures(4), Net()
    first = embedded(Net(), images, cache_in(tmp_path))
    damage(next(tmp_path.rglob(f"*.{kind}.npy")))
    again = embedded(net, images, cache_in(tmp_path))
    assert net.images >= 4
    np.testing.assert_array_equal(first.unit_ND, again.unit_ND)


def test_the_folder_stays_below_its_limit_and_old_weights_go_first(tmp_path: Path) -> None:
    images, one_set = pictures(4), 4 * (SIZE * SIZE * 3 * 4 + 32) + 500
    for weights in "abc":
        embedded(Net(), images, cache_in(tmp_path, weights, max_bytes=2 * one_set))
    asked = []
    for weights in "cba":
        net = Net()
        embedded(net, images, cache_in(tmp_path, weights, max_bytes=2 * one_set))
        asked.append(net.images)
    assert asked[0] == asked[1] == 0 and asked[2] > 0
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.npy")) <= 2 * one_set


def test_a_folder_that_cannot_be_written_changes_no_figure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    images = pictures(3)
    got = embedded(Net(), images, cache_in(tmp_path / "file"))
    np.testing.assert_array_equal(got.unit_ND, embedded(Net(), images, None).unit_ND)


def test_an_unreadable_image_is_named_not_cached(tmp_path: Path) -> None:
    images = IndexedImages([pictures(1)[0], b"no image"], ["good", "bad"])
    for _ in range(2):
        with pytest.raises(ValueError, match="image 'bad' of the protocol cannot be read"):
            embedded(Net(), images, cache_in(tmp_path))


def test_digests_tell_shapes_and_parts_apart() -> None:
    flat = np.zeros((2, 4, 3), np.uint8)
    images = IndexedImages([flat, flat.reshape(4, 2, 3), b"\0" * 24], list("abc"))
    assert len({tuple(row) for row in digests_of(images, range(3)).tolist()}) == 3
    assert content_digest(b"ab", b"c") != content_digest(b"a", b"bc")


def test_no_entry_is_found_in_an_empty_folder(tmp_path: Path) -> None:
    cached = cache_in(tmp_path).under(size=8)
    known, features = cached.find(np.ones((2, 2), np.uint64))
    assert not known.any() and features is None
    cached.keep(
        np.ones((1, 2), np.uint64),
        Features(*(np.ones(s, np.float32) for s in ((1, 3), 1, 1)), np.ones((1, 2), np.int32)),
    )
    known, _ = cache_in(tmp_path).under(size=8).find(np.array([[1, 1], [1, 2]], np.uint64))
    assert known.tolist() == [True, False]
