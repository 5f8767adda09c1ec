"""What a config can name, as tables for ``facescale list``."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from facescale import backbones, heads, margins, registry
from facescale.backbones.profile import describe
from facescale.data import READERS
from facescale.evaluate import EVALS

Row = dict[str, Any]


def _backbones() -> list[Row]:
    rows = []
    for name, factory in backbones.BACKBONES.items():
        parameters, multiply_adds = describe(name)
        rows.append(
            {
                "name": name,
                "parameters": f"{parameters / 1e6:.1f} M",
                "multiply-adds": f"{multiply_adds / 1e9:.2f} G",
                "options": " ".join(registry.option_names(factory)),
            }
        )
    return rows


def _first_line(factory: Any) -> str:
    while isinstance(factory, partial):
        factory = factory.func
    return (factory.__doc__ or "").strip().partition("\n")[0]


def _described(table: Mapping[str, Any]) -> list[Row]:
    return [
        {"name": name, "what": _first_line(factory), "options": " ".join(registry.option_names(factory))}
        for name, factory in table.items()
    ]


# kind -> rows to print
KINDS: dict[str, Callable[[], list[Row]]] = {
    "backbones": _backbones,
    "heads": partial(_described, heads.HEADS),
    "margins": partial(_described, margins.MARGINS),
    "readers": partial(_described, READERS),
    "evaluators": partial(_described, EVALS),
}
