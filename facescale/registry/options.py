"""Options of a component: its factory's keyword-only parameters, with type, default and meaning."""

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from facescale.registry.docstrings import meanings_of

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
_SEVERAL = {bool: "booleans", int: "whole numbers", float: "finite numbers", str: "texts"}


@dataclass(frozen=True)
class Option:
    """One option of a component.

    Attributes:
        name: of the parameter.
        annotation: its type.
        default: its value where it is not set.
        meaning: from the docstring.
    """

    name: str
    annotation: Any
    default: Any
    meaning: str

    @property
    def type_text(self) -> str:
        """The type in words of Python."""
        return type_text(self.annotation)

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        return _expected(self.annotation)

    def accepts(self, value: object) -> bool:
        """Whether ``value`` is of the type; a boolean is not a number, nor are infinity and NaN.

        A list does for a tuple, which TOML and JSON cannot write.
        """
        adapter = TypeAdapter(self.annotation, config=_STRICT)
        return _valid(adapter, value) or (isinstance(value, list) and _valid(adapter, tuple(value)))


def _valid(adapter: TypeAdapter[Any], value: object) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def options_of(factory: Callable[..., Any]) -> dict[str, Option]:
    """The options that ``factory`` takes, by name."""
    meanings = meanings_of(factory)
    return {
        parameter.name: Option(
            parameter.name,
            Any if parameter.annotation is parameter.empty else parameter.annotation,
            parameter.default,
            meanings.get(parameter.name, ""),
        )
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def wrong_values(factory: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Option]:
    """Those of the known options whose value is not of their type."""
    known = options_of(factory)
    return {
        name: known[name]
        for name, value in options.items()
        if name in known and not known[name].accepts(value)
    }


def type_text(annotation: Any) -> str:
    """A type as a reader writes it, such as ``float | None`` or ``'ln' | 'bn'``.

    A text among the metadata of ``Annotated`` stands for the type.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        names = [mark for mark in annotation.__metadata__ if isinstance(mark, str)]
        return names[0] if names else type_text(arguments[0])
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if _is_union(origin):
        return " | ".join(map(type_text, arguments))
    if annotation is type(None):
        return "None"
    name = getattr(annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(map(type_text, arguments))}]" if arguments else name


def _expected(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _expected(arguments[0])
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if _is_union(origin):
        choices = [x for x in arguments if x is not type(None) and not (x is Path and str in arguments)]
        return " or ".join(map(_expected, choices))
    if arguments and arguments[0] in _SEVERAL:
        numbers = f"{len(arguments)} " if origin is tuple and ... not in arguments else ""
        return f"a list of {numbers}{_SEVERAL[arguments[0]]}"
    return _EXPECTED.get(annotation, type_text(annotation))


def _is_union(origin: Any) -> bool:
    return origin in (Union, types.UnionType)
