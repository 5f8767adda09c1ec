"""Options behind a protocol's path: ``KIND:PATH?key=value&key=value``."""

from collections.abc import Mapping, Sequence

from facescale.registry import nearest


def chosen(options: Mapping[str, str], key: str, allowed: Sequence[str]) -> str:
    """The value of an option that has a few; the first one where it is absent.

    Raises:
        ValueError: another value.
    """
    value = options.get(key, allowed[0])
    if value not in allowed:
        raise ValueError(
            f"{key}={value} is not known{nearest(value, allowed)}; choose one of: {', '.join(allowed)}"
        )
    return value
