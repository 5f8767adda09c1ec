"""Configs in files: those of the package by name, and files that extend others."""

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from facescale.guard.limits import CONFIG_BYTES, CONFIG_FILES
from facescale.guard.reading import read_text, reason
from facescale.registry import nearest

FOLDER = Path(__file__).parents[1] / "recipes"  # the recipes that come with the package
_MOST_LEVELS = 8  # of files that extend files
_DEEP = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){32}""")


def recipe_names() -> list[str]:
    """Names of the recipes of the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find_config(path: str | Path) -> Path:
    """The file that a path to a TOML file or a recipe's name means; a file that exists wins.

    Raises:
        ValueError: there is neither.
    """
    file = Path(path)
    if file.exists() or file.suffix == ".toml":
        return file
    packaged = FOLDER / f"{path}.toml"
    if str(path) in recipe_names():
        return packaged
    meant = nearest(str(path), recipe_names()) or "; facescale recipes lists those"
    raise ValueError(f"there is no config '{path}', neither a file nor a recipe{meant}")


def read_tables(path: str | Path) -> dict[str, Any]:
    """Tables of values of a TOML file, on top of those of the files that its ``extends`` names.

    ``extends`` is one name or a list, relative to the file, with or without .toml, or a recipe's name; later
    ones lie on top of earlier ones.

    Raises:
        ValueError: a file cannot be read, is not TOML, or extends itself.
    """
    return _read(find_config(path), (), itertools.count(1))


def _read(file: Path, users: tuple[Path, ...], read: Iterator[int]) -> dict[str, Any]:
    if next(read) > CONFIG_FILES:
        raise ValueError(f"{file}: a config may extend {CONFIG_FILES} files in all; take some 'extends' out")
    if file.resolve() in users or len(users) > _MOST_LEVELS:
        raise ValueError(f"{file} extends itself, over {len(users)} files; take one 'extends' out")
    tree = _parse(file)
    bases = tree.pop("extends", [])
    if isinstance(bases, str):
        bases = [bases]
    if not (isinstance(bases, list) and all(isinstance(base, str) for base in bases)):
        raise ValueError(f"{file}: extends takes the name of a config, or a list of names")
    merged: dict[str, Any] = {}
    for base in bases:
        merged = _on_top(merged, _read(_base(file, base), (*users, file.resolve()), read))
    return _on_top(merged, tree)


def _base(file: Path, name: str) -> Path:
    beside = [file.parent / name, file.parent / f"{name}.toml"]
    found = next((path for path in beside if path.is_file()), None)
    try:
        return found or find_config(name)
    except ValueError as error:
        raise ValueError(f"{file} extends '{name}', but {error}") from None


def _parse(file: Path) -> dict[str, Any]:
    text = read_text(file, "the config", CONFIG_BYTES)
    if _DEEP.search(text):  # tomllib takes the square of its length for such a key
        raise ValueError(f"{file} has a key of more than 32 parts; a key is section.key, such as train.seed")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid TOML: {reason(error)}") from None


def _on_top(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merged key by key; any other value of ``top`` replaces that of ``base``."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _on_top(below, value) if both else value  # type: ignore[arg-type]
    return merged
