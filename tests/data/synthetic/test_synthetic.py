"""Synthetic faces: pictures by number alone, people who differ, pairs that pixels do not solve."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from facescale.data.readers.base import Reader
from facescale.data.synthetic.faces import SyntheticFaces, SyntheticPairs, parse_spec, synthetic_pairs
from facescale.data.synthetic.people import (
    CAPACITY,
    MIN_DIFFERENT_TRAITS,
    RADIX,
    TRAITS,
    Draw,
    Person,
    main_traits,
    person,
    photo,
)
from facescale.data.synthetic.render import aligned_pose

LOWS, HIGHS = np.array(list(TRAITS.values())).T
Images = npt.NDArray[np.uint8]


def levels_of(numbers: list[int], seed: int = 0) -> npt.NDArray[np.int64]:
    """Traits of people as steps 0 .. RADIX - 1, (N, 21)."""
    values = np.array([main_traits(seed, number) for number in numbers])
    return np.rint((values - LOWS) / (HIGHS - LOWS) * (RADIX - 1)).astype(np.int64)


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))


def best_accuracy(embeddings: npt.NDArray[np.float32], pairs: SyntheticPairs) -> float:
    """Accuracy of the cosine at the threshold that suits these very pairs best: no protocol gives more."""
    scores = cosine(embeddings[pairs.first], embeddings[pairs.second])
    return max(float(((scores >= t) == pairs.is_same).mean()) for t in [*scores, np.inf])


# --- reading ---


def test_it_is_a_reader_of_raw_rgb_pictures_and_int64_ids() -> None:
    faces = SyntheticFaces(3, 2)
    assert isinstance(faces, Reader)
    assert len(faces) == 6
    assert faces.num_ids == 3
    assert faces.ids.dtype == np.int64
    assert faces.ids.tolist() == [0, 0, 1, 1, 2, 2] == [faces[i][1] for i in range(6)]
    image = faces[5][0]
    assert image.shape == (112, 112, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


def test_a_picture_depends_on_its_numbers_only() -> None:
    faces = SyntheticFaces(4, 5, seed=3)
    backwards = [faces[i][0] for i in reversed(range(20))][::-1]
    copy = pickle.loads(pickle.dumps(faces))
    with ThreadPoolExecutor(4) as pool:
        threads = list(pool.map(lambda i: copy[i][0], range(20)))
    more_people = SyntheticFaces(1000, 5, seed=3)
    more_photos = SyntheticFaces(4, 7, seed=3)
    for i in range(20):
        image = faces[i][0]
        assert np.array_equal(image, backwards[i])
        assert np.array_equal(image, threads[i])
        assert np.array_equal(image, more_people[i][0])
        assert np.array_equal(image, more_photos[i // 5 * 7 + i % 5][0])


def test_no_two_pictures_are_equal_whatever_number_differs() -> None:
    sets = [SyntheticFaces(3, 3, seed=s, split=split) for s in (0, 1) for split in ("train", "test")]
    pictures = {faces[i][0].tobytes() for faces in sets for i in range(9)}
    assert len(pictures) == 36


def test_a_million_people_and_the_last_possible_one_cost_nothing_to_open() -> None:
    assert SyntheticFaces(1_000_000, 20)[19_999_999][1] == 999_999
    everybody = SyntheticFaces(CAPACITY, 20)
    assert everybody[len(everybody) - 1][1] == CAPACITY - 1
    assert everybody[2**33 * 20][1] == 2**33


@pytest.mark.parametrize("index", [-1, 6])
def test_an_image_that_is_not_there_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match=f"image {index} is not among the 6"):
        SyntheticFaces(3, 2)[index]
    with pytest.raises(IndexError):
        SyntheticFaces(3, 2).key(index)


def test_the_key_names_what_is_needed_to_paint_the_picture_again() -> None:
    assert SyntheticFaces(5, 10, seed=7, split="test").key(42) == "synthetic:seed=7,split=test#4/2"


def test_another_size_shows_the_same_picture() -> None:
    large, small = SyntheticFaces(4, 1, nuisance=0), SyntheticFaces(4, 1, nuisance=0, size=56)
    for i in range(4):
        shrunk = large[i][0].reshape(56, 2, 56, 2, 3).mean((1, 3))
        assert np.corrcoef(shrunk.ravel(), small[i][0].ravel())[0, 1] > 0.9


def test_the_hash_is_pinned_so_that_a_named_data_set_never_changes_silently() -> None:
    draw = Draw(1, 2, 3, count=3)
    assert [draw.between(0, 1) for _ in range(3)] == [
        0.07166370763826013,
        0.8633317146052892,
        0.35718975682944265,
    ]
    assert main_traits(0, 12)[:3] == [34.5, -0.20454545454545453, 38.5]


def test_pictures_are_pinned_too() -> None:
    image = SyntheticFaces(9, 9, seed=4, split="test")[80][0]
    assert image.mean((0, 1)) == pytest.approx([175.69, 142.13, 91.46], abs=0.3)


# --- people ---


def test_any_two_people_differ_in_at_least_14_traits() -> None:
    neighbours = list(range(1500))
    apart = np.random.default_rng(0).integers(0, 2 * CAPACITY, 1000).tolist()
    numbers = sorted({*neighbours, *apart, *range(CAPACITY, CAPACITY + 500), 2 * CAPACITY - 1})
    levels = levels_of(numbers)
    assert MIN_DIFFERENT_TRAITS == 14
    for i, row in enumerate(levels[:-1]):
        assert (levels[i + 1 :] != row).sum(1).min() >= MIN_DIFFERENT_TRAITS


def test_traits_of_the_first_thousand_people_fill_their_ranges_independently() -> None:
    levels = levels_of(list(range(1000)))
    for trait in levels.T:
        assert np.bincount(trait, minlength=RADIX).min() > 1000 / RADIX / 2
    correlation = np.corrcoef(levels.T) - np.eye(len(TRAITS))
    assert np.abs(correlation).max() < 0.15


def test_a_person_carries_the_traits_by_name() -> None:
    assert [f.name for f in fields(Person)][: len(TRAITS)] == list(TRAITS)
    who = person(5, 77)
    assert [getattr(who, name) for name in TRAITS] == main_traits(5, 77)


def test_another_seed_gives_other_people() -> None:
    assert (levels_of(list(range(100)), seed=0) != levels_of(list(range(100)), seed=1)).mean() > 0.8


@pytest.mark.parametrize("number", [-1, 2 * CAPACITY])
def test_a_person_out_of_range_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"person {number} does not exist; numbers run from 0 to"):
        person(0, number)


def test_faces_lie_on_the_arcface_template() -> None:
    template = [38.3 + 51.7j, 73.5 + 51.5j, 56.0 + 71.7j]
    points = []
    for number in range(300):
        who, shot = person(0, number), photo(0, number, 0, 1.0)
        pose = aligned_pose(who, shot)
        points.append(
            [pose.at(-who.eye_gap, -20, 8), pose.at(who.eye_gap, -20, 8), pose.at(0, who.nose_drop, 20)]
        )
    offsets = np.array(points) - template
    assert np.abs(offsets.mean(0)).max() < 1.5
    assert np.abs(offsets).mean() < 5.0


def test_what_changes_between_photographs_of_one_person_follows_nuisance() -> None:
    def likeness(nuisance: float) -> float:
        faces = SyntheticFaces(20, 2, nuisance=nuisance)
        shots = np.stack([faces[i][0] for i in range(40)]).reshape(20, 2, -1).astype(np.float32)
        return float(np.mean([np.corrcoef(pair)[0, 1] for pair in shots]))

    passport, mild, full = likeness(0.0), likeness(0.5), likeness(1.0)
    assert passport > mild + 0.1 > full + 0.2


@pytest.mark.parametrize("size", [32, 256])
def test_the_strongest_nuisance_still_gives_pictures_with_something_on_them(size: int) -> None:
    faces = SyntheticFaces(10, 10, nuisance=2, size=size)
    with np.errstate(all="raise"):
        contrasts = [faces[i][0].std() for i in range(100)]
    assert np.median(contrasts) > 20
    assert np.mean(np.array(contrasts) < 2) < 0.05


# --- the spec ---


def test_a_spec_sets_what_it_names_and_leaves_the_rest() -> None:
    assert parse_spec("synthetic:") == SyntheticFaces(1000, 20)
    assert parse_spec("synthetic:ids=7,images=3") == SyntheticFaces(7, 3)
    assert parse_spec("synthetic:ids=7,images=3,seed=5,size=56,split=test,nuisance=0.5") == SyntheticFaces(
        7, 3, seed=5, size=56, split="test", nuisance=0.5
    )


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("faces:ids=3", "'faces:ids=3' is not a synthetic data set; write synthetic:ids=1000,images=20"),
        ("synthetic:image=3", "has no key 'image' (did you mean 'images'?); the keys are: ids, images, seed"),
        (
            "synthetic:ids",
            "'ids' of 'synthetic:ids' is ''; it must be a whole number, for example synthetic:ids=1000",
        ),
        ("synthetic:ids=many", "'ids' of 'synthetic:ids=many' is 'many'; it must be a whole number"),
        ("synthetic:nuisance=x", "is 'x'; it must be a number"),
        ("synthetic:ids=3,ids=4", "has 'ids' twice; keep one of them"),
        ("synthetic:ids=0", "synthetic faces cannot have ids=0; choose 1 to "),
        ("synthetic:images=-2", "synthetic faces cannot have images=-2; choose 1 to "),
        ("synthetic:seed=-1", "synthetic faces cannot have seed=-1; choose 0 to "),
        ("synthetic:size=8", "synthetic faces cannot have size=8; choose 32 to 256"),
        ("synthetic:nuisance=nan", "synthetic faces cannot have nuisance=nan; choose 0 to 2"),
        ("synthetic:split=tset", "split of the synthetic faces 'tset' (did you mean 'test'?); choose one of"),
        ("synthetic:split=", "'split' of 'synthetic:split=' is ''; it must be a value, for example synth"),
    ],
)
def test_a_wrong_spec_is_answered_in_one_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_spec(spec)
    assert sentence in str(caught.value)


# --- pairs ---


def test_pairs_are_balanced_in_equal_folds_that_share_nobody() -> None:
    pairs = synthetic_pairs(60, num_folds=5, seed=2)
    people_a, people_b = pairs.reader.ids[pairs.first], pairs.reader.ids[pairs.second]
    assert np.array_equal(people_a == people_b, pairs.is_same)
    assert len(set(zip(pairs.first, pairs.second, strict=True))) == 60
    assert (pairs.first != pairs.second).all()
    assert pairs.fold.tolist() == sorted(pairs.fold)
    people = []
    for fold in range(5):
        inside = pairs.fold == fold
        assert pairs.is_same[inside].tolist() == [True] * 6 + [False] * 6
        people.append({*people_a[inside], *people_b[inside]})
    assert sum(map(len, people)) == len(set.union(*people)) == pairs.reader.num_ids


def test_the_smallest_protocol_has_one_pair_of_each_kind_in_a_fold() -> None:
    pairs = synthetic_pairs(4, num_folds=2)
    assert pairs.is_same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]


def test_people_of_the_pairs_are_nobody_in_training() -> None:
    pairs = synthetic_pairs(20)
    assert pairs.reader.split == "test"
    assert pairs.reader == replace(pairs.reader, split="test", seed=0)
    unseen, seen = levels_of([CAPACITY + i for i in range(30)]), levels_of(list(range(1000)))
    assert (unseen[:, None] != seen).sum(-1).min() >= MIN_DIFFERENT_TRAITS


@pytest.mark.parametrize(("num_pairs", "num_folds"), [(0, 10), (30, 10), (10, 0), (-20, 10)])
def test_pairs_that_cannot_be_shared_out_are_refused(num_pairs: int, num_folds: int) -> None:
    with pytest.raises(
        ValueError, match=rf"{num_pairs} pairs do not make {num_folds} balanced folds .* multiple of"
    ):
        synthetic_pairs(num_pairs, num_folds=num_folds)


@pytest.fixture(scope="module")
def protocol() -> tuple[SyntheticPairs, Images]:
    pairs = synthetic_pairs(1000)
    return pairs, np.stack([pairs.reader[i][0] for i in range(len(pairs.reader))])


def test_pixels_and_colours_do_not_solve_the_pairs(protocol: tuple[SyntheticPairs, Images]) -> None:
    pairs, images = protocol
    pixels = images.reshape(-1, 28, 4, 28, 4, 3).mean((2, 4), dtype=np.float32).reshape(len(images), -1, 3)
    colour = pixels.mean(1)
    centred = pixels - pixels.mean(0)
    normalised = (pixels - pixels.mean(1, keepdims=True)) / (pixels.std(1, keepdims=True) + 1.0)
    for embeddings in (pixels, centred, normalised, colour, colour - colour.mean(0)):
        assert best_accuracy(embeddings.reshape(len(images), -1), pairs) < 0.63


def test_an_untrained_or_collapsed_network_does_not_solve_the_pairs(
    protocol: tuple[SyntheticPairs, Images],
) -> None:
    pairs, images = protocol
    torch.manual_seed(0)
    with torch.no_grad():
        embeddings = small_net()(to_tensor(images)).numpy()
    assert best_accuracy(embeddings, pairs) < 0.62
    assert best_accuracy(np.ones((len(images), 4), dtype=np.float32), pairs) == 0.5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_tiny_network_trained_for_a_minute_tells_unseen_people_apart(
    protocol: tuple[SyntheticPairs, Images],
) -> None:
    pairs, images = protocol
    torch.manual_seed(0)
    num_ids, faces = 500, SyntheticFaces(500, 20)
    pictures = to_tensor(np.stack([faces[i][0] for i in range(len(faces))]))
    ids = torch.from_numpy(faces.ids)
    net, centres = small_net(), nn.Parameter(0.05 * torch.randn(num_ids, 64))
    optimizer = torch.optim.SGD([*net.parameters(), centres], lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in range(1000):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 1000)
        batch = torch.randint(len(ids), (64,))
        cosines = F.normalize(net(pictures[batch])) @ F.normalize(centres).T
        loss = F.cross_entropy(24 * cosines, ids[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        embeddings = net.eval()(to_tensor(images)).numpy()
    assert best_accuracy(embeddings, pairs) > 0.77


def to_tensor(images: Images) -> torch.Tensor:
    """Half the resolution, -1..1, (N, 3, 56, 56)."""
    return F.avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2).float(), 2) / 127.5 - 1.0


def small_net() -> nn.Sequential:
    """56x56 picture -> 64 numbers."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in [(3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1)]:
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.Conv2d(64, 64, 7, groups=64, bias=False), nn.BatchNorm2d(64), nn.Flatten()
    )
