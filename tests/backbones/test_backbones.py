"""One walk over all backbones: what every one of them must do."""

import copy
import sys
from collections.abc import Container
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facescale import backbones
from facescale.backbones.describe import describe, skeleton
from facescale.backbones.iresnet import IResNet

# Rates that draw random numbers are off, so that two passes can be compared.
QUIET: dict[str, dict[str, Any]] = {"vit": {"drop_path": 0.0, "mask_ratio": 0.0}, "ir": {"dropout": 0.0}}

# One small network of each family; with the others the walk takes minutes.
DEEP = {"r200", "r2060", "mla_r100", "mla_r200", "vit_h"}
FAMILIES = ("r10", "mbf_s", "vit_t", "mla_r10", "ffc_mobile", "ir18")


def walk(quick: Container[str]) -> list[Any]:
    """All backbones, those that are not quick marked slow."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in backbones.BACKBONES]


def options(name: str) -> dict[str, Any]:
    """Small images, and nothing random."""
    size = 64 if name == "ffc_r50" else 32
    kind = "vit" if name.startswith("vit") else "ir" if name.startswith("ir") else ""
    return {"input_size": size, **QUIET.get(kind, {})}


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


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", walk(FAMILIES))
def test_embeddings_and_gradients_are_finite_and_fp32(name: str, precision: torch.dtype) -> None:
    torch.manual_seed(0)
    net = backbones.build(name, 16, **options(name)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        embedding = net(images(net).contiguous(memory_format=torch.channels_last))
    assert embedding.dtype == torch.float32
    embedding.square().sum().backward()
    assert embedding.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize(("attention", "clean"), [("hybrid", True), ("se", False), ("ca", False)])
def test_mla_is_finite_in_fp16_too(attention: str, clean: bool) -> None:
    torch.manual_seed(0)
    net = backbones.build("mla_r10", 16, attention=attention, clean=clean, input_size=16)
    with torch.autocast("cpu", torch.float16):
        embedding = net(images(net))
    embedding.square().sum().backward()
    assert embedding.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", walk(FAMILIES))
def test_checkpointing_changes_neither_gradients_nor_statistics(name: str) -> None:
    torch.manual_seed(0)
    nets = [backbones.build(name, 16, **options(name), checkpointing=c).double() for c in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net in nets:
        net(images(net).double()).square().sum().backward()
    for (key, plain), recomputed in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        if plain.grad is not None:
            torch.testing.assert_close(recomputed.grad, plain.grad, rtol=1e-9, atol=1e-12, msg=key)
    for (key, plain), recomputed in zip(nets[0].named_buffers(), nets[1].buffers(), strict=True):
        assert torch.equal(plain, recomputed), key


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


@pytest.mark.parametrize("name", FAMILIES)
def test_the_onnx_graph_gives_the_same_embeddings_for_any_batch(name: str, tmp_path: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net = backbones.build(name, 16, **options(name))
    net(images(net, 8))  # statistics that are not the initial ones
    net.eval()
    file = str(tmp_path / "net.onnx")
    axes = {"x": {0: "b"}, "y": {0: "b"}}
    torch.onnx.export(
        net, (images(net, 2),), file, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=axes
    )
    session = onnxruntime.InferenceSession(file)
    for count in (1, 3):
        with torch.no_grad():
            ours = net(images(net, count)).numpy()
        theirs = session.run(None, {"x": images(net, count).numpy()})[0]
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(ours).max()


@pytest.mark.parametrize("name", [n for n in walk(("r10",)) if n.values[0] in FAMILIES])
def test_a_captured_training_graph_gives_the_same_embeddings_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    eager = backbones.build(name, 16, **options(name)).double()
    captured = copy.deepcopy(eager)
    run = torch.compile(captured, backend="aot_eager", fullgraph=True)
    batch = images(eager).double()
    ours, theirs = eager(batch), run(batch)
    torch.testing.assert_close(theirs, ours)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for plain, other in zip(eager.parameters(), captured.parameters(), strict=True):
        if plain.grad is not None:
            torch.testing.assert_close(other.grad, plain.grad, rtol=1e-6, atol=1e-8)


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
            {"drop": 0.1},
            r"backbone 'r18' has no option 'drop' \(did you mean 'dropout'\?\); it takes: drop",
        ),
        ("vit_t", {"drop_path": 1.0}, r"drop_path = 1.0 is no rate; give a number from 0 to below 1"),
        ("vit_t", {"mask_ratio": -0.1}, r"mask_ratio = -0.1 is no rate"),
        ("vit_t", {"norm": "gn"}, r"norm = 'gn' is unknown; choose ln or bn"),
        ("vit_t", {"norm": "bn"}, r"norm = 'bn' has statistics for every token, .*; set mask_ratio = 0"),
        ("mla_r10", {"attention": "sa"}, r"unknown attention 'sa'.*; choose one of: hybrid, se, ca"),
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
    with pytest.raises(ValueError, match=r"timm has no model 'other'; timm\.list_models\(\) names"):
        backbones.build("timm:other")
