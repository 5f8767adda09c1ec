"""MobileFaceNets as public projects write them: the converted network gives their embeddings.

No weights are in this repository. The environment variable FACESCALE_PUBLIC_NET names the weights of a public
network (.pth or .onnx) for the last test; LFW is searched beside the checkout.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facescale.backbones.profile import skeleton
from facescale.convert.foreign import recognise
from facescale.inference.load import contract_note, load

NET = os.environ.get("FACESCALE_PUBLIC_NET", "")


def unit(num_in: int, num_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(num_in, num_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(num_out), prelu=nn.PReLU(num_out)))


class Block(nn.Module):
    def __init__(self, num_in: int, hidden: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = unit(num_in, hidden)
        self.conv_dw = unit(hidden, hidden, 3, stride, hidden)
        self.project = unit(hidden, num_out)[:2]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.conv_dw(self.conv(x)))
        return out if self.stride == 2 else x + out


class Chain(nn.Module):
    def __init__(self, num_blocks: int, width: int, hidden: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(Block(width, hidden, width, 1) for _ in range(num_blocks)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


def stages() -> OrderedDict[str, nn.Module]:
    return OrderedDict(
        conv1=unit(3, 64, 3, 2),
        conv2_dw=unit(64, 64, 3, 1, 64),
        conv_23=Block(64, 128, 64, 2),
        conv_3=Chain(4, 64, 128),
        conv_34=Block(64, 256, 128, 2),
        conv_4=Chain(6, 128, 256),
        conv_45=Block(128, 512, 128, 2),
        conv_5=Chain(2, 128, 256),
    )


def with_maps_at_the_end(width: int) -> nn.Sequential:
    """Each layer of the end under a name of its own, the linear map and its norm as maps of 1x1 pixels."""
    return nn.Sequential(
        stages()
        | OrderedDict(
            sep=nn.Conv2d(128, 512, 1, bias=False),
            sep_bn=nn.BatchNorm2d(512),
            prelu=nn.PReLU(512),
            GDC_dw=nn.Conv2d(512, 512, 7, groups=512, bias=False),
            GDC_bn=nn.BatchNorm2d(512),
            features=nn.Conv2d(512, width, 1, bias=False),
            last_bn=nn.BatchNorm2d(width),
        )
    )


def with_vectors_at_the_end(width: int) -> nn.Sequential:
    dw = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(512, 512, 7, groups=512, bias=False), bn=nn.BatchNorm2d(512))
    )
    return nn.Sequential(
        stages()
        | OrderedDict(
            conv_6_sep=unit(128, 512),
            conv_6_dw=dw,
            conv_6_flatten=nn.Flatten(),
            linear=nn.Linear(512, width, bias=False),
            bn=nn.BatchNorm1d(width),
        )
    )


def as_trained(net: nn.Module) -> nn.Module:
    """Statistics, scales and slopes that differ, so that an entry in a wrong place shows."""
    torch.manual_seed(5)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.3, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0, 0.5)
    return net.eval()


@pytest.mark.parametrize("make", [with_maps_at_the_end, with_vectors_at_the_end])
@pytest.mark.parametrize("prefix", ["arcface.", ""])
def test_a_mobilefacenet_in_public_words_gives_the_embeddings_of_its_project(
    make: Callable[[int], nn.Module], prefix: str, tmp_path: Path
) -> None:
    net = as_trained(make(128))
    state = {f"{prefix}{key}": value for key, value in net.state_dict().items()}
    head = {"head.weight": torch.ones(20, 128)} if prefix else {}  # trainers keep the classes beside it
    torch.save(state | head, tmp_path / "net.pth")
    model = load(tmp_path / "net.pth", "cpu")
    assert contract_note(model).startswith("recognised as insightface's mbf_s by the shapes and the order")
    faces = torch.randint(0, 256, (3, 112, 112, 3), dtype=torch.uint8)
    with torch.no_grad():
        theirs = net((faces.movedim(3, 1).float() / 255 - 0.5) / 0.5).flatten(1)
    ours = torch.from_numpy(model.embed_raw(faces.numpy()))
    assert ours.shape == (3, 128)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize(
    ("name", "origin"), [("r18", "insightface"), ("ir18", "TFace"), ("mbf", "insightface")]
)
def test_a_network_inside_a_wrapper_of_any_name_is_recognised_and_what_was_assumed_is_said(
    name: str, origin: str
) -> None:
    layout = skeleton(name, 32).state_dict()
    state = {f"arcface.{key}": torch.zeros(value.shape, dtype=value.dtype) for key, value in layout.items()}
    found = recognise(state | {"head.weight": torch.ones(20, 32)})
    assert (found.backbone["name"], found.origin) == (name, origin)
    assert list(found.state_dict) == list(layout)
    assert f"recognised as {origin}'s {name} by the shapes and the order" in found.assumed


def flip_of_the_reference(net: Path, stored: dict[str, np.ndarray], name: str, images: Path) -> str:
    """The reference does not say whether it adds mirror images; in one of both ways the embeddings agree."""
    some = range(0, len(stored["files"]), 100)
    expected = stored[name][list(some)].astype(np.float32)
    files = [images / str(stored["files"][i]) for i in some]
    agreement = {}
    for flip in ("yes", "no"):
        ours = load(net, "cpu", contract=f"flip={flip}").embed_files(files)
        agreement[flip] = float((ours * expected).sum(1).min())
    best = max(agreement, key=lambda flip: agreement[flip])
    assert agreement[best] > 0.999, agreement
    return best


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not NET, reason="skipped: FACESCALE_PUBLIC_NET names no weights of a public network")
def test_a_public_network_has_its_known_accuracy_on_lfw(
    faces: Path, golden: Path, facescale: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    stored = dict(np.load(golden / "lfw_embeddings.npz"))
    known = json.loads((golden / "lfw_embeddings.json").read_text())
    width = load(NET, "cpu").embedding_size
    same = [name for name in known if stored[name].shape[1] == width]
    flip = flip_of_the_reference(Path(NET), stored, same[0], faces / "lfw" / "images") if same else "yes"
    words = ("--on", f"lfw={faces / 'lfw'}", "--contract", f"flip={flip}", "--no-pictures", "--json")
    code, text, err = facescale("evaluate", NET, *words, "--out", tmp_path / "report.html")
    assert code == 0, err
    accuracy = json.loads(text)["results"][0]["accuracy"]
    if same:
        np.testing.assert_allclose(accuracy["folds"], known[same[0]]["acc"], rtol=0, atol=1.5 / 600)
    else:  # a network that no reference is kept of
        assert accuracy["mean"] > 0.98
