"""facescale.prepare.near_copies and same_photo: copies are found, other photos of the same people are not."""

import numpy as np
import pytest

from facescale.data.images import IndexedImages
from facescale.data.loading.decode import decode, encode_jpeg, resized
from facescale.data.synthetic.faces import parse_spec
from facescale.evaluate.rows import unit_rows
from facescale.prepare.near_copies import copies_between, copy_threshold, near_copies
from facescale.prepare.same_photo import SAME, agreement

PEOPLE, PHOTOS = 20, 5


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    reader = parse_spec(f"synthetic:ids={PEOPLE},images={PHOTOS},size=112")
    return [reader[index][0] for index in range(PEOPLE * PHOTOS)]


def embed(images_BHW3: np.ndarray) -> np.ndarray:
    """Embeds what is coarse, so that photos of one person are close to each other."""
    small = np.stack([resized(np.asarray(image), 8, 8) for image in images_BHW3]).astype(np.float64)
    flat = small.reshape(len(small), -1)
    return unit_rows(flat - flat.mean(axis=1, keepdims=True)).astype(np.float32)


def cropped(image: np.ndarray, cut: int = 6) -> bytes:
    inner = np.ascontiguousarray(image[cut:, : 112 - cut])
    return encode_jpeg(resized(inner, 112, 112), 60)


def shrunk(image: np.ndarray) -> bytes:
    return encode_jpeg(resized(resized(image, 60, 60), 112, 112), 70)


def mirrored(image: np.ndarray) -> bytes:
    return encode_jpeg(np.ascontiguousarray(image[:, ::-1]), 70)


@pytest.mark.parametrize("change", [cropped, shrunk, mirrored, encode_jpeg])
def test_copies_agree_and_other_photos_do_not(photos: list[np.ndarray], change) -> None:  # type: ignore[no-untyped-def]
    count = len(photos)
    images = IndexedImages([*photos, *map(change, photos)], [str(n) for n in range(2 * count)])
    own, following = np.arange(count), (np.arange(count) + 1) % count
    assert np.mean(agreement(images, own, own + count) >= SAME) >= 0.95
    assert np.mean(agreement(images, own, following + count) >= SAME) <= 0.01


def test_an_image_that_cannot_be_read_is_no_copy() -> None:
    images = IndexedImages([b"broken", b"broken"], ["a", "b"])
    assert agreement(images, np.array([0]), np.array([1])).tolist() == [-1]


def test_planted_copies_are_found_with_few_others(photos: list[np.ndarray]) -> None:
    """The target: recall of 0.95 at a precision of 0.99."""
    planted = {(n, len(photos) + place) for place, n in enumerate(range(0, len(photos), 2))}
    changes = (cropped, shrunk, mirrored)
    copies = [
        changes[place % 2](photos[n]) for n, place in ((n, p - len(photos)) for n, p in sorted(planted))
    ]
    content = [*photos, *copies]
    images = IndexedImages(content, [str(n) for n in range(len(content))])
    unit = embed(np.stack([decode(c) if isinstance(c, bytes) else c for c in content]))
    threshold = copy_threshold(embed, images, 112, unit)
    found = near_copies(images, unit, threshold)
    pairs = set(zip(found.first_P.tolist(), found.second_P.tolist(), strict=True))
    assert len(pairs & planted) >= 0.95 * len(planted)
    assert len(pairs & planted) >= 0.99 * len(pairs)
    assert (found.agreement_P >= SAME).all() and (found.cosine_P >= threshold).all()


def test_copies_between_two_sets(photos: list[np.ndarray]) -> None:
    ours = IndexedImages(photos[:10], [str(n) for n in range(10)])
    others = [photos[20], decode(cropped(photos[3])), photos[30]]
    theirs = IndexedImages(others, ["x", "y", "z"])
    found = copies_between((ours, embed(np.stack(photos[:10]))), (theirs, embed(np.stack(others))), 0.5)
    assert (found.first_P.tolist(), found.second_P.tolist()) == ([3], [1])
