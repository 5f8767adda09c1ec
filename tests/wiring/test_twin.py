"""The twin of a whole training against its definition, checkpoint by checkpoint."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from facescale import backbones
from tests.wiring.toy import D, saved_state, train_toy, weights

STEPS = 6


def momentum_at(schedule: str, step: int) -> float:
    if schedule == "warmup":
        return min(0.7, (1 + step) / (10 + step))
    if schedule == "cosine":
        return 1 - (1 - 0.7) * (1 + math.cos(math.pi * step / STEPS)) / 2
    return 0.7


def twin_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {key.partition(".net.")[2]: x for key, x in state.items() if ".twin.net." in key}
    assert found
    return found


@pytest.mark.parametrize("schedule", ["constant", "warmup", "cosine"])
@pytest.mark.parametrize(("head", "buffers"), [("attfc", "copy"), ("f2c", "average"), ("attfc", "own")])
def test_the_twin_follows_the_backbone_as_the_config_says(
    head: str, buffers: str, schedule: str, tmp_path: Path
) -> None:
    run = train_toy(
        tmp_path,
        f"head.name={head}",
        "head.share=1.0",
        "twin.momentum=0.7",
        f"twin.schedule={schedule}",
        f"twin.buffers={buffers}",
        "checkpoint.every=1 steps",
        "train.seed=4",
    ).run
    torch.manual_seed(4)
    backbone = backbones.build("toy", D).state_dict()
    twin = {name: x.clone() for name, x in backbone.items()}
    for step in range(STEPS):
        momentum = momentum_at(schedule, step)
        saved = twin_of(saved_state(run, step + 1))
        for name, now in backbone.items():
            is_buffer = "running" in name or "tracked" in name
            if not is_buffer or (buffers == "average" and now.is_floating_point()):
                twin[name] = momentum * twin[name] + (1 - momentum) * now
            elif buffers != "own":
                twin[name] = now
            if not (is_buffer and buffers == "own"):
                torch.testing.assert_close(saved[name], twin[name], rtol=1e-5, atol=1e-6)
        if buffers == "own":
            assert int(saved["features.1.num_batches_tracked"]) == step + 1
            assert not torch.equal(saved["features.1.running_mean"], twin["features.1.running_mean"])
        backbone = weights(run, step + 1)
        assert not torch.equal(backbone["fc.weight"], twin["fc.weight"])


def test_a_skipped_step_leaves_the_centres_of_a_slot_head_alone(tmp_path: Path) -> None:
    """The third step is not finite: the rows that the next one starts from are those before it."""
    from safetensors.torch import load_file

    run = train_toy(
        tmp_path, "head.name=attfc", "head.share=1.0", "backbone.bad_at=2", "checkpoint.every=1 steps"
    ).run
    rows = [load_file(next(run.snapshot(step).glob("slots_*")))["rows"] for step in range(1, STEPS + 1)]
    assert torch.equal(rows[1], rows[2]) and not torch.equal(rows[2], rows[3])
    assert all(x.isfinite().all() for x in rows)
    assert [row["step"] for row in run.read_metrics("bad_step")] == [3]
