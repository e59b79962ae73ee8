"""A recipe as TOML text that ``load`` reads back: the keys that differ from the defaults, or all keys."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from mien.lab.recipe.load import dump
from mien.lab.recipe.schema import ExtraData, Phase, Recipe

_WIDTH = 116
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_toml(recipe: Recipe, *, whole: bool = False) -> str:
    """Write a recipe as the text of a recipe file.

    Args:
        recipe: The recipe.
        whole: Whether keys at their defaults are written as well.

    Returns:
        TOML that loads as the same recipe.

    Example:
        >>> print(as_toml(Recipe(name="quick", about="A test.", seed=3)))
        name = "quick"
        about = "A test."
        seed = 3
        <BLANKLINE>
    """
    table = dump(recipe)
    if not whole:
        defaults = dump(Recipe(name="default", about=""))
        table = {"name": recipe.name, "about": recipe.about, **_differing(table, defaults)}
        if "phases" in table:
            table["phases"] = [_differing(phase, asdict(Phase())) for phase in table["phases"]]
        if "extra" in table.get("data", {}):
            table["data"]["extra"] = [_differing(extra, asdict(ExtraData())) for extra in table["data"]["extra"]]
    return "\n".join(_section(table, "")) + "\n"


def differences(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    """Compare two recipes.

    Args:
        recipe: The recipe.
        base: The recipe to compare it with.

    Returns:
        Dotted key -> value in ``recipe`` where it differs from ``base``, without ``name`` and ``about``.

    Example:
        >>> from mien.lab.recipe import load
        >>> differences(load("mien-0", ["train.epochs=2"]), load("mien-0"))
        {'train.epochs': 2}
    """
    changed = _differing(dump(recipe), dump(base))
    return {key: value for key, value in _dotted(changed).items() if key not in ("name", "about")}


def toml_value(value: Any) -> str:
    """Write a plain value as TOML on one line.

    Args:
        value: A string, number, truth value, list or table of these.

    Returns:
        The text.

    Example:
        >>> toml_value({"epochs": 2, "freeze": ["features"]})
        '{ epochs = 2, freeze = ["features"] }'
    """
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    # repr is the shortest text that reads back as the same number: 0.05, 1e-05, inf, nan
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _differing(table: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` without values equal to those of ``defaults``; free tables such as ``net.options`` are not split."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping) and default:
            inner = _differing(value, default)
            if inner:
                found[key] = inner
        elif value != default:
            found[key] = value
    return found


def _section(table: Mapping[str, Any], path: str) -> list[str]:
    """Lines of a section: plain values first, then the sections below, as TOML requires."""
    lines, sections = [], {}
    for key, value in table.items():
        is_list = isinstance(value, (list, tuple))
        # A heading is for sections of the schema, free tables with many keys, and lists of tables.
        is_named = key in ("options", "metrics", "augment") or (not path and key in {f.name for f in fields(Recipe)})
        if (isinstance(value, Mapping) and is_named) or (is_list and value and isinstance(value[0], Mapping)):
            sections[key] = value
            continue
        text = toml_value(value)
        if is_list and len(key) + len(text) >= _WIDTH:
            text = "[\n" + "".join(f"    {toml_value(item)},\n" for item in value) + "]"
        elif key == "about" and ("\n" in value.strip() or len(value) >= 100):
            escaped = value.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
            text = f'"""\n{escaped.removeprefix(chr(10))}"""'
        lines.append(f"{_key(key)} = {text}")
    for key, value in sections.items():
        name, is_list = f"{path}{_key(key)}", not isinstance(value, Mapping)
        for part in value if is_list else [value]:
            inner = _section(part, f"{name}.")
            head = [f"[[{name}]]" if is_list else f"[{name}]"]
            if not inner:
                head[0] += "  # empty"
            elif not is_list and inner[0].startswith("["):  # only sections below: TOML needs no heading
                head = []
            lines += ([""] if lines else []) + head + inner
    return lines


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _dotted(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _dotted(value, f"{path}{key}.") if isinstance(value, Mapping) and value else {f"{path}{key}": value}
    return found
