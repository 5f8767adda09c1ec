"""Checkpoints that torch wrote are read as torch reads them; what is no data is refused."""

import io
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from facescale.convert.foreign import convert
from facescale.guard.torch_file import load_torch, read_torch

CONTENT: dict[str, Any] = {
    "state": OrderedDict(a=torch.arange(6.0).reshape(2, 3).t(), b=torch.tensor(3), c=torch.zeros(0, 4)),
    "half": [torch.ones(2, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.bool, torch.int8)],
    "pair": (torch.ones(1), 2),
    "deep": {"x": {1: [None, "text", 2.5, True]}},
}


@pytest.mark.parametrize("archive", [True, False])
def test_tensors_and_containers_are_those_that_torch_reads(tmp_path: Path, archive: bool) -> None:
    torch.save(CONTENT, tmp_path / "x.pth", _use_new_zipfile_serialization=archive)
    found = read_torch(tmp_path / "x.pth")
    for key, tensor in CONTENT["state"].items():
        assert torch.equal(found["state"][key], tensor) and found["state"][key].dtype == tensor.dtype
    assert all(map(torch.equal, found["half"], CONTENT["half"]))
    assert torch.equal(found["pair"][0], torch.ones(1)) and found["pair"][1] == 2
    assert found["deep"] == CONTENT["deep"]


def test_modules_parameters_and_optimizers_are_read_as_torch_does(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.zeros(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    saved = {"net": net.state_dict(), "optim": optimizer.state_dict(), "parameter": net[0].weight}
    torch.save(saved, tmp_path / "x.pth")
    ours, theirs = read_torch(tmp_path / "x.pth"), torch.load(tmp_path / "x.pth", weights_only=True)
    assert torch.equal(ours["parameter"], theirs["parameter"])
    net.load_state_dict(ours["net"])
    optimizer.load_state_dict(ours["optim"])


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match=r"x\.pth.*;") as error:
        convert(path)
    return str(error.value)


def test_dicts_that_share_or_hold_themselves_are_walked_once(tmp_path: Path) -> None:
    tree: dict[str, Any] = {"w": torch.zeros(1)}
    tree["itself"] = tree
    for _ in range(40):
        tree = {"a": tree, "b": tree}
    torch.save(tree, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="is not a supported network"):
        convert(tmp_path / "x.pth")


def test_a_tensor_that_repeats_its_values_is_refused(tmp_path: Path) -> None:
    torch.save({"features.weight": torch.zeros(1).expand(10**9, 10**9)}, tmp_path / "x.pth")
    assert "repeats the 1 values of its storage" in refused(tmp_path / "x.pth")


def rewritten(data: bytes, change: Any = lambda name, content: content, compress: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compress) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "compress", "message"),
    [
        (lambda name, content: content, zipfile.ZIP_DEFLATED, "compressed, which torch.save never does"),
        (lambda name, content: content[:8] if "data/0" in name else content, 0, "storage '0' are missing"),
        (lambda name, content: b"big" if "order" in name else content, 0, "big-endian machine"),
        (
            lambda name, content: content.replace(b"K\x04K\x04\x86", b"K\x04K\x08\x86"),
            0,
            "beyond its storage",
        ),
    ],
)
def test_archives_that_torch_does_not_write_are_refused(
    tmp_path: Path, change: Any, compress: int, message: str
) -> None:
    torch.save({"features.weight": torch.zeros(4, 4)}, tmp_path / "x.pth")
    changed = rewritten((tmp_path / "x.pth").read_bytes(), change, compress)
    (tmp_path / "x.pth").write_bytes(changed)
    assert re.search(message, refused(tmp_path / "x.pth"))


def test_a_directory_that_claims_gigabytes_takes_no_memory() -> None:
    """The last record of a zip archive says how large its directory is, which zipfile reads at once."""
    asked: list[int] = []

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            asked.append(-1 if size is None else size)
            return super().read(size)

    buffer = io.BytesIO()
    torch.save(CONTENT, buffer)
    data = buffer.getvalue()
    end = data.rindex(b"PK\x06\x06")  # torch writes the form of large archives
    claimed = (3_500_000_000).to_bytes(8, "little")
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        load_torch(Counting(data[: end + 40] + claimed + data[end + 48 :]))
    assert asked and max(asked) <= len(data) and -1 not in asked


def test_an_entry_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    torch.save({"features.weight": torch.zeros(4)}, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"data/0"))  # in the directory at the end
    claimed = (4_000_000_000).to_bytes(4, "little")
    (tmp_path / "x.pth").write_bytes(data[: entry + 20] + claimed * 2 + data[entry + 28 :])
    assert "claim more bytes than the file has" in refused(tmp_path / "x.pth")


def test_every_cut_of_a_file_is_a_sentence(tmp_path: Path) -> None:
    for archive in (True, False):
        torch.save(
            {"features.weight": torch.zeros(4)}, tmp_path / "y", _use_new_zipfile_serialization=archive
        )
        data = (tmp_path / "y").read_bytes()
        for stop in range(0, len(data) - 1, 97):
            (tmp_path / "x.pth").write_bytes(data[:stop])
            refused(tmp_path / "x.pth")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    from facescale import backbones

    state = backbones.build("mbf_s", 16).state_dict()
    state["features.layers.2.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "x.pth")
    assert "values that are not finite (in 'features.layers.2.weight')" in refused(tmp_path / "x.pth")
