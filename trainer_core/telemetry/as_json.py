"""Values as JSON that every reader takes: a number that JSON cannot hold is a string. Knows no record."""

import json
import math
from typing import Any

import msgspec

Builtins = dict[str, "Builtins"] | list["Builtins"] | str | int | float | bool | None


def strict(value: Any) -> Builtins:
    """``value`` with NaN and infinities as "NaN", "Infinity", "-Infinity": null already means "not measured"."""
    match value:
        case dict():
            return {key: strict(item) for key, item in value.items()}
        case list() | tuple():
            return [strict(item) for item in value]
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
        case str() | int() | float() | None:
            return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def json_text(value: Any, indent: int | None = None) -> str:
    """One JSON document."""
    return json.dumps(strict(msgspec.to_builtins(value)), indent=indent, ensure_ascii=False)
