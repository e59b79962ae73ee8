"""A recipe as TOML, as people write it: what differs from the defaults, or all of it. ``load`` reads it back."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from mien.lab.recipe.load import dump
from mien.lab.recipe.schema import ExtraData, Phase, Recipe

_WIDTH = 116
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_toml(recipe: Recipe, *, whole: bool = False) -> str:
    """The text of a recipe file that loads as ``recipe``; ``whole`` names the keys at their defaults as well."""
    table = dump(recipe)
    if not whole:
        defaults = dump(Recipe(name="", about=""))
        kept = ("name", "about")
        table = {key: value for key, value in _differing(table, defaults).items() if key not in kept}
        _shorten(table, ("phases",), asdict(Phase()))
        _shorten(table, ("data", "extra"), asdict(ExtraData()))
        table = {"name": recipe.name, "about": recipe.about, **table}
    return "\n".join(_section(table, "")) + "\n"


def differences(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    """Dotted key -> value of what ``recipe`` has otherwise than ``base``, but for their names and words."""
    changed = _differing(dump(recipe), dump(base))
    return {key: value for key, value in _dotted(changed).items() if key not in ("name", "about")}


def toml_value(value: Any) -> str:
    """A plain value as TOML writes it on one line."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return _number(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _differing(table: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` without the values that ``defaults`` has as well; free tables such as ``net.options`` stay whole."""
    kept: dict[str, Any] = {}
    for key, value in table.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping) and default:
            inner = _differing(value, default)
            if inner:
                kept[key] = inner
        elif value != default:
            kept[key] = value
    return kept


def _shorten(table: dict[str, Any], path: Sequence[str], defaults: Mapping[str, Any]) -> None:
    """Leave out what the tables of the list at ``path`` have at its default."""
    *sections, last = path
    for section in sections:
        table = table.get(section, {})
    if last in table:
        table[last] = [_differing(part, defaults) for part in table[last]]


def _section(table: Mapping[str, Any], path: str) -> list[str]:
    """Plain values first, then the sections below, as TOML demands."""
    plain = {key: value for key, value in table.items() if not _is_section(key, value, path)}
    lines = [f"{_key(key)} = {_text(value) if key == 'about' else _value(key, value)}" for key, value in plain.items()]
    for key, value in table.items():
        if key in plain:
            continue
        name = f"{path}{_key(key)}"
        parts = value if isinstance(value, (list, tuple)) else [value]
        head = f"[[{name}]]" if parts is value else f"[{name}]"
        for part in parts:
            inner = _section(part, f"{name}.")
            if not inner:
                head += "  # empty"
            needless = bool(inner) and inner[0].startswith("[") and parts is not value
            lines += ([""] if lines else []) + ([] if needless else [head]) + inner
    return lines


def _is_section(key: str, value: Any, path: str) -> bool:
    """Whether a value gets a heading of its own: sections of the schema, options of nets, lists of tables."""
    if isinstance(value, (list, tuple)):
        return bool(value) and isinstance(value[0], Mapping)
    named = {field.name for field in fields(Recipe)}
    return isinstance(value, Mapping) and ((not path and key in named) or key in ("options", "metrics", "augment"))


def _text(value: str) -> str:
    """Words over several lines; what TOML would read otherwise is escaped."""
    if "\n" not in value.strip() and len(value) < 100:
        return json.dumps(value, ensure_ascii=False)
    escaped = value.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""\n{escaped.removeprefix(chr(10))}"""'


def _value(key: str, value: Any) -> str:
    """A value on one line; a list that is longer than a line, an item a line."""
    line = toml_value(value)
    if len(key) + len(line) < _WIDTH or not isinstance(value, (list, tuple)):
        return line
    return "[\n" + "".join(f"    {toml_value(item)},\n" for item in value) + "]"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _number(value: float) -> str:
    return repr(value)  # shortest that reads back as the same number: 0.05, 1e-05, inf, nan


def _dotted(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        inner = _dotted(value, f"{path}{key}.") if isinstance(value, Mapping) and value else {f"{path}{key}": value}
        found.update(inner)
    return found
