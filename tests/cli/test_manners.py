"""What every command does alike: help in whole sentences, version, completion."""

import os
import subprocess
import sys
from typing import Any

import pytest
import typer

import facescale as package
from facescale.cli import app
from facescale.cli.help import GROUPS
from facescale.plan.units import amount


def every_command() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    def walk(name: str, command: Any) -> None:
        for part, inside in getattr(command, "commands", {}).items():
            walk(f"{name} {part}", inside)
        found.append((name, command))

    walk("facescale", typer.main.get_command(app))
    return found


def test_help_consists_of_whole_sentences() -> None:
    for name, command in every_command():
        assert command.help and command.help.strip().endswith("."), name
        for parameter in command.params:
            text = getattr(parameter, "help", None)
            builtin = "completion" in parameter.name
            assert builtin or not text or text.endswith((".", "...")), f"{name} {parameter.name}: {text}"


def test_the_help_lists_every_command_in_a_group_by_a_whole_sentence() -> None:
    command = typer.main.get_command(app)
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(command.commands)  # type: ignore[attr-defined]
    done = subprocess.run(
        [sys.executable, "-m", "facescale", "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    titles = [line[:-1] for line in done.stdout.splitlines() if line.endswith(":")]
    assert titles == ["Options", *GROUPS] and "..." not in done.stdout.partition("Options:")[2]


def test_the_version_is_told(facescale) -> None:  # type: ignore[no-untyped-def]
    assert facescale("--version") == (0, f"facescale {package.__version__}\n", "")


def test_shells_get_a_completion_script_and_its_answers() -> None:
    words = [sys.executable, "-m", "facescale"]
    script = {"_FACESCALE_COMPLETE": "source_bash", "PATH": "/usr/bin:/bin"}
    run = "import sys; sys.argv = ['facescale']; from facescale.cli import main; main()"
    done = subprocess.run([words[0], "-c", run], env=script, capture_output=True, text=True)
    assert "complete -o default -F" in done.stdout
    asked = {"_FACESCALE_COMPLETE": "complete_bash", "COMP_WORDS": "facescale ver", "COMP_CWORD": "1"}
    done = subprocess.run([words[0], "-c", run], env=asked, capture_output=True, text=True)
    assert "verify" in done.stdout.split()


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 KB"),
        (120_000, "120 KB"),
        (3_400_000, "3.4 MB"),
        (512_000_000, "512 MB"),
        (2_134_000_000, "2.13 GB"),
        (4_100_000_000_000, "4.10 TB"),
    ],
)
def test_amounts_have_the_unit_that_fits(num_bytes: int, text: str) -> None:
    assert amount(num_bytes) == text
