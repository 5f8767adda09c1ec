import re
from pathlib import Path

import pytest

from facescale.config import changed_keys, duration_steps, explain, load_config, schema
from facescale.config.hints import KEYS, known_name
from facescale.plan.plan import check_batch


def test_defaults_need_no_file() -> None:
    config = load_config()
    assert config.backbone.name == "mbf" and config.data.train.startswith("synthetic:")


def test_a_file_is_read_and_settings_win_over_it(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[train]\nbatch_size = 64\nseed = 3\n[backbone]\nname = 'r18'\ndropout = 0.4\n")
    config = load_config(path, ["train.seed=5", "eval.sets.lfw=some/folder"])
    assert (config.train.batch_size, config.train.seed) == (64, 5)
    assert config.backbone.options == {"dropout": 0.4}
    assert config.eval.sets == {"lfw": "some/folder"}


@pytest.mark.parametrize("name", ["2024", "2024-11-27", "1e5", "true", "0x10", "0.5"])
def test_names_of_folders_and_sets_are_not_numbers(name: str) -> None:
    config = load_config(None, [f"data.train={name}", f"eval.sets.x={name}", f"train.init={name}"])
    assert (config.data.train, config.eval.sets["x"], config.train.init) == (name, name, name)


def test_what_is_saved_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config(None, ["train.batch_size=64", "head.margin.name=arcface", "head.margin.m=0.3"])
    path = tmp_path / "c.toml"
    path.write_text(config.to_toml())
    assert load_config(path) == config


def mistakes(path: Path | None = None, *settings: str) -> list[str]:
    with pytest.raises(ValueError) as caught:
        load_config(path, settings)
    return str(caught.value).splitlines()


def test_all_mistakes_are_reported_at_once() -> None:
    assert mistakes(
        None, "train.batchsize=64", "optim.lr=-1", "train.duration=5 weeks", "dta.train=x", "train.seed"
    ) == [
        "--set train.seed: write section.key=value, for example train.batch_size=64",
        "--set optim.lr=-1: input should be greater than 0",
        "--set train.duration=5 weeks: '5 weeks' is not the length of a run; write 20 epochs or 5000 steps",
        "--set train.batchsize=64: unknown key 'train.batchsize' (did you mean 'batch_size'?)",
        "--set dta.train=x: unknown section 'dta' (did you mean 'data'?)",
    ]


def test_a_mistake_is_blamed_on_what_set_the_value(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[optim]\nlr = -1\nmomentum = 2\n[train]\nepoch = 3\n")
    assert mistakes(path, "optim.momentum=3", "optim.power=-2") == [
        f"{path}: optim.lr = -1: input should be greater than 0",
        "--set optim.momentum=3: input should be less than 1",
        "--set optim.power=-2: input should be greater than 0",
        f"{path}: unknown key 'train.epoch'; here it is train.duration, for example "
        'train.duration = "20 epochs"',
    ]


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("optim.learning_rate=0.1", "unknown key 'optim.learning_rate'; here it is optim.lr"),
        ("train.epochs=5", 'here it is train.duration, for example train.duration = "20 epochs"'),
        ("optim.batch_size=5", "here it is train.batch_size (the total over all processes)"),
        ("optim.gamma=0.1", "here it is optim.gammas, for example optim.gammas = [0.1]"),
        ("margin.name=arcface", "unknown section 'margin'; here it is [head.margin]"),
        ("model.name=r50", "unknown section 'model'; here it is [backbone]"),
        ("train.duration=5", "'5' is not the length of a run; write 20 epochs or 5000 steps"),
        ("train.duration=10%", "'10%' is not the length of a run; write 20 epochs or 5000 steps"),
        ("train.duration=inf", "'inf' is not the length of a run"),
        ("optim.warmup=nan", "'nan' is not a duration; write 20 epochs, 5000 steps or 10% (of the run)"),
        ("optim.warmup=-1 epoch", "'-1 epoch' is not a duration"),
        ("optim.warmup=inf epochs", "'inf epochs' is not a duration"),
        ("eval.every=5", "'5' is not a duration; write 20 epochs, 5000 steps or 10% (of the run)"),
        ("optim.lr=inf", "input should be a finite number"),
        ("optim.weight_decay=nan", "input should be a finite number"),
        ("optim.lr=true", "input should be a valid number"),
        ("train.seed=true", "input should be a valid integer"),
        ("train.seed='3'", "input should be a valid integer"),
        ("optim.betas=[0.9, true]", "optim.betas.1 = True: input should be a valid number"),
        ("optim.betas=[0.9, 1.0]", "optim.betas.1 = 1.0: input should be less than 1"),
        ("backbone=r50", "it is a section; write backbone.name = ..."),
        ("train.init=[5]", "input should be a valid string"),
        ("data.train=['a', 5]", ": input should be a valid string"),
        ("optim.gammas=[0.1, 0.2]", "2 factors for 0 optim.milestones; give one for all, or one each"),
    ],
)
def test_words_and_values_of_other_trainers_are_answered(setting: str, text: str) -> None:
    (line,) = mistakes(None, setting)
    assert line.startswith(f"--set {setting}: ") and text in line


def test_nesterov_without_momentum_is_refused() -> None:
    assert mistakes(None, "optim.momentum=0", "optim.nesterov=true") == [
        "--set optim.nesterov=true: Nesterov momentum needs optim.momentum above 0 (0.9 is usual)"
    ]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("resnet50", "r50"),
        ("IResNet-100", "r100"),
        ("ir_50", "ir50"),
        ("MobileFaceNet", "mbf"),
        ("vit", None),
    ],
)
def test_names_of_networks_elsewhere_are_known(name: str, known: str | None) -> None:
    assert known_name(name, ["r50", "r100", "ir50", "mbf", "vit_t"]) == known


def test_a_missing_file_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"cannot read the config 'nowhere\.toml': No such file"):
        load_config("nowhere.toml")


def test_text_that_is_not_toml_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("train = [")
    with pytest.raises(ValueError, match="is not valid TOML"):
        load_config(tmp_path / "c.toml")


def test_a_setting_without_a_value_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"write section\.key=value"):
        load_config(None, ["train.seed"])


def test_an_empty_setting_takes_out_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[train]\nseed = 3\ninit = 'x'\n")
    assert load_config(path, ["train.seed="]) == load_config(None, ["train.init=x"])
    assert load_config(path, ["train="]) == load_config()
    assert mistakes(None, "train.seed=") == ["--set train.seed=: input should be a valid integer"]


def test_a_setting_below_a_value_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="'seed' is a value, not a section"):
        load_config(None, ["train.seed=1", "train.seed.x=2"])


@pytest.mark.parametrize(
    ("text", "steps"),
    [("2 epochs", 200), ("1 epoch", 100), ("0.5 epochs", 50), ("30 steps", 30), ("10%", 50)],
)
def test_durations(text: str, steps: int) -> None:
    assert duration_steps(text, steps_per_epoch=100, total_steps=500) == steps


def test_a_run_cannot_be_a_share_of_itself() -> None:
    with pytest.raises(ValueError, match="give it in epochs or steps"):
        duration_steps("10%", 100)


def test_the_total_batch_must_divide() -> None:
    assert check_batch(128, 2, 2) == 32
    with pytest.raises(
        ValueError, match=r"train\.batch_size = 100 does not divide by 3 processes.*multiple of 3"
    ):
        check_batch(100, 3, 1)


def test_every_field_is_explained() -> None:
    rows = explain()
    assert len(rows) > 40
    assert all(meaning for _, _, _, meaning in rows)
    assert ("train.duration", "duration", '"20 epochs"', "length of the run") in rows


def test_types_are_written_as_a_reader_would() -> None:
    types = {key: kind for key, kind, _, _ in explain()}
    assert types["optim.milestones"] == "list[duration]" and types["data.train"] == "str | list[str]"
    assert types["optim.name"] == "'sgd' | 'adamw'" and types["optim.betas"] == "tuple[float, float]"


def test_hints_lead_to_keys_that_exist() -> None:
    keys = {key for key, _, _, _ in explain()}
    for meant in KEYS.values():
        words = re.findall(r"\b(?:data|augment|backbone|head|twin|optim|train|eval)(?:\.[a-z_]+)+", meant)
        options = {"backbone.input_size", "head.margin.m", "head.margin.scale", "head.rate", "head.margin"}
        assert set(words) <= keys | options, meant


def test_the_schema_names_every_section() -> None:
    assert {"data", "backbone", "head", "optim", "train"} <= schema()["properties"].keys()


def test_changed_keys_are_named() -> None:
    assert changed_keys(load_config(), load_config(None, ["optim.lr=0.2"])) == ["optim.lr"]
