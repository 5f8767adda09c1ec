"""A config as it was written: TOML with ``--set`` on top, and which of them a value came from."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facescale.config.mistakes import Key, Mistake
from facescale.config.packaged import read_tables
from facescale.config.schema import takes_text


@dataclass
class Source:
    """Values as written, not yet checked.

    Attributes:
        path: the file, if there is one.
        tree: tables of values.
        settings: text after ``--set`` for each key that it set.
        refused: one line for each setting that could not be applied.
    """

    path: str | Path | None = None
    tree: dict[str, Any] = field(default_factory=dict)
    settings: dict[Key, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def line(self, mistake: Mistake) -> str:
        """The mistake in one line, blamed on ``--set`` where it set one of the keys, else on the file."""
        blamed = {
            text: None
            for wrong in mistake.keys
            for key, text in self.settings.items()
            if wrong == key[: len(wrong)] or key == wrong[: len(key)]
        }
        if not blamed:
            return f"{self.path}: {mistake.sentence}" if self.path else mistake.sentence
        text = mistake.text if mistake.keys[0] in self.settings else mistake.sentence
        return f"{' '.join(f'--set {setting}' for setting in blamed)}: {text}"

    def apply(self, setting: str) -> None:
        """Set one value from ``section.key=value``; without a value, take out what the file says."""
        name, equals, text = setting.partition("=")
        *parents, last = name.strip().split(".")
        if not equals or not all((*parents, last)):
            self.refused.append(f"--set {setting}: write section.key=value, for example train.batch_size=64")
            return
        table: Any = self.tree
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                self.refused.append(f"--set {setting}: '{parent}' is a value, not a section")
                return
        if last in table and not text.strip():
            del table[last]
            return
        value = parse_value(text)
        # a folder may be called 2024, 1e5 or true
        as_text = takes_text((*parents, last)) and not isinstance(value, str | list | dict)
        table[last] = text.strip() if as_text else value
        self.settings[*parents, last] = setting


def read_source(path: str | Path | None, settings: Sequence[str]) -> Source:
    """Read a TOML file or a recipe by name (or start from nothing) and apply ``section.key=value`` settings.

    Raises:
        ValueError: the file cannot be read, or is not TOML.
    """
    source = Source(path)
    if path is not None:
        source.tree = read_tables(path)
        source.tree.pop("recipe", None)  # what is said of a recipe is no setting of the run
    for setting in settings:
        source.apply(setting)
    return source


def parse_value(text: str) -> Any:
    """A value as TOML writes it; a bare word is a string, so that nobody needs quotes inside quotes."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):  # of a number of 5,000 digits Python's own
        return text
