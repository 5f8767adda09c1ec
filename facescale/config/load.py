"""Read a config from TOML and --set, with one sentence for each mistake."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from facescale.config.schema import Config
from facescale.registry import nearest


def load_config(path: str | Path | None = None, settings: Sequence[str] = ()) -> Config:
    """Read a TOML file (or start from the defaults) and apply ``a.b=value`` settings.

    Raises:
        ValueError: the file cannot be read, or all that is wrong with it, one line a mistake.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(Path(path).read_text())
        except OSError as error:
            raise ValueError(f"cannot read the config {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid TOML: {error}") from None
    for setting in settings:
        _apply(tree, setting)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        where = f"{path}: " if path else ""
        raise ValueError("\n".join(f"{where}{line}" for line in _sentences(error))) from None


def _apply(tree: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ValueError(f"--set {setting}: write section.key=value, for example train.batch_size=64")
    *parents, last = key.strip().split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ValueError(f"--set {setting}: '{parent}' is a value, not a section")
    tree[last] = parse_value(text)


def parse_value(text: str) -> Any:
    """A value as TOML writes it; a bare word is a string, so that nobody needs quotes inside quotes."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _sentences(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            section: Any = Config
            for part in item["loc"][:-1]:
                section = section.model_fields[part].annotation
            yield f"unknown key '{key}'{nearest(str(item['loc'][-1]), section.model_fields)}"
        else:
            message = item["msg"].removeprefix("Value error, ")
            yield f"{key} = {item['input']!r}: {message[0].lower()}{message[1:]}"


def changed_keys(old: Config, new: Config) -> list[str]:
    """Dotted names of the fields in which two configs differ, sorted."""
    a, b = _flat(old.model_dump()), _flat(new.model_dump())
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
