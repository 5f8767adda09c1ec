"""What fits a device and which head to choose."""

from dataclasses import replace
from pathlib import Path

import pytest

from facescale.config import Config, load_config
from facescale.config.packaged import recipe_names
from facescale.data import open_reader
from facescale.distributed import Dist
from facescale.heads import Bytes, Needs
from facescale.plan import Plan, make_plan
from facescale.plan.advice import CANDIDATES, Candidate, advise, compare, head_share
from facescale.plan.memory import BackboneBytes, backbone_bytes, skeleton_of
from facescale.plan.units import parse_memory

RECIPES = recipe_names()[::8]
NOTHING = BackboneBytes(0, 0, 0, 0, 0, 0, 0, 0)
ROWS = 2 * 4 * 512 * 1_000_000  # a million centres and their momentum


def plan(*settings: str, path: str | None = None, processes: int = 1) -> tuple[Config, Plan]:
    config = load_config(path, settings)
    return config, make_plan(config, Dist(0, processes), open_reader(config.data.train))


def million(*settings: str, processes: int = 1) -> tuple[Config, Plan]:
    return plan("data.train=synthetic:ids=1000000,images=1", *settings, processes=processes)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("processes", [1, 8])
def test_recipes_are_planned_with_other_heads(name: str, processes: int) -> None:
    config, made = plan("data.train=synthetic:ids=20000,images=10", path=name, processes=processes)
    backbone = backbone_bytes(config, made)
    found = compare(config, made, backbone, parse_memory("80GB"))
    assert (found[0].head, found[0].options) == (config.head.name, config.head.options)
    assert {(one.head, *one.options.items()) for one in found[1:]} <= {
        (name, *options.items()) for name, options in CANDIDATES
    }
    assert all(one.total > backbone.weights and one.fits is not None for one in found)
    assert advise(head_share(config, made), found[0], found[1:])


def test_candidates_differ_in_where_the_rows_are() -> None:
    found = {one.words: one for one in compare(*million(), NOTHING, None)}
    assert found["full"].bytes.device == found["partial_fc rate=0.1"].bytes.device == ROWS
    on_host = found["partial_fc rate=0.1 placement=host"]
    assert on_host.bytes.device == 0 and on_host.bytes.host > ROWS
    on_disk = found["partial_fc num_negatives=8192 placement=disk"]
    assert on_disk.bytes.disk == ROWS + 4 * 1_000_000 and on_disk.total < 0.2e9
    assert not Path("process_0").exists()
    assert found["f2c"].bytes.device == ROWS // 100
    assert found["attfc"].bytes.device == 0.3 * (ROWS // 2) + 300_000 * 8
    assert all(one.fits is None for one in found.values())


def test_each_process_has_its_part_of_the_rows() -> None:
    config, made = million("train.batch_size=96", processes=3)
    head = compare(config, made, NOTHING, None)[0].bytes
    assert head.device == 8 * 512 * 333_334
    assert skeleton_of(config, made, rank=2).bytes_needed(made.part_batch).device == 8 * 512 * 333_333
    on_disk = million("head.placement=disk", "train.batch_size=96", processes=3)
    assert (
        compare(*on_disk, NOTHING, None)[0].bytes.disk == (8 * 512 + 4) * 333_334
    )  # and which record is whose


def test_the_optimizer_of_the_config_counts() -> None:
    found = {one.words: one.bytes for one in compare(*million("optim.name=adamw"), NOTHING, None)}
    assert found["full"].device == (3 * 512 + 1) * 4 * 1_000_000
    assert found["partial_fc rate=0.1"].device == found["full"].device


def test_a_gpu_holds_rows_and_a_cpu_counts_host_rows_too() -> None:
    config, made = million("head.name=partial_fc", "head.placement=host")
    on_cpu = compare(config, made, NOTHING, None)[0]
    on_gpu = compare(config, replace(made, device="cuda"), NOTHING, None)[0]
    batch = Needs().batch_bytes(made.part_batch, config.backbone.embedding_size)
    assert on_cpu.total == on_cpu.bytes.host + on_cpu.bytes.transient + batch > ROWS
    assert on_gpu.total == on_gpu.bytes.device + on_gpu.bytes.transient + batch < ROWS


def test_what_fits_is_told() -> None:
    fits = {one.words: one.fits for one in compare(*million(), NOTHING, parse_memory("3GB"))}
    assert not fits["full"] and not fits["partial_fc rate=0.1"]
    assert fits["partial_fc num_negatives=8192 placement=disk"] and fits["f2c"] and fits["attfc"]


def test_heads_that_the_margin_does_not_work_with_are_no_candidates() -> None:
    found = compare(*plan("head.margin.name=robustface"), NOTHING, None)
    assert [one.head for one in found] == ["full", "partial_fc", "partial_fc", "partial_fc"]


def test_sampling_pays_from_many_identities_on() -> None:
    share = [
        head_share(*plan(f"data.train=synthetic:ids={ids},images=1", "backbone.name=r50"))
        for ids in (10_000, 1_000_000)
    ]
    # 6.3 G multiply-adds an image, and 512 for each class, forward; twice as many backward
    assert share == pytest.approx([0.0008, 0.075], rel=0.05)
    assert head_share(*million("backbone.name=mbf")) > 0.5


def candidate(head: str, fits: bool | None) -> Candidate:
    return Candidate(head, {}, Bytes(), 0, fits)


def test_exact_softmax_is_advised_where_sampling_does_not_pay() -> None:
    others = [candidate("full", True), candidate("partial_fc", True)]
    assert advise(0.02, candidate("f2c", True), others) == [
        "full softmax is 2% of the arithmetic of a step: sampling classes would not pay",
        "the head of the config, f2c, fits",
        "choose full",
    ]


def test_a_cheaper_head_is_advised_where_it_pays() -> None:
    others = [candidate("partial_fc", False), candidate("attfc", True)]
    assert advise(0.5, candidate("full", True), others) == [
        "full softmax is 50% of the arithmetic of a step: partial_fc at rate 0.1 would save up to 45% of it",
        "the head of the config, full, fits",
        "choose attfc",
    ]


def test_without_a_memory_nothing_is_chosen() -> None:
    (only,) = advise(0.5, candidate("full", None), [candidate("attfc", None)])
    assert "would save" in only


def test_what_to_do_where_nothing_fits() -> None:
    told = advise(0.5, candidate("full", False), [candidate("attfc", False)])
    assert told[1:] == [
        "nothing fits: use a smaller batch, train.accumulate, backbone.checkpointing=true, or on several "
        "processes distributed.shard_backbone=true"
    ]
