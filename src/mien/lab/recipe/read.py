"""Strict reading: plain values of a TOML file or a checkpoint -> the dataclasses of the schema, or one clear line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mien._errors import RecipeError

T = TypeVar("T")


def read(kind: type[T], table: Mapping[str, Any], *, where: str) -> T:
    """An instance of the dataclass ``kind`` from ``table``.

    Raises ``RecipeError`` for unknown keys, wrong types and numbers that are not finite.
    """
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}{nearest(key, known)}")
    values = {key: _value(hints[key], value, where=f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise RecipeError(f"{where}: {error}") from error


def change(base: T, changes: Mapping[str, Any], *, where: str) -> T:
    """``base`` with the keys of ``changes`` replaced, read as strictly."""
    kept = {f.name: getattr(base, f.name) for f in fields(base)}  # type: ignore[arg-type]
    return read(type(base), {**kept, **changes}, where=where)


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint at the known word that ``word`` is most like, or nothing."""
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _value(kind: Any, value: Any, *, where: str) -> Any:
    if is_dataclass(kind):
        return _section(kind, value, where=where)
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise RecipeError(f"{where} is a list, not {value!r}")
        return tuple(_value(get_args(kind)[0], v, where=where) for v in value)
    if get_origin(kind) is not None:
        return _mapping(get_args(kind)[1], value, where=where)
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where} is a finite number, not {value}")
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecipeError(f"{where} is of type {kind.__name__}, not {value!r}")
    return value


def _section(kind: Any, value: Any, *, where: str) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} is a section with keys, not {value!r}")
    return read(kind, value, where=where)


def _mapping(kind: Any, value: Any, *, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} is a table with keys, not {value!r}")
    return {key: _value(kind, v, where=f"{where}: {key}") for key, v in value.items()}
