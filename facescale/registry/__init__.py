"""Build a named component from an explicit table, answering a wrong name or option in one sentence."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from facescale.guard.shown import brief
from facescale.registry.options import Option, options_of, wrong_values

T = TypeVar("T")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` when ``name`` is close to one of ``allowed``, else an empty text."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def lookup(kind: str, table: Mapping[str, T], name: str) -> T:
    """Return ``table[name]``.

    Raises:
        ValueError: ``name`` is not in the table; the message lists what is.
    """
    if name not in table:
        raise ValueError(f"unknown {kind} '{name}'{nearest(name, table)}; choose one of: {', '.join(table)}")
    return table[name]


def option_problems(
    kind: str, name: str, factory: Callable[..., Any], options: Mapping[str, Any]
) -> dict[str, str]:
    """A sentence about each option that ``factory`` does not take, or whose value is of another type."""
    known = options_of(factory)
    problems = {
        option: f"{kind} '{name}' has no option '{option}'{nearest(option, known)}; "
        f"it takes: {', '.join(known) or 'no options'}"
        for option in options
        if option not in known
    }
    for wrong in wrong_values(factory, options).values():
        value = options[wrong.name]
        problems[wrong.name] = (
            f"{wrong.name} of {kind} '{name}' is {brief(value)}; it must be {wrong.expected}"
        )
    return problems


def build(kind: str, table: Mapping[str, Callable[..., T]], name: str, /, *args: Any, **options: Any) -> T:
    """Call ``table[name](*args, **options)`` after checking name, options and the types of their values.

    Factories take their options as keyword-only annotated parameters, which is what is checked here; ranges
    are theirs to check.

    Raises:
        ValueError: unknown name, an option that the component does not have, or a value of another type.
    """
    factory = lookup(kind, table, name)
    problems = option_problems(kind, name, factory, options)
    if problems:
        raise ValueError("; ".join(problems.values()))
    return factory(*args, **options)


__all__ = ["Option", "build", "lookup", "nearest", "option_problems", "options_of", "wrong_values"]
