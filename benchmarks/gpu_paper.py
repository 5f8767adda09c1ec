"""Bytes and products of a head's step on a GPU with Triton's kernels, and the time that these take at least.

python -m benchmarks.gpu_paper [--ids 1M] [--embedding-size 512] [--batch 128]

Nothing here is measured. Traffic is that of device memory: rows, momentum, and what kernels leave for each
other; embeddings stay in the caches. ``full`` reads all rows forward, and reads and writes rows and momentum
afterwards. A second table plans exact softmax over 72 million identities for one GPU of 80 GB.
"""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.gpu_counts import Batch, given_sizes, kernels_counted, meta_head

_FLOAT, _HALF = 4, 2
_PARTS = 132  # programs of the forward kernel


@dataclass(frozen=True)
class Gpu:
    """What a GPU reads or writes per second, and its dense bfloat16 operations per second (data sheet)."""

    name: str
    bytes_per_s: float
    flops: float


GPUS = (Gpu("H100", 3.35e12, 989e12), Gpu("H200", 4.8e12, 989e12))


def left_bytes(sizes: Batch) -> int:
    """What the programs of the forward kernel write and the joining one reads: a gradient a part."""
    return 2 * _PARTS // -(-sizes.images // 64) * sizes.images * (sizes.embedding_size + 2) * _FLOAT


def trained_bytes(classes: int, sizes: Batch, value: int = _FLOAT, momentum: bool = True) -> int:
    """Traffic of a step that compares with and moves ``classes`` rows: one read, then reads and writes."""
    passes = 1 + (4 if momentum else 2)
    return passes * classes * sizes.embedding_size * value + left_bytes(sizes)


def attfc_bytes(slots: int, sizes: Batch) -> int:
    """Traffic of AttFC: the container is read once, with its identities; the batch's centres go into it."""
    row = sizes.embedding_size * _FLOAT
    return slots * (row + 8) + sizes.images * (row + 8) + left_bytes(sizes)


def f2c_bytes(slots: int, sizes: Batch) -> int:
    """Traffic of F2C: four views of the pool are compared, and searched by outliers; which row is where."""
    views = Batch(sizes.num_ids, sizes.embedding_size, 4 * sizes.images)
    row, places = sizes.embedding_size * _FLOAT, 3 * 8  # places: written, then read twice
    return 4 * slots * (2 * row + places) + left_bytes(views)


def flops(rows: int, sizes: Batch, products: int) -> float:
    """Operations of some products of all rows with the batch."""
    return 2.0 * products * rows * sizes.images * sizes.embedding_size


def least_ms(traffic: float, operations: float, gpu: Gpu) -> float:
    """The longer of both, in milliseconds."""
    return 1e3 * max(traffic / gpu.bytes_per_s, operations / gpu.flops)


def cases(sizes: Batch) -> dict[str, tuple[int, float]]:
    """Head -> traffic and operations of a step."""
    sampled, pool = sizes.num_ids // 10, sizes.num_ids // 100
    return {
        "full": (trained_bytes(sizes.num_ids, sizes), flops(sizes.num_ids, sizes, 4)),
        "full, bfloat16 rows": (trained_bytes(sizes.num_ids, sizes, _HALF), flops(sizes.num_ids, sizes, 4)),
        "partial_fc 0.1": (trained_bytes(sampled, sizes), flops(sampled, sizes, 4)),
        "attfc 65,536": (attfc_bytes(65_536, sizes), flops(65_536, sizes, 2)),
        "f2c 1 %": (f2c_bytes(pool, sizes), flops(pool, sizes, 12)),
    }


def exact_at(num_ids: int, sizes: Batch) -> tuple[int, int]:
    """Bytes on the device and at most within a step, as the head plans them: bfloat16 rows, no momentum."""
    with kernels_counted():
        small = meta_head(
            "full",
            Batch(1000, sizes.embedding_size, sizes.images),
            products="bfloat16",
            store_dtype="bfloat16",
            momentum=0.0,
        )
        planned = small.bytes_needed(sizes.images)
    return planned.device // 1000 * num_ids, planned.transient  # the second does not depend on their number


def main(show: Callable[[str], None] = print) -> None:
    """Print both tables."""
    sizes = given_sizes(__doc__)
    show("| head | traffic | operations | H100 | H200 |\n|---|---|---|---|---|")
    for label, (traffic, operations) in cases(sizes).items():
        times = " | ".join(f"{least_ms(traffic, operations, gpu):.2f} ms" for gpu in GPUS)
        show(f"| {label} | {traffic / 1e9:.3f} GB | {operations / 1e9:,.0f} GFLOP | {times} |")
    resident, transient = exact_at(72_000_000, sizes)
    show(f"\n72,000,000 identities, exact: {resident:,} bytes of rows, {transient:,} within a step")


if __name__ == "__main__":
    main()
