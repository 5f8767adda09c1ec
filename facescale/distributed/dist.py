"""Processes and everything they say to each other: the one place that talks to torch.distributed."""

import math
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as td
from torch import Tensor

from facescale.distributed.peers import Peers

# New names since torch 2.13, which warns of the old ones
_all_gather = getattr(td, "all_gather_single", td.all_gather_into_tensor)
_reduce_scatter = getattr(td, "reduce_scatter_single", td.reduce_scatter_tensor)

_PIECE = 1 << 24  # values of one process that are gathered at once: memory on the device


@dataclass(frozen=True)
class Dist:
    """This process among its peers. The default value is a single process on the CPU.

    Attributes:
        rank: number of this process, 0 <= rank < world_size.
        world_size: number of processes.
        device: where this process computes.
        peers: signs of life of all processes, in a group that ``start`` has formed.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    peers: Peers | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Number the device: tensors on "cuda" say that they are on "cuda:0"."""
        if self.device == torch.device("cuda"):
            current = torch.cuda.current_device() if torch.cuda.is_available() else 0
            object.__setattr__(self, "device", torch.device("cuda", current))

    @property
    def is_main(self) -> bool:
        """True on the one process that prints and writes reports."""
        return self.rank == 0

    def note(self, doing: str, step: int | None = None) -> None:
        """Write down what this process does, for the message of one that waits for it."""
        if self.peers is not None:
            self.peers.place.doing = doing
            if step is not None:
                self.peers.place.step = step

    def shorten_timeout(self) -> None:
        """From now on, wait for the others as long as in any step: the slow beginning is over."""
        if self.peers is not None:
            td.distributed_c10d._set_pg_timeout(timedelta(seconds=self.peers.timeout_s))

    def shard(self, total: int) -> tuple[int, int]:
        """Contiguous range [start, stop) of ``total`` rows owned here; the first ranks take the remainder."""
        size, rest = divmod(total, self.world_size)
        start = self.rank * size + min(self.rank, rest)
        return start, start + size + (self.rank < rest)

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        """Reduce ``x`` in place over all processes (sum, max or min) and return it. No gradient."""
        if self.world_size > 1:
            self.note("all-reduce")
            td.all_reduce(x, {"sum": td.ReduceOp.SUM, "max": td.ReduceOp.MAX, "min": td.ReduceOp.MIN}[op])
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        """Concatenate equal-shaped ``x`` (B, ...) of all processes in rank order. No gradient."""
        if self.world_size == 1:
            return x
        out = x.new_empty((self.world_size * x.shape[0], *x.shape[1:]))
        self.note("all-gather")
        _all_gather(out, x.contiguous())
        return out

    def gather_ids(self, id_B: Tensor) -> Tensor:
        """Identities (B, ...) of all processes in rank order, int64 in host memory, where bookkeeping is.

        Waits for the device where it must: for ids that are there, and for those of other GPUs.
        """
        if self.world_size == 1:
            return id_B.cpu()
        return self.all_gather(id_B.to(self.device, non_blocking=True)).cpu()

    def broadcast(self, x: Tensor) -> Tensor:
        """Give ``x`` the values of the main process, in place, and return it. No gradient."""
        if self.world_size > 1:
            self.note("broadcast")
            td.broadcast(x, 0)
        return x

    def gather_rows(self, rows: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Arrays of all processes in rank order; they may differ in their number of rows, in nothing else."""
        if self.world_size == 1:
            return [rows]
        width = math.prod(rows.shape[1:])
        own = torch.from_numpy(np.array(rows).reshape(len(rows), width)).to(self.device)
        counts = self.all_gather(torch.tensor([len(own)], device=self.device)).tolist()
        parts: list[list[Tensor]] = [[] for _ in counts]
        step = max(1, _PIECE // max(1, width))
        for start in range(0, max(counts), step):
            piece = own.new_zeros(min(step, max(counts) - start), width)  # as long on every process
            mine = own[start : start + step]
            piece[: len(mine)] = mine
            for part, one, count in zip(parts, self.all_gather(piece).split(len(piece)), counts, strict=True):
                part.append(one[: max(0, count - start)].cpu())
        return [torch.cat([own[:0].cpu(), *part]).numpy().reshape(-1, *rows.shape[1:]) for part in parts]

    def gather_text(self, text: str) -> list[str]:
        """A text of each process, in rank order."""
        rows = np.frombuffer(text.encode(), np.uint8)
        return [part.tobytes().decode() for part in self.gather_rows(rows)]

    def gather_with_grad(self, x_BD: Tensor) -> Tensor:
        """Concatenate embeddings of all processes; backward sums the peers' gradients for the own rows.

        The gradient is multiplied by the world size, which cancels the averaging that data-parallel training
        does over processes: each process computes only its own classes' share of the global mean loss.
        """
        if self.world_size == 1:
            return x_BD
        return cast(Tensor, _Gather.apply(x_BD, self))  # type: ignore[no-untyped-call]

    def sum_with_grad(self, x: Tensor) -> Tensor:
        """Sum of ``x`` over processes, of which each holds a part; backward hands every part the gradient.

        For values that all processes go on to use in the same way (a loss that is the same everywhere).
        """
        return x if self.world_size == 1 else cast(Tensor, _Sum.apply(x, self))  # type: ignore[no-untyped-call]

    def shared(self, x: Tensor) -> Tensor:
        """``x`` for computations that every process repeats in full; backward divides by the world size.

        Behind ``gather_with_grad`` the gradients of all processes are added; what each of them computes
        whole must count once.
        """
        return x if self.world_size == 1 else cast(Tensor, _Shared.apply(x, self))  # type: ignore[no-untyped-call]

    def any(self, flag: bool | Tensor) -> bool:
        """True when ``flag`` is true on any process. Synchronises the device."""
        if self.world_size == 1:
            return bool(flag)
        return bool(
            self.all_reduce(torch.as_tensor(flag, dtype=torch.float32, device=self.device).clone(), "max")
        )

    def barrier(self) -> None:
        """Wait until all processes are here: as long as they live, where ``peers`` says whether they do."""
        if self.peers is not None:
            self.note("barrier")
            self.peers.meet()
        elif self.world_size > 1:
            self.all_reduce(torch.zeros(1, device=self.device))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BD: Tensor, dist: Dist) -> Tensor:
        ctx.dist = dist
        return dist.all_gather(x_BD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        dist: Dist = ctx.dist
        grad = grads[0].contiguous()
        own = grad.new_empty((grad.shape[0] // dist.world_size, *grad.shape[1:]))
        dist.note("reduce-scatter")
        _reduce_scatter(own, grad)
        return own * dist.world_size, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dist: Dist) -> Tensor:
        return dist.all_reduce(x.clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dist: Dist) -> Tensor:
        ctx.world_size = dist.world_size
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] / ctx.world_size, None
