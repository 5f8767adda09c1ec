"""The documentation names commands, options, make targets and files that exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from facescale.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("facescale/recipes/**/*.toml")])
READ_BY_USERS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACEHOLDERS = ("NAME", "RUN", "FILE", "step_")
OWN = [page for page in READ_BY_USERS if page.parent.name != "migrate"]  # those name files of other projects
SUFFIXES = "py|toml|txt|md|csv|png|css|yaml"


def commands(text: str, program: str = "facescale") -> Iterator[list[str]]:
    """Words after ``program`` in code blocks and code spans, line continuations joined."""
    fence = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
    blocks = [block.replace("\\\n", " ") for block in fence.findall(text)]
    spans = [*blocks, *(span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", fence.sub("", text)))]
    for line in "\n".join(spans).splitlines():
        for match in re.finditer(rf"(?:^|\s){program} (?=[a-z])([^&]*)", line.split(" #")[0]):
            yield shlex.split(match[1])


def check(words: list[str]) -> None:
    """Raise an AssertionError if a command, or an option of it, does not exist."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        name = rest.pop(0) if rest else ""
        found = command.commands.get(name)
        assert found is not None, f"facescale {' '.join(words)}: there is no command '{name}'"
        command = found
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in rest:
        option = word.partition("=")[0]
        assert not option.startswith("--") or option in known, (
            f"facescale {' '.join(words)}: there is no option '{option}'"
        )


@pytest.mark.parametrize("page", READ_BY_USERS, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        check(words)


@pytest.mark.parametrize("page", OWN, ids=lambda page: page.name)
def test_scripts_and_their_options_exist(page: Path) -> None:
    for script, *words in commands(page.read_text(encoding="utf-8"), "python"):
        source = with_siblings(ROOT / script)
        missing = [word for word in words if word.startswith("--") and f'"{word}"' not in source]
        assert not missing, f"{script} has no option {missing}"


def with_siblings(script: Path) -> str:
    """The text of a script and of the scripts beside it that it imports: options may stand there."""
    text = script.read_text(encoding="utf-8")
    beside = [
        script.with_name(f"{name}.py") for name in re.findall(r"^from (\w+) import", text, re.MULTILINE)
    ]
    return "\n".join([text, *(path.read_text(encoding="utf-8") for path in beside if path.exists())])


def test_the_pages_have_commands() -> None:
    found = [words for page in READ_BY_USERS for words in commands(page.read_text(encoding="utf-8"))]
    assert len(found) > 25
    assert ["bench", "heads", "--heads"] in [words[:3] for words in found]
    assert any("--set" in words and words[0] == "train" for words in found)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("trian x.toml", "there is no command 'trian'"),
        ("bench head", "there is no command 'head'"),
        ("train x.toml --runs y", "there is no option '--runs'"),
    ],
)
def test_a_wrong_command_is_noticed(command: str, problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        check(command.split())


def test_commands_are_found_in_blocks_and_in_text() -> None:
    block = "```\na && facescale demo\nfacescale train A \\\n    --run B  # c\n```\n"
    text = f"`facescale plan\nX --json` and\n\n{block}"
    assert sorted(commands(text)) == [["demo"], ["plan", "X", "--json"], ["train", "A", "--run", "B"]]


def named_files(text: str) -> list[str]:
    """Paths with a folder in them, or without one if the suffix is that of a file of this project."""
    found = re.findall(rf"(?<![\w/.=-])((?:[\w.-]+/)+[\w.-]+\.(?:{SUFFIXES}))(?![\w-])", text)
    return [path for path in found if not any(word in path for word in PLACEHOLDERS)]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name != "migrate"], ids=lambda page: page.name
)
def test_named_files_exist(page: Path) -> None:
    mentioned = named_files(page.read_text(encoding="utf-8"))
    example = ("faces/", "faces_test/", "ms1m/", "runs/", "eval/", "a/", "b/")
    missing = [
        path
        for path in mentioned
        if not path.startswith(example)
        and not any((base / path).exists() for base in (ROOT, ROOT / "facescale", page.parent))
    ]
    assert not missing, f"{page.name} names {missing}"


def test_named_folders_of_the_package_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"`((?:facescale|tests|benchmarks|docs)/[\w/]*)`", page.read_text("utf-8")):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_a_missing_file_is_noticed() -> None:
    assert named_files("see `facescale/train/loop.py` and `NAME.py`, configs/a.toml.") == [
        "facescale/train/loop.py",
        "configs/a.toml",
    ]


def test_make_targets_are_explained_and_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    explained = set(re.findall(r"`make (\w+)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert targets == explained
