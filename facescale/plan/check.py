"""Check what a config says of its components: names, options, values; and values that nothing reads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from facescale import backbones, heads, margins, registry
from facescale.backbones.profile import skeleton
from facescale.config import (
    BackboneConfig,
    Component,
    Config,
    FinetuneConfig,
    HeadConfig,
    MarginConfig,
    OptimConfig,
    load_config,
)
from facescale.config.criterion import criterion_mistakes
from facescale.config.hints import hint, known_name
from facescale.config.mistakes import Key, Mistake, dotted
from facescale.config.no_effect import (
    unread_by_head,
    unread_data,
    unread_optim,
    unread_train,
    unread_twin,
)
from facescale.distributed import Dist
from facescale.guard.limits import CONFIG_MISTAKES
from facescale.heads import ClassHead
from facescale.plan.components import backbone_skeleton, build_head

Tree = Mapping[str, Any]

_NUM_IDS = 1000  # of the head that is built to see whether it takes its options


def read_config(path: str | Path | None = None, settings: Sequence[str] = ()) -> Config:
    """Read a config as ``load_config`` does, and check its components, too.

    Args:
        path: the file; without one the defaults.
        settings: as after ``--set``.

    Raises:
        ValueError: the file cannot be read, or all that is wrong with it, one line a mistake.
    """
    return load_config(path, settings, component_mistakes)


def check_components(config: Config) -> None:
    """Check a config that was made in Python as ``read_config`` does.

    Raises:
        ValueError: all that is wrong, one line a mistake.
    """
    mistakes = list(component_mistakes(config.model_dump(exclude_unset=True)))
    if mistakes:
        raise ValueError("\n".join(mistake.sentence for mistake in mistakes))


def component_mistakes(tree: Tree) -> list[Mistake]:
    """What is wrong with the components that tables of values name, and which values nothing reads.

    Names and types of the options come from the factories. Ranges are the components' own to check: each is
    built once, without memory, and what it says is put down to the option that it is about.
    """
    backbone = _section(tree.get("backbone"), "backbone", BackboneConfig)
    head = _section(tree.get("head"), "head", HeadConfig)
    margin = _section(_table(tree.get("head")).get("margin"), "margin", MarginConfig)
    of_margin = _mistakes(margin, partial(margins.build, margin.name))
    optim = _table(tree.get("optim"))
    make_head = partial(_head, head.name, MarginConfig() if of_margin else _margin(margin), _valid(optim))
    mistakes = [
        *_mistakes(backbone, partial(skeleton, backbone.name)),
        *of_margin,
        *_mistakes(head, make_head),
        *unread_data(_table(tree.get("data"))),
        *unread_optim(optim, head.options),
        *unread_by_head(optim, head.options),
        *unread_train(_table(tree.get("train"))),
        *criterion_mistakes(tree),
        *_not_together(tree),
    ]
    mistakes += [] if mistakes else _unadapted(tree)
    if head.name in heads.HEADS and not _head(head.name, MarginConfig(), OptimConfig()).needs.key_views:
        mistakes += unread_twin(_table(tree.get("twin")), head.name)
    return mistakes


def _not_together(tree: Tree) -> Iterator[Mistake]:
    compiled, shared = ("train", "compile"), ("distributed", "shard_backbone")
    if all(_table(tree.get(section)).get(key) is True for section, key in (compiled, shared)):
        text = (
            "does not go with distributed.shard_backbone, as weights that come and go cannot be compiled in"
        )
        yield Mistake((compiled, shared), f"{text}; set one of them to false", True)


@dataclass(frozen=True)
class _Section:
    """A component as it is written.

    Attributes:
        kind: "backbone", "head" or "margin".
        name: of the component.
        options: its own ones.
    """

    kind: str
    name: str
    options: Tree


# kind -> its section, the table of names, what gives the factory of a name
_KINDS: Mapping[str, tuple[Key, Mapping[str, Any], Callable[[str], Callable[..., Any]]]] = {
    "backbone": (("backbone",), backbones.BACKBONES, backbones.factory),
    "head": (("head",), heads.HEADS, partial(registry.lookup, "head", heads.HEADS)),
    "margin": (("head", "margin"), margins.MARGINS, partial(registry.lookup, "margin", margins.MARGINS)),
}


def _table(value: Any) -> Tree:
    """A table of values; anything else counts as an empty one (the schema refuses it)."""
    return value if isinstance(value, Mapping) else {}


def _section(value: Any, kind: str, schema: type[Component]) -> _Section:
    table, fields = _table(value), schema.model_fields
    name = table.get("name", fields["name"].default)
    if not isinstance(name, str):
        return _Section(kind, fields["name"].default, {})
    return _Section(kind, name, {key: option for key, option in table.items() if key not in fields})


def _valid(optim: Tree) -> OptimConfig:
    try:
        return OptimConfig.model_validate(optim)
    except ValidationError:
        return OptimConfig()


def _margin(section: _Section) -> MarginConfig:
    return MarginConfig(name=section.name, **section.options)


def _head(name: str, margin: MarginConfig, optim: OptimConfig, **options: Any) -> ClassHead:
    if options.get("size", 0) > _NUM_IDS:  # bookkeeping of slots is in memory even on the meta device
        options["size"] = _NUM_IDS
    config = Config(head=HeadConfig(name=name, margin=margin, **options), optim=optim)
    with torch.device("meta"):
        return build_head(config, _NUM_IDS, Dist(), Path())


def _mistakes(section: _Section, make: Callable[..., nn.Module]) -> list[Mistake]:
    """An unknown name; or unknown options and values of another type; or what ``make`` refuses."""
    key, _, factory_of = _KINDS[section.kind]
    try:
        known = registry.options_of(factory_of(section.name))
    except ValueError as error:
        return [Mistake(((*key, "name"),), _meant(section) or str(error))]
    wrong: list[Mistake] = []
    options: dict[str, Any] = {}
    for name, value in section.options.items():
        if len(wrong) > CONFIG_MISTAKES:  # the rest is not told
            return wrong
        if name not in known:
            wrong.append(Mistake(((*key, name),), _unknown_option(section, name, list(known))))
        elif not known[name].accepts(value):
            text = f"{section.kind} '{section.name}' takes {known[name].expected} here"
            wrong.append(Mistake(((*key, name),), text, value))
        else:
            options[name] = value
    downloads = section.name.startswith("timm:")  # its weights, when it is made
    if downloads or (section.kind == "backbone" and not options):
        return wrong
    return [*wrong, *_refused(section.kind, options, make)]


def _unknown_option(section: _Section, option: str, known: Sequence[str]) -> str:
    key, table, _ = _KINDS[section.kind]
    having = [name for name, factory in table.items() if option in registry.options_of(factory)]
    meant = hint(dotted((*key, option)), option, known)
    if having:
        meant = f" (an option of {', '.join(having[:3])}{', ...' if len(having) > 3 else ''})"
    return (
        f"{section.kind} '{section.name}' has no option '{option}'{meant}; "
        f"it takes: {', '.join(known) or 'no options'}"
    )


def _meant(section: _Section) -> str | None:
    """A sentence about the name of a component that is another one elsewhere, or of another kind."""
    for kind, (key, table, _) in _KINDS.items():
        name = known_name(section.name, table)
        if name and kind == section.kind:
            return f"unknown {kind} '{section.name}'; here it is {name}"
        if name:
            return f"'{section.name}' is a {kind}, not a {section.kind}; write {dotted(key)}.name = '{name}'"
    return None


def _refused(kind: str, options: dict[str, Any], make: Callable[..., nn.Module]) -> Iterator[Mistake]:
    """What ``make`` refuses, each sentence put down to the options without which it would not be said."""
    key = _KINDS[kind][0]
    names = ((*key, "name"), *([("head", "margin", "name")] if kind == "head" else []))
    while text := _refusal(make, options):
        causes = [name for name in options if _refusal(make, options, leave_out=name) != text]
        keys = tuple((*key, name) for name in causes) or names
        yield Mistake(keys, text, options[causes[0]]) if len(causes) == 1 else Mistake(keys, text)
        if not causes:
            return
        options = {name: value for name, value in options.items() if name not in causes}


def _unadapted(tree: Tree) -> Iterator[Mistake]:
    """Adapters for a backbone that cannot have them."""
    try:
        finetune = FinetuneConfig.model_validate(_table(tree.get("finetune")))
        if finetune.adapters:
            backbone = BackboneConfig.model_validate(_table(tree.get("backbone")))
            backbone_skeleton(Config(backbone=backbone, finetune=finetune))
    except ValidationError:
        return
    except ValueError as error:
        yield Mistake((("finetune", "adapters"),), str(error))


def _refusal(make: Callable[..., nn.Module], options: Tree, leave_out: str = "") -> str:
    try:
        make(**{name: value for name, value in options.items() if name != leave_out})
    except ValueError as error:
        return str(error)
    return ""
