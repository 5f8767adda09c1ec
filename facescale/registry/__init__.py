"""Build a named component from an explicit table, answering a wrong name or option in one sentence."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

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


def option_names(factory: Callable[..., Any]) -> list[str]:
    """Names of the keyword options that ``factory`` accepts (its keyword-only parameters)."""
    return [p.name for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY]


def option_problems(
    kind: str, name: str, factory: Callable[..., Any], options: Mapping[str, Any]
) -> list[str]:
    """Sentences about options that ``factory`` does not take (empty when all is well)."""
    allowed = option_names(factory)
    return [
        f"{kind} '{name}' has no option '{option}'{nearest(option, allowed)}; "
        f"it takes: {', '.join(allowed) or 'no options'}"
        for option in options
        if option not in allowed
    ]


def build(kind: str, table: Mapping[str, Callable[..., T]], name: str, *args: Any, **options: Any) -> T:
    """Call ``table[name](*args, **options)`` after checking the name and the option names.

    Factories take their options as keyword-only parameters, so that a wrong one can be named here.

    Raises:
        ValueError: unknown name, or an option that the component does not have.
    """
    factory = lookup(kind, table, name)
    problems = option_problems(kind, name, factory, options)
    if problems:
        raise ValueError("; ".join(problems))
    return factory(*args, **options)
