"""Options behind a protocol's path: ``KIND:PATH?key=value&key=value``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TypeVar

from facescale.registry import nearest

T = TypeVar("T")


@dataclass(frozen=True)
class Opening:
    """What opens a protocol beside its path.

    Attributes:
        size: side of the images that the network takes, in pixels.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
        name: what its results are called; empty is the protocol's own name.
        limit: measure on a fixed part, at most that large; None takes all.
    """

    size: int = 112
    flip: bool = True
    batch_size: int = 128
    name: str = ""
    limit: int | None = None

    @property
    def images(self) -> tuple[int, bool, int]:
        """How images are embedded: size, flip, batch_size."""
        return self.size, self.flip, self.batch_size


def opener(make: Callable[[str, Opening], T]) -> Callable[..., T]:
    """Let ``make(path, Opening(...))`` be called as ``make(path, size, flip, batch_size, name, limit)``."""

    @wraps(make)
    def opened(
        path: str,
        size: int = 112,
        flip: bool = True,
        batch_size: int = 128,
        name: str = "",
        limit: int | None = None,
    ) -> T:
        return make(path, Opening(size, flip, batch_size, name, limit))

    return opened


def chosen(options: Mapping[str, str], key: str, allowed: Sequence[str]) -> str:
    """The value of an option that has a few; the first one where it is absent.

    Raises:
        ValueError: another value.
    """
    value = options.get(key, allowed[0])
    if value not in allowed:
        raise ValueError(
            f"{key}={value} is not known{nearest(value, allowed)}; choose one of: {', '.join(allowed)}"
        )
    return value
