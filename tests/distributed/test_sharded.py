"""A backbone divided over processes: it learns what a whole one does, and what is saved is whole."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from facescale import backbones
from facescale.backbones.profile import skeleton
from facescale.config import load_config
from facescale.distributed import Dist
from facescale.distributed.sharding import (
    clip_grad_norm,
    gathered,
    is_sharded,
    largest_part,
    load_optimizer,
    load_weights,
    local,
    parts_of,
    shard_network,
    whole,
)
from facescale.plan import plan as plans
from facescale.run import RunDir
from facescale.train import train
from tests.distributed.spawn import run_processes
from tests.same_run import differences
from tests.tiny import train_steps
from tests.wiring.toy import SETTINGS, Toy, saved_state, weights

DIVIDED = "distributed.shard_backbone=true"
# 40 images in batches of 16: the processes embed two batches and one
BASE = ["eval.batch_size=16", "eval.every=3 steps", "checkpoint.every=3 steps", "train.clip_norm=1.0"]
FIRST = [*SETTINGS, *BASE, "train.ema=0.5", "optim.weight_decay=0.05", "checkpoint.background=true"]
CASES = {
    "first": [*FIRST, "train.accumulate=2"],
    "f2c": [*SETTINGS, *BASE, "head.name=f2c", "head.share=1.0", "optim.name=adamw", "optim.lr=0.01"],
    "attfc": [
        *(*SETTINGS, *BASE, "head.name=attfc", "head.share=1.0", "twin.buffers=copy", "twin.momentum=0.5"),
        *("train.precision=bf16", "backbone.bad_gradient_at=2"),
    ],
    "back": [
        *(word for word in (*SETTINGS, *BASE) if "margin.m=" not in word),
        *("head.margin.name=uniface", "backbone.bad_at=4", "train.roll_back_after=1"),
    ],
    "fp16": [
        *SETTINGS,
        *BASE,
        "backbone.bad_gradient_at=2",
        "train.init=FIRST",
        "finetune.freeze=['features.0']",
    ],
}


def _train_all(dist: Dist, folder: Path) -> None:
    backbones.BACKBONES["toy"] = Toy
    for name, settings in CASES.items():
        words = [word.replace("FIRST", str(folder / "first" / "whole")) for word in settings]
        with pytest.MonkeyPatch.context() as patch:
            if name == "fp16":  # users may not on a CPU, where it is slow
                patch.setattr(plans, "pick_precision", lambda *_: "fp16")
            train(load_config(None, words), folder / name / "whole", dist)
            train(load_config(None, [*words, DIVIDED]), folder / name / "divided", dist)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    run_processes(2, _train_all, folder)
    return folder


def _close(one: RunDir, other: RunDir, with_statistics: bool = True, rel: float = 2e-4) -> None:
    for name in ("loss", "grad_norm"):
        figures = [[row[name] for row in run.read_metrics("train") if row[name]] for run in (one, other)]
        assert len(figures[0]) >= 4
        assert figures[0] == pytest.approx(figures[1], rel=rel, abs=1e-5)
    for name, expected in weights(other, 6).items():
        if with_statistics or not ("running" in name or "tracked" in name):
            torch.testing.assert_close(weights(one, 6)[name], expected, rtol=rel, atol=rel / 20)
    ours, theirs = (run.read_metrics("eval")[-1] for run in (one, other))
    assert ours["unseen/mean_norm"] == pytest.approx(
        theirs["unseen/mean_norm"], rel=1e-3 if with_statistics else 0.1
    )


@pytest.mark.parametrize("name", CASES)
def test_divided_weights_learn_what_whole_ones_do(name: str, runs: Path) -> None:
    divided, entire = RunDir(runs / name / "divided"), RunDir(runs / name / "whole")
    half = name in ("attfc", "fp16")  # kernels round otherwise in another memory layout
    _close(divided, entire, rel=5e-3 if half else 2e-4)
    ours, theirs = saved_state(divided, 6), saved_state(entire, 6)
    assert ours.keys() == theirs.keys()
    for key, expected in theirs.items():
        torch.testing.assert_close(
            ours[key], expected, rtol=5e-3 if half else 1e-3, atol=1e-3 if half else 1e-4
        )
    for kind in ("bad_step", "roll_back"):
        assert len(divided.read_metrics(kind)) == len(entire.read_metrics(kind))
    assert len(divided.read_metrics("bad_step")) == (name in ("attfc", "fp16"))
    assert len(divided.read_metrics("roll_back")) == (name == "back")


def test_divided_weights_learn_what_one_process_does(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(backbones.BACKBONES, "toy", Toy)
    # batch norm sees the same images in each of four parts
    train(load_config(None, [*FIRST, "train.accumulate=4", DIVIDED]), tmp_path / "one", Dist())
    _close(RunDir(runs / "first" / "divided"), RunDir(tmp_path / "one"), with_statistics=False)


def test_frozen_parts_stay(runs: Path) -> None:
    start = load_file(RunDir(runs / "first" / "whole").model_path())
    end = weights(RunDir(runs / "fp16" / "divided"), 6)
    assert torch.equal(start["features.0.weight"], end["features.0.weight"])
    assert not torch.equal(start["fc.weight"], end["fc.weight"])


def _resume(dist: Dist, folder: Path) -> None:
    backbones.BACKBONES["toy"] = Toy
    words = [*FIRST, "train.accumulate=2", "backbone.dropout=0.5"]
    entire, divided = load_config(None, words), load_config(None, [*words, DIVIDED])
    train(divided, folder / "divided", dist)
    train(entire, folder / "whole", dist)
    for name, first, second in (
        ("same", divided, divided),
        ("on", entire, divided),
        ("off", divided, entire),
    ):
        assert not train_steps(first, folder / name, 4, dist).finished
        train(second, folder / name, dist)
    assert not train_steps(divided, folder / "one", 4, dist).finished


def test_a_run_goes_on_with_and_without_division(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_processes(2, _resume, tmp_path)
    found = differences(tmp_path / "divided", tmp_path / "same")
    assert [one for one in found if "step_00000004" not in one] == []  # bit for bit
    for name in ("on", "off"):
        _close(RunDir(tmp_path / name), RunDir(tmp_path / "whole"))
    monkeypatch.setitem(backbones.BACKBONES, "toy", Toy)
    assert train(
        load_config(None, [*FIRST, "train.accumulate=2", "backbone.dropout=0.5"]), tmp_path / "one"
    ).finished


class Uneven(nn.Module):
    """Weights whose rows do not divide by two, and fewer than processes."""

    input_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4)
        self.fc = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).flatten(1))


def _parts(dist: Dist) -> None:
    torch.manual_seed(0)
    net, other = Uneven(), Uneven()
    expected = {name: x.clone() for name, x in net.state_dict().items()}
    for one in (net, other):
        shard_network(one, dist)
    assert is_sharded(net) and not is_sharded(Uneven())
    held = sum(local(x).numel() for x in net.parameters())
    assert held == (240 // 5 * 3 + 3 + 5 + 1 if dist.rank == 0 else 240 // 5 * 2 + 2)
    load_weights(other, expected)
    for (name, mine), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(local(mine), local(theirs)), name
    optimizers = [torch.optim.AdamW(one.parameters(), fused=True) for one in (net, other)]
    net(torch.ones(2, 3, 4, 4)).sum().backward()
    norm = clip_grad_norm(net.parameters(), 0.1, dist)
    grads = whole([p.grad for p in net.parameters()], dist)
    if dist.is_main:
        alone = Uneven()
        alone.load_state_dict(expected)
        alone(torch.ones(2, 3, 4, 4)).sum().backward()
        before = torch.nn.utils.clip_grad_norm_(alone.parameters(), 0.1)
        torch.testing.assert_close(norm, before)
        for grad, p in zip(grads, alone.parameters(), strict=True):
            torch.testing.assert_close(grad, p.grad)
    optimizers[0].step()
    saved = whole(optimizers[0].state_dict(), dist)
    if dist.is_main:  # as from a file, which every process reads
        assert [x.shape for x in saved["state"][0].values()] == [(), (5, 3, 4, 4), (5, 3, 4, 4)]
    full = [x for values in saved["state"].values() for x in values.values()]
    shapes = [x.shape for values in optimizers[0].state_dict()["state"].values() for x in values.values()]
    for number, shape in enumerate(shapes):
        full[number] = dist.broadcast(full[number] if dist.is_main or not shape else torch.empty(shape))
    given = iter(full)
    state = {n: {key: next(given) for key in values} for n, values in saved["state"].items()}
    load_optimizer(optimizers[1], {**saved, "state": state})
    for one, two in zip(*(optimizer.state.values() for optimizer in optimizers), strict=True):
        assert all(torch.equal(local(one[key]), local(two[key])) for key in one)
    assert all(group["fused"] for group in optimizers[1].param_groups)
    with gathered(net):  # as often as each process likes
        for _ in range(2 + dist.rank):
            net(torch.ones(1, 3, 4, 4))
    after = whole(net.state_dict(), dist)
    if dist.is_main:
        assert all(after[name].shape == x.shape for name, x in expected.items())
    single = nn.Linear(2, 2)
    single.scale = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"cannot divide the weight 'scale', a single number; turn it off"):
        shard_network(single, dist)


def test_parts_of_weights_and_of_optimizer_state_are_put_together_exactly() -> None:
    run_processes(2, _parts)


@pytest.mark.parametrize("name", ["r50", "ir50", "mbf", "vit_s", "mla_r50"])
def test_a_network_is_gathered_block_by_block(name: str) -> None:
    net = skeleton(name)
    total = sum(p.numel() for p in net.parameters())
    assert len(parts_of(net)) >= 8
    assert largest_part(net) < total / 2
    assert net.training


def test_what_does_not_go_with_division_is_refused() -> None:
    compiled = (
        r"train.compile = True: does not go with distributed.shard_backbone, .*; set one of them to false"
    )
    with pytest.raises(ValueError, match=compiled):
        plans.check_components(load_config(None, [DIVIDED, "train.compile=true"]))
    config = load_config(
        None, [DIVIDED, "head.margin.name=uniface", "train.precision=fp16", "train.batch_size=128"]
    )
    sentence = (
        r"fp16 does not go with the margin 'uniface', which has a weight of its own; use .* bf16 or fp32"
    )
    gpus = Dist(0, 2, torch.device("cuda", 0))
    with pytest.raises(ValueError, match=sentence):
        plans.make_plan(config, gpus, plans.Counts(10, 1000))
    assert plans.make_plan(config, Dist(0, 1, gpus.device), plans.Counts(10, 1000)).precision == "fp16"


def _adapt(dist: Dist, folder: Path) -> None:
    words = [word for word in SETTINGS if not word.startswith(("backbone.name", "train.duration", "eval."))]
    words += [
        "backbone.name=vit_t",
        "backbone.input_size=36",
        "eval.sets={}",
        "train.precision=bf16",
        "train.ema=0.5",
    ]
    words = [word.replace("size=32", "size=36") for word in words]
    train(load_config(None, [*words, "train.duration=1 steps"]), folder / "start", dist)
    adapted = [*words, f"train.init={folder / 'start'}", "finetune.adapters=4", "backbone.checkpointing=true"]
    for name, more in (("whole", []), ("divided", [DIVIDED])):
        train(load_config(None, [*adapted, "train.duration=3 steps", *more]), folder / name, dist)
        train(load_config(None, [*adapted, "train.duration=4 steps", *more]), folder / name, dist)


@pytest.mark.slow
def test_adapters_of_a_divided_transformer_learn_what_those_of_a_whole_one_do(tmp_path: Path) -> None:
    run_processes(2, _adapt, tmp_path)
    divided, entire = RunDir(tmp_path / "divided"), RunDir(tmp_path / "whole")
    for name in ("loss", "grad_norm"):
        figures = [[row[name] for row in run.read_metrics("train")] for run in (divided, entire)]
        assert len(figures[0]) == 4
        assert figures[0] == pytest.approx(figures[1], rel=0.02)
    ours, theirs = weights(divided, 4), weights(entire, 4)
    assert ours.keys() == theirs.keys() and all(name.endswith(("up", "down")) for name in ours)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0.05, atol=1e-3)
    assert load_file(divided.base).keys() == load_file(entire.base).keys()
