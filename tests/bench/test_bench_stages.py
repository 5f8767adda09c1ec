"""Whole stages are measured beside a plain PyTorch way that computes the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from facescale import backbones, heads, margins
from facescale.bench.plain import PlainDataset, PlainTraining, plain_layers
from facescale.bench.run import WAYS, Comparison, bench_stages, packed
from facescale.bench.stages import Stage, measure_stage
from facescale.data import open_reader

TINY = "synthetic:ids=6,images=4,size=112"


def stage(kind: str, way: str, data: str) -> Stage:
    return Stage(kind, way, "mbf_s", 4, data, workers=0, steps=2, device="cpu", threads=0)


@pytest.fixture(scope="module")
def record() -> Any:
    with packed(TINY) as path:
        yield path


@pytest.mark.parametrize(("kind", "way"), [(kind, way) for kind, ways in WAYS.items() for way in ways])
def test_every_stage_is_measured_in_every_way(kind: str, way: str, record: str) -> None:
    figures = measure_stage(stage(kind, way, record))
    assert 0 < figures["images_per_s"] < 1e6
    assert figures["peak_bytes"] > 1e7
    if kind == "train":
        assert 0 <= figures["data_share"] < 1


def test_drawn_images_are_packed_as_jpegs_and_files_are_taken_as_they_are(record: str) -> None:
    reader = open_reader(record)
    assert len(reader) == 24 and reader.num_ids == 6
    data = reader[0][0]
    assert isinstance(data, bytes) and data[:2] == b"\xff\xd8"
    with packed(record) as same:
        assert same == record
    with pytest.raises(ValueError, match="nowhere"), packed("nowhere"):
        pass


def test_the_plain_network_is_the_same_network() -> None:
    torch.manual_seed(0)
    ours = backbones.build("mbf_s").eval()
    torch.manual_seed(0)
    plain = plain_layers(backbones.build("mbf_s")).eval()
    assert {
        type(module).__module__.split(".")[0] for module in plain.modules() if not list(module.children())
    } == {"torch"}
    images = torch.randn(2, 3, 112, 112)
    torch.testing.assert_close(plain(images), ours(images), rtol=1e-4, atol=1e-4)


def test_the_plain_loss_is_that_of_full_softmax(record: str) -> None:
    """The alternative does the same work: its first gradient is that of our head."""
    net = backbones.build("mbf_s", 16).eval()
    images, id_B = torch.randn(3, 3, 112, 112), torch.tensor([0, 2, 1])
    step = PlainTraining(net, 5, torch.device("cpu"))
    head = heads.build("full", 5, 16, margins.build("cosface", scale=64.0, m=0.4), products="float32")
    head.write_rows(torch.arange(5), step._head.weight_CD.detach())
    embedding = net.eval()(images)
    loss = head(embedding[None], id_B).loss
    cos_BC = F.normalize(embedding) @ F.normalize(step._head.weight_CD).T
    plain = F.cross_entropy(64 * (cos_BC - 0.4 * F.one_hot(id_B, 5)), id_B)
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=1e-4)
    before = step._head.weight_CD.detach().clone()
    step(images, id_B)
    assert not torch.equal(before, step._head.weight_CD)


def test_a_plain_sample_is_normalised_and_mirrored_at_random(record: str) -> None:
    torch.manual_seed(1)
    samples = [PlainDataset(open_reader(record))[0][0].numpy() for _ in range(8)]
    assert all(np.abs(sample).max() <= 1 for sample in samples)
    assert any(np.array_equal(sample, samples[0][..., ::-1]) for sample in samples)


def test_ratios_are_medians_of_rounds() -> None:
    ours = [{"images_per_s": rate, "peak_bytes": 1e9, "data_share": 0.1} for rate in (10.0, 30.0, 20.0)]
    plain = [{"images_per_s": rate, "peak_bytes": 2e9, "data_share": 0.2} for rate in (10.0, 10.0, 10.0)]
    found = Comparison(stage("train", "", ""), {"ours": ours, "plain": plain})
    assert found.ratio == 2.0
    row = found.row()
    assert (row["images/s"], row["plain PyTorch"], row["ratio"], row["waits for data"]) == (
        "20.0",
        "10.0",
        "2.00",
        "10%",
    )
    assert json.loads(json.dumps(found.to_dict()))["ratio"] == 2.0


def test_a_measurement_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"measuring loader \(ours, mbf_s\) failed: .*nowhere"):
        list(bench_stages([stage("loader", "ours", str(tmp_path / "nowhere"))], rounds=1))


def test_the_command_line_measures(facescale: Any, record: str) -> None:
    code, out, _ = facescale(
        "bench",
        "loader",
        "--data",
        record,
        "--batches",
        "4",
        "--steps",
        "2",
        "--rounds",
        "1",
        "--workers",
        "0",
        "--json",
    )
    assert code == 0
    assert set(json.loads(out)["figures"]) == {"ours", "plain", "decode"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--backbones", "resnet50"), "unknown backbone"),
        (("evaluate", "--batches", "x"), "'x' is not a number"),
        (("loader", "--data", "nowhere"), "nowhere"),
        (("evaluate", "--device", "tpu"), "tpu"),
    ],
)
def test_mistakes_come_before_the_first_measurement(
    facescale: Any,
    words: tuple[str, ...],
    message: str,
) -> None:
    code, _, error = facescale("bench", *words)
    assert code == 2 and message in error
