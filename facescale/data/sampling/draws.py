"""Which image stands at each place of an epoch: every one once, sources by weight, or identities in turn."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np

from facescale.arrays import IntArray
from facescale.data.sampling.by_identity import ByIdentity
from facescale.data.sampling.counter_rng import BALANCED, ORDER, WEIGHTED, Uints, permuted, permuted_each

Sampling = Literal["images", "balanced", "pxk"]

NOT_FORWARD = (
    "which a stream does not give; copy it to shards first: facescale convert-data stream:... FOLDER --form"
    " shards"
)

# N images, S sources, B places


class Drawn(NamedTuple):
    """Images at some places of an epoch.

    Attributes:
        index_B: int64, place in the reader.
        turn_B: int64, how often the image was drawn before in this epoch; its augmentation differs by it.
    """

    index_B: IntArray
    turn_B: IntArray


class Draws(Protocol):
    """The order of an epoch, as a pure function of (seed, epoch, place)."""

    def __len__(self) -> int:
        """Places in an epoch."""
        ...

    def at(self, epoch: int, place: IntArray) -> Drawn:
        """The images at any places (of any shape) of an epoch, 0 <= place < len(self)."""
        ...


class EveryImage:
    """Every image once, in another order each epoch."""

    def __init__(self, num_images: int, seed: int) -> None:
        self._num_images, self._seed = num_images, seed

    def __len__(self) -> int:
        return self._num_images

    def at(self, epoch: int, place: IntArray) -> Drawn:
        """See ``Draws.at``."""
        return Drawn(permuted(place, self._num_images, ORDER, self._seed, epoch), np.zeros_like(place))


class InWindows:
    """Every image once, for a source that is read forward.

    Shards come in another order each epoch, and successive images of a window in any order.

    Args:
        num_images: N.
        first_S: first image of each shard, ascending from 0.
        window: images shuffled among each other.
        seed: of both orders.
    """

    def __init__(self, num_images: int, first_S: IntArray, window: int, seed: int) -> None:
        self._num_images, self._first_S, self._window, self._seed = num_images, first_S, window, seed
        self._counts_S = np.diff(first_S, append=num_images)

    def __len__(self) -> int:
        return self._num_images

    def at(self, epoch: int, place: IntArray) -> Drawn:
        """See ``Draws.at``."""
        order_S = permuted(np.arange(len(self._first_S)), len(self._first_S), ORDER, self._seed, epoch)
        ends_S = np.cumsum(self._counts_S[order_S])
        number, inside = np.divmod(place, self._window)
        start = number * self._window
        sizes = np.minimum(self._window, self._num_images - start)
        moved = start + permuted_each(inside, sizes, ORDER, self._seed, epoch, number)
        turn = np.searchsorted(ends_S, moved, side="right")
        shard = order_S[turn]
        back = ends_S[turn] - moved  # images to the end of the shard
        return Drawn(self._first_S[shard] + self._counts_S[shard] - back, np.zeros_like(place))

    def near(self, place: IntArray, bits: Uints) -> IntArray:
        """Places of the same window, drawn by ``bits``: what replaces an image is at hand there."""
        start = place // self._window * self._window
        sizes = np.minimum(self._window, self._num_images - start)
        return start + (bits % sizes.astype(np.uint64)).astype(np.int64)


class WeightedSources:
    """Images of each source ``weight`` times as often as there are: 2 is twice, 0.5 another half each epoch.

    Args:
        source_N: source of every image.
        weights: one for each source.
        seed: of the order.

    Raises:
        ValueError: another number of weights than of sources, or one that is not above 0.
    """

    def __init__(self, source_N: IntArray, weights: Sequence[float], seed: int) -> None:
        counts_S = np.bincount(source_N, minlength=len(weights))
        check_weights(weights, len(counts_S))
        self._images = source_N.argsort(kind="stable")
        self._first_S = np.cumsum(counts_S) - counts_S
        self._counts_S = counts_S
        self._ends_S = np.cumsum(_slots(counts_S, weights))
        self._seed = seed

    def __len__(self) -> int:
        return int(self._ends_S[-1])

    def at(self, epoch: int, place: IntArray) -> Drawn:
        """See ``Draws.at``."""
        slot = permuted(place, len(self), WEIGHTED, self._seed, epoch)
        source = np.searchsorted(self._ends_S, slot, side="right")
        number = slot - np.where(source > 0, self._ends_S[source - 1], 0)
        turn, rest = np.divmod(number, self._counts_S[source])
        at = permuted_each(rest, self._counts_S[source], ORDER, self._seed, epoch, source, turn)
        return Drawn(self._images[self._first_S[source] + at], turn)


class IdentitiesInTurn:
    """Identities in turn, ``group`` images of one at successive places; those of one come in turn, too.

    An epoch has as many places as there are images (whole groups). Identities with few images therefore
    repeat them, each time augmented anew. With ``group`` = K, a batch of P K places is P identities of K
    images each.

    Args:
        ids: identity of every image.
        group: K.
        seed: of both orders.
    """

    def __init__(self, ids: IntArray, group: int, seed: int) -> None:
        self._people = ByIdentity(ids)
        self._group, self._seed = group, seed

    def __len__(self) -> int:
        return self._people.images.size // self._group * self._group

    def at(self, epoch: int, place: IntArray) -> Drawn:
        """See ``Draws.at``."""
        people, seed = self._people, self._seed
        number, member = np.divmod(place, self._group)
        round_, at = np.divmod(number, people.present.size)
        sizes = np.full_like(at, people.present.size)
        who = permuted_each(at, sizes, BALANCED, seed, epoch, round_)
        count = people.counts[who]
        # A pass over the images of an identity is whole groups, so that no group holds an image twice that
        # need not; what is left over is another part in the next pass.
        pass_, group = np.divmod(round_, np.maximum(count // self._group, 1))
        repeat, rest = np.divmod(group * self._group + member, count)
        chosen = permuted_each(rest, count, ORDER, seed, epoch, who, pass_)
        turn = pass_ * -(-self._group // count) + repeat
        return Drawn(people.images[people.starts[who] + chosen], turn)


def turn_epoch(epoch: int, turn_B: IntArray) -> IntArray:
    """What stands for the epoch where things are drawn for an image: the epoch itself at its first turn."""
    return epoch + (turn_B << 32)


def make_draws(
    ids: IntArray,
    seed: int,
    *,
    sampling: Sampling = "images",
    group: int = 1,
    source_N: IntArray | None = None,
    weights: Sequence[float] = (),
    stream: tuple[IntArray, int] | None = None,
) -> Draws:
    """The order that a config asks for.

    Args:
        ids: identity of every image.
        seed: of everything drawn.
        sampling: "images", "balanced" (identities in turn) or "pxk" (in turn, by groups).
        group: images of an identity at successive places, for "pxk".
        source_N: source of every image, for weights.
        weights: of the sources; none: each image once.
        stream: first image of each shard and window (`InWindows`), for a source that is read forward.

    Raises:
        ValueError: weights that do not fit the sources, or together with identities in turn; either with a
            stream.
    """
    if sampling not in get_args(Sampling):
        raise ValueError(f"sampling '{sampling}' must be one of: {', '.join(get_args(Sampling))}")
    if weights and sampling != "images":
        raise ValueError(
            f"data.weights go with data.sampling = 'images', not with '{sampling}', which takes identities in"
            " turn; remove one of them"
        )
    if stream is not None and (sampling != "images" or weights):
        raise ValueError(f"data.sampling and data.weights draw any image, {NOT_FORWARD}")
    if stream is not None:
        return InWindows(len(ids), *stream, seed)
    if sampling != "images":
        return IdentitiesInTurn(ids, group if sampling == "pxk" else 1, seed)
    if weights:
        return WeightedSources(np.zeros_like(ids) if source_N is None else source_N, weights, seed)
    return EveryImage(len(ids), seed)


def check_weights(weights: Sequence[float], num_sources: int) -> None:
    """Check the weights of sources.

    Raises:
        ValueError: another number than that of the sources, or one that is not above 0.
    """
    if len(weights) != num_sources:
        raise ValueError(
            f"data.weights has {len(weights)} numbers for {num_sources} sources; give one for each"
        )
    for weight in weights:
        if not 0 < weight <= 1000:
            raise ValueError(f"data.weights has {weight}; a weight lies above 0 and up to 1000 (1: once)")


def drawn_per_epoch(
    num_images: int, sampling: Sampling, group: int, counts_S: IntArray, weights: Sequence[float]
) -> int:
    """Places in an epoch, from the number of images alone."""
    if weights:
        check_weights(weights, len(counts_S))
        return int(_slots(counts_S, weights).sum())
    return num_images // group * group if sampling == "pxk" else num_images


def _slots(counts_S: IntArray, weights: Sequence[float]) -> IntArray:
    """Places of each source in an epoch; at least one."""
    slots_S: IntArray = np.rint(counts_S * np.asarray(weights)).astype(np.int64)
    return np.maximum(slots_S, np.minimum(counts_S, 1))
