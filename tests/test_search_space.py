"""The space of a search, read strictly: wrong lines, absent spaces, and those of the shipped recipes."""

from pathlib import Path

import pytest

from mien._errors import RecipeError
from mien.lab import recipe as recipes
from mien.lab.search.space import Choices, Range, read_space
from support.search_recipe import tiny


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('"optimise.rat" = [0.1]', r"'optimise.rat' cannot be 0.1: .*unknown key 'rat'; did you mean 'rate'"),
        ('"optimise.rate" = { low = 1, high = 0.1 }', r"'optimise.rate': low \(1\) must be below high"),
        ('"optimise.rate" = { low = 0.1 }', "high is missing"),
        ('"optimise.rate" = { low = 0, high = 1, log = true }', "begins above 0"),
        ('"optimise.rate" = { low = "a", high = 1 }', "low is a number"),
        ('"optimise.rate" = { low = 0.1, high = 1, stp = 2 }', "unknown key 'stp'; did you mean 'step'"),
        ('"optimise.rate" = { low = 0.1, high = 1, step = 2 }', "step"),
        ('"optimise.rate" = { low = -0.1, high = 1 }', r"'optimise.rate' cannot be -0.1: .*rate is above 0"),
        ('"optimise.batch" = { low = 16.5, high = 32 }', "batch is of type int"),
        ('"optimise.batch" = []', "choices is a list of values"),
        ('"optimise.batch" = [32, 32]', "names a value twice"),
        ('"optimise.batch" = 32', "is a list of choices or a table"),
        ('"optimise.batch" = { choices = [32], low = 1 }', "choices stand alone"),
        ('objective = "recall"', "objective is one of accuracy, log_loss"),
        ('objective = "accuracy"', "names no key"),
    ],
)
def test_a_wrong_space_is_one_clear_line(line: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says):
        read_space(tiny(tmp_path, f"[search]\n{line}\n"))


def test_a_recipe_without_a_space_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"has no \[search\] section"):
        read_space(tiny(tmp_path, ""))


def test_the_space_is_what_the_file_says(tmp_path: Path) -> None:
    nested = '[search]\nobjective = "log_loss"\n[search.optimise]\nrate = { low = 0.1, high = 0.2 }\nbatch = [14, 28]\n'
    space = read_space(tiny(tmp_path, nested))
    assert space.keys == {"optimise.rate": Range(0.1, 0.2), "optimise.batch": Choices((14, 28))}
    assert space.direction == "minimize"
    # The recipe's own rate lies outside of the range, so the first trial starts from its batch alone.
    assert space.starting_point(recipes.load(str(tmp_path / "tiny.toml"))) == {"optimise.batch": "28"}


@pytest.mark.parametrize("name", [name for name in recipes.names() if recipes.search_space(name)])
def test_every_shipped_space_holds(name: str) -> None:
    assert read_space(name).keys
