"""A copy of the backbone that follows it by moving average and embeds without gradient."""

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facescale.data.sampling.counter_rng import SHUFFLE, hash64
from facescale.distributed import Dist
from facescale.distributed.sharding import local
from facescale.ops import ema_update_, to_device

# B batch of this process, G batch of all processes, C colours, H W height and width, D embedding size


class Twin(nn.Module):
    """A copy of the backbone that moves by twin <- m twin + (1 - m) backbone (MoCo's momentum encoder).

    As AttFC's key encoder and F2C's gallery encoder, call ``update`` once per optimizer step, before the twin
    is used in it; as the averaged network that is evaluated, after the step. It needs no gradient, is not
    wrapped by DDP, and stays equal on all processes because the backbone does.

    Batch norm, by ``buffers``:

    - "own": the twin normalises with the statistics of the current batch and keeps its own running ones
      (AttFC, F2C). They always fit its weights. On several processes images are shuffled between processes
      before the pass and returned after it (MoCo's shuffling): statistics shared by a query and its keys
      would leak which keys match the query.
    - "copy", "average": the twin normalises with running statistics: the backbone's, or their moving average.
      An image's embedding then depends on that image alone. On several processes they are those of the main
      one, which a checkpoint holds, so that a resume is exact.

    Everything else (dropout, drop path) is in evaluation mode.

    Momentum, by ``schedule``, at update t (from 0) and share p of the training: "constant": m; "warmup":
    min(m, (1 + t) / (10 + t)), a warm-up for the untrained network, which changes fast; "cosine":
    1 - (1 - m) (1 + cos(pi p)) / 2 (BYOL), which reaches 1 at the end.

    State: ``net``, and the numbers of updates and calls.

    Args:
        backbone: the network to follow; copied.
        momentum: m.
        schedule: see above; "constant" as in the releases, a config's default is "warmup".
        buffers: see above.
        seed: of the shuffling.
        dist: this process among its peers.

    Raises:
        ValueError: momentum, schedule or buffers out of range.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        momentum: float = 0.999,
        schedule: Literal["constant", "warmup", "cosine"] = "constant",
        buffers: Literal["own", "copy", "average"] = "own",
        seed: int = 0,
        dist: Dist | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"the twin's momentum is {momentum}; it lies from 0 (a copy) to below 1 (0.999)")
        if schedule not in ("constant", "warmup", "cosine"):
            raise ValueError(f"the twin's schedule is '{schedule}'; it must be constant, warmup or cosine")
        if buffers not in ("own", "copy", "average"):
            raise ValueError(f"the twin's buffers are '{buffers}'; they must be own, copy or average")
        self.net = copy.deepcopy(backbone).requires_grad_(False)
        self.momentum, self.schedule, self.buffers_rule = momentum, schedule, buffers
        self._dist = dist or Dist()
        self._shuffle = buffers == "own" and self._dist.world_size > 1
        self._seed = seed
        self.num_updates = self.num_calls = 0
        self.train()

    def train(self, mode: bool = True) -> "Twin":
        """In training, batch norm takes the batch's statistics where ``buffers`` is "own"."""
        super().train(mode)
        for module in self.net.modules():
            module.training = mode and self.buffers_rule == "own" and isinstance(module, _BatchNorm)
        return self

    def momentum_at(self, progress: float) -> float:
        """Momentum of the next update.

        Args:
            progress: share of the training done, 0 to 1; read by "cosine" only.
        """
        if self.schedule == "warmup":
            return min(self.momentum, (1 + self.num_updates) / (10 + self.num_updates))
        if self.schedule == "cosine":
            return 1 - (1 - self.momentum) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return self.momentum

    @torch.no_grad()
    def update(self, backbone: nn.Module, progress: float = 0.0) -> None:
        """Follow ``backbone``, which has the same structure.

        Args:
            backbone: the network to follow, as it is now.
            progress: see ``momentum_at``.
        """
        momentum = self.momentum_at(progress)
        own, followed = ([local(x) for x in net.parameters()] for net in (self.net, backbone))
        ema_update_(own, followed, momentum)
        if self.buffers_rule != "own":
            for mean, now in zip(self.net.buffers(), self._buffers_of_main(backbone), strict=True):
                if self.buffers_rule == "average" and mean.is_floating_point():
                    mean.lerp_(now, 1 - momentum)
                else:
                    mean.copy_(now)
        self.num_updates += 1

    def _buffers_of_main(self, backbone: nn.Module) -> list[Tensor]:
        """Running statistics of the main process, which has its own, as each: these are what is saved."""
        buffers = list(backbone.buffers())
        statistics = [x for x in buffers if x.is_floating_point()]
        if self._dist.world_size == 1 or not statistics:
            return buffers
        flat = self._dist.broadcast(torch.cat([x.flatten() for x in statistics]))
        parts = iter(flat.split([x.numel() for x in statistics]))
        return [next(parts).view_as(x) if x.is_floating_point() else x for x in buffers]

    @torch.no_grad()
    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Raw embeddings (B, D), at least float32; B must be the same on all processes."""
        order_G = None
        if self._shuffle and self.training:
            generator = torch.Generator().manual_seed(
                int(hash64(SHUFFLE, self._seed, self.num_calls)[0] >> 1)
            )
            x_GCHW = self._dist.all_gather(x_BCHW.contiguous())
            (order_G,) = to_device(x_BCHW.device, torch.randperm(len(x_GCHW), generator=generator))
            x_BCHW = x_GCHW[order_G[self._here(len(x_BCHW))]]
        self.num_calls += 1
        e_BD = self.net(x_BCHW)
        e_BD = e_BD if e_BD.dtype is torch.float64 else e_BD.float()
        if order_G is None:
            return e_BD  # type: ignore[no-any-return]
        e_GD = self._dist.all_gather(e_BD)
        return e_GD[order_G.argsort()[self._here(len(e_BD))]]

    def _here(self, count: int) -> slice:
        return slice(self._dist.rank * count, (self._dist.rank + 1) * count)

    def get_extra_state(self) -> dict[str, Any]:
        """Counters, for ``state_dict``."""
        return {"num_updates": self.num_updates, "num_calls": self.num_calls}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` returned."""
        self.num_updates, self.num_calls = state["num_updates"], state["num_calls"]
