"""Configs extend others; recipes are found by name."""

from pathlib import Path

import pytest

from facescale.config import load_config
from facescale.config.packaged import find_config, recipe_names


def test_later_bases_and_the_file_itself_win(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[train]\nseed = 1\nbatch_size = 64\n[backbone]\nname = 'r18'\n")
    (tmp_path / "b.toml").write_text("[train]\nseed = 2\nema = 0.5\n")
    (tmp_path / "c.toml").write_text("extends = ['a', 'b.toml']\n[train]\nema = 0.9\n")
    config = load_config(tmp_path / "c.toml", ["train.accumulate=2"])
    assert (config.train.seed, config.train.ema, config.train.batch_size) == (2, 0.9, 64)
    assert config.backbone.name == "r18" and config.train.accumulate == 2


def test_a_file_extends_a_recipe_by_name(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("extends = 'ms1mv3_r50'\n[train]\nbatch_size = 256\n")
    config = load_config(tmp_path / "mine.toml")
    assert config.backbone.name == "r50" and config.train.batch_size == 256


def test_a_file_that_exists_wins_over_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("demo").parent.name == "recipes"
    Path("demo").write_text("[train]\nseed = 9\n")
    assert load_config("demo").train.seed == 9


def test_recipes_have_names_without_folders() -> None:
    assert "bases/arcface" not in recipe_names()
    with pytest.raises(ValueError, match="there is no config 'bases/arcface'"):
        find_config("bases/arcface")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends = 'c'", "extends itself"),
        ("extends = 3", "extends takes the name of a config, or a list of names"),
        ("extends = [3]", "extends takes the name of a config, or a list of names"),
        ("extends = 'nothing'", r"c\.toml extends 'nothing', but there is no config 'nothing'"),
        ("extends = 'demmo'", r"did you mean 'demo'\?"),
    ],
)
def test_what_cannot_be_extended_gets_a_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path / "c.toml")


def test_a_long_chain_is_refused(tmp_path: Path) -> None:
    for level in range(12):
        (tmp_path / f"c{level}.toml").write_text(f"extends = 'c{level + 1}'")
    with pytest.raises(ValueError, match="extends itself, over 9 files"):
        load_config(tmp_path / "c0.toml")
