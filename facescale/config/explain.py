"""Every field of a config with type, default and meaning; the JSON schema."""

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from facescale.config.duration import check_duration
from facescale.config.schema import Config


def explain() -> list[tuple[str, str, str, str]]:
    """Rows (key, type, default, meaning) of every field."""
    return list(_explain(Config, ""))


def _explain(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _explain(annotation, f"{prefix}{name}.")
            continue
        kind = annotation.__name__ if annotation in (int, float, str, bool) else str(annotation)
        if any(getattr(mark, "func", None) is check_duration for mark in field.metadata):
            kind = "duration"
        kind = re.sub(r"Annotated\[str, AfterValidator\(.*?\)\]", "duration", kind.replace("typing.", ""))
        default = field.get_default(call_default_factory=True, validated_data={})
        yield f"{prefix}{name}", kind, json.dumps(default), field.description or ""


def schema() -> dict[str, Any]:
    """JSON schema of the config file, for editors."""
    return Config.model_json_schema()
