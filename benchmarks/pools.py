"""Batches of identities through LruPool against a linked-list LRU in Python: same results, time per batch.

    python benchmarks/pools.py [--slots 1000000] [--batch 4096]

Three workloads: identities that are all in the pool (look-up and order of use), drawn from twice as many and
from ten times as many (half and nine tenths of a batch evict an identity). It is thread time: other load
does not count.
"""

import argparse
import platform
import time

import numpy as np

from facescale.pools import LruPool


class Node:
    """An identity in the list."""

    __slots__ = ("id", "newer", "older", "slot")

    def __init__(self, id_: int, slot: int) -> None:
        self.id = id_
        self.slot = slot
        self.older = self.newer = self


class LinkedListLru:
    """The usual Python form: a dict of nodes in a doubly linked list."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.nodes: dict[int, Node] = {}
        self.end = Node(-1, -1)  # its newer neighbour is the oldest node, its older one the newest

    def get(self, id_: int) -> int:
        """Use an identity and return its slot."""
        node = self.nodes.get(id_)
        if node is not None:
            self.unlink(node)
        elif len(self.nodes) < self.capacity:
            node = self.nodes[id_] = Node(id_, len(self.nodes))
        else:
            oldest = self.end.newer
            self.unlink(oldest)
            del self.nodes[oldest.id]
            node = self.nodes[id_] = Node(id_, oldest.slot)
        self.append(node)
        return node.slot

    def unlink(self, node: Node) -> None:
        """Take a node out of the list."""
        node.older.newer = node.newer
        node.newer.older = node.older

    def append(self, node: Node) -> None:
        """Make a node the newest."""
        node.older, node.newer = self.end.older, self.end
        node.older.newer = self.end.older = node


def compare(slots: int, batch: int, num_ids: int, batches: int) -> tuple[float, float]:
    """Median milliseconds per batch of both; they must return the same slots."""
    rng = np.random.default_rng(0)
    pool, linked = LruPool(slots), LinkedListLru(slots)
    for ids in (np.arange(num_ids) if num_ids <= slots else rng.integers(0, num_ids, 3 * slots),):
        for part in np.array_split(ids, -(-ids.size // batch)):
            pool.get(part)
        for id_ in ids.tolist():
            linked.get(id_)
    times: list[tuple[float, float]] = []
    for _ in range(batches):
        ids = rng.integers(0, num_ids, batch)
        as_list = ids.tolist()
        start = time.thread_time()
        ours = pool.get(ids)
        middle = time.thread_time()
        theirs = [linked.get(id_) for id_ in as_list]
        times.append((middle - start, time.thread_time() - middle))
        if ours.tolist() != theirs:
            raise AssertionError("the two disagree")
    medians = np.median(times, axis=0) * 1e3
    return float(medians[0]), float(medians[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--batches", type=int, default=200)
    args = parser.parse_args()
    print(f"{platform.machine()}, NumPy {np.__version__}, Python {platform.python_version()}")
    print(f"{args.slots:,} slots, {args.batch:,} identities a batch, median of {args.batches} batches")
    for name, factor in (("all in the pool", 1), ("half in the pool", 2), ("a tenth in the pool", 10)):
        ours, theirs = compare(args.slots, args.batch, factor * args.slots, args.batches)
        print(f"{name:20s} {ours:7.2f} ms   linked list {theirs:7.2f} ms   {theirs / ours:5.1f} times")


if __name__ == "__main__":
    main()
