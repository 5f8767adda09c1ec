"""What a config can name, with its options, as tables for ``facescale list`` and ``config --explain``."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from facescale import backbones, heads, margins
from facescale.backbones.profile import describe
from facescale.cli.app import table
from facescale.data import READERS
from facescale.evaluate import EVALS
from facescale.plan.components import Offered
from facescale.registry.docstrings import first_line
from facescale.registry.options import Option, options_of

Row = dict[str, Any]
Factory = Callable[..., Any]

_ANY_TIMM = "timm:NAME"
_OFFERED = {field.name: str(field.metadata["key"]) for field in fields(Offered)}


def _size(name: str, factory: Factory) -> Row:
    if name == _ANY_TIMM:
        return {"parameters": "any model of", "multiply-adds": "the timm package"}
    parameters, multiply_adds = describe(name)
    return {"parameters": f"{parameters / 1e6:.1f} M", "multiply-adds": f"{multiply_adds / 1e9:.2f} G"}


def _what(name: str, factory: Factory) -> Row:
    return {"what": first_line(factory).replace("``", "")}


@dataclass(frozen=True)
class Kind:
    """A kind of component.

    Attributes:
        factories: by name.
        describe: further cells of a component's row, from its name and factory.
        section: of the config whose options they are; empty if there is none.
    """

    factories: Mapping[str, Factory]
    describe: Callable[[str, Factory], Row] = _what
    section: str = ""


KINDS: Mapping[str, Kind] = {
    "backbones": Kind(
        {name: backbones.factory(name) for name in (*backbones.BACKBONES, _ANY_TIMM)}, _size, "backbone"
    ),
    "heads": Kind(heads.HEADS, section="head"),
    "margins": Kind(margins.MARGINS, section="head.margin"),
    "readers": Kind(READERS),
    "evaluators": Kind(EVALS),
}


# what else users call a kind
SYNONYMS = {"losses": "margins", "formats": "readers", "protocols": "evaluators", "networks": "backbones"}


def components(kind: Kind) -> list[Row]:
    """A row for each component of a kind."""
    return [{"name": name, **kind.describe(name, factory)} for name, factory in kind.factories.items()]


def with_options(kind: Kind) -> list[Row]:
    """The same rows, each with the rows of its options."""
    options = {name: options_of(factory).values() for name, factory in kind.factories.items()}
    return [{**row, "options": [_row(kind, one) for one in options[row["name"]]]} for row in components(kind)]


def as_text(kind: Kind) -> str:
    """Tables of the components of a kind and of their options."""
    options = [
        {key: row[key] for key in ("option", "type", "default", "of", "meaning")} for row in _merged(kind)
    ]
    text = table(components(kind))
    return f"{text}\n\n{table(options)}" if options else text


def option_rows() -> list[Row]:
    """Rows (key, type, default, meaning) of the options of all backbones, heads and margins."""
    return [
        {
            "key": f"{kind.section}.{row['option']}",
            "type": row["type"],
            "default": row["default"],
            "meaning": f"{row['of']}: {row['meaning']}",
        }
        for kind in KINDS.values()
        if kind.section
        for row in _merged(kind)
    ]


def _row(kind: Kind, option: Option) -> Row:
    default = "" if option.default is None else json.dumps(option.default, default=str)
    if kind.section == "head":
        default = _OFFERED.get(option.name, default)
    return {
        "option": option.name,
        "type": option.type_text,
        "default": default,
        "meaning": option.meaning,
    }


def _merged(kind: Kind) -> list[Row]:
    """Options of all components; one that several have alike comes once, with their names as ``of``."""
    owners: dict[tuple[str, ...], list[str]] = {}
    rows: dict[tuple[str, ...], Row] = {}
    order: dict[str, int] = {}
    for component, factory in kind.factories.items():
        for option in options_of(factory).values():
            row = _row(kind, option)
            same = tuple(row.values())
            rows[same] = row
            owners.setdefault(same, []).append(component)
            order.setdefault(option.name, len(order))
    merged = [{**row, "of": _owners(owners[same], list(kind.factories))} for same, row in rows.items()]
    return sorted(merged, key=lambda row: order[row["option"]])


def _owners(having: list[str], everyone: list[str]) -> str:
    others = [name for name in everyone if name not in having]
    if not others:
        return "all"
    return f"all but {', '.join(others)}" if len(others) < len(having) else ", ".join(having)
