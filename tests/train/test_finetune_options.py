"""What [finetune] changes: whose centres there are, where they start, what moves, what a teacher says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from facescale.config import Config, FinetuneConfig, load_config
from facescale.data import open_reader
from facescale.data.readers.base import image_sources
from facescale.distributed import Dist
from facescale.heads.centre_head import CentreHead
from facescale.inference.load import load
from facescale.inference.weights import save_model
from facescale.model_card import Contract
from facescale.ops import unit
from facescale.plan import make_plan
from facescale.plan.people import people
from facescale.recipes.finetune import finetune, finetune_config
from facescale.run import RunDir
from facescale.train import train
from facescale.train.build import build_task
from facescale.train.finetune import inherit
from facescale.train.freezing import freeze
from facescale.train.optim import parameter_groups
from facescale.train.task import RecognitionTask
from facescale.train.teacher import Teacher, make_teacher
from tests.train.test_finetune import OLD, draw, settings


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over four people."""
    folder = tmp_path_factory.mktemp("old")
    config = load_config(None, settings(draw(folder / "faces", OLD), "optim.lr=1"))
    return train(config, folder / "run").run.path


def begun(config: Config, folder: Path) -> tuple[RecognitionTask, Any, int]:
    """A task that has just taken over what its config says, its data, and for how many people."""
    reader = people(config, open_reader(config.data.train))
    task = build_task(config, make_plan(config, Dist(), reader), Dist(), folder / "centres")
    return task, reader, inherit(config, task, reader)


def centres(task: RecognitionTask) -> torch.Tensor:
    assert isinstance(task.head, CentreHead)
    return task.head.read_rows(torch.arange(task.head.num_ids)).clone()


@pytest.mark.parametrize(
    ("head", "names", "known"),
    [
        ("inherit", ["cara", "eve"], 1),
        ("replace", ["cara", "eve"], 0),
        ("extend", [*OLD, "eve"], 4),
        ("keep", [*OLD, "eve"], 4),
    ],
)
def test_the_head_has_the_people_that_its_option_says(
    old: Path, tmp_path: Path, head: str, names: list[str], known: int
) -> None:
    data = draw(tmp_path / "faces", ("cara", "eve"))
    more = [f"train.init={old}", f"finetune.head={head}", "train.batch_size=6"]
    config = load_config(None, settings(data, *more))
    task, reader, found = begun(config, tmp_path)
    assert (list(reader.names), found, task.head.num_ids) == (names, known, len(names))
    assert len(reader) == 6 and [names[i] for i in reader.ids] == ["cara"] * 3 + ["eve"] * 3
    assert reader[5][1] == reader.ids[5] and reader.key(5) == "eve/2.png"


def test_joined_sources_keep_their_weights_beside_old_people(old: Path, tmp_path: Path) -> None:
    sources = [str(draw(tmp_path / name, (name,))) for name in ("eve", "finn")]
    more = [f"train.init={old}", "finetune.head=extend", "train.batch_size=4", "data.weights=[0.5, 0.5]"]
    config = load_config(None, settings(Path("x"), f"data.train={json.dumps(sources)}", *more))
    reader = people(config, open_reader(config.data.train))
    assert image_sources(reader).tolist() == [0, 0, 0, 1, 1, 1]
    assert make_plan(config, Dist(), reader).num_ids == 6


def test_numbered_people_are_extended_by_number(tmp_path: Path) -> None:
    config = load_config(None, settings(Path("synthetic:ids=3,images=4,size=32")))
    run = train(config, tmp_path / "run").run.path
    more = ["data.train=synthetic:ids=5,images=2,size=32", f"train.init={run}", "finetune.head=extend"]
    task, reader, known = begun(load_config(None, settings(Path("x"), *more)), tmp_path)
    assert (reader.num_ids, known, task.head.num_ids) == (5, 3, 5)


def test_a_new_centre_points_where_the_person_s_images_do(old: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "faces", ("cara", "eve"))
    more = [f"train.init={old}", "finetune.head=extend", "train.batch_size=6"]
    plain, _, _ = begun(load_config(None, settings(data, *more)), tmp_path)
    more.append("finetune.new_centres=mean")
    task, reader, _ = begun(load_config(None, settings(data, *more)), tmp_path)
    images = torch.from_numpy(np.stack([_pixels(reader[i][0]) for i in (3, 4, 5)]))
    mean = unit(unit(task.embed(images)).sum(0))
    assert float(unit(centres(task)[4]) @ mean) > 0.9999
    assert torch.equal(centres(plain)[:4], centres(task)[:4])
    assert centres(task)[4].norm() == pytest.approx(float(centres(plain)[4].norm()), rel=1e-5)


def _pixels(data: Any) -> np.ndarray:
    from facescale.data.loading.decode import decode

    return decode(data)


@pytest.mark.parametrize(("head", "moves"), [("keep", False), ("extend", True)])
def test_kept_centres_stay_where_they_are(old: Path, tmp_path: Path, head: str, moves: bool) -> None:
    data = draw(tmp_path / "faces", ("cara", "eve"))
    more = [f"train.init={old}", f"finetune.head={head}", "optim.lr=0.5", "train.batch_size=6"]
    config = load_config(None, settings(data, *more))
    start, _, _ = begun(config, tmp_path)
    run = train(config, tmp_path / "run").run
    end, _, _ = begun(config, tmp_path)
    end.head.load_rows(run.model_path().parent)
    assert torch.equal(centres(start), centres(end)) is not moves
    # it continues: the same people are found again
    assert train(config, tmp_path / "run").finished


def test_a_frozen_part_keeps_weights_and_statistics(old: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "faces", ("cara", "eve"))
    first = next(name for name, _ in load(old, "cpu").module.named_children())
    more = [f"train.init={old}", f'finetune.freeze=["{first}"]', "optim.lr=0.5", "train.batch_size=6"]
    config = load_config(None, settings(data, *more, "train.ema=0.0"))
    run = train(config, tmp_path / "run").run
    before, after = load(old, "cpu").module.state_dict(), load(run.path, "cpu").module.state_dict()
    same = {name: torch.equal(before[name], after[name]) for name in before}
    assert all(kept for name, kept in same.items() if name.startswith(first))
    assert not all(same.values())


@pytest.mark.parametrize("rule", ["keep", "follow"])
def test_statistics_stay_where_they_are_to_be_kept(old: Path, tmp_path: Path, rule: str) -> None:
    data = draw(tmp_path / "faces", ("cara", "eve"))
    more = [f"train.init={old}", f"finetune.statistics={rule}", "train.batch_size=6", "optim.lr=0.5"]
    run = train(load_config(None, settings(data, *more)), tmp_path / "run").run
    before, after = load(old, "cpu").module.state_dict(), load(run.path, "cpu").module.state_dict()
    same = {name: torch.equal(before[name], after[name]) for name in before}
    statistics = [kept for name, kept in same.items() if name.endswith(("running_mean", "running_var"))]
    assert statistics and all(kept is (rule == "keep") for kept in statistics)
    assert not all(kept for name, kept in same.items() if name.endswith(".weight")), "weights train"


def test_a_part_that_is_not_there_cannot_be_frozen() -> None:
    with pytest.raises(ValueError, match="no part of the backbone begins with 'stem'; it has: a, b"):
        freeze(nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}), FinetuneConfig(freeze=["stem"]))


def test_rates_fall_from_the_last_block_to_the_first() -> None:
    net = nn.ModuleDict({name: nn.Linear(2, 2) for name in "abc"})
    groups = parameter_groups(net, 0.1, compat=False, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert [scale[id(net[name].weight)] for name in "abc"] == [0.25, 0.5, 1.0]
    assert {(g["lr_scale"], g["weight_decay"]) for g in groups} == {
        (s, w) for s in (1, 0.5, 0.25) for w in (0, 0.1)
    }
    assert {g["lr_scale"] for g in parameter_groups(net, 0.1, compat=False)} == {1.0}


def test_the_first_blocks_move_less(old: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "faces", ("cara", "eve"))

    def moved(decay: float) -> float:
        more = [f"train.init={old}", f"finetune.layer_decay={decay}", "train.batch_size=6", "train.ema=0.0"]
        run = train(load_config(None, settings(data, *more)), tmp_path / f"run{decay}").run.path
        before, after = load(old, "cpu").module.state_dict(), load(run, "cpu").module.state_dict()
        name = next(name for name, x in before.items() if x.ndim == 4)
        return float((after[name] - before[name]).norm())

    assert moved(0.5) < 0.1 * moved(1.0)


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.flatten(1).sum(1) * self.factor, torch.ones(len(x))], dim=1)


def test_the_distance_to_the_old_embeddings_is_that_of_unit_vectors() -> None:
    teacher = Teacher(Scaled(1.0), distil=2.0, mix=0.0, device=torch.device("cpu"), precision="fp32")
    old = teacher.embed(torch.zeros(1, 3, 3, 2, 2))
    assert old.tolist() == [[[0.0, 1.0]] * 3]
    assert not old.requires_grad
    q = torch.tensor([[[0.0, 5.0], [3.0, 0.0], [0.0, -1.0]]], requires_grad=True)
    loss = teacher.loss(q, old)
    assert loss.item() == pytest.approx(2.0 * (0 + 2 + 4) / 3)
    loss.backward()
    assert q.grad is not None and q.grad.abs().sum() > 0


def test_a_share_of_the_embeddings_comes_from_the_old_network() -> None:
    teacher = Teacher(Scaled(1.0), distil=0.0, mix=0.3, device=torch.device("cpu"), precision="fp32")
    new, old = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
    mixed = teacher.mixed(new, old, torch.tensor([[0.0, 0.29, 0.3, 0.9]]))
    assert mixed[0, :, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("start", ["train.init", "finetune.teacher"], ids=["goes on", "from random weights"])
def test_with_distillation_a_run_stays_nearer_to_the_old_network(
    old: Path, tmp_path: Path, start: str
) -> None:
    data = draw(tmp_path / "faces", ("cara", "eve"))
    faces = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    before = load(old, "cpu").embed(faces)

    def agreement(distil: float) -> float:
        more = [f"{start}={old}", f"finetune.distil={distil}", "train.batch_size=6", "train.ema=0.0"]
        config = load_config(None, settings(data, *more, "train.duration=10 steps", "optim.lr=0.3"))
        run = train(config, tmp_path / f"run{distil}").run
        if distil:
            assert run.read_metrics("train")[-1]["distil"] > 0
        return float((load(run.path, "cpu").embed(faces) * before).sum(1).mean())

    assert agreement(10.0) > agreement(0.0)


def test_a_mixed_run_trains_and_takes_its_old_network_from_elsewhere(old: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "faces", ("cara", "eve"))
    more = [f"finetune.teacher={old}", "finetune.mix=0.5", "train.batch_size=6"]
    assert train(load_config(None, settings(data, *more)), tmp_path / "run").finished


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["finetune.head=extend"], r"\[finetune\] is for a run that starts from another one; set train.init"),
        (["finetune.distil=1.0"], r"\[finetune\] is for a run that starts from another one"),
        (
            ["train.init={weights}", "finetune.head=keep"],
            "finetune.head = 'keep' needs the class centres of a run",
        ),
        (
            ["train.init={old}", "finetune.head=extend", "head.name=attfc", "head.share=1.0"],
            "with head 'attfc' has none: use 'replace'",
        ),
        (
            ["train.init={old}", "finetune.head=extend", "head.margin.by_source=[{{m=0.3}}, {{m=0.2}}]"],
            "does not go with head.margin.by_source: people without images have no source",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    old: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    weights = RunDir(old).model_path()
    told = [text.format(old=old, weights=weights) for text in more]
    config = load_config(None, settings(draw(tmp_path / "faces", ("a", "b")), *told))
    with pytest.raises(ValueError, match=message):
        people(config, open_reader(config.data.train))


def test_an_old_network_of_another_kind_cannot_teach(old: Path) -> None:
    config = load_config(None, settings(Path("x"), f"finetune.teacher={old}", "finetune.distil=1.0"))
    place = torch.device("cpu")
    assert make_teacher(config, Contract(size=32), 32, place, "fp32") is not None
    with pytest.raises(
        ValueError, match=r"gives 32 numbers, the new one 112 px RGB .* and 64; distil and mix need"
    ):
        make_teacher(config, Contract(size=112), 64, place, "fp32")
    nothing = load_config(None, settings(Path("x"), "finetune.distil=1.0"))
    with pytest.raises(
        ValueError, match=r"need the old network; name it with finetune.teacher or train.init"
    ):
        make_teacher(nothing, Contract(size=32), 32, place, "fp32")


def test_the_command_s_config_goes_on_from_the_run(old: Path, tmp_path: Path) -> None:
    config = finetune_config(
        old, "more/", "replace", 0.5, ["a=synthetic:pairs=20"], ["train.duration=3 steps"]
    )
    assert config.train.init == str(old) and config.data.train == "more/"
    assert config.optim.lr == pytest.approx(0.1)
    chosen = config.finetune
    assert (chosen.head, chosen.distil, chosen.new_centres, chosen.statistics) == (
        "replace",
        0.5,
        "mean",
        "keep",
    )
    assert config.train.duration == "3 steps" and config.eval.sets == {"a": "synthetic:pairs=20"}
    assert config.backbone.name == "mbf_s"


def test_weights_alone_give_the_backbone(old: Path, tmp_path: Path) -> None:
    weights = RunDir(old).model_path()
    config = finetune_config(weights, "more/", "replace", 0.0, [], [])
    assert config.backbone.embedding_size == 32 and config.backbone.options == {"input_size": 32}
    model = load(old, "cpu")
    save_model(tmp_path / "none.safetensors", model.module.state_dict(), {}, model.contract)
    with pytest.raises(ValueError, match="its card does not name a backbone"):
        finetune_config(tmp_path / "none.safetensors", "more/", "replace", 0.0, [], [])


def test_finetuning_measures_before_and_after(old: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "faces", ("cara", "eve"))
    more = ["train.duration=2 steps", "train.batch_size=6"]
    config = finetune_config(old, str(data), "extend", 1.0, ["a=synthetic:pairs=20"], more)
    done = finetune(config, tmp_path / "run", Dist(), None)
    assert done.result.finished
    assert done.before.keys() == done.after.keys() and "a/accuracy" in done.before


def test_the_command_shows_what_was_gained_and_forgotten(facescale, old: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "faces", ("cara", "eve"))
    words = [
        "finetune",
        str(old),
        str(data),
        "--run",
        str(tmp_path / "run"),
        "--check",
        "a=synthetic:pairs=20",
    ]
    words += ["--set", "train.duration=2 steps", "--set", "train.batch_size=6", "--head", "keep"]
    code, out, err = facescale(*words)
    assert (code, err) == (0, "")
    assert "a/accuracy: " in out and " before, " in out and str(tmp_path / "run") in out
