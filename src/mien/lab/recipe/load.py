"""Recipe files, read and written: shipped ones by name, others by path, with overrides; families as a grid in one file.

A file may hold two sections beside those of the schema. ``[grid.AXIS]`` names the values of an axis, each a table of
dotted overrides; the members of the family are all combinations, ``FILE/value-value-...``. ``[search]`` is the space of
`mien search`. ``as_toml`` writes a recipe as text that ``load`` reads back.
"""

import itertools
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from mien._checksum import KEY
from mien._errors import RecipeError, checked, first_line
from mien._suggest import suggest
from mien.bundled import BUNDLED
from mien.lab.files import load_json, load_text
from mien.lab.recipe.schema import ExtraData, Phase, Recipe, read

_MOST_MEMBERS = 1000  # of a family
_FOLDER = resources.files("mien.lab").joinpath("recipes")
_WIDTH = 116  # of a line of TOML
_BARE = re.compile(r"[A-Za-z0-9_-]+")


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
    return {key: value for key, value in dotted(changed).items() if key not in ("name", "about")}


def training_differences(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    """Compare the trainings of two recipes, of which one may be another seed of the other.

    Args:
        recipe: The recipe.
        base: The recipe to compare it with.

    Returns:
        What ``differences`` returns, without seed, family and claim.
    """
    changed = differences(recipe, base).items()
    return {key: value for key, value in changed if not key.startswith(("family", "seed", "claim"))}


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


def dotted(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Flatten nested tables.

    Args:
        table: Plain values and tables.
        path: What each key begins with.

    Returns:
        The values by dotted key; an empty table is a value.
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= dotted(value, f"{path}{key}.") if isinstance(value, Mapping) and value else {f"{path}{key}": value}
    return found
