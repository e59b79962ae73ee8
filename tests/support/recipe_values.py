"""Values of recipes by dotted key."""

from typing import Any

from mien.lab.recipe import Recipe


def at(chosen: Recipe, key: str) -> Any:
    """The value of a dotted key; of a free table, its item."""
    value: Any = chosen
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value
