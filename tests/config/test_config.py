from pathlib import Path

import pytest

from facescale.config import changed_keys, duration_steps, explain, load_config, schema
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


def test_what_is_saved_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config(None, ["train.batch_size=64", "head.margin.name=arcface", "head.margin.m=0.3"])
    path = tmp_path / "c.toml"
    path.write_text(config.to_toml())
    assert load_config(path) == config


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        load_config(None, ["train.batchsize=64", "optim.lr=-1", "train.duration=5 weeks", "dta.train=x"])
    text = str(caught.value)
    assert "unknown key 'train.batchsize' (did you mean 'batch_size'?)" in text
    assert "optim.lr = -1: input should be greater than 0" in text
    assert "'5 weeks' is not a duration" in text
    assert "unknown key 'dta' (did you mean 'data'?)" in text


def test_a_missing_file_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"cannot read the config nowhere\.toml: No such file"):
        load_config("nowhere.toml")


def test_text_that_is_not_toml_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("train = [")
    with pytest.raises(ValueError, match="is not valid TOML"):
        load_config(tmp_path / "c.toml")


def test_a_setting_without_a_value_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"write section\.key=value"):
        load_config(None, ["train.seed"])


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


def test_the_schema_names_every_section() -> None:
    assert {"data", "backbone", "head", "optim", "train"} <= schema()["properties"].keys()


def test_changed_keys_are_named() -> None:
    assert changed_keys(load_config(), load_config(None, ["optim.lr=0.2"])) == ["optim.lr"]
