"""Gradient checkpointing of a chain of blocks: activations are recomputed instead of kept."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_blocks(blocks: Sequence[nn.Module] | nn.Sequential, x: Tensor, checkpointing: bool) -> Tensor:
    """Apply ``blocks`` to ``x``; with ``checkpointing`` only the inputs of segments are kept.

    A block keeps about seven maps, so n blocks in s segments keep s + 7 n / s: least at s = sqrt(7 n).
    """
    if not checkpointing:
        for block in blocks:
            x = block(x)
        return x
    num_blocks = len(blocks)
    per_segment = max(1, round(num_blocks / math.sqrt(7 * num_blocks)))
    for start in range(0, num_blocks, per_segment):
        segment = nn.Sequential(*list(blocks)[start : start + per_segment])
        contexts = partial(_contexts, segment)
        x = checkpoint(segment, x, use_reentrant=False, context_fn=contexts)
    return x


def _contexts(segment: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _frozen_statistics(segment)


@contextmanager
def _frozen_statistics(segment: nn.Module) -> Iterator[None]:
    """Normalise by the batch and leave the running statistics alone: the second pass is not a step."""
    norms = [m for m in segment.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # Not without statistics at all: the recomputation must keep the same tensors as the first pass.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches
