"""What a head's step asks of a GPU, counted where there is none: operations, copies from the host, waits.

python benchmarks/gpu_counts.py [--ids 1M] [--embedding-size 512] [--batch 128]

Steps run on torch's meta device, which has shapes and no values: whatever reads a value there raises, as it
would wait on a GPU. Operations are those that torch dispatches for the device, without views and allocations:
most are one kernel launch. Figures are counted, not measured.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from facescale import heads, kernels, margins
from facescale.distributed import Dist
from facescale.heads import ClassHead, fused_softmax, slot_head
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


class Launcher:
    """Stands for a Triton kernel where no GPU is: counts its launches and computes nothing."""

    launches = 0

    def __getitem__(self, grid: object) -> Callable[..., None]:
        """What would be launched with that many programs."""
        return self._launched

    @classmethod
    def _launched(cls, *args: object, **options: object) -> None:
        cls.launches += 1


@contextmanager
def kernels_counted() -> Iterator[bool]:
    """Inside: heads on the meta device use Triton's kernels; whether there are such (Triton is installed)."""
    module = kernels.gpu_kernels("class_softmax")
    if module is None:
        yield False
        return
    with ExitStack() as stack:
        rows = kernels.gpu_kernels("unit_rows")
        names: list[tuple[Any, str]] = [(module, name) for name in ("compare", "join", "move_rows")]
        names += [(rows, name) for name in ("unit_forward", "unit_backward", "attend")]
        names += [(kernels.gpu_kernels("pool_views"), name) for name in ("renew", "nearest", "pull")]
        for user, name in names:
            stack.enter_context(patch.object(user, name, Launcher()))
        for user in (fused_softmax, slot_head):
            stack.enter_context(patch.object(user, "kernels_for", lambda device, products, dim: module))
        yield True


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
    before = Launcher.launches
    with Dispatched() as seen:
        head(q_VBD, ids if needs.identity_pairs else ids[0], k_VBD).loss.backward()
        head.is_finite()  # the loop asks it together with everything else
        head.finish_step(0.1)
    seen.operations["Triton kernel"] = Launcher.launches - before
    return seen


def steps(head: ClassHead, images: int, count: int = 3) -> Dispatched:
    """Counts of the last of some steps: the first ones allocate."""
    for seed in range(count - 1):
        meta_step(head, images, seed)
    return meta_step(head, images, count - 1)


def given_sizes(description: str | None) -> Batch:
    """The sizes that the command line asks for."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--ids", default="1M")
    parser.add_argument("--embedding-size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    return Batch(parse_counts(given.ids)[0], given.embedding_size, given.batch)


def main(show: Callable[[str], None] = print) -> None:
    """Print a row of the table for every head."""
    sizes = given_sizes(__doc__)
    show(
        "| head | operations | with Triton's kernels | copies from the host | waits |\n|---|---|---|---|---|"
    )
    for label, (name, options) in VARIANTS.items():
        chunk = default_chunk(sizes.embedding_size, torch.device("cuda"))
        counts = []
        for context in (nullcontext(True), kernels_counted()):
            with context as there:
                head = meta_head(name, sizes, products="bfloat16", chunk=chunk, **options)
                seen = steps(head, sizes.images)
                counts.append(str(seen.total) if there else "-")
        show(f"| {label} | {counts[0]} | {counts[1]} | {seen.copies} | {len(seen.waiting)} |")


if __name__ == "__main__":
    main()
