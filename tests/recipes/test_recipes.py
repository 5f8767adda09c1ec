"""Every recipe is valid, planned and trained in small; the small ones differ in their heads alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from facescale import heads
from facescale.config import Config, changed_keys, load_config, parse_duration
from facescale.config.packaged import FOLDER, recipe_names
from facescale.distributed import Dist
from facescale.files import write_atomically
from facescale.plan.advice import candidate
from facescale.plan.check import read_config
from facescale.plan.memory import backbone_bytes
from facescale.plan.plan import Counts, make_plan
from facescale.recipes.recipe import all_recipes, describe, read_recipe
from facescale.train import train

NAMES = recipe_names()
# One of all recipes that train with the same code, on networks and data of other sizes.
DRY_RUN = [
    *("casia_r100", "demo", "glint360k_r18", "glint360k_r50", "glint360k_r50_pfc01", "ms1mv3_mobile_f2c"),
    *("ms1mv3_r50", "ms1mv3_r50_attfc", "ms_celeb_1m_r100_robustface", "small_faces", "small_faces_attfc"),
    *("small_faces_f2c", "synthetic_large", "wf12m_flip_r50_pfc01_filter", "wf42m_vit_t_pfc02"),
]


def test_there_is_one_for_each_row_of_the_published_tables() -> None:
    assert len(NAMES) > 70
    for data in ("ms1mv2", "ms1mv3", "glint360k"):
        assert {f"{data}_{net}" for net in ("mbf", "r50", "r100")} <= set(NAMES)
    assert {
        "wf12m_r100",
        "wf12m_r100_pfc03",
        "wf12m_r100_pfc02",
        "wf12m_r100_pfc01",
        "wf12m_r100_pfc005",
    } <= set(NAMES)
    assert {f"wf42m_vit_{size}_pfc03_64gpus" for size in "tsbl"} <= set(NAMES)
    assert {f"{data}_r{depth}" for data in ("ms1mv3", "glint360k") for depth in (18, 34)} <= set(NAMES)
    assert {"casia_r100", "ms1mv3_r2060", "ms1mv3_r50_steps", "wf42m_vit_h_pfc05_40gpus"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid_and_planned(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.config.train.batch_size % recipe.processes == 0
    assert recipe.device_bytes > 10e6
    head = recipe.config.head
    assert heads.HEADS[head.name] and f'name = "{recipe.config.backbone.name}"' in describe(recipe)
    tables = describe(recipe)
    assert recipe.published in tables and f"facescale train {name} --run runs/{name}" in tables


def _trained_alike(config: Config) -> str:
    """Recipes with the same text train with the same code, on networks and data of other sizes."""
    head = {key: value for key, value in config.head.model_dump().items() if key not in ("rate", "share")}
    twin = config.twin.model_dump() if head["name"] in ("attfc", "f2c") else None
    return json.dumps([head, config.optim.name, config.optim.schedule, twin], default=str)


def test_each_recipe_trains_like_one_of_those_that_are_trained() -> None:
    alike = {_trained_alike(one.config): one.name for one in all_recipes()}
    assert alike.keys() == {_trained_alike(load_config(name)) for name in DRY_RUN}
    assert len(alike) == len(DRY_RUN), "one recipe of each kind is enough"


@pytest.mark.parametrize("name", DRY_RUN)
def test_its_loss_head_and_schedule_train(name: str, tmp_path: Path) -> None:
    """The same head, margin, optimizer and schedule on a small network and few drawn identities."""
    config = load_config(name)
    tiny = [
        *("backbone.name=mbf_s", "backbone.input_size=32", "backbone.embedding_size=16"),
        *("data.train=synthetic:ids=16,images=6,size=32", "eval.sets={}", "optim.warmup=1 steps"),
        *("train.batch_size=12", "train.duration=3 steps", "checkpoint.every=100%"),
        *(f"backbone.{option}=" for option in config.backbone.options if option != "input_size"),
        *(["head.share=0.5"] if "share" in config.head.options else []),
        *(['optim.milestones=["1 steps","2 steps"]'] if config.optim.milestones else []),
    ]
    result = train(read_config(name, tiny), tmp_path / "run", Dist(), None)
    assert result.finished and result.step == 3


def test_planned_memory_is_that_of_the_plan() -> None:
    recipe = read_recipe("wf42m_r100_pfc02")
    config = load_config("wf42m_r100_pfc02", ["train.precision=bf16"])
    plan = make_plan(config, Dist(0, 8, torch.device("cuda")), Counts(recipe.ids, recipe.images))
    assert recipe.device_bytes == candidate(config, plan, backbone_bytes(config, plan), None).total
    sampled, full = (read_recipe(f"wf12m_r100{suffix}").device_bytes for suffix in ("_pfc01", ""))
    assert sampled < full


def test_the_command_line_lists_and_prints_them(facescale: Any) -> None:
    rows = json.loads(facescale("recipes", "--json")[1])
    assert [row["name"] for row in rows] == NAMES
    assert "ms1mv3_r50 " in facescale("recipes")[1]
    printed = facescale("recipes", "ms1mv3_r50")[1]
    assert "LFW 99.833" in printed
    assert "facescale train ms1mv3_r50 --run runs/ms1mv3_r50 --processes 8" in printed
    with pytest.raises(ValueError, match=r"there is no recipe 'ms1mv3_r5' \(did you mean 'ms1mv3_r50'"):
        read_recipe("ms1mv3_r5")


def test_what_is_printed_is_a_config_again(tmp_path: Path) -> None:
    for recipe in all_recipes()[::9]:
        write_atomically(tmp_path / "c.toml", describe(recipe))
        assert load_config(tmp_path / "c.toml") == recipe.config


def test_more_than_eight_processes_are_several_hosts() -> None:
    assert read_recipe("wf42m_r50_pfc02_16gpus").command.startswith("torchrun --nnodes 2 --nproc-per-node 8 ")
    assert read_recipe("demo").command == "facescale train demo --run runs/demo"


def test_a_recipe_is_planned_without_its_data(facescale: Any) -> None:
    words = ["plan", "wf42m_r50_pfc02", "--ids", "2059906", "--images", "42474557", "--processes", "8"]
    plan = json.loads(facescale(*words, "--no-calibrate", "--json")[1])["plan"]
    assert plan["num_ids"] == 2_059_906 and plan["steps_per_epoch"] == 42_474_557 // 4096


def test_ids_and_images_go_together(facescale: Any) -> None:
    assert "--ids and --images go together" in facescale("plan", "demo", "--ids", "5")[2]


def test_the_package_has_no_copy_of_a_base() -> None:
    """A recipe says only what its bases do not."""
    for path in FOLDER.glob("*.toml"):
        own = path.read_text(encoding="utf-8")
        assert own.startswith("# "), f"{path.name}: its first line says what it is"
        if "extends" in own:
            assert len(own.splitlines()) < 50, path.name


@pytest.mark.parametrize(
    ("name", "own", "times_per_epoch"),
    [
        ("attfc", ("head.", "twin."), 1),
        ("f2c", ("head.", "twin.", "train.batch_size", "train.duration", "optim.reference_batch"), 3),
    ],
)
def test_the_small_recipes_differ_in_nothing_but_their_heads(
    name: str, own: tuple[str, ...], times_per_epoch: int
) -> None:
    full = load_config("small_faces")
    other = load_config(f"small_faces_{name}")
    assert [key for key in changed_keys(full, other) if not key.startswith(own)] == []
    assert full.head.margin == other.head.margin
    epochs = parse_duration(other.train.duration)[0] * times_per_epoch  # that each image is trained on
    assert epochs == pytest.approx(parse_duration(full.train.duration)[0], rel=0.01)
