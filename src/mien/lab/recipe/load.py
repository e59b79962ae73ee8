"""Loading recipe files: shipped recipes by name, others by path, with dotted overrides; families as a grid in one file.

A file may hold two sections beside those of the schema. ``[grid.AXIS]`` names the values of an axis, each a table of
dotted overrides; the members of the family are all combinations, ``FILE/value-value-...``. ``[search]`` is the space of
`mien search`.
"""

import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from mien._checksum import KEY
from mien._errors import RecipeError, checked, first_line
from mien._suggest import suggest
from mien.bundled import BUNDLED
from mien.lab.files import load_json, load_text
from mien.lab.recipe.schema import Recipe, read

_MOST_MEMBERS = 1000  # of a family
_FOLDER = resources.files("mien.lab").joinpath("recipes")


@cache
def recipe_names() -> tuple[str, ...]:
    """Return the names of the shipped recipe files; a family counts once."""
    return tuple(sorted(Path(f.name).stem for f in _FOLDER.iterdir() if f.name.endswith(".toml")))


@checked
def load(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe and apply overrides.

    Args:
        name_or_path: A shipped recipe, the path of a TOML file, or either with ``/member`` where the file is a family.
        overrides: ``section.key=value`` each, the value in TOML; a bare word is a string.

    Returns:
        The validated recipe.

    Raises:
        RecipeError: The recipe, a key or a member is unknown (the message names the nearest), or a value has a wrong
            type.

    Example:
        >>> load("mien-0", ["train.epochs=2"]).train.epochs
        2
    """
    name, member = _split(name_or_path)
    table = _table(name)
    grid = table.pop("grid", {})
    table.pop("search", None)
    if member or grid:
        for key, value in _member(name, grid, member).items():
            put(table, key, value)
        table["name"] = f"{table.get('name', name)}/{member}"
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise RecipeError(f"override {override!r} must have the form section.key=value")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, or deep lists
            raise RecipeError(f"override {override!r:.80}: {first_line(error)}") from error
        put(table, key.strip(), value)
    return parse(table, where=f"recipe {name_or_path}")


def members(name_or_path: str) -> tuple[str, ...]:
    """Return the full names of all members of a family.

    Args:
        name_or_path: Name or path of a recipe file.

    Returns:
        The members; the name itself where the recipe is not a family.

    Raises:
        RecipeError: There is no such recipe.
    """
    grid = _table(name_or_path).get("grid", {})
    return tuple(f"{name_or_path}/{member}" for member in _combinations(name_or_path, grid)) or (name_or_path,)


def axes(name_or_path: str) -> dict[str, tuple[str, ...]]:
    """Return the axes of a family.

    Args:
        name_or_path: Name or path of a recipe file.

    Returns:
        Axis -> names of its values, in the order of the parts of member names; empty where the recipe is not a family.
    """
    return {axis: tuple(values) for axis, values in _table(name_or_path).get("grid", {}).items()}


def search_space(name_or_path: str) -> dict[str, Any]:
    """Return the section ``[search]`` of a recipe file.

    Args:
        name_or_path: Name or path of a recipe file, or of a member.

    Returns:
        Its plain values; empty where the file has none.
    """
    space: dict[str, Any] = _table(_split(name_or_path)[0]).get("search", {})
    return space


@checked
def parse(table: Mapping[str, Any], *, where: str) -> Recipe:
    """Build a recipe from plain values.

    Args:
        table: Sections and keys, as in a TOML file, ``recipe.json`` or a checkpoint.
        where: Source of the values, for error messages.

    Returns:
        The validated recipe.

    Raises:
        RecipeError: A key is unknown or a value is not valid.
    """
    return read(Recipe, {key: value for key, value in table.items() if key != KEY}, where=where)


def dump(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain values.

    Args:
        recipe: The recipe.

    Returns:
        Nested dictionaries; ``parse(dump(recipe), where="")`` is the same recipe.
    """
    return asdict(recipe)


def put(table: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a nested table; lists of sections are counted from 0 (``phases.0.train.epochs``).

    Args:
        table: The table; it is changed in place.
        key: The dotted key.
        value: Its new value.

    Raises:
        RecipeError: The path leads through a plain value, or to an index that a list does not have.
    """
    *sections, last = key.split(".")
    at: Any = table
    for section in sections:
        if isinstance(at, list):
            if section not in map(str, range(len(at))):
                raise RecipeError(f"override {key!r}: {section!r} is no index of a list of {len(at)}, counted from 0")
            at = at[int(section)]
        else:
            at = at.setdefault(section, {})
        if not isinstance(at, (dict, list)):
            raise RecipeError(f"override {key!r}: {section!r} is not a section")
    if isinstance(at, list):
        raise RecipeError(f"override {key!r}: a list of sections is set as a whole, or key by key of one of them")
    at[last] = value


def _split(name: str) -> tuple[str, str]:
    """File and member; the member is empty where the name has none."""
    if name.endswith(".toml"):
        return name, ""
    head, _, member = name.rpartition("/")
    return (head, member) if head.endswith(".toml") or head in recipe_names() else (name, "")


def _table(name: str) -> dict[str, Any]:
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise RecipeError(f"{name}: no such recipe file")
        try:
            text = load_text(Path(name))
        except (OSError, ValueError) as error:
            raise RecipeError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    elif name in recipe_names():
        text = _FOLDER.joinpath(f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).exists() and not Path(name).is_dir():
        raise RecipeError(f"{name}: a recipe is a file whose name ends in .toml; copy or rename it")
    else:
        _refuse_ensemble(name)
        is_file = Path(f"{name}.toml").is_file()
        hint = f"; did you mean the file '{name}.toml'?" if is_file else suggest(name, recipe_names())
        raise RecipeError(f"unknown recipe {name!r}{hint or '; a file ends in .toml'} (`mien recipes` lists them)")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"recipe {name}: not valid TOML: {first_line(error)}") from error


def _refuse_ensemble(name: str) -> None:
    """Say how an embedded model that is the mean of several runs was made: it has no recipe of its own."""
    card = BUNDLED / name / "card.json"
    if Path(name).name == name and card.is_file():
        parts = load_json(card).get("parts", ())
        commands = "; ".join(part["command"] for part in parts)
        raise RecipeError(
            f"{name} is no recipe, but the mean of {len(parts)} runs, trained with: {commands}. "
            "Join the runs with `mien ensemble` and write the model with `mien export` (docs/how-to/reproduce.md)"
        )


def _member(name: str, grid: Mapping[str, Any], member: str) -> dict[str, Any]:
    """The overrides of one member of a family."""
    known = _combinations(name, grid)
    if not grid:
        raise RecipeError(f"recipe {name} is no family: it has no member {member!r}")
    if not member:
        raise RecipeError(f"recipe {name} is a family of {len(known)}; name one: {name}/{next(iter(known))}, ...")
    if member not in known:
        raise RecipeError(
            f"recipe {name} has no member {member!r}{suggest(member, list(known))} (`mien recipes {name}` lists them)"
        )
    return known[member]


def _combinations(name: str, grid: Any) -> dict[str, dict[str, Any]]:
    """Member -> its overrides, for all combinations of values in the order of the file."""
    axes = list(grid.values()) if isinstance(grid, Mapping) else [grid]
    if not all(isinstance(axis, Mapping) and all(isinstance(v, Mapping) for v in axis.values()) for axis in axes):
        raise RecipeError(f"recipe {name}: [grid.AXIS] holds one table of dotted overrides for each value of the axis")
    if (count := math.prod(map(len, axes))) > _MOST_MEMBERS:
        raise RecipeError(f"recipe {name}: its grid has {count:,} members, more than {_MOST_MEMBERS:,}")
    found = {}
    for values in itertools.product(*(axis.items() for axis in axes)) if axes else ():
        overrides = {key: value for _, table in values for key, value in table.items()}
        found["-".join(value for value, _ in values)] = overrides
    return found
