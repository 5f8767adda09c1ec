"""The second encoder: it follows the backbone by moving average and embeds without gradient."""

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facescale.distributed import Dist
from facescale.ops import ema_update_

# B batch of this process, G batch of all processes, C colours, H W height and width, D embedding size


class Twin(nn.Module):
    """A copy of the backbone that moves by twin <- m twin + (1 - m) backbone (MoCo's momentum encoder).

    Call ``update`` once per optimiser step, before the twin is used in it. It needs no gradient, is no part
    of what data-parallel training wraps, and stays equal on all processes because the backbone does.

    Batch norm, by ``buffers``:

    - "own": the twin normalises with the statistics of the batch at hand and keeps running ones of its own
      (AttFC, F2C). They fit its weights at any time. On several processes images are exchanged at random
      before and exchanged back after (MoCo's shuffling), so that a query and its keys do not betray each
      other by the statistics they share. If the backbone synchronises its batch norm, so does the twin, and
      the exchange is not needed.
    - "copy", "average": the twin normalises with running statistics: the backbone's as they are, or followed
      like the weights. An image's embedding then depends on that image alone.

    Everything else (dropout, drop path) is in evaluation mode.

    Momentum, by ``schedule``, at update t (from 0) and share p of the training: "constant": m; "warmup":
    min(m, (1 + t) / (10 + t)), which follows closely at first, when the backbone changes fast; "cosine":
    1 - (1 - m) (1 + cos(pi p)) / 2 (BYOL), which comes to rest at the end.

    State: ``net``, and how often it was updated and called.

    Args:
        backbone: what to follow; copied.
        momentum: m.
        schedule: see above.
        buffers: see above.
        dtype: precision that the twin computes in (its weights stay float32, or they would stop moving:
            bfloat16 has steps of 0.4 %); None leaves that to the caller.
        shuffle: exchange images between processes, see above.
        seed: of the exchange.
        dist: this process among its peers.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        momentum: float = 0.999,
        schedule: Literal["constant", "warmup", "cosine"] = "constant",
        buffers: Literal["own", "copy", "average"] = "own",
        dtype: torch.dtype | None = None,
        shuffle: bool = True,
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
        self.momentum, self.schedule, self.buffers_rule, self.dtype = momentum, schedule, buffers, dtype
        self._dist = dist or Dist()
        self._shuffle = shuffle and buffers == "own" and self._dist.world_size > 1
        self._seed = seed
        self.num_updates = self.num_calls = 0
        self.train()

    def train(self, mode: bool = True) -> "Twin":
        """Batch norm takes the statistics of the batch in training if they are the twin's own."""
        super().train(mode)
        for module in self.net.modules():
            module.training = mode and self.buffers_rule == "own" and isinstance(module, _BatchNorm)
        return self

    def momentum_at(self, progress: float) -> float:
        """Momentum of the next update.

        Args:
            progress: share of the training done, 0..1; only "cosine" looks at it.
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
            backbone: as it is before this step's optimiser update.
            progress: see ``momentum_at``.
        """
        momentum = self.momentum_at(progress)
        ema_update_(list(self.net.parameters()), list(backbone.parameters()), momentum)
        if self.buffers_rule != "own":
            for mean, now in zip(self.net.buffers(), backbone.buffers(), strict=True):
                if self.buffers_rule == "average" and mean.is_floating_point():
                    mean.lerp_(now, 1 - momentum)
                else:
                    mean.copy_(now)
        self.num_updates += 1

    @torch.no_grad()
    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Raw embeddings (B, D), at least float32; B must be the same on all processes."""
        order_G = None
        if self._shuffle and self.training:
            generator = torch.Generator().manual_seed(hash((self._seed, self.num_calls)) & 0x7FFFFFFF)
            x_GCHW = self._dist.all_gather(x_BCHW.contiguous())
            order_G = torch.randperm(len(x_GCHW), generator=generator).to(x_BCHW.device)
            x_BCHW = x_GCHW[order_G[self._here(len(x_BCHW))]]
        self.num_calls += 1
        kind = x_BCHW.device.type
        if self.dtype is None:
            e_BD = self.net(x_BCHW)
        else:
            with torch.autocast(kind, self.dtype, enabled=self.dtype is not torch.float32):
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
        """Take over what ``get_extra_state`` gave."""
        self.num_updates, self.num_calls = state["num_updates"], state["num_calls"]
