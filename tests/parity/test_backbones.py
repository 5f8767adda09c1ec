"""Backbones against the reference implementations' state dicts, outputs and training-mode gradients."""

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facescale import backbones
from facescale.backbones.profile import skeleton

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "golden" / "A_backbones"
KEY_LISTS = sorted(p.stem for p in (FOLDER / "keys").glob("*.txt"))
EMBEDDINGS = sorted(p.stem for p in FOLDER.glob("*.npz") if not p.stem.endswith("_train"))
TRAINED = sorted(p.stem.removesuffix("_train") for p in FOLDER.glob("*_train.npz"))


def build(arch: str, how: Callable[..., nn.Module] = backbones.build) -> nn.Module:
    """Our backbone for a reference name; its endings say widths, or rates that change no entry."""
    width = re.search(r"_nf(\d+)$", arch)
    name = re.sub(r"(_nf\d+|_dp\d+_mask_?\d+)$", "", arch).replace("mla_iresnet", "mla_r")
    return how(name, int(width[1]) if width else 512)


def random(facts: dict[str, Any], name: str) -> np.random.Generator:
    seed = zlib.crc32(f"{facts['salt']}/A/{facts['arch']}/{name}".encode())
    return np.random.Generator(np.random.PCG64(seed))


def reference_weights(facts: dict[str, Any], net: nn.Module) -> dict[str, Tensor]:
    """Every entry of the state dict by the recipe of the golden data's README, A.2."""
    state = net.state_dict()
    return {key: _weight(facts, key, value, state) for key, value in state.items()}


def _weight(facts: dict[str, Any], key: str, value: Tensor, state: dict[str, Tensor]) -> Tensor:
    module, _, last = key.rpartition(".")
    if last == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    n = random(facts, key).standard_normal(value.numel()).reshape(tuple(value.shape))
    if last == "running_mean":
        n = 0.1 * n
    elif last == "running_var":
        n = (1 + 0.1 * np.abs(n)) * (1e-3 if key.startswith("feature") else 1)
    elif key == "pos_embed":
        n = 0.01 * n
    elif key == "mask_token":
        n = 0.1 * n
    elif key == "patch_embed.proj.bias":
        n = 0.005 * n
    elif last == "gamma":
        n = 0.5 + 0.1 * n
    elif last == "bias":
        n = 0.05 * n
    elif value.dim() == 1 and f"{module}.running_mean" in state:
        n = (1 + 0.1 * n) * (facts["bn3_scale"] if module.split(".")[-1] == "bn3" else 1)
    elif value.dim() == 1 and f"{module}.bias" in state:
        n = 1 + 0.1 * n
    elif value.dim() == 1:
        n = 0.25 + 0.05 * n
    else:
        n = n / np.sqrt(np.prod(value.shape[1:]))
        n *= 0.02 if key == "patch_embed.proj.weight" else 4 if key.endswith(".mlp.fc1.weight") else 1
    return torch.from_numpy(np.asarray(n, dtype=np.float32))


@pytest.mark.parametrize("arch", KEY_LISTS)
def test_the_state_dict_has_the_reference_keys_in_order(golden: Path, arch: str) -> None:
    net = build(arch, skeleton)
    parameters = dict(net.named_parameters())
    lines = []
    for key, value in net.state_dict().items():
        shape = "x".join(map(str, value.shape)) or "scalar"
        kind, trained = "buffer", "-"
        if key in parameters:
            kind, trained = "param", "train" if parameters[key].requires_grad else "frozen"
        lines.append(f"{key} {shape} {str(value.dtype).removeprefix('torch.')} {kind} {trained}")
    assert lines == (golden / "A_backbones" / "keys" / f"{arch}.txt").read_text().splitlines()


@pytest.mark.parametrize("arch", EMBEDDINGS)
def test_the_embedding_of_the_reference_weights_is_the_reference_one(golden: Path, arch: str) -> None:
    folder = golden / "A_backbones"
    facts = json.loads((folder / f"{arch}.json").read_text())
    net = build(arch).eval()
    net.load_state_dict(reference_weights(facts, net))
    size = facts["image_size"]
    images = torch.from_numpy((2 * random(facts, "input").random((2, 3, size, size)) - 1).astype("f4"))
    assert images.flatten()[:4].tolist() == facts["input_check"]["first4"]
    with torch.no_grad():
        ours = net(images).double().numpy()
    reference = np.load(folder / f"{arch}.npz")["embedding_f64"]
    assert np.abs(ours - reference).max() <= 2e-5 * np.abs(reference).max()


@pytest.mark.parametrize("arch", TRAINED)
@pytest.mark.parametrize("channels_last", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_training_pass_has_the_reference_gradients_and_statistics(
    golden: Path, arch: str, channels_last: bool
) -> None:
    folder = golden / "A_backbones"
    facts = json.loads((folder / f"{arch}.json").read_text())
    expected_pass = json.loads((folder / f"{arch}_train.json").read_text())
    memory = torch.channels_last if channels_last else torch.contiguous_format
    net = build(arch)
    net.load_state_dict(reference_weights(facts, net))
    net = net.double().to(memory_format=memory).train()
    images = (2 * random(facts, "train_input").random((4, 3, 112, 112)) - 1).astype("f4")
    direction = random(facts, "train_direction").standard_normal((4, 512)).astype("f4")
    embedding = net(torch.from_numpy(images).double().contiguous(memory_format=memory))
    loss = (embedding * torch.from_numpy(direction)).sum()
    loss.backward()

    reference = np.load(folder / f"{arch}_train.npz")["embedding_f64"]
    assert np.abs(embedding.detach().numpy() - reference).max() <= 1e-8 * np.abs(reference).max()
    assert loss.item() == pytest.approx(expected_pass["scalar"], rel=1e-8)
    ours = {name: p.grad for name, p in net.named_parameters()}
    assert ours.keys() == expected_pass["grad_l2_and_first3"].keys()
    for name, expected in expected_pass["grad_l2_and_first3"].items():
        grad = ours[name]
        if expected is None:
            assert grad is None
        elif name not in expected_pass["keys_with_mathematically_zero_gradient"]:
            assert grad is not None
            assert grad.norm().item() == pytest.approx(expected[0], rel=1e-6), name
            np.testing.assert_allclose(
                grad.flatten()[:3], expected[1], rtol=1e-5, atol=1e-6 * expected[0], err_msg=name
            )
    buffers = dict(net.named_buffers())
    for name, expected in expected_pass["buffers_after_l2_and_first3"].items():
        if isinstance(expected, int):
            assert buffers[name].item() == expected
        else:
            assert buffers[name].norm().item() == pytest.approx(expected[0], rel=1e-8), name
