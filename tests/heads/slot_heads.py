"""What the tests of AttFC and F2C share: drawn batches, one step, and saving and reading a head."""

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from facescale.heads.slot_head import SlotHead

NUM_IDS, DIM = 30, 6


def draw(seed: int, num_views: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (V, B, D), identities (V, B) equal for the first half of the batch, keys (V, B, D)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, NUM_IDS, (num_views, batch), generator=generator)
    ids[:, : batch // 2] = ids[0, : batch // 2]
    q_VBD = 3 * torch.randn(num_views, batch, DIM, generator=generator)
    k_VBD = 2 * torch.randn(num_views, batch, DIM, generator=generator)
    return q_VBD, ids, k_VBD


def step(head: SlotHead, q_VBD: Tensor, ids: Tensor, k_VBD: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient of the queries; then the head's own step."""
    q_VBD = q_VBD.clone().requires_grad_()
    loss = head(q_VBD, ids, k_VBD).loss
    loss.backward()
    head.after_step(0.1)
    assert q_VBD.grad is not None
    return loss.detach(), q_VBD.grad


def peak_bytes(run: Callable[[], object]) -> int:
    """Most bytes of tensors that ``run`` holds at a time, beyond those that were there before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        run()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(accumulate(sizes))


def step_peak(head: SlotHead, batch: int, num_ids: int) -> int:
    """Peak of a step with a full container, beyond what stays."""
    views, size = head.needs.query_views, head.embedding_size

    def data(seed: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, num_ids, (views, batch), generator=generator)
        ids[-1, : 2 * batch // 3] = ids[0, : 2 * batch // 3]
        q_VBD = torch.randn(views, batch, size, generator=generator).requires_grad_()
        k_VBD = torch.randn(head.needs.key_views, batch, size, generator=generator)
        return q_VBD, ids if views == 2 else ids[0], k_VBD

    seed = 0
    while len(head.pool) < 0.9 * head.size:
        with torch.no_grad():
            head(*data(seed))
        head.after_step(0.1)
        seed += 1
    batch_of_step = data(seed)

    def run() -> None:
        head(*batch_of_step).loss.backward()
        head.after_step(0.1)

    return peak_bytes(run)


def through_disk(old: SlotHead, new: SlotHead, folder: Path) -> None:
    """Save ``old`` as a checkpoint does and read it into ``new``."""
    torch.save(old.state_dict(), folder / "state.pt")
    old.save_rows(folder)
    new.load_state_dict(torch.load(folder / "state.pt", weights_only=True))
    new.load_rows(folder)
