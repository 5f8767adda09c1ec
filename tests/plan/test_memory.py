"""What a run will need, in real numbers."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from facescale import heads, kernels
from facescale.config import load_config
from facescale.data import open_reader
from facescale.distributed import Dist
from facescale.heads import Bytes, Needs
from facescale.plan import Plan, make_plan, timing
from facescale.plan.components import head_skeleton
from facescale.plan.memory import BackboneBytes, backbone_bytes
from facescale.plan.timing import backbone_seconds
from facescale.plan.units import parse_memory


def planned(name: str, num_ids: int = 1_000_000, dist: Dist | None = None, **options: Any) -> Bytes:
    return head_skeleton(name, num_ids, 512, "cosface", dist or Dist(), **options).bytes_needed(128)


def plan(*settings: str) -> tuple[Any, Plan]:
    config = load_config(None, ["data.train=synthetic:ids=100,images=20", *settings])
    return config, make_plan(config, Dist(), open_reader(config.data.train))


def test_a_million_centres_with_momentum_take_4_gigabytes() -> None:
    assert planned("full").device == 2 * 4 * 512 * 1_000_000  # 4.1 GB
    assert planned("full", momentum=0.0).device == 4 * 512 * 1_000_000
    assert planned("full", optimizer="adamw").device == (3 * 512 + 1) * 4 * 1_000_000
    assert planned("full", store_dtype="bfloat16").device == 2 * 2 * 512 * 1_000_000


@pytest.mark.parametrize("name", ["full", "partial_fc"])
def test_rows_are_counted_where_they_are(name: str) -> None:
    rows = 2 * 4 * 512 * 1_000_000
    on_host, on_disk = planned(name, placement="host"), planned(name, placement="disk", directory="nowhere")
    assert on_host.device == 0 and on_host.host > rows and on_host.disk == 0
    assert on_disk.device == 0 and on_disk.disk == rows + 4 * 1_000_000  # and which record is whose
    assert not Path("nowhere").exists()


def test_a_step_of_exact_softmax_takes_little_beside_the_rows() -> None:
    assert planned("full").transient < 256e6  # logits of the batch alone are 512 MB
    assert planned("full", 20_000_000).transient < 256e6 + 20_000_000 * 4


def test_8192_negatives_on_disk_need_memory_that_hardly_grows() -> None:
    options = {"num_negatives": 8192, "placement": "disk", "directory": "nowhere"}
    few, many = planned("partial_fc", 100_000, **options), planned("partial_fc", 20_000_000, **options)
    flags = 20_000_000 / 4  # two bits a row
    assert many.host + many.transient < few.host + few.transient + flags + 30e6


@pytest.mark.parametrize("name", ["full", "partial_fc", "attfc", "f2c"])
def test_processes_share_the_rows(name: str) -> None:
    parts = [planned(name, 1_000_003, Dist(rank, 4)) for rank in range(4)]
    assert sum(part.device for part in parts) == planned(name, 1_000_003).device
    assert parts[0].device == max(part.device for part in parts), "the first process has the largest part"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("full", {}),
        ("full", {"store_dtype": "float16", "placement": "host"}),
        ("partial_fc", {"rate": 0.3, "decay": "dense"}),
        ("partial_fc", {"placement": "disk", "num_negatives": 50}),
        ("attfc", {"unique": True}),
        ("attfc", {"compat": True}),
        ("f2c", {"share": 0.5}),
    ],
)
def test_a_head_without_rows_says_the_same_as_a_real_one(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    if options.get("placement") == "disk":
        options = {**options, "directory": tmp_path}
    sizes = head_skeleton(name, 5000, 32, "curricular", Dist(), **options).bytes_needed(16)
    assert not any(tmp_path.iterdir())
    assert sizes == heads.build(name, 5000, 32, "curricular", **options).bytes_needed(16)


def test_a_margin_keeps_its_place_when_a_head_is_only_sized() -> None:
    made = head_skeleton("full", 5000, 32, "uniface", Dist())
    assert {x.device.type for x in made.margin.parameters()} == {"cpu"}


def test_bytes_of_a_network_follow_from_its_parameters() -> None:
    config, made = plan("backbone.name=r50", "train.batch_size=64", "train.precision=bf16")
    found = backbone_bytes(config, made)
    assert found.weights == pytest.approx(43.6e6 * 4, rel=0.01)  # 43.6 M parameters
    assert found.gradients == found.optimizer == pytest.approx(found.weights, rel=0.01)
    assert found.average == 0
    twice = backbone_bytes(*plan("backbone.name=r50", "train.batch_size=128", "train.precision=bf16"))
    assert twice.activations == pytest.approx(2 * found.activations, rel=0.01)
    assert twice.weights == found.weights


def test_average_adamw_and_precision_change_what_a_network_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "loops", lambda name: None)  # which keep less, in fp32 only
    plain = backbone_bytes(*plan("train.precision=fp32"))
    more = backbone_bytes(*plan("train.precision=bf16", "train.ema=0.9", "optim.name=adamw"))
    assert more.average == plain.weights
    assert more.optimizer == 2 * plain.optimizer
    assert more.activations == pytest.approx(plain.activations / 2, rel=0.05)


def test_accumulation_and_checkpointing_save_activations() -> None:
    whole = backbone_bytes(*plan("backbone.name=r18")).activations
    quarter = backbone_bytes(*plan("backbone.name=r18", "train.accumulate=4")).activations
    assert quarter == pytest.approx(whole / 4, rel=0.001)
    assert backbone_bytes(*plan("backbone.name=r18", "backbone.checkpointing=true")).activations < whole / 2


def test_a_divided_network_takes_its_share() -> None:
    config, made = plan("backbone.name=r50", "train.ema=0.9", "train.precision=bf16")
    alone = backbone_bytes(config, made)
    divided, _ = plan("distributed.shard_backbone=true", "backbone.name=r50", "train.ema=0.9")
    eighth = backbone_bytes(divided, replace(made, world_size=8))
    for name in ("weights", "average", "gradients", "optimizer"):
        assert getattr(eighth, name) == pytest.approx(getattr(alone, name) / 8, rel=0.01), name
    assert eighth.activations == alone.activations
    assert alone.working < eighth.working < alone.working + alone.weights
    assert eighth.saved(Needs()) == pytest.approx(alone.saved(Needs()), rel=0.01)  # whole on the main process
    assert eighth.total(Needs()) < alone.total(Needs())
    assert backbone_bytes(divided, replace(made, world_size=1)) == alone


def test_checkpointing_frees_half_weights_of_a_divided_network() -> None:
    words = ["backbone.name=vit_s", "train.precision=bf16", "distributed.shard_backbone=true"]
    kept, freed = (
        backbone_bytes(config, replace(made, world_size=4))
        for config, made in (plan(*words), plan(*words, "backbone.checkpointing=true"))
    )
    assert kept.working - freed.working > kept.weights  # of a fourth


def test_a_twin_adds_its_weights_and_every_view_its_activations() -> None:
    network = BackboneBytes(
        weights=10, average=10, own=10, gradients=9, optimizer=9, activations=100, working=5, largest=3
    )
    assert network.total(Needs()) == 143
    assert network.total(Needs(key_views=2)) == 153 + 3 * 2 * 3
    assert network.total(Needs(query_views=2, key_views=2)) == 253 + 3 * 2 * 3


def test_time_of_the_network_counts_views(monkeypatch: pytest.MonkeyPatch) -> None:
    config, made = plan("backbone.name=mbf_s", "backbone.input_size=56", "train.batch_size=16")
    monkeypatch.setattr(timing, "monotonic", count().__next__)  # a round takes a second
    # three looks at the clock for the one round that fits into two seconds: 3 s for 8 images
    assert backbone_seconds(config, made, Needs()) == pytest.approx(3 / 8 * 16)
    assert backbone_seconds(config, made, Needs(2, 2)) == pytest.approx(3 / 8 * 16 * (2 + 2 / 3))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("24GB", 24e9), ("16 GiB", 16 * 2**30), ("512mb", 512e6), ("1.5TB", 1.5e12)],
)
def test_amounts_of_memory_are_read(text: str, expected: float) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["24", "much", "GB", ""])
def test_what_is_no_amount_of_memory_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is not an amount of memory; write 24GB, 16GiB or 512MB"):
        parse_memory(text)
