"""Tables of docs/recipes.md, from the code that reads recipes: every key with its default and its comment."""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from mien.lab.recipe import Recipe, load, members, names
from mien.lab.recipe.text import describe


def sections() -> Iterator[tuple[str, type]]:
    """Heading and dataclass of every section of a recipe file, the keys above all sections first."""
    yield "", Recipe
    yield from _below(Recipe, "")


def _below(kind: type, path: str) -> Iterator[tuple[str, type]]:
    for key, hint in get_type_hints(kind).items():
        listed = bool(get_args(hint)) and is_dataclass(get_args(hint)[0])
        inner = get_args(hint)[0] if listed else hint
        if is_dataclass(inner):
            assert isinstance(inner, type)
            yield (f"[[{path}{key}]]" if listed else f"[{path}{key}]"), inner
            yield from _below(inner, f"{path}{key}.")


def keys(kind: type) -> list[tuple[str, str, str]]:
    """Key, default and meaning of every plain value of a section."""
    comments = _comments(kind)
    plain = [field for field in fields(kind) if not _is_section(kind, field)]
    return [(f"`{field.name}`", _default(field), comments.get(field.name, "")) for field in plain]


def _is_section(kind: type, field: Field[Any]) -> bool:
    hint = get_type_hints(kind)[field.name]
    return is_dataclass(hint) or (bool(get_args(hint)) and is_dataclass(get_args(hint)[0]))


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return f"`{describe(field.default)}`"
    return f"`{describe(field.default_factory())}`" if field.default_factory is not MISSING else ""


def _comments(kind: type) -> dict[str, str]:
    """Field -> the comment behind it in the source, over as many lines as it goes on."""
    found: dict[str, str] = {}
    key = ""
    for line in inspect.getsource(kind).splitlines():
        here = re.match(r"    (\w+): [^#]*(?:  # (.*))?$", line)
        further = re.match(r"    # (.*)$", line)
        if here:
            key = here[1]
            found[key] = here[2] or ""
        elif further and found.get(key):
            found[key] += f" {further[1]}"
        else:
            key = ""
    return {name: comment.replace("|", "\\|") for name, comment in found.items()}


def shipped() -> list[Sequence[str]]:
    """Name, document, variant, net, size and length of every recipe file."""
    rows = []
    for name in names():
        all_members = members(name)
        first = load(all_members[0])
        family = f" ({len(all_members)} members)" if all_members != (name,) else ""
        document = f"{first.claim.document} {first.claim.variant}".strip()
        net = ", ".join(dict.fromkeys(load(member).net.name for member in all_members))
        rows.append((f"`{name}`{family}", document, f"`{net}`", f"{first.data.size} px", str(_epochs(first))))
    return rows


def _epochs(recipe: Recipe) -> int:
    if not recipe.phases:
        return recipe.optimise.epochs
    return sum(phase.optimise.get("epochs", recipe.optimise.epochs) for phase in recipe.phases)
