"""Ring and least-recently-used pools: what a batch does is what its ids one by one would do."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facescale import kernels
from facescale.pools import EMPTY, LruPool, RingPool
from facescale.pools import slot_table as table
from facescale.pools.lru_numba import LruById
from facescale.pools.lru_numpy import LruByBatch
from tests.compiled import COMPILED, needs_numba

Items = list[tuple[int, int]]


class Oracle:
    """An LRU cache id -> slot in the plainest form: an ordered dict, most recent last."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.slots: OrderedDict[int, int] = OrderedDict()

    def get(self, id_: int) -> int:
        if id_ in self.slots:
            self.slots.move_to_end(id_)
        elif len(self.slots) < self.capacity:
            self.slots[id_] = len(self.slots)
        else:
            self.slots[id_] = self.slots.popitem(last=False)[1]
        return self.slots[id_]

    def items(self) -> Items:
        return list(reversed(self.slots.items()))


def make_pool(capacity: int, numba: bool = True) -> LruPool:
    """With compiled loops, or as where numba is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        if not numba:
            patch.setattr(kernels, "available", lambda: False)
        pool = LruPool(capacity)
        assert isinstance(pool._content, LruById if numba else LruByBatch)
    return pool


def items(pool: LruPool) -> Items:
    """(id, slot), most recent first."""
    state = pool.state()
    return list(zip(state["ids"].tolist(), state["slots"].tolist(), strict=True))


# Ids far apart, near together, and beyond 2^32 and float precision.
SPREADS = st.sampled_from([1, 7, 2**33, 2**56])
BATCHES = st.lists(st.lists(st.integers(0, 60), max_size=40), max_size=6)


@settings(max_examples=150, deadline=None)
@given(capacity=st.integers(1, 30), batches=BATCHES, spread=SPREADS, numba=st.sampled_from(COMPILED))
def test_a_batch_equals_its_ids_one_by_one(
    capacity: int, batches: list[list[int]], spread: int, numba: bool
) -> None:
    pool, oracle = make_pool(capacity, numba), Oracle(capacity)
    for batch in batches:
        ids = np.array(batch, np.int64) * spread
        assert pool.get(ids).tolist() == [oracle.get(i) for i in ids.tolist()]
        assert items(pool) == oracle.items()
        assert len(pool) == len(oracle.slots)
        everybody = np.arange(61) * spread
        assert pool.view(everybody).tolist() == [oracle.slots.get(i, EMPTY) for i in everybody.tolist()]
        assert pool.contains(everybody).tolist() == [i in oracle.slots for i in everybody.tolist()]
        assert all(pool.slot_ids[slot] == i for i, slot in oracle.items())


@settings(max_examples=100, deadline=None)
@given(
    capacity=st.integers(1, 20),
    before=BATCHES,
    tried=BATCHES,
    count=st.integers(0, 7),
    numba=st.sampled_from(COMPILED),
)
def test_rollback_undoes_exactly(
    capacity: int, before: list[list[int]], tried: list[list[int]], count: int, numba: bool
) -> None:
    pool, oracle = make_pool(capacity, numba), Oracle(capacity)
    for batch in before:
        pool.get(np.array(batch, np.int64))
    for batch in before + tried[: max(0, len(tried) - count)]:
        for i in batch:
            oracle.get(i)
    for batch in tried:
        pool.try_get(np.array(batch, np.int64))
    pool.rollback(count)
    assert items(pool) == oracle.items()
    pool.commit()
    assert pool.get(np.arange(5)).tolist() == [oracle.get(i) for i in range(5)]
    assert items(pool) == oracle.items()


@pytest.mark.parametrize("numba", COMPILED)
def test_long_use_keeps_the_order_and_the_memory(numba: bool) -> None:
    rng = np.random.default_rng(0)
    pool, oracle = make_pool(50, numba), Oracle(50)
    log = pool._content.log_size
    for _ in range(300):
        ids = rng.integers(0, 80, 40)
        pool.try_get(ids)
        pool.rollback()
        assert pool.get(ids).tolist() == [oracle.get(i) for i in ids.tolist()]
    assert items(pool) == oracle.items()
    assert pool._content.log_size == log


@pytest.mark.parametrize("numba", COMPILED)
@pytest.mark.parametrize("capacity", [1, 3, 64, 130, 1000])
def test_long_batches_equal_their_ids_one_by_one(capacity: int, numba: bool) -> None:
    """Longer than what is looked up at a time, with ids that come back while it is worked on."""
    rng = np.random.default_rng(capacity)
    pool, oracle = make_pool(capacity, numba), Oracle(capacity)
    for size in (63, 64, 65, 127, 128, 129, 200, 500, 1, 0, 333):
        ids = np.concatenate([rng.integers(0, spread * capacity + 2, size) for spread in (1, 2, 10)])
        before = items(pool)
        pool.try_get(ids)
        pool.rollback()
        assert items(pool) == before
        assert pool.get(ids).tolist() == [oracle.get(i) for i in ids.tolist()]
        assert items(pool) == oracle.items()


@pytest.mark.parametrize("numba", COMPILED)
def test_many_open_tries_outgrow_the_log_and_can_still_be_undone(numba: bool) -> None:
    pool = make_pool(10, numba)
    pool.get(np.arange(10))
    before = items(pool)
    for start in range(100):
        pool.try_get(np.arange(start, start + 10))
    pool.rollback()
    assert items(pool) == before


def test_a_table_whose_ids_chase_each_other_takes_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_MAX_MOVES", 2)  # in earnest 100 rounds, which hardly ever fail
    pool, oracle = make_pool(100, numba=False), Oracle(100)
    assert isinstance(pool._content, LruByBatch)
    factors = pool._content._table._factors.copy()
    rng = np.random.default_rng(1)
    for _ in range(20):
        ids = rng.integers(0, 10**6, 100)
        assert pool.get(ids).tolist() == [oracle.get(i) for i in ids.tolist()]
    assert (pool._content._table._factors != factors).all()


def same_home(count: int, buckets: int) -> np.ndarray:
    """Ids whose search starts at the last but one bucket of the compiled table."""
    half, factors = np.uint64(32), (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))
    ids = np.arange(100_000, dtype=np.uint64)
    hashed = (ids ^ (ids >> half)) * factors[0]
    hashed = (hashed ^ (hashed >> half)) * factors[1]
    homes = hashed >> np.uint64(64 - buckets.bit_length() + 1)
    return np.flatnonzero(homes == buckets - 2)[:count]


@needs_numba
def test_ids_that_share_a_bucket_spill_and_come_back_around_the_end() -> None:
    """All of one bucket, in a table of 32: four fit, the others go on, past the last bucket to the first."""
    crowd = same_home(60, 32)
    pool, oracle = make_pool(30), Oracle(30)
    rng = np.random.default_rng(3)
    for _ in range(300):
        ids = rng.choice(crowd, 12)
        if rng.random() < 0.3:
            pool.try_get(rng.choice(crowd, 40))
            pool.rollback()
        assert pool.get(ids).tolist() == [oracle.get(i) for i in ids.tolist()]
        assert pool.view(crowd).tolist() == [oracle.slots.get(i, EMPTY) for i in crowd.tolist()]
    assert items(pool) == oracle.items()


@pytest.mark.parametrize("numba", COMPILED)
@pytest.mark.parametrize("goes_on", [True, False], ids=["same", "other"])
def test_restore_continues_where_state_was_taken(numba: bool, goes_on: bool) -> None:
    rng = np.random.default_rng(2)
    pool = make_pool(20, numba)
    pool.get(rng.integers(0, 50, 60))
    other = numba == goes_on  # with numba what was saved without it, too
    if other not in COMPILED:
        pytest.skip("skipped: numba is not installed")
    copy = make_pool(20, other)
    copy.restore(pool.state())
    ids = rng.integers(0, 50, 60)
    assert copy.get(ids).tolist() == pool.get(ids).tolist()
    assert items(copy) == items(pool)


def test_ring_takes_the_next_slots_and_starts_again() -> None:
    ring = RingPool(5)
    assert ring.get(np.array([10, 11, 12])).tolist() == [0, 1, 2]
    assert len(ring) == 3
    assert ring.get(np.array([10, 13, 14])).tolist() == [3, 4, 0]
    assert len(ring) == 5
    assert ring.slot_ids.tolist() == [14, 11, 12, 10, 13]
    assert ring.contains(np.array([10, 14, 99])).tolist() == [True, True, False]
    assert ring.view(np.array([12, 7])).tolist() == [2, EMPTY]


def test_ring_rollback_and_restore() -> None:
    ring = RingPool(4)
    ring.get(np.array([1, 2, 3]))
    state = ring.state()
    ring.try_get(np.arange(10, 16))  # more than once around
    ring.rollback()
    other = RingPool(4)
    other.restore(state)
    for one in (ring, other):
        assert one.slot_ids.tolist() == [1, 2, 3, EMPTY]
        assert len(one) == 3
        assert one.get(np.array([7, 8])).tolist() == [3, 0]


@pytest.mark.parametrize("pool", [LruPool(3), RingPool(3)], ids=["lru", "ring"])
def test_misuse_is_told(pool: LruPool | RingPool) -> None:
    with pytest.raises(ValueError, match="ids must be 0 or larger, got -2"):
        pool.get(np.array([1, -2]))
    pool.rollback()
    pool.try_get(np.array([1]))
    with pytest.raises(ValueError, match="1 try_get calls are open; commit or roll them back before get"):
        pool.get(np.array([1]))


def test_wrong_sizes_and_states_are_told() -> None:
    with pytest.raises(ValueError, match="at least 1 slot, got 0"):
        LruPool(0)
    with pytest.raises(ValueError, match="saved ring has 4 slots, this one 5"):
        RingPool(5).restore(RingPool(4).state())
    pool = LruPool(4)
    pool.get(np.arange(4))
    with pytest.raises(ValueError, match="saved pool holds 4 ids, this one has 3 slots"):
        LruPool(3).restore(pool.state())
    with pytest.raises(ValueError, match="saved pool is damaged"):
        LruPool(3).restore({"ids": np.array([5, 5]), "slots": np.array([0, 1])})
