"""The few words that name data."""

from pathlib import Path

import pytest

from facescale.data.spec import absolute, key_values, parse_options, split_name, split_options, split_sources

KINDS = {"pairs": int, "share": float, "split": str}


def test_sources_are_joined_by_a_plus_between_spaces() -> None:
    assert split_sources("a + b +c") == ["a", "b +c"]
    assert split_sources([Path("a + b"), "c"]) == ["a + b", "c"]
    assert split_sources(Path("a + b")) == ["a + b"]
    assert split_sources([]) == []


def test_a_folder_that_exists_is_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Tom + Jerry", "a", " led by a space"):
        (tmp_path / name).mkdir()
    assert split_sources("Tom + Jerry") == ["Tom + Jerry"]
    assert split_sources("a + Tom + Jerry + a") == ["a", "Tom + Jerry", "a"]
    assert split_sources(" led by a space + a") == [" led by a space", "a"]


@pytest.mark.parametrize("name", ["set", "my set", "a=b", "Ünïcode ✓", "x/y", "?root"])
def test_a_name_may_hold_anything(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.csv").touch()
    assert split_name(f"{name}={tmp_path}/p.csv") == (name, f"{tmp_path}/p.csv")
    assert split_name(f"{name}=synthetic:pairs=8") == (name, "synthetic:pairs=8")


def test_an_existing_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lfw=a.csv", "a.csv", "b?root=c.csv"):
        (tmp_path / name).touch()
    assert split_name("lfw=a.csv") == ("", "lfw=a.csv")
    assert split_name("t=lfw=a.csv") == ("t", "lfw=a.csv")
    assert split_name("a.csv?root=x=y") == ("", "a.csv?root=x=y")
    assert split_name("n=a.csv?root=x=y") == ("n", "a.csv?root=x=y")
    assert split_options("b?root=c.csv", ["root"]) == ("b?root=c.csv", {})
    assert split_options("b?root=c.csv?root=d", ["root"]) == ("b?root=c.csv", {"root": "d"})
    assert split_name("lfw=a.csv?rule=ffc") == ("", "lfw=a.csv?rule=ffc")


def test_what_does_not_exist_is_split_at_the_first_sign() -> None:
    assert split_name("lfw=no=where") == ("lfw", "no=where")
    assert split_name("nowhere") == ("", "nowhere")
    assert split_name("nowhere.csv?root=x") == ("", "nowhere.csv?root=x")
    assert split_name("=nowhere") == ("", "=nowhere")
    root = split_options("nowhere.csv?root=C++ a&b 50%25", ["root"])
    assert root == ("nowhere.csv", {"root": "C++ a&b 50%25"})
    assert split_name("ijb:nowhere?rule=ffc") == ("", "ijb:nowhere?rule=ffc")
    assert split_name("x=ijb:nowhere?rule=ffc") == ("x", "ijb:nowhere?rule=ffc")
    assert split_name("x=ijb:nowhere?features=/") == ("x", "ijb:nowhere?features=/")
    assert split_name("ijb:nowhere?features=/") == ("", "ijb:nowhere?features=/")


def test_options_follow_a_path() -> None:
    text = "ijb/IJBC?features=a&b=c.npy&rule=ffc"
    values = {"features": "a&b=c.npy", "rule": "ffc"}
    assert split_options(text, ["rule", "features"]) == ("ijb/IJBC", values)
    assert split_options("a?b", ["rule"]) == ("a?b", {})
    with pytest.raises(
        ValueError, match=r"has no option 'rul' \(did you mean 'rule'\?\); after '\?' may stand"
    ):
        split_options("x?rul=ffc", ["rule"])
    with pytest.raises(ValueError, match="has 'rule' twice"):
        split_options("x?rule=ffc&rule=facex", ["rule"])


def test_options_have_the_types_of_their_keys() -> None:
    values = parse_options("pairs=8, share=0.5,split=test,", KINDS, spec="s", example="e")
    assert values == {"pairs": 8, "share": 0.5, "split": "test"}
    assert parse_options("", KINDS, spec="s", example="e") == {}
    assert list(key_values("a=b=c,d")) == [("a", "b=c"), ("d", "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pair=8", r"'s:pair=8' has no key 'pair' \(did you mean 'pairs'\?\); the keys are: pairs, share"),
        ("pairs=8,pairs=9", "'s:pairs=8,pairs=9' has 'pairs' twice; keep one of them"),
        (
            "pairs=many",
            "'pairs' of 's:pairs=many' is 'many'; it must be a whole number, for example s:p",
        ),
        ("share=x", "it must be a number, for example"),
        ("split", "'split' of 's:split' is ''; it must be a value, for example"),
    ],
)
def test_a_wrong_option_is_answered_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_options(text, KINDS, spec=f"s:{text}", example="s:pairs=9")


def test_paths_of_the_words_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "p.csv", "Tom + Jerry", "n=1", "pairs"):
        (tmp_path / name).mkdir()
    here = str(tmp_path)
    for words, expected in {
        "a": f"{here}/a",
        "a + lmdb:b?keys=p.csv": f"{here}/a + lmdb:{here}/b?keys={here}/p.csv",
        "Tom + Jerry": f"{here}/Tom + Jerry",
        "n=1": f"{here}/n=1",
        "lfw=p.csv?root=a&rule=pairs": f"lfw={here}/p.csv?root={here}/a&rule=pairs",
        "x=a + b": f"x={here}/a + {here}/b",
        "synthetic:pairs=8,seed=1": "synthetic:pairs=8,seed=1",
        "nothing": "nothing",
        "shards:s3://bucket/a": "shards:s3://bucket/a",
    }.items():
        assert absolute(words) == expected
