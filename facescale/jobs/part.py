"""The part of a work that one job of an array does."""

import re
from dataclasses import dataclass
from hashlib import blake2b

_MOST = 100_000


@dataclass(frozen=True)
class Part:
    """Part ``number`` of ``count`` parts.

    Attributes:
        number: from 1 to ``count``.
        count: parts in all.

    Raises:
        ValueError: no such part.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= _MOST or not 1 <= self.number <= self.count:
            raise ValueError(
                f"there is no shard {self.number} of {self.count}; shards count from 1 to n, n <= {_MOST:,}"
                " (Slurm: --array=1-16 with --shard $SLURM_ARRAY_TASK_ID/16)"
            )

    @classmethod
    def parse(cls, text: str) -> "Part":
        """The part that ``number/count`` names, such as ``3/16``.

        Raises:
            ValueError: not of that form, or no such part.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found:
            raise ValueError(f"shard '{text}' must be i/n, such as 3/16 for the third of 16")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """For files and folders."""
        return f"{self.number}-of-{self.count}"

    def all(self) -> list["Part"]:
        """The parts of the work, in order."""
        return [Part(number, self.count) for number in range(1, self.count + 1)]

    def owns(self, key: str) -> bool:
        """Whether a name falls into this part: by a hash of it, so other names do not move it."""
        return hash_of(key) % self.count == self.number - 1

    def span(self, total: int) -> range:
        """This part's places of ``total``; those of all parts follow each other without a gap."""
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)


def hash_of(key: str) -> int:
    """64 bits of a name, of any bytes."""
    digest = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
