"""Counter-based random numbers: each is a pure function of (seed, epoch, index, ...), whoever asks and when.

A stateful generator ties a draw to how many draws came before it, hence to the number of workers and to where
a run was resumed. Here the draw for image 1234 of epoch 7 is computed from these numbers alone.
"""

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray

Uints = npt.NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the increment of splitmix64
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # its output function's factors
_WORD = 0xFFFFFFFFFFFFFFFF
_ROUNDS = 6  # of the Feistel network; four already pass for pseudo-random, six cost nothing

PIECE = 1 << 16  # numbers that are hashed at once

# The first stream number tells what a draw is for, so that two purposes never share numbers.
ORDER, AUGMENT, REPLACE, KEYS, PAIRS, SHUFFLE, WEIGHTED, BALANCED = 1, 2, 3, 4, 5, 6, 7, 8


def _scramble(x: Uints) -> Uints:
    """The output function of splitmix64 (Steele, Lea, Flood 2014): a bijection on 64-bit words."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX_1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX_2)
    return x ^ (x >> np.uint64(31))


def scrambled(value: int) -> int:
    """`_scramble` of one integer modulo 2^64, 20 times as fast as through an array."""
    value &= _WORD
    value = (value ^ (value >> 30)) * _MIX_1 & _WORD
    value = (value ^ (value >> 27)) * _MIX_2 & _WORD
    return value ^ (value >> 31)


def hash64(*streams: int | IntArray | Uints) -> Uints:
    """64 random bits for each combination of ``streams`` (integers or integer arrays, broadcast together)."""
    state = np.zeros(1, np.uint64)
    for stream in streams:
        word = np.uint64(stream & _WORD) if isinstance(stream, int) else stream.astype(np.uint64)
        state = _scramble((state ^ word) + np.uint64(_GOLDEN))
    return state


def hash64_each(*streams: IntArray | Uints) -> Uints:
    """`hash64` of long arrays (N,), piece by piece, which stays in the cache."""
    out = np.empty(len(streams[0]), np.uint64)
    for start in range(0, len(out), PIECE):
        piece = slice(start, start + PIECE)
        out[piece] = hash64(*(stream[piece] for stream in streams))
    return out


def uniform(count: int, *streams: int | IntArray) -> npt.NDArray[np.float32]:
    """``count`` float32 numbers in [0, 1) for each combination of ``streams``; in the last dimension."""
    bits = hash64(hash64(*streams)[..., None], np.arange(count))
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def uniform64(count: int, *key: int) -> npt.NDArray[np.float64]:
    """The first ``count`` float64 numbers (count,) in [0, 1) of the stream of ``key``, splitmix64's own."""
    state = 0
    for part in key:
        state = scrambled((state ^ part) + _GOLDEN)
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return np.asarray((_scramble(steps + np.uint64(state)) >> np.uint64(11)) * 2.0**-53, np.float64)


def permuted(position: IntArray, size: int, *streams: int) -> IntArray:
    """Where a random permutation of ``range(size)`` sends each ``position``.

    A Feistel network over the next power of four, walked until it lands inside ``range(size)``: a bijection
    that needs no array of ``size`` entries, so an epoch over 42 million images starts at once at any step,
    and the same numbers come from every NumPy version.

    Raises:
        ValueError: a position outside ``range(size)``.
    """
    if position.size and not (position.min() >= 0 and position.max() < size):
        raise ValueError(f"positions must lie in 0..{size - 1}, got {position.min()}..{position.max()}")
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = hash64(*streams, np.arange(_ROUNDS))
    result = position.astype(np.uint64)
    todo = np.ones(result.shape, bool)
    while todo.any():
        left, right = result[todo] >> half, result[todo] & mask
        for key in keys:
            left, right = right, left ^ (_scramble(right ^ key) & mask)
        result[todo] = (left << half) | right
        todo = result >= np.uint64(size)
    return result.astype(np.int64)


def permuted_each(position: IntArray, size: IntArray, *streams: int | IntArray) -> IntArray:
    """`permuted` with a size, and further streams, for each position: as many permutations as there are.

    Args:
        position: 0 <= position < size.
        size: of the same shape.
        streams: integers, or arrays of the same shape.
    """
    whole = np.maximum(size, 2).astype(np.uint64) - np.uint64(1)
    bits = np.frexp(whole.astype(np.float64))[1].astype(np.uint64)  # exact below 2^53
    half = np.maximum((bits + np.uint64(1)) // np.uint64(2), np.uint64(1))
    mask = (np.uint64(1) << half) - np.uint64(1)
    named = hash64(*streams, np.zeros_like(position))
    keys = [hash64(named, number) for number in range(_ROUNDS)]
    result, todo = position.astype(np.uint64), np.ones(position.shape, bool)
    while todo.any():
        left, right = result[todo] >> half[todo], result[todo] & mask[todo]
        for key in keys:
            left, right = right, left ^ (_scramble(right ^ key[todo]) & mask[todo])
        result[todo] = (left << half[todo]) | right
        todo = result >= size.astype(np.uint64)
    return result.astype(np.int64)
