"""Read a config from TOML and --set, with one sentence for each mistake."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from facescale.config.mistakes import Mistake, schema_mistakes
from facescale.config.schema import Config
from facescale.config.source import read_source
from facescale.guard.limits import CONFIG_MISTAKES

Check = Callable[[Mapping[str, Any]], Iterable[Mistake]]


def load_config(
    path: str | Path | None = None, settings: Sequence[str] = (), check: Check | None = None
) -> Config:
    """Read a TOML file (or start from the defaults) and apply ``a.b=value`` settings.

    The components that it names and their options are not known here: ``facescale.plan.check.read_config``
    checks them, too.

    Args:
        path: the file.
        settings: as after ``--set``.
        check: gives further mistakes of the tables of values, which are reported along.

    Raises:
        ValueError: the file cannot be read, or all that is wrong with it, one line a mistake.
    """
    source = read_source(path, settings)
    config, mistakes = schema_mistakes(source.tree)
    if check is not None:
        mistakes += check(source.tree)
    lines = [*source.refused, *map(source.line, mistakes[:CONFIG_MISTAKES])]
    if len(mistakes) > CONFIG_MISTAKES:
        lines.append("and more mistakes than are told at once; correct these first")
    if config is None or lines:
        raise ValueError("\n".join(lines))
    return config


def changed_keys(old: Config, new: Config) -> list[str]:
    """Dotted names of the fields in which two configs differ, sorted."""
    a, b = flat_values(old), flat_values(new)
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def flat_values(config: Config) -> dict[str, Any]:
    """Every value of a config by its dotted name."""
    return _flat(config.model_dump())


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
