"""One walk over all backbones: what every one of them must do."""

import shutil
import sys
from collections.abc import Callable, Container
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facescale import backbones
from facescale.backbones.iresnet import IResNet
from facescale.backbones.profile import describe, skeleton
from facescale.export.write import export
from facescale.inference.model import Model
from facescale.model_card import Card, Contract

# One small network of each family; with the others the walk takes minutes.
FAMILIES = ("r10", "mbf_s", "vit_xs", "mla_r10", "ffc_mobile", "ir18")
DEEP = {"r200", "r2060", "mla_r100", "mla_r200", "vit_h", "ir101", "ir_se101"}
# Weights and gradients in float64 would fill the memory of a small machine, and an ONNX file holds 2 GB.
HUGE = {"r2060", "vit_h"}


def walk(quick: Container[str]) -> list[Any]:
    """All backbones, those that are not quick marked slow."""
    slow = (pytest.mark.slow, pytest.mark.timeout(3000))
    return [pytest.param(n, marks=() if n in quick else slow) for n in backbones.BACKBONES]


def options(name: str) -> dict[str, Any]:
    """Small images, and nothing random."""
    quiet: dict[str, Any] = {}
    if name.startswith("vit"):
        quiet = {"drop_path": 0.0, "mask_ratio": 0.0}
    elif name.startswith("ir"):
        quiet = {"dropout": 0.0}
    return {"input_size": 64 if name == "ffc_r50" else 32, **quiet}


def build(name: str, **more: Any) -> nn.Module:
    """A small backbone with the same first weights every time."""
    torch.manual_seed(0)
    return backbones.build(name, 16, **options(name), **more)


def images(net: nn.Module, count: int = 3) -> Tensor:
    side = net.input_size
    assert isinstance(side, int)
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", walk(set(backbones.BACKBONES) - DEEP))
def test_every_backbone_maps_images_to_embeddings_and_trains_all_its_parameters(name: str) -> None:
    net = skeleton(name, 16).train()
    assert net.embedding_size == 16
    assert net.input_size == (224 if name == "ffc_r50" else 112)
    embedding = net(images(net, 2).to("meta"))
    assert embedding.shape == (2, 16)
    embedding.sum().backward()
    idle = [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == ([] if getattr(net, "mask_ratio", 1) else ["mask_token"])


def direction(embedding: Tensor) -> Tensor:
    """A fixed gradient for embeddings; that of their length would be zero where a norm fixes it."""
    return torch.randn(embedding.shape, generator=torch.Generator().manual_seed(1)).to(embedding.dtype)


def assert_trains_finitely(net: nn.Module, precision: torch.dtype) -> None:
    """One step under autocast: a float32 embedding, and gradients that are finite and not nothing."""
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        embedding = net(images(net).contiguous(memory_format=torch.channels_last))
    assert embedding.dtype == torch.float32
    assert embedding.isfinite().all()
    (embedding * direction(embedding)).sum().backward()
    norms = [p.grad.norm() for p in net.parameters() if p.grad is not None]
    assert torch.stack(norms).isfinite().all()
    assert max(norms) > 1e-3


# A CPU without fp16 units takes ten times as long for it.
@pytest.mark.parametrize("name", walk(FAMILIES))
@pytest.mark.parametrize(
    "precision",
    [torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)],
)
def test_embeddings_and_gradients_are_finite_in_every_precision(name: str, precision: torch.dtype) -> None:
    assert_trains_finitely(build(name), precision)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("attention", "clean"), [("hybrid", False), ("hybrid", True), ("se", False), ("ca", False)]
)
def test_every_form_of_mla_is_finite_in_every_precision(
    attention: str, clean: bool, precision: torch.dtype
) -> None:
    torch.manual_seed(0)
    net = backbones.build("mla_r10", 16, attention=attention, clean=clean, input_size=16)
    assert_trains_finitely(net, precision)


Way = Callable[[Tensor], Tensor]


def gradient_gap(net: nn.Module, one: Way, other: Way, batch: Tensor) -> float:
    """Largest difference of two ways through ``net`` in a parameter's gradient, over that gradient.

    The second loss is the first one negated, so that a correct gradient cancels what is already there: no
    copy of a large network is needed. Gradients that are zero but for rounding count with the largest one.
    """
    first = one(batch)
    (first * direction(first)).sum().backward()
    sizes = {key: p.grad.abs().max() for key, p in net.named_parameters() if p.grad is not None}
    noise = 1e-3 * max(sizes.values())
    assert noise > 0
    second = other(batch)
    torch.testing.assert_close(second, first)
    (second * -direction(second)).sum().backward()
    return max(
        float(p.grad.abs().max() / (sizes[k] + noise)) for k, p in net.named_parameters() if k in sizes
    )


@pytest.mark.parametrize("name", walk(FAMILIES))
def test_checkpointing_changes_neither_gradients_nor_statistics(name: str) -> None:
    net = build(name, checkpointing=False)
    initial = {key: value.clone() for key, value in net.named_buffers()}
    after: list[dict[str, Tensor]] = []

    def run(checkpointing: bool, batch: Tensor) -> Tensor:
        net.checkpointing = checkpointing
        net.load_state_dict(initial, strict=False)
        return net(batch)  # type: ignore[no-any-return]

    def plain(batch: Tensor) -> Tensor:
        embedding = run(False, batch)
        after.append({key: value.clone() for key, value in net.named_buffers()})
        return embedding

    gap = gradient_gap(net, plain, partial(run, True), images(net))
    assert gap <= 1e-6
    assert all(torch.equal(value, after[0][key]) for key, value in net.named_buffers())
    assert initial.keys() and any(not torch.equal(after[0][key], value) for key, value in initial.items())


def test_checkpointing_keeps_less_in_memory() -> None:
    def kept(checkpointing: bool) -> int:
        sizes: dict[int, int] = {}
        net = backbones.build("r18", 16, input_size=32, checkpointing=checkpointing)

        def pack(t: Tensor) -> Tensor:
            sizes[t.data_ptr()] = t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            net(images(net))
        weights = {p.data_ptr() for p in net.parameters()}
        return sum(size for pointer, size in sizes.items() if pointer not in weights)

    assert kept(True) < 0.6 * kept(False)


@pytest.mark.parametrize("name", walk(FAMILIES))
def test_an_exported_graph_gives_the_same_embeddings(name: str, tmp_path: Path) -> None:
    net = build(name)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of the batch: with the initial ones deep networks overflow
    with torch.no_grad():
        net(images(net, 8))
    side = int(net.input_size)  # type: ignore[arg-type]
    model = Model.of(net.eval(), Card(Contract(size=side), {"name": name, "embedding_size": 16}), "cpu")
    faces = np.random.default_rng(0).integers(0, 256, (6, side, side, 3), dtype=np.uint8)
    report = export(model, tmp_path / ("net.pt2" if name in HUGE else "net.onnx"), images=faces)
    assert report.max_relative_difference <= 1e-4


@pytest.mark.parametrize("name", walk(("r10",)))
def test_a_captured_training_graph_gives_the_same_embeddings_and_gradients(name: str) -> None:
    torch._dynamo.reset()
    net = build(name, checkpointing=False)
    net = net if name in HUGE else net.double()
    batch = images(net).to(next(net.parameters()).dtype)
    captured = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert gradient_gap(net, net, captured, batch) <= (1e-2 if name in HUGE else 1e-6)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("name", FAMILIES)
def test_the_compiled_network_gives_the_same_embeddings_and_gradients(name: str) -> None:
    torch._dynamo.reset()
    net = build(name).double()
    assert gradient_gap(net, net, torch.compile(net), images(net).double()) <= 1e-6


def test_the_size_of_a_backbone_is_told_without_building_it() -> None:
    parameters, multiply_adds = describe("mbf", 512)
    assert parameters == sum(p.numel() for p in backbones.build("mbf").parameters())
    by_hand = 0

    def count(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal by_hand
        by_hand += output.numel() * module.weight[0].numel()  # type: ignore[operator,index,union-attr]

    net = backbones.build("mbf").eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)  # type: ignore[arg-type]
    net(images(net, 1))
    assert multiply_adds == by_hand


def test_a_vit_in_training_leaves_tokens_out_and_in_use_none() -> None:
    seen: list[int] = []
    net = backbones.build("vit_t", 16, mask_ratio=0.5, input_size=36)
    net.blocks[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[1]))  # type: ignore[index,union-attr]
    net.train()(images(net)).sum().backward()
    net.eval()(images(net))
    assert seen == [8, 16]
    assert net.mask_token.grad is not None


def test_a_vit_can_have_batch_norms() -> None:
    net = backbones.build("vit_t", 16, norm="bn", mask_ratio=0.0, input_size=36)
    assert "blocks.0.norm1.bn.running_mean" in net.state_dict()
    assert net(images(net)).shape == (3, 16)


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    from facescale.backbones.vit import DropPath

    scales = DropPath(0.25).train()(torch.ones(4000, 2, 2))
    assert torch.equal(scales.amin((1, 2)), scales.amax((1, 2)))
    assert scales.mean().item() == pytest.approx(1, abs=0.05)


def test_dropout_acts_in_training_only() -> None:
    net = backbones.build("r10", 16, dropout=0.5, input_size=32)
    assert isinstance(net, IResNet)
    net.train()
    batch = images(net)
    maps = net.bn2(net.last_map(batch)).detach()
    assert not torch.equal(net.embed(maps), net.embed(maps))
    net.eval()
    assert torch.equal(net(batch), net(batch))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("r19", {}, r"unknown backbone 'r19' \(did you mean 'r1"),
        (
            "r18",
            {"drop_out": 0.1},
            r"backbone 'r18' has no option 'drop_out' \(did you mean 'dropout'\?\); it takes: drop",
        ),
        ("vit_t", {"drop_path": 1.0}, r"drop_path = 1.0 is out of range; use a number from 0 to below 1"),
        ("vit_t", {"mask_ratio": -0.1}, r"mask_ratio = -0.1 is out of range"),
        ("vit_t", {"norm": "gn"}, r"norm of backbone 'vit_t' is 'gn'; it must be one of ln, bn"),
        ("vit_t", {"norm": "bn"}, r"norm = 'bn' has statistics for every token, .*; set mask_ratio = 0"),
        (
            "mla_r10",
            {"attention": "sa"},
            r"attention of backbone .* 'sa'; it must be one of hybrid, se, ca",
        ),
        ("vit_t", {"input_size": 8}, r"input_size = 8 is smaller than a patch; give 9 pixels or more"),
        ("r18", {"input_size": 0}, r"input_size is 0; it must be a positive whole number"),
        ("mla_r10", {"input_size": 100}, r"input_size = 100 does not divide .* 16 pixels; use 96 or 112"),
        ("timm:resnet18", {}, r"'timm:resnet18' needs the timm package .*; pip install 'facescale\[timm\]'"),
    ],
)
def test_a_wrong_choice_is_answered_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: dict[str, Any], message: str
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=message):
        backbones.build(name, **wrong)


class _Timm(ModuleType):
    """What we use of timm: one convolutional network and one transformer."""

    def is_model(self, name: str) -> bool:
        return name in ("conv", "former")

    def create_model(self, name: str, pretrained: bool, num_classes: int, **more: Any) -> nn.Module:
        if name == "conv" and more:
            raise TypeError("unexpected keyword argument 'img_size'")
        net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
        net.asked = SimpleNamespace(pretrained=pretrained, **more)
        net.set_grad_checkpointing = lambda on: setattr(net.asked, "checkpointing", on)
        return net


def test_a_timm_model_gets_the_embedding_width_and_where_it_wants_one_the_image_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", _Timm("timm"))
    for model in ("conv", "former"):
        net = backbones.build(f"timm:{model}", 16, checkpointing=True, input_size=64)
        assert net(images(net)).shape == (3, 16)
        expected = {"pretrained": False, "checkpointing": True} | (
            {"img_size": 64} if model == "former" else {}
        )
        assert vars(net.net.asked) == expected  # type: ignore[union-attr]
        assert describe(f"timm:{model}", 16)[0] == sum(p.numel() for p in net.parameters())
    with pytest.raises(ValueError, match=r"timm has no model 'other'; timm\.list_models\(\) lists"):
        backbones.build("timm:other")
