"""Recipes are read strictly, changed by dotted flags, and survive a round trip."""

import pytest

from mien._errors import RecipeError
from mien.lab import nets, recipe
from mien.lab.run import build

MINIMAL = 'name = "x"\nabout = "y"\n'


@pytest.mark.parametrize("name", recipe.names())
def test_every_shipped_recipe_loads_builds_and_survives_a_round_trip(name: str) -> None:
    loaded = recipe.load(name)
    assert loaded.name == name
    assert loaded.about.strip()
    assert recipe.parse(recipe.dump(loaded), where="test") == loaded
    assert isinstance(build(loaded), nets.Net)


def test_overrides_reach_sections_options_and_lists() -> None:
    changed = recipe.load(
        "mien-0", ["optimise.epochs=3", "net.options.widths=[16,32,48]", "augment.fill=zeros", "seed=7"]
    )
    assert changed.optimise.epochs == 3
    assert changed.net.options["widths"] == [16, 32, 48]
    assert changed.augment.fill == "zeros"
    assert changed.seed == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[optimise]\nepoch = 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("[optimize]\nepochs = 3", "did you mean 'optimise'?"),
        ('[optimise]\nepochs = "3"', "epochs is of type int"),
        ("[optimise]\nepochs = true", "epochs is of type int"),
        ("[optimise]\nepochs = 0", "epochs must be at least 1"),
        ('[data]\nclasses = "nine"', "data.classes is one of seven"),
        ('[augment]\nfill = "wrap"', "augment.fill"),
        ("[target]\nteach = 0.5", "target.teachers names no run"),
        ('[optimise]\nname = "lion"', "optimise.name"),
        ("optimise = 3", "is a section"),
        ("[augment]\nerase_area = 0.1", "is a list"),
        ("= 3", "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path, text: str, says: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(MINIMAL + text)
    with pytest.raises(RecipeError, match=says.replace("?", r"\?").replace("[", r"\[")):
        recipe.load(str(path))


def test_unknown_recipes_files_and_overrides_are_named(tmp_path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'mien-0'"):
        recipe.load("mien0")
    with pytest.raises(RecipeError, match="no such recipe file"):
        recipe.load(str(tmp_path / "none.toml"))
    with pytest.raises(RecipeError, match=r"section\.key=value"):
        recipe.load("mien-0", ["epochs"])
    with pytest.raises(RecipeError, match="is not a section"):
        recipe.load("mien-0", ["name.x=1"])
    path = tmp_path / "short.toml"
    path.write_text('name = "x"\n')
    with pytest.raises(RecipeError, match="about"):
        recipe.load(str(path))


def test_unknown_nets_and_options_are_named() -> None:
    with pytest.raises(RecipeError, match="did you mean 'vgg'"):
        nets.build("vgg16", channels=1, classes=7)
    with pytest.raises(RecipeError, match="depht"):
        nets.build("vgg", channels=1, classes=7, depht=16)
    with pytest.raises(RecipeError, match="same length"):
        nets.build("mien", channels=1, classes=7, widths=[16])
    with pytest.raises(RecipeError, match="depth is one of"):
        nets.build("vgg", channels=1, classes=7, depth=12)
