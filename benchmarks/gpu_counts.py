"""What a head's step asks of a GPU, counted where there is none: operations, copies from the host, waits.

python benchmarks/gpu_counts.py [--ids 1M] [--embedding-size 512] [--batch 128]

Steps run on torch's meta device, which has shapes and no values: whatever reads a value there raises, as it
would wait on a GPU. Operations are those that torch dispatches for the device, without views and allocations:
most are one kernel launch. Figures are counted, not measured.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from facescale import heads, margins
from facescale.distributed import Dist
from facescale.heads import ClassHead
from facescale.ops import default_chunk
from facescale.plan.units import parse_counts

META = torch.device("meta")

# What costs no launch: views, and memory without values
_FREE = frozenset(
    """
    view _unsafe_view expand slice select unsqueeze squeeze t transpose permute as_strided detach alias split
    split_with_sizes unbind _reshape_alias diagonal narrow empty empty_like empty_strided new_empty lift_fresh
    is_same_size
    """.split()  # noqa: SIM905
)

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "full, bfloat16 rows": ("full", {"store_dtype": "bfloat16"}),
    "partial_fc 0.1": ("partial_fc", {"rate": 0.1}),
    "attfc 65,536": ("attfc", {"size": 65_536}),
    "f2c 1 %": ("f2c", {"share": 0.01}),
}


class Dispatched(TorchDispatchMode):
    """Counts what is dispatched for the meta device.

    Attributes:
        operations: by name, without views and allocations.
        copies: from host memory to the device.
        waiting: names of copies that would hold the host up (those that are not ``non_blocking``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.copies = 0
        self.waiting: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count one operation."""
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        name = func._schema.name.partition("::")[2]
        if name in _FREE or not any(x.is_meta for x in tensors):
            return out
        self.operations[name] += 1
        if name in ("_to_copy", "copy_") and not all(x.is_meta for x in tensors):
            self.copies += 1
            if not ((kwargs or {}).get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])):
                self.waiting.append(name)
        return out

    @property
    def total(self) -> int:
        """All operations."""
        return sum(self.operations.values())


@dataclass(frozen=True)
class Batch:
    """Sizes of a step: number of identities, embedding size, images."""

    num_ids: int
    embedding_size: int
    images: int


def meta_head(name: str, sizes: Batch, margin: str = "cosface", **options: Any) -> ClassHead:
    """A head on the meta device whose slots, if it has such, are taken; its host bookkeeping is real."""
    built = margins.build(margin)
    head = heads.build(name, sizes.num_ids, sizes.embedding_size, built, Dist(device=META), **options)
    head.to(META).fill()
    return head


def meta_step(head: ClassHead, images: int, seed: int) -> Dispatched:
    """What one step of a head dispatches; ids are in host memory, as the loader has them."""
    generator, needs = torch.Generator().manual_seed(seed), head.needs
    ids = torch.randint(0, head.num_ids, (2, images), generator=generator)
    ids[1, : images // 2] = ids[0, : images // 2]
    shape = (images, head.embedding_size)
    q_VBD = torch.empty(needs.query_views, *shape, device=META, requires_grad=True)
    k_VBD = torch.empty(needs.key_views, *shape, device=META) if needs.key_views else None
    with Dispatched() as seen:
        head(q_VBD, ids if needs.identity_pairs else ids[0], k_VBD).loss.backward()
        head.is_finite()  # the loop asks it together with everything else
        head.finish_step(0.1)
    return seen


def steps(head: ClassHead, images: int, count: int = 3) -> Dispatched:
    """Counts of the last of some steps: the first ones allocate."""
    for seed in range(count - 1):
        meta_step(head, images, seed)
    return meta_step(head, images, count - 1)


def main(show: Callable[[str], None] = print) -> None:
    """Print a row of the table for every head."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ids", default="1M")
    parser.add_argument("--embedding-size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    sizes = Batch(parse_counts(given.ids)[0], given.embedding_size, given.batch)
    show("| head | operations | copies from the host | waits |\n|---|---|---|---|")
    for label, (name, options) in VARIANTS.items():
        chunk = default_chunk(sizes.embedding_size, torch.device("cuda"))
        head = meta_head(name, sizes, products="bfloat16", chunk=chunk, **options)
        seen = steps(head, sizes.images)
        show(f"| {label} | {seen.total} | {seen.copies} | {len(seen.waiting)} |")


if __name__ == "__main__":
    main()
