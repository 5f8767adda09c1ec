"""AttFC's released step, golden section D: encoders, attention, container, loss, gradients, optimizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facescale import heads, margins
from facescale.data.sampling.attention import ReleasedAttentionSampler
from facescale.distributed import Dist
from facescale.heads.attfc import AttFCHead, generative_centres
from facescale.ops import unit
from facescale.train.twin import Twin

VARIANTS = ["arc_linear", "cos_linear_bn", "arc16_linear"]


def near(ours: Tensor, theirs: Tensor, tolerance: float = 2e-4) -> bool:
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def encoder(batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(48, 16)]
    return nn.Sequential(*layers, nn.BatchNorm1d(16)) if batch_norm else nn.Sequential(*layers)


class Trace:
    """One variant of the golden file."""

    def __init__(self, golden: Path, variant: str) -> None:
        self.spec: dict[str, Any] = json.loads((golden / "D_attfc_dcc.json").read_text())[variant]
        self._arrays = np.load(golden / "D_attfc_dcc.npz")
        self._variant = variant

    def __call__(self, name: str) -> Tensor:
        return torch.from_numpy(self._arrays[f"{self._variant}/{name}"])

    def state(self, prefix: str, module: nn.Module) -> dict[str, Tensor]:
        names = [name for name in module.state_dict() if "num_batches" not in name]
        return {name: self(f"{prefix}.{name}") for name in names}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_step_of_the_released_training_is_reproduced(golden: Path, variant: str) -> None:
    trace = Trace(golden, variant)
    spec = trace.spec
    query = encoder(spec["bn"])
    query.load_state_dict(trace.state("init/q", query), strict=False)
    twin = Twin(query, momentum=spec["momentum"])
    twin.net.load_state_dict(trace.state("init/k", query), strict=False)
    m1, m2, m3 = spec["m"]
    margin = margins.build("combined", scale=spec["s"], m1=m1, m2=m2, m3=m3, compat=True)
    head = heads.build(
        "attfc",
        100,
        16,
        margin,
        Dist(),
        size=spec["queue_size"],
        keys=spec["sample_num"] - 1,
        normalise_keys=False,
        compat=True,
        products="float32",
        chunk=5,
    )
    assert isinstance(head, AttFCHead)
    head.rows[0] = trace("init/weight_queue").T
    optimizer = torch.optim.SGD(query.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=spec["steps"])
    for number in range(spec["steps"]):
        step = f"step{number:02d}"
        ids = trace(f"{step}/labels")
        q_BD = query(trace(f"{step}/img_q"))
        twin.update(query)
        images_K = trace(f"{step}/img_k")
        k_VBD = twin(images_K.flatten(0, 1)).view(*images_K.shape[:2], -1)

        centre_BD, attention_BV = generative_centres(q_BD, k_VBD, normalise_keys=False)
        assert near(attention_BV, trace(f"{step}/attention"))
        masked = head.slot_id == ids[:, None]
        assert torch.equal(masked, trace(f"{step}/masked"))
        clamped = trace(f"{step}/logits_clamped")
        target_B = torch.linalg.vecdot(unit(q_BD), centre_BD)
        assert near(torch.cat([target_B[:, None], unit(q_BD) @ head.rows[0].T], 1)[:, 0], clamped[:, 0])
        negatives = (unit(q_BD) @ head.rows[0].T).masked_fill(masked, -1.0)
        assert near(negatives, clamped[:, 1:])

        out = head(q_BD[None], ids, k_VBD)
        assert near(out.loss, trace(f"{step}/loss"))
        query.zero_grad()
        out.loss.backward()
        for name, parameter in query.named_parameters():
            if not (spec["bn"] and name == "1.bias"):  # zero but for rounding: batch norm follows
                assert near(parameter.grad, trace(f"{step}/grad_q.{name}")), name
        norm = nn.utils.clip_grad_norm_(query.parameters(), 5)
        assert near(norm, trace(f"{step}/grad_norm"))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(trace(f"{step}/lr").item())
        optimizer.step()
        schedule.step()
        head.after_step(0.0)

        for name, value in trace.state(f"{step}/q_after", query).items():
            assert near(query.state_dict()[name], value), name
        for name, value in trace.state(f"{step}/k_after", query).items():
            assert near(twin.net.state_dict()[name], value), name
        assert near(head.rows[0].T, trace(f"{step}/weight_queue_after"))
        taken = head.slot_id >= 0
        assert torch.equal(head.slot_id[taken], trace(f"{step}/label_queue_after")[0][taken].long())
        assert head.get_extra_state()["pool"]["pointer"] == trace(f"{step}/queue_ptr_after")


def test_the_released_sampler_draws_what_the_release_draws(golden: Path) -> None:
    spec = json.loads((golden / "D_attfc_sampler.json").read_text())
    counts = np.array(spec["images_per_identity"])
    ids = np.arange(len(counts)).repeat(counts)
    starts = np.cumsum(counts) - counts
    for run in spec["runs"]:
        sampler = ReleasedAttentionSampler(ids, run["k"] - 1, run["python_random_seed"])
        draws = run["draws_identity_frames_label"]
        indices = np.concatenate(
            [sampler.indices(0, np.arange(5)), sampler.indices(0, np.arange(5, len(draws)))], 1
        )
        for index_V, (identity, frames, label) in zip(indices.T, draws, strict=True):
            assert ids[index_V].tolist() == [identity] * run["k"] == [label] * run["k"]
            assert (index_V - starts[identity]).tolist() == frames
