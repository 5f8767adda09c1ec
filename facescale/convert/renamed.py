"""Recognise a network under other names: entries of the same shapes in the same order.

A project that copies a network often renames its layers, and keeps the order in which they are built, which
is that of its state dict.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from torch import Size, Tensor

State = dict[str, Tensor]
_KINDS = ("weight", "bias", "running_mean", "running_var")
SKIPPED = "num_batches_tracked"


def in_order(state: Mapping[str, Tensor], layout: Mapping[str, Tensor]) -> State | None:
    """The entries of ``state`` under the names of ``layout``; None where they are not the same network.

    Shapes must be equal in order, but for ones at the end (a linear map written as a 1x1 convolution), and
    entries that say what they are (weight, bias, running_mean, running_var) must stand where ``layout`` has
    the same.
    """
    ours, theirs = _names(layout), _names(state)
    if len(ours) != len(theirs):
        return None
    for our, their in zip(ours, theirs, strict=True):
        if _core(layout[our].shape) != _core(state[their].shape) or not _alike(our, their):
            return None
    return {our: state[their].reshape(layout[our].shape) for our, their in zip(ours, theirs, strict=True)}


def width_in_order(state: Mapping[str, Tensor], layout: Mapping[str, Tensor], key: str) -> int:
    """Length of the entry that stands where ``layout`` has ``key``; 0 where the numbers of entries differ."""
    ours, theirs = _names(layout), _names(state)
    shape = state[theirs[ours.index(key)]].shape if len(ours) == len(theirs) else ()
    return shape[0] if shape else 0


def parts_of(state: Mapping[str, Tensor]) -> Iterator[State]:
    """The whole state dict, and those entries that share a first name where they are most of it."""
    yield dict(state)
    (first, count), *_ = Counter(name.partition(".")[0] for name in state).most_common(1)
    if len(state) / 2 < count < len(state):
        yield {name: value for name, value in state.items() if name.partition(".")[0] == first}


def _names(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name in state if not name.endswith(SKIPPED)]


def _core(shape: Size) -> tuple[int, ...]:
    """A shape without the ones at its end."""
    sides = list(shape)
    while sides and sides[-1] == 1:
        sides.pop()
    return tuple(sides)


def _alike(our: str, their: str) -> bool:
    a, b = (name.rpartition(".")[2] for name in (our, their))
    return a == b or a not in _KINDS or b not in _KINDS
