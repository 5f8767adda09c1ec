"""The `synthetic:` scheme: painted faces of people who do not exist, and verification pairs of them."""

import zlib
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import numpy as np

from facescale.arrays import BoolArray, IntArray, Pixels
from facescale.data.sampling.counter_rng import Uints, hash64_each
from facescale.data.spec import parse_options
from facescale.data.synthetic.people import CAPACITY, person, photo
from facescale.data.synthetic.render import render
from facescale.registry import lookup

SCHEME = "synthetic"
_OPTIONS = {"ids": int, "images": int, "seed": int, "size": int, "split": str, "nuisance": float}
_FIRST = {"train": 0, "test": CAPACITY}  # number of the first person of each split


@dataclass(frozen=True)
class SyntheticFaces:
    """A Reader of ``num_ids * images_per_id`` painted photographs; image i shows person i // images_per_id.

    A picture is a function of (seed, split, identity, image number) alone: nothing is stored, so a million
    people cost what ten cost, and any process or thread sees the same pictures in any order. Asking for
    more people leaves the pictures of the others as they are. No one of the "test" split is in the
    "train" split, and any two people differ visibly (see `facescale.data.synthetic.people.person`).

    Attributes:
        num_ids: number of people, up to 39 billion.
        images_per_id: photographs of each.
        seed: another seed, other people.
        size: side of the pictures in pixels; 112 is the aligned ArcFace template.
        split: "train" or "test".
        nuisance: strength of pose, light, blur, occlusion, ...: 0 (passport photographs) to 2.

    Raises:
        ValueError: a number is out of range, or the split is neither "train" nor "test".
    """

    num_ids: int
    images_per_id: int
    _: KW_ONLY
    seed: int = 0
    size: int = 112
    split: str = "train"
    nuisance: float = 1.0

    def __post_init__(self) -> None:
        lookup("split of the synthetic faces", _FIRST, self.split)
        _check("ids", self.num_ids, 1, CAPACITY)
        _check("images", self.images_per_id, 1, 2**31)
        _check("seed", self.seed, 0, 2**63 - 1)
        _check("size", self.size, 32, 256)
        _check("nuisance", self.nuisance, 0, 2)

    @property
    def ids(self) -> IntArray:
        """Identity of every image, int64 (N,); made anew at each call."""
        return np.repeat(np.arange(self.num_ids, dtype=np.int64), self.images_per_id)

    def __len__(self) -> int:
        return self.num_ids * self.images_per_id

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        """Image ``index`` as uint8 (size, size, 3) RGB, and its identity.

        Raises:
            IndexError: there is no such image.
        """
        identity, shot = self._locate(index)
        number = _FIRST[self.split] + identity
        who, circumstances = person(self.seed, number), photo(self.seed, number, shot, self.nuisance)
        return render(who, circumstances, self.size), identity

    def key(self, index: int) -> str:
        """Seed, split, identity and image number, as in ``synthetic:seed=0,split=train#12/3``."""
        identity, shot = self._locate(index)
        return f"{SCHEME}:seed={self.seed},split={self.split}#{identity}/{shot}"

    def image_hashes(self) -> Uints:
        """See ``readers.base.image_hashes``: of all that a picture depends on."""
        style = zlib.crc32(f"{self.seed} {self.split} {self.size} {self.nuisance}".encode())
        images = np.arange(len(self), dtype=np.int64)
        return hash64_each(np.full(len(self), style), *np.divmod(images, self.images_per_id))

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is not among the {len(self)} synthetic images")
        return divmod(int(index), self.images_per_id)


class SyntheticPairs(NamedTuple):
    """A verification protocol: image ``first[i]`` of the reader against image ``second[i]``.

    Attributes:
        reader: the faces, all of people that no training split holds.
        first: int64 (N,), index of one image.
        second: int64 (N,), index of the other.
        is_same: bool (N,), whether both show the same person.
        fold: int64 (N,), 0 .. num_folds - 1, ascending, so that unshuffled blocks are the folds.
    """

    reader: SyntheticFaces
    first: IntArray
    second: IntArray
    is_same: BoolArray
    fold: IntArray


def synthetic_pairs(
    num_pairs: int, *, seed: int = 0, num_folds: int = 10, size: int = 112, nuisance: float = 1.0
) -> SyntheticPairs:
    """Pairs of people never seen in training, in folds of equal size, each half genuine, half impostor.

    Within a fold the genuine pairs come first, as in LFW's list. No person is in two folds. There are hardly
    more images than pairs: most images serve in one genuine and in one impostor pair.

    Raises:
        ValueError: the pairs cannot be shared out evenly, or an option is out of range.
    """
    if num_pairs < 1 or num_folds < 1 or num_pairs % (2 * num_folds):
        raise ValueError(
            f"{num_pairs} pairs do not make {num_folds} balanced folds of equal size; "
            f"ask for a positive multiple of {2 * max(num_folds, 1)}"
        )
    half = num_pairs // num_folds // 2
    fold = np.repeat(np.arange(num_folds, dtype=np.int64), 2 * half)
    is_same = np.tile(np.repeat([True, False], half), num_folds)
    # In a fold of people 0 .. half, person j meets itself, then its second image gives way to that of j + 1.
    one = fold * (half + 1) + np.tile(np.arange(half), 2 * num_folds)
    other = np.where(is_same, one, one + 1)
    reader = SyntheticFaces(num_folds * (half + 1), 2, seed=seed, size=size, split="test", nuisance=nuisance)
    return SyntheticPairs(reader, 2 * one, 2 * other + 1, is_same, fold)


def parse_spec(spec: str) -> SyntheticFaces:
    """Open ``"synthetic:ids=1000,images=20,seed=0,size=112,split=train,nuisance=1"``, or some of it.

    Raises:
        ValueError: another scheme, an unknown or repeated key, or a value of the wrong kind or out of range.
    """
    scheme, _, rest = spec.partition(":")
    if scheme != SCHEME:
        raise ValueError(f"'{spec}' is not a synthetic data set; write {SCHEME}:ids=1000,images=20")
    given = parse_options(rest, _OPTIONS, spec=spec, example=f"{SCHEME}:ids=1000,images=20,split=test")
    return SyntheticFaces(given.pop("ids", 1000), given.pop("images", 20), **given)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN fails too
        raise ValueError(f"synthetic faces cannot have {name}={value}; choose {low} to {high}")
