"""`mien recipes` lists every recipe and explains each."""

import json
import re
import sys
import tomllib
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from mien.commands import app
from mien.commands import recipes as command
from mien.commands._terminal import print_table
from mien.lab import recipe as recipes
from mien.lab.nets import count_parameters
from mien.lab.recipe.load import as_toml
from mien.lab.recipe_summary import explanation, first_sentence
from mien.lab.train.run import build_net

FILES = recipes.recipe_names()
MEMBERS = [member for name in FILES for member in recipes.members(name)]


def mien(*words: str) -> Result:
    return CliRunner().invoke(app, ["recipes", *words])


def test_the_list_holds_every_recipe_on_a_line_of_its_own() -> None:
    done = mien()
    assert done.exit_code == 0
    heads, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert heads == ["recipe", "net", "classes", "size", "document", "claims", "about"]
    assert sorted(row[0] for row in rows) == sorted(FILES)
    by_name = {row[0]: row for row in rows}
    assert by_name["conv4"][1:6] == ["conv4", "seven", "48", "004 faithful", "accuracy 51.80 %"]
    for name in FILES:
        count = len(recipes.members(name))
        assert count == 1 or f"({count} members)" in by_name[name][6]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(mien("--json").stdout)["recipes"]
    return listed


def test_the_list_as_json_has_the_same_recipes_with_their_claims(rows: list[dict[str, Any]]) -> None:
    listed = {row["name"]: row for row in rows}
    assert set(listed) == set(FILES)
    assert listed["conv4"]["metrics"]["accuracy"] == 0.518
    assert listed["conv4"]["members"] == 0


# A family, phases, a search space, an ensemble, and one of a kind; the others before a release.
OFTEN = {"attention-resnet", "conv4", "hybrid-ablation-narrow", "hybrid-resnet50", "mien-0", "speedrun"}


@pytest.mark.parametrize(
    "name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.release) for name in FILES]
)
def test_every_recipe_is_explained(name: str) -> None:
    done = mien(name)
    assert done.exit_code == 0, done.output
    first = recipes.load(recipes.members(name)[0])
    text = " ".join(done.stdout.split())
    assert " ".join(first.about.split())[:60] in text
    assert "M parameters" in text
    for member in recipes.members(name):
        assert member in text
    for phase in first.phases:
        assert phase.name in text
    for key in recipes.search_space(name):
        assert key in text


def test_parameters_are_those_of_the_net_and_counting_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    net = explanation("conv4")["net"]
    assert torch.equal(torch.get_rng_state(), before)
    assert net["parameters"] == sum(p.numel() for p in build_net(recipes.load("conv4")).parameters())
    assert net["macs"] > 1e8


def test_each_member_has_the_cost_of_its_own_net() -> None:
    members = explanation("shape")["members"]
    counts = [count_parameters(build_net(recipes.load(member["name"]))) for member in members]
    assert [member["net"]["parameters"] for member in members] == counts
    assert len(set(counts)) > 4


def test_one_recipe_as_json_is_complete_and_takes_overrides() -> None:
    explained = json.loads(mien("conv4", "data.size=64", "--json").stdout)
    assert explained["recipe"]["data"]["size"] == 64
    assert explained["net"]["size"] == 64
    assert recipes.parse(explained["recipe"], where="json") == recipes.load("conv4", ["data.size=64"])


def test_all_shows_the_defaults_too() -> None:
    short, whole = mien("conv4").stdout, mien("conv4", "--all").stdout
    assert "patience" not in short
    assert "patience = 5" in whole


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("whole", [False, True])
def test_a_recipe_written_as_toml_loads_as_the_same_recipe(name: str, whole: bool) -> None:
    chosen = recipes.load(name)
    assert recipes.parse(tomllib.loads(as_toml(chosen, whole=whole)), where=name) == chosen


def test_words_of_any_kind_survive_the_toml(tmp_path) -> None:
    path = tmp_path / "x.toml"
    about = 'One "word",\nthree quotes """, a back\\slash and an umlaut: ä.\n'
    path.write_text(f'name = "x"\nabout = {json.dumps(about)}\n[data]\nlabels = {{ "a b" = "happy" }}\n')
    chosen = recipes.load(str(path))
    assert chosen.about == about
    assert recipes.parse(tomllib.loads(as_toml(chosen)), where="x") == chosen


def test_an_unknown_recipe_is_one_line_and_status_two() -> None:
    done = mien("conv5")
    assert done.exit_code == 2
    assert "did you mean 'conv4'" in done.output


def test_a_file_named_without_its_ending_is_recognised(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('name = "mine"\nabout = "Own."\n')
    done = mien("mine")
    assert done.exit_code == 2
    assert "did you mean the file 'mine.toml'?" in done.output


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    print_table(("recipe", "about"), [("conv4", "The four-layer CNN " * 10)], fold=(1,))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) > 4


@pytest.mark.parametrize("width", [60, 80, 100, 140, 160])
def test_the_list_fits_the_terminal_and_keeps_what_matters(
    width: int, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    command._print_list(rows)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    [conv4] = [line for line in lines if line.startswith(("conv4 ", " conv4 "))]
    assert "accuracy 51.80 %" in conv4
    assert ("The four-layer CNN" in conv4) == (width >= 160)


@pytest.mark.parametrize(
    ("about", "first"),
    [
        ("One. Two.", "One"),
        ("A net: with parts.", "A net"),
        ("Up to 0.5 of it.", "Up to 0.5 of it"),
        ("No end", "No end"),
    ],
)
def test_the_first_sentence_summarises_the_description(about: str, first: str) -> None:
    assert first_sentence(about) == first
