"""The few words that name data: ``A + B``, ``scheme:key=value,...``, ``NAME=PATH``, ``PATH?key=value&...``.

One rule for all of them: a path that exists is taken as it is, whatever is in its name.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from facescale.registry import nearest

_JOINED = " + "
_WITH_KIND = re.compile(r"(?:([^=]+)=)?([a-z_]+:[^=]*\?[a-z_0-9]+=.*)", re.DOTALL)  # NAME=KIND:PATH?key=value
_DRAWN = "synthetic:"  # the scheme that needs no file


def split_sources(spec: str | Path | Sequence[str | Path]) -> list[str]:
    """The sources of a data set: those of a list, or of a text that joins them by " + ".

    A folder called "Tom + Jerry" is one source.
    """
    if isinstance(spec, Path):
        return [str(spec)]
    if not isinstance(spec, str):
        return [str(source) for source in spec]
    parts, sources = spec.split(_JOINED), []
    while parts:
        found = (n for n in range(len(parts), 1, -1) if os.path.exists(_JOINED.join(parts[:n])))
        length = next(found, 1)
        source = _JOINED.join(parts[:length])
        sources.append(source if os.path.exists(source) else source.strip())
        parts = parts[length:]
    return sources


def absolute(text: str) -> str:
    """The same words with every path in them that exists made absolute, for a process in another folder."""
    sources = [_absolute(source) for source in split_sources(text)]
    return os.path.abspath(text) if os.path.exists(text) else _JOINED.join(sources)


def _absolute(source: str) -> str:
    name, spec = split_name(source)
    path, options = _cut_options(spec)
    scheme, colon, inner = path.partition(":")
    is_inner = bool(colon) and not os.path.exists(path)
    path = f"{scheme}:{_absolute_path(inner)}" if is_inner else _absolute_path(path)
    options = re.sub(
        r"(?<![^&])(root|keys)=([^&]+)", lambda key: f"{key[1]}={_absolute_path(key[2])}", options
    )
    return (f"{name}=" if name else "") + path + (f"?{options}" if options else "")


def _absolute_path(text: str) -> str:
    return os.path.abspath(text) if os.path.exists(text) else text


def split_name(text: str) -> tuple[str, str]:
    """Name and path of ``NAME=PATH``; the name is empty where the text is a path alone.

    The name ends at the first "=" behind which something exists, so it may hold one itself; else at the first
    "=", unless a ":" or "?" comes before, as in ``KIND:PATH?key=value``.
    """
    if _exists(text):
        return "", text
    if with_kind := _WITH_KIND.fullmatch(text):  # its options may name something that exists
        return with_kind[1] or "", with_kind[2]
    cuts = [place for place, letter in enumerate(text) if letter == "=" and place]
    for cut in cuts:
        if _exists(text[cut + 1 :]):
            return text[:cut], text[cut + 1 :]
    if not cuts or set(text[: cuts[0]]) & {"?", ":"}:  # KIND:PATH?key=value: the "=" is of an option
        return "", text
    return text[: cuts[0]], text[cuts[0] + 1 :]


def split_options(text: str, keys: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Path and options of ``PATH?key=value&key=value``; no options where the text is a path alone.

    A value ends at an "&" that one of the ``keys`` and "=" follow, so it may hold others.

    Args:
        text: as above.
        keys: the allowed keys.

    Raises:
        ValueError: an unknown or repeated key.
    """
    allowed = list(keys)
    path, options = _cut_options(text)
    if not options:
        return path, {}
    values: dict[str, str] = {}
    for item in re.split(rf"&(?=(?:{'|'.join(map(re.escape, allowed))})=)", options):
        key, equals, value = item.partition("=")
        if key not in allowed or not equals:
            raise ValueError(
                f"'{text}' has no option '{key}'{nearest(key, allowed)}; after '?' may stand: "
                f"{', '.join(f'{name}=' for name in allowed)} joined by '&'"
            )
        if key in values:
            raise ValueError(f"'{text}' has '{key}' twice; keep one of them")
        values[key] = value
    return path, values


def key_values(text: str, separator: str = ",") -> Iterator[tuple[str, str]]:
    """(key, value) of each item of ``key=value,key=value``; a value is empty where "=" is missing."""
    for item in filter(None, text.split(separator)):
        key, _, value = item.partition("=")
        yield key.strip(), value.strip()


def parse_options(
    text: str, kinds: Mapping[str, Callable[[str], Any]], *, spec: str, example: str
) -> dict[str, Any]:
    """Values of ``key=value,key=value``, each in its own type.

    Args:
        text: the options.
        kinds: what turns the text of each allowed key into its value; may raise ValueError.
        spec: the whole text that holds the options, for messages.
        example: how to write it right, for messages.

    Raises:
        ValueError: an unknown or repeated key, or a value of another type.
    """
    values: dict[str, Any] = {}
    for key, value in key_values(text):
        if key not in kinds:
            raise ValueError(
                f"'{spec}' has no key '{key}'{nearest(key, kinds)}; the keys are: {', '.join(kinds)}"
            )
        if key in values:
            raise ValueError(f"'{spec}' has '{key}' twice; keep one of them")
        try:
            if not value:
                raise ValueError
            values[key] = kinds[key](value)
        except ValueError:
            words = {int: "a whole number", float: "a number"}.get(kinds[key], "a value")  # type: ignore[call-overload]
            raise ValueError(
                f"'{key}' of '{spec}' is '{value}'; it must be {words}, for example {example}"
            ) from None
    return values


def _cut_options(text: str) -> tuple[str, str]:
    """Path, and what comes after the "?" that begins its options."""
    if os.path.exists(text):
        return text, ""
    starts = [match.start() for match in re.finditer(r"\?(?=[a-z_0-9]+=)", text)]
    for start in [start for start in starts if os.path.exists(text[:start])] or starts[:1]:
        return text[:start], text[start + 1 :]
    return text, ""


def _exists(text: str) -> bool:
    return text.startswith(_DRAWN) or os.path.exists(_cut_options(text)[0])
