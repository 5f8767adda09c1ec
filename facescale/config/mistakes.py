"""What is wrong with a config: one sentence for each mistake, and which keys it is about."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from facescale.config.hints import hint
from facescale.config.schema import Component, Config
from facescale.guard.limits import CONFIG_MISTAKES
from facescale.guard.shown import brief, shown

Key = tuple[str, ...]

_NO_VALUE: Any = object()
_LONGEST = 200  # letters of a key in a message


@dataclass(frozen=True)
class Mistake:
    """A mistake in a config.

    Attributes:
        keys: what it is about, such as ("optim", "lr"); the first one is where to look.
        text: what is wrong, what is allowed, what to do.
        value: what stands there, unless the text says so itself.
    """

    keys: tuple[Key, ...]
    text: str
    value: Any = _NO_VALUE

    @property
    def sentence(self) -> str:
        """The text, with key and value before it."""
        return (
            self.text
            if self.value is _NO_VALUE
            else f"{dotted(self.keys[0])} = {brief(self.value)}: {self.text}"
        )


def dotted(key: Key) -> str:
    """A key as users write it, cut short where it is long."""
    return shown(".".join(key))[:_LONGEST]


def schema_mistakes(tree: Mapping[str, Any]) -> tuple[Config | None, list[Mistake]]:
    """The config that a tree of tables describes, or what is wrong with sections, keys and values."""
    try:
        return Config.model_validate(tree), []
    except ValidationError as error:
        return None, list(_mistakes(error, tree))


def _mistakes(error: ValidationError, tree: Mapping[str, Any]) -> Iterator[Mistake]:
    found: dict[Key, Mistake] = {}
    # Twice as many as are told, as two may be about one key: more cost seconds and are not told.
    for item in error.errors()[: 2 * CONFIG_MISTAKES + 2]:
        key, value = _located(tree, item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        text = text.replace("Input should", "input should", 1)
        if item["type"] == "extra_forbidden":
            what = "key" if len(key) > 1 else "section"
            meant = hint(dotted(key), key[-1], _section(key[:-1]).model_fields)
            mistake = Mistake((key,), f"unknown {what} '{dotted(key)}'{meant}")
        elif item["type"] == "model_type":
            mistake = Mistake((key,), _not_a_section(key), value)
        elif key in found:  # another type of a union
            texts = dict.fromkeys((found[key].text, text))
            mistake = Mistake((key,), ", or ".join(texts), value)
        else:
            mistake = Mistake((key,), text, value)
        found[key] = mistake
    yield from found.values()


def _located(tree: Any, location: tuple[int | str, ...]) -> tuple[Key, Any]:
    """Key and value that an error is about; what pydantic adds to the path (types of a union) is left out."""
    key: list[str] = []
    value = tree
    for part in location:
        child = _child(value, part)
        if child is _NO_VALUE:
            break
        value = child
        key.append(str(part))
    return tuple(key), value


def _child(value: Any, part: int | str) -> Any:
    if isinstance(value, list):
        return value[part] if isinstance(part, int) and part < len(value) else _NO_VALUE
    return value[part] if isinstance(value, Mapping) and part in value else _NO_VALUE


def _section(key: Key) -> type[BaseModel]:
    section: Any = Config
    for part in key:
        section = section.model_fields[part].annotation
    return section  # type: ignore[no-any-return]


def _not_a_section(key: Key) -> str:
    example = "name" if issubclass(_section(key), Component) else next(iter(_section(key).model_fields))
    return f"it is a section; write {dotted((*key, example))} = ..."
