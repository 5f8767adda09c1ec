"""Every field of a config with type, default and meaning; the JSON schema."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel

from facescale.config.schema import Config
from facescale.registry.options import type_text


def explain() -> list[tuple[str, str, str, str]]:
    """Rows (key, type, default, meaning) of every field; the options of components are not among them."""
    return list(_explain(Config, ""))


def _explain(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in section.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _explain(annotation, f"{prefix}{name}.")
            continue
        if field.metadata:
            annotation = Annotated[annotation, *field.metadata]
        default = field.get_default(call_default_factory=True, validated_data={})
        yield f"{prefix}{name}", type_text(annotation), json.dumps(default), field.description or ""


def schema() -> dict[str, Any]:
    """JSON schema of the config file, for editors."""
    return Config.model_json_schema()
