"""docs/reference/systems.md names recipes, keys and files that exist, and covers all five documents."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import get_args, get_type_hints

import pytest

from mien.lab.recipe import Recipe, load, members, recipe_names, search_space
from support.paths import ROOT

PAGE = (ROOT / "docs" / "reference/systems.md").read_text("utf-8")
LAB = ROOT / "src" / "mien" / "lab"
VERDICTS = ("faithful", "changed", "not run", "run", "measured", "in every card", "other documents", "as tools")


def recipe_keys(kind: type, path: str = "") -> Iterator[str]:
    """Every dotted key of a recipe, and every section."""
    for each in fields(kind):
        hint = get_type_hints(kind)[each.name]
        inner = next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None)
        yield path + each.name
        yield from recipe_keys(inner, f"{path}{each.name}.") if inner else ()


KEYS = set(recipe_keys(Recipe))
NAMES = {name for shipped in recipe_names() for name in (shipped, *members(shipped))}


def statements(document: str) -> list[list[str]]:
    """The rows of the table of statements of a document."""
    section = PAGE.split(f"\n## {document}: ")[1].split("\n## ")[0]
    table = section.split("| statement | code | here |\n| --- | --- | --- |\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def is_there(token: str) -> bool:
    """Whether a name in the column *code* is a recipe, a key of recipes, a file or folder of the lab, or a search."""
    if token == "[search]":
        return bool(search_space("resnet18-64"))
    path = LAB / token
    return token in NAMES or token in KEYS or path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize(("document", "at_least"), [("000", 18), ("001", 36), ("002", 20), ("003", 19), ("004", 16)])
def test_every_statement_has_its_place_in_the_code_and_a_verdict(document: str, at_least: int) -> None:
    rows = statements(document)
    assert len(rows) >= at_least
    for statement, code, here in rows:
        tokens = re.findall(r"`([^`]+)`", code)
        assert tokens, statement
        assert [token for token in tokens if not is_there(token)] == [], statement
        assert here.startswith(VERDICTS), statement


def test_every_recipe_and_option_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+(?:/[a-z-]+)?)`", PAGE))
    suffixes = {"six-no-neutral", "six-no-disgust"}
    assert {name for name in named - suffixes if name not in NAMES} == set()
    for option in re.findall(r"`net\.options\.(\w+)=", PAGE):
        assert option in load("attention-resnet").net.options


def test_a_place_that_does_not_exist_is_noticed() -> None:
    assert not any(map(is_there, ("resnet18-65", "train.optimiser", "nets/resnet18", "augment.shears")))
