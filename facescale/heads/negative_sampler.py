"""The classes of a Partial FC step: drawn exactly uniformly, at a cost that does not grow with C."""

import numpy as np


class NegativeSampler:
    """Draws classes without replacement, reproducibly by (seed, step, shard).

    Each step has its own endless stream of independent uniform draws (Philox, keyed by seed, step and shard;
    ``Generator.integers`` has no modulo bias). Dropping repetitions and the positives from the stream and
    taking the first k of what remains gives every k-subset of the negatives the same probability, because
    the stream is invariant under any renaming of classes. About C ln(C / (C - k)) draws are needed, at most
    1.39 k while k <= C / 2; above that a permutation of all C <= 2 k classes is drawn instead, whose first
    members have the same property. So the cost is O(k log k) for any C.

    As positives are only skipped, nearly all of a step's choice is known before its batch is: ``window``.

    Args:
        num_classes: C, classes of this shard.
        num_wanted: classes per step.
        extra_positives: whether positives come on top of ``num_wanted`` (True), or are part of it.
        seed: of the run.
        shard: number of this shard.
    """

    def __init__(
        self,
        num_classes: int,
        num_wanted: int,
        *,
        extra_positives: bool,
        seed: int,
        shard: int,
    ) -> None:
        self.num_classes, self.extra_positives = num_classes, extra_positives
        self._key = (seed, shard)
        self.want(num_wanted)

    def want(self, num_wanted: int) -> None:
        """From now on choose so many classes per step."""
        self.num_wanted = min(num_wanted, self.num_classes)
        # What was drawn ahead for another number is not what a resumed run would draw
        self._drawn: tuple[int, np.ndarray, np.ndarray] | None = None

    def select(self, positives: np.ndarray, step: int) -> np.ndarray:
        """Classes of a step, ascending: the positives, filled up (or followed) by negatives.

        Args:
            positives: ascending distinct classes of this shard.
            step: number of the step.
        """
        room = self.num_wanted - (0 if self.extra_positives else len(positives))
        num_negatives = min(max(room, 0), self.num_classes - len(positives))
        if num_negatives == 0:
            return positives
        value, place = self._draws(step, min(num_negatives + len(positives), self.num_classes))
        at = np.minimum(np.searchsorted(value, positives), len(value) - 1)
        negative = np.ones(len(value), bool)
        negative[at[value[at] == positives]] = False
        last = np.partition(place[negative], num_negatives - 1)[num_negatives - 1]
        chosen: np.ndarray = np.concatenate([positives, value[negative & (place <= last)]])
        chosen.sort()
        return chosen

    def window(self, step: int) -> np.ndarray:
        """Classes that a step will most probably read, ascending."""
        if not self.num_wanted:
            return np.empty(0, np.int64)
        value, place = self._draws(step, self.num_wanted)
        if len(value) == self.num_wanted:
            return value
        last = np.partition(place, self.num_wanted - 1)[self.num_wanted - 1]
        chosen: np.ndarray = value[place <= last]
        return chosen

    def _draws(self, step: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        """At least ``wanted`` distinct classes (ascending) of a step's stream, and their places in it."""
        if self._drawn and self._drawn[0] == step and len(self._drawn[1]) >= wanted:
            return self._drawn[1], self._drawn[2]
        stream = np.random.Generator(np.random.Philox(np.random.SeedSequence((*self._key, step))))
        usual = self.num_wanted + self.num_wanted // 16 + 256  # with room for positives: drawn once a step
        if 2 * usual > self.num_classes:
            order = stream.permutation(self.num_classes)
            value, place = np.arange(self.num_classes), np.empty_like(order)
            place[order] = value
        else:
            value, place = _distinct(stream, self.num_classes, max(wanted, usual))
        self._drawn = step, value, place
        return value, place


def _distinct(stream: np.random.Generator, num_classes: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """First ``wanted`` or more distinct values of a stream of uniform draws, ascending, with their places."""
    expected = num_classes * np.log(num_classes / max(num_classes - wanted, 1))
    draws = stream.integers(num_classes, size=int(expected + 6 * expected**0.5) + 16)
    while True:
        bits = len(draws).bit_length()
        if bits + int(num_classes).bit_length() > 63:
            raise ValueError(
                f"cannot draw {wanted:,} of {num_classes:,} classes; sample fewer, or use more processes"
            )
        keys = np.sort(draws << bits | np.arange(len(draws)))  # one integer sort keeps first places first
        value, place = keys >> bits, keys & ((1 << bits) - 1)
        first = np.empty(len(value), bool)
        first[0], first[1:] = True, value[1:] != value[:-1]
        if first.sum() >= wanted:
            return value[first], place[first]
        draws = np.concatenate([draws, stream.integers(num_classes, size=len(draws))])
