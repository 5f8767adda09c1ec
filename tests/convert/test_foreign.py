"""Checkpoints of other projects are recognised by their keys."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from facescale import backbones
from facescale.backbones.profile import skeleton
from facescale.convert.foreign import convert, read, recognise
from facescale.inference.load import contract_note, load
from facescale.model_card import Contract


def weights(name: str, embedding_size: int = 32) -> dict[str, Tensor]:
    return backbones.build(name, embedding_size).state_dict()


FFC = Contract(112, "BGR", 127.5, 128.0)

WRAPPINGS: dict[str, Any] = {
    "bare": lambda s: s,
    "DistributedDataParallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "Lightning": lambda s: {"epoch": 3, "state_dict": {f"model.{k}": v for k, v in s.items()}},
    "with a head": lambda s: {
        "state_dict_backbone": {f"module._orig_mod.{k}": v for k, v in s.items()},
        "state_dict_softmax_fc": {"weight": torch.zeros(3, 4)},
        "state_optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_an_insightface_checkpoint_is_recognised_in_any_wrapping(tmp_path: Path, wrapping: str) -> None:
    state = weights("mbf_s")
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "backbone.pth")
    converted = convert(tmp_path / "backbone.pth")
    assert converted.backbone == {"name": "mbf_s", "embedding_size": 32, "options": {}}
    assert converted.origin == "insightface"
    assert (converted.contract.colour, converted.contract.mean, converted.contract.std) == (
        "RGB",
        127.5,
        127.5,
    )
    assert list(converted.state_dict) == list(state)
    assert all(torch.equal(converted.state_dict[key], state[key]) for key in state)


RELEASES: dict[str, tuple[str, dict[str, Any], Any, Contract]] = {
    # how the project saves it: backbone, options, wrapping, contract
    "insightface": ("r18", {}, lambda s: s, Contract()),
    "MLA-ArcFace": ("mla_r18", {"attention": "se"}, lambda s: s, Contract()),
    "FFC": ("ffc_mobile", {}, lambda s: {"state_dict": s, "lru": [], "fc": torch.zeros(2, 3, 4)}, FFC),
    "AdaFace": (
        "ir18",
        {},
        lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()} | {"head.kernel": torch.zeros(1)}},
        Contract(colour="BGR"),
    ),
    "CVLface": ("ir18", {}, lambda s: {f"net.{k}": v for k, v in s.items()}, Contract()),
    "TFace": ("ir18", {}, lambda s: s, Contract()),
}


@pytest.mark.parametrize("origin", RELEASES)
def test_the_releases_of_other_projects_are_recognised_with_their_preprocessing(origin: str) -> None:
    name, options, wrapping, contract = RELEASES[origin]
    state = skeleton(name, 32, **options).state_dict()
    converted = recognise(wrapping({k: torch.zeros(v.shape, dtype=v.dtype) for k, v in state.items()}))
    assert converted.backbone == {"name": name, "embedding_size": 32, "options": options}
    assert (converted.origin, converted.contract) == (origin, contract)
    assert list(converted.state_dict) == list(state)


def test_f2c_and_insightface_share_a_network_and_are_told_apart_by_the_pool_beside_it() -> None:
    state = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in skeleton("r50", 32).state_dict().items()}
    assert recognise(state).backbone["name"] == "r50"
    assert recognise({"state_dict": state, "lru": [], "qp": {}}).backbone["name"] == "ffc_ir50"


def test_the_origin_can_be_said_where_the_keys_do_not_tell() -> None:
    state = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in skeleton("ir18", 32).state_dict().items()}
    assert recognise(state).contract.colour == "RGB"
    assert recognise(state, origin="AdaFace").contract.colour == "BGR"
    with pytest.raises(ValueError, match=r"unknown origin 'Adaface'.*did you mean 'AdaFace'"):
        recognise(state, origin="Adaface")


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    save_file(weights("mbf_s"), tmp_path / "model.safetensors")
    assert convert(tmp_path / "model.safetensors").backbone["name"] == "mbf_s"


def test_files_of_the_time_before_torch_1_6_are_read_too(tmp_path: Path) -> None:
    torch.save(weights("mbf_s"), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert convert(tmp_path / "old.pth").backbone["name"] == "mbf_s"


def test_half_precision_weights_become_fp32_and_missing_step_counters_zero() -> None:
    state = {k: v.half() for k, v in weights("mbf_s").items() if not k.endswith("num_batches_tracked")}
    converted = recognise(state).state_dict
    backbones.build("mbf_s", 32).load_state_dict(converted)
    assert converted["layers.0.layers.0.weight"].dtype == torch.float32


def test_classes_beside_the_weights_are_not_loaded(tmp_path: Path) -> None:
    state = weights("mbf_s")
    arguments = argparse.Namespace(lr=0.1, deep={"of": [1, 2]})
    torch.save({"state_dict": state, "args": arguments}, tmp_path / "last.ckpt")
    assert convert(tmp_path / "last.ckpt").backbone["name"] == "mbf_s"
    assert type(read(tmp_path / "last.ckpt")["args"]) is not argparse.Namespace


class _Trap:
    """Would make a folder if it were loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"state_dict": weights("mbf_s"), "trap": _Trap(mark)}, tmp_path / "last.ckpt")
    with pytest.raises(
        ValueError,
        match=r"would execute code when read, which is refused \(it asks to run .*mkdir.*\); save the state",
    ):
        convert(tmp_path / "last.ckpt")
    assert not mark.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"cannot read the checkpoint '.*none\.pth': No such file or directory"
    ):
        convert(tmp_path / "none.pth")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    for name, sentence in (("text.pth", " is not a checkpoint"), ("text.safetensors", ": its header claims")):
        (tmp_path / name).write_text("not a checkpoint")
        with pytest.raises(ValueError, match=rf"{name}'{sentence}"):
            convert(tmp_path / name)


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match=r"contains no named tensors; use a state dict"):
        convert(tmp_path / "empty.pth")


def test_an_unknown_network_is_answered_with_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"not a supported network \(its keys: weight, .*insightf"):
        recognise({"weight": torch.zeros(2, 2)})


def test_missing_additional_and_misshapen_entries_are_named() -> None:
    state = weights("mbf_s")
    del state["conv_sep.layers.0.weight"]
    state["extra"] = torch.zeros(1)
    state["layers.0.layers.0.weight"] = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match=r"nearest is insightface's mbf_s, 1 entries missing") as error:
        recognise(state)
    assert "1 entries too many (the first is 'extra')" in str(error.value)
    assert "'layers.0.layers.0.weight' has shape (1, 2, 3) instead of (64, 3, 3, 3)" in str(error.value)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same network as another project writes it: other names, the linear map as a 1x1 convolution."""
    parts = {"layers.0.": "conv1.", "layers.1.": "dw.", "conv_sep.": "sep.", "features.layers.": "last."}
    other = {}
    for key, value in state.items():
        for old, new in parts.items():
            key = f"{new}{key.removeprefix(old)}" if key.startswith(old) else key
        key = "arcface." + key.replace("layers.", "block.")
        other[key] = value[..., None, None] if value.ndim == 2 else value
    return other


@pytest.mark.parametrize("beside", [{}, {"detector.weight": torch.ones(3, 3)}])
def test_a_network_under_other_names_is_recognised_by_shapes_and_order(beside: dict[str, Tensor]) -> None:
    state = weights("mbf_s")
    found = recognise(renamed(state) | beside)
    assert found.backbone == {"name": "mbf_s", "embedding_size": 32, "options": {}}
    assert all(torch.equal(found.state_dict[key], state[key]) for key in state)
    assert "insightface's mbf_s by the shapes and the order of its" in found.assumed
    assert (
        "the first is 'arcface.conv1.block.0.weight'" in found.assumed and "RGB, (v - 127.5)" in found.assumed
    )
    assert recognise(state).assumed == ""


def test_a_renamed_file_says_what_was_assumed_wherever_it_is_used(
    facescale: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    torch.save(renamed(weights("mbf_s", 16)), tmp_path / "net.pth")
    out = tmp_path / "ours.safetensors"
    code, text, err = facescale("convert", str(tmp_path / "net.pth"), "--out", str(out))
    assert code == 0, err
    assert "recognised as insightface's mbf_s by the shapes" in text
    for path in (out, tmp_path / "net.pth"):
        assert contract_note(load(path, "cpu")).startswith("recognised as insightface's mbf_s")


def test_other_orders_and_other_kinds_of_entries_are_not_taken_for_the_network() -> None:
    state = renamed(weights("mbf_s"))
    names = list(state)
    mean, variance = (next(n for n in names if n.endswith(end)) for end in ("running_mean", "running_var"))
    swapped = {variance if n == mean else mean if n == variance else n: v for n, v in state.items()}
    backwards = dict(reversed(state.items()))
    for other in (swapped, backwards):
        with pytest.raises(ValueError, match=r"is not a supported network \(its keys: arcface"):
            recognise(other)


def test_a_complete_file_of_another_network_is_not_called_incomplete() -> None:
    state = weights("mbf_s")
    fewer = {key: value for key, value in state.items() if not key.startswith("layers.7.layers.1")}
    with pytest.raises(
        ValueError, match=r"is not complete: it resembles insightface's mbf_s, .* entries missing"
    ):
        recognise(fewer)
    more = state | {f"attention.{k}": torch.ones(3) for k in range(4)}
    with pytest.raises(
        ValueError, match=r"is not a supported network .*; the nearest is insightface's mbf_s, 4 ent"
    ):
        recognise(more)


def test_networks_of_112_by_96_pixels_see_the_middle_columns(tmp_path: Path) -> None:
    """Faces aligned to 112 x 96 are those of 112 x 112 without eight columns on either side."""
    torch.manual_seed(0)
    narrow = backbones.build("ffc_mobile", 16, columns=96).eval()
    assert narrow.state_dict()["linear7.conv.weight"].shape == (512, 1, 7, 6)
    torch.save(narrow.state_dict(), tmp_path / "net.pth")
    model = load(tmp_path / "net.pth", "cpu")
    assert model.info["origin"] == "MobileFaceNet 112x96" and model.contract.size == 112
    faces = torch.randint(0, 255, (2, 112, 112, 3), dtype=torch.uint8)
    cut = faces[:, :, 8:104]
    sides = torch.cat([255 - faces[:, :, :8], cut, 255 - faces[:, :, 104:]], dim=2)
    assert torch.equal(torch.from_numpy(model.embed_raw(faces)), torch.from_numpy(model.embed_raw(sides)))
    x = model.contract.normalise(cut)
    for part in ("conv1", "dw_conv1", "blocks", "conv2", "linear7", "linear1"):
        x = getattr(narrow, part)(x)
    expected = torch.nn.functional.normalize(x.flatten(1))
    assert torch.allclose(torch.from_numpy(model.embed_raw(faces)), expected, atol=1e-5)


@pytest.mark.parametrize("columns", [95, 114, -2])
def test_columns_that_are_no_middle_are_refused(columns: int) -> None:
    with pytest.raises(
        ValueError, match=rf"backbone.columns = {columns} cannot be the middle of 112 columns"
    ):
        backbones.build("ffc_mobile", 16, columns=columns)
