"""Meanings of parameters, from the Args sections of docstrings."""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

_ENTRY = re.compile(r" {4}\*{0,2}(\w+): (.*)")


def documented_parameters(docstring: str) -> dict[str, str]:
    """Meaning of each parameter in the "Args:" section of a Google-style docstring (empty without one)."""
    _, _, section = inspect.cleandoc(docstring).partition("Args:\n")
    meanings: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.startswith(" "):
            break
        entry = _ENTRY.fullmatch(line)
        if entry:
            name = entry[1]
            meanings[name] = entry[2]
        elif name:
            meanings[name] += f" {line.strip()}"
    return {name: meaning.rstrip(".").replace("``", "'") for name, meaning in meanings.items()}


def meanings_of(factory: Callable[..., Any]) -> dict[str, str]:
    """Meaning of each documented parameter of a function or class, its bases and what it wraps."""
    meanings: dict[str, str] = {}
    for docstring in _docstrings(factory):
        for name, meaning in documented_parameters(docstring).items():
            meanings.setdefault(name, meaning)
    return meanings


def first_line(factory: Callable[..., Any]) -> str:
    """What a function or class says of itself in one line."""
    return next(iter(_docstrings(factory)), "").strip().partition("\n")[0]


def _docstrings(factory: Callable[..., Any]) -> Iterator[str]:
    """Docstrings from the outermost to the innermost."""
    if isinstance(factory, partial):
        yield from _docstrings(factory.func)
        return
    if isinstance(factory, type):  # not by getattr: a class without a docstring would give its base's twice
        texts = [vars(base).get("__doc__") for base in inspect.getmro(factory)]
    else:
        texts = [factory.__doc__]
    yield from filter(None, texts)
    if hasattr(factory, "__wrapped__"):
        yield from _docstrings(factory.__wrapped__)
