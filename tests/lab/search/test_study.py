"""The search: pruning, stopping, resuming, the resulting recipe, and search spaces."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from PIL import Image
from typer.testing import CliRunner

from mien._emotions import SEVEN
from mien._errors import DataError, RecipeError
from mien.commands import app
from mien.lab import nets
from mien.lab import recipe as recipes
from mien.lab.files import load_json
from mien.lab.search.space import Choices, Range, read_space
from mien.lab.search.study import SearchPlan, TrialEvent, open_study, run_search, write_results
from mien.lab.train.devices import Devices
from mien.lab.train.logging import read_log
from mien.lab.train.loop import fit
from support.short_runs import ONE_BLOCK_RECIPE
from support.synthetic_faces import cartoon_set
from support.written_files import foreign_files

TINY = f"""
name = "tiny"
{ONE_BLOCK_RECIPE}
[claim]
document = "004"
variant = "faithful"
"""
SPACE = """
[search]
"train.lr" = { low = 1e-4, high = 1e-2, log = true }
"train.batch_size" = [14, 28]
"net.options.widths" = [[16], [32]]
"train.epochs" = { low = 1, high = 2 }
"""


def tiny(folder: Path, space: str = SPACE) -> str:
    """A small recipe with ``space``, written to ``folder``: its name for `mien search`."""
    path = folder / "tiny.toml"
    path.write_text(TINY + space)
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder of images."""
    root = tmp_path_factory.mktemp("images")
    faces = cartoon_set(per_split=(84, 0, 0))
    for number, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        folder = root / str(SEVEN[int(label)])
        folder.mkdir(exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{number}.png")
    return root


@pytest.fixture
def plan(images: Path, tmp_path: Path) -> Callable[..., SearchPlan]:
    name = tiny(tmp_path)
    return lambda **more: SearchPlan(name, tmp_path / "out", data=images, accelerator="cpu", **more)


def test_a_search_continues_to_its_number_of_trials_and_ends_in_a_recipe(
    plan: Callable[..., SearchPlan], tmp_path: Path
) -> None:
    events: list[TrialEvent] = []
    run_search(plan(trials=2), events.append)
    run_search(plan(trials=5), events.append)
    run_search(plan(trials=5), events.append)  # all trials are finished
    ends = [event for event in events if event.state != "running"]
    assert [event.trial for event in ends] == [0, 1, 2, 3, 4]
    assert ends[0].params | {"train.lr": 3e-3, "train.batch_size": 28} == ends[0].params  # the recipe itself
    assert len({json.dumps(event.params) for event in ends}) > 3

    found = write_results(plan(trials=5))
    assert foreign_files(*(tmp_path / "out").glob("*.*[!b]")) == []  # all but study.db, which Optuna keeps
    assert found["counts"] == {"finished": 5, "pruned": 0}
    assert found["trials"][0]["value"] == max(event.value for event in ends)
    assert load_json(tmp_path / "out" / "search.json") == found
    assert {"command", "commit", "data_sha256", "machine"} <= set(found)
    best = recipes.load(str(tmp_path / "out" / "best.toml"))
    assert best.train.lr == found["trials"][0]["params"]["train.lr"]
    assert best.net.options["widths"] == found["trials"][0]["params"]["net.options.widths"]
    assert best.name == "tiny-best"
    assert best.claim.variant == "tuned"
    assert "seed 0" in best.about
    for plot in ("history.png", "importance.png"):
        with Image.open(tmp_path / "out" / plot) as image:
            assert image.width > 600
    files = {path.name for path in (tmp_path / "out" / "trials").rglob("*") if path.is_file()}
    assert files == {"log.jsonl", "recipe.json"}


def test_the_same_seed_makes_the_same_search(images: Path, tmp_path: Path) -> None:
    def made(out: str) -> list[tuple]:
        events: list[TrialEvent] = []
        run_search(SearchPlan(tiny(tmp_path), tmp_path / out, data=images, trials=2, accelerator="cpu"), events.append)
        return [(event.params, event.value) for event in events if event.state != "running"]

    assert made("one") == made("two")


def test_the_largest_seed_is_taken_by_every_worker(plan: Callable[..., SearchPlan]) -> None:
    with open_study(plan(seed=2**32 - 1), worker=3) as study:
        assert 0 <= study.ask().suggest_float("x", 0, 1) <= 1


def test_an_interrupted_trial_resumes(plan: Callable[..., SearchPlan], tmp_path: Path) -> None:
    def stop(event: TrialEvent) -> None:
        if event.trial == 0 and event.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(plan(trials=1), stop)
    assert (tmp_path / "out" / "trials" / "0000" / "checkpoint.pt").is_file()
    events: list[TrialEvent] = []
    run_search(plan(trials=1), events.append)
    assert [event.epoch for event in events if event.epoch] in ([2], [])  # the first epoch is not repeated
    assert events[-1].state == "finished"
    with open_study(plan(trials=1)) as study:
        states = [trial.state.name for trial in study.trials]
        steps = list(study.trials[-1].intermediate_values)
    assert states == ["FAIL", "COMPLETE"]
    assert steps[0] == 1
    assert [path.name for path in (tmp_path / "out" / "trials").iterdir()] == ["0000"]


def test_a_folder_of_another_search_is_refused(plan: Callable[..., SearchPlan], tmp_path: Path) -> None:
    run_search(plan(trials=1))
    tiny(tmp_path, SPACE.replace("1e-4", "1e-3"))
    with pytest.raises(DataError, match="another recipe, seed or space"):
        run_search(plan(trials=2))


def test_a_search_is_not_continued_with_other_faces(
    plan: Callable[..., SearchPlan], images: Path, tmp_path: Path
) -> None:
    run_search(plan(trials=1))
    shutil.copytree(images, tmp_path / "other")
    next((tmp_path / "other" / "happy").iterdir()).unlink()
    with pytest.raises(DataError, match="holds a search on other faces"):
        run_search(replace(plan(trials=2), data=tmp_path / "other"))


def test_the_first_trial_has_the_default_of_the_net_if_the_recipe_sets_no_value(tmp_path: Path) -> None:
    name = tiny(tmp_path, '[search]\n"net.options.block" = ["plain", "residual"]\n')
    space, recipe = read_space(name), recipes.load(name)
    assert "block" not in recipe.net.options
    assert space.shown(space.starting_point(recipe)) == {"net.options.block": "residual"}
    assert nets.default("mien", "nothing") is None


@pytest.mark.parametrize(
    ("choices", "value", "stored"),
    [
        ((0, 0.2), 0.0, "0"),
        ((0.0, 0.2), 0, "0.0"),
        (([10, 60], [20, 60]), [10.0, 60.0], "[10, 60]"),
        ((0, 1, True), True, "true"),
        ((0, 1), False, None),
        (("a", "b"), "c", None),
    ],
)
def test_a_value_is_stored_as_the_equal_choice(choices: tuple, value: object, stored: str | None) -> None:
    assert Choices(choices).stored(value) == stored


@pytest.mark.parametrize(
    ("space", "cause"),
    [
        # Alone, each value fits the recipe; together, the first pair fails as it is read, the second in its training.
        ('"augment.min_crop_area" = [0.5]\n"augment.n_crops" = [5]', "n_crops"),
        ('"net.options.block" = ["plain"]\n"net.options.drop_path" = [0.1]', "drop_path need block"),
    ],
)
def test_a_trial_of_values_that_do_not_fit_each_other_ends_and_the_search_goes_on(
    space: str, cause: str, images: Path, tmp_path: Path
) -> None:
    plan = SearchPlan(tiny(tmp_path, f"[search]\n{space}\n"), tmp_path / "out", data=images, trials=2, seed=1)
    events: list[TrialEvent] = []
    run_search(replace(plan, accelerator="cpu"), events.append)
    assert [(event.trial, event.completed) for event in events] == [(0, 1), (1, 2)]
    assert all(event.state.startswith("invalid (") and cause in event.state for event in events)
    assert write_results(plan)["counts"] == {"finished": 0, "pruned": 2}


def test_a_trial_is_stopped_within_its_training_and_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    def prune(record: dict) -> None:
        if record.epoch == 1:
            raise optuna.TrialPruned

    chosen, faces = recipes.load(tiny(tmp_path)), cartoon_set(per_split=(56, 28, 0))
    with pytest.raises(optuna.TrialPruned):
        fit(chosen, faces, tmp_path / "run", devices=Devices("cpu"), on_epoch=prune)
    assert fit(chosen, faces, tmp_path / "run", devices=Devices("cpu"))
    assert [record.epoch for record in read_log(tmp_path / "run")] == [1, 2]


def test_trials_worse_than_the_median_are_pruned(images: Path, tmp_path: Path) -> None:
    rates = "[3e-3, 4e-3, 5e-3, 1e-9]"  # with the last one, nothing is learned
    name = tiny(tmp_path, f'[search]\nobjective = "log_loss"\n"train.lr" = {rates}\n')
    out = SearchPlan(name, tmp_path / "out", ("train.epochs=5",), images, trials=9, accelerator="cpu")
    run_search(out)
    rows = write_results(out)["trials"]
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert all(row["epochs"] < 5 and row["value"] is None for row in pruned)
    assert all(row["epochs"] == 5 for row in rows if row["state"] == "finished")
    assert pruned
    with open_study(out) as study:
        steps = {trial.number: trial.intermediate_values for trial in study.trials}
    for row in pruned:
        others = [steps[other["trial"]][row["epochs"]] for other in rows if other["state"] == "finished"]
        assert min(steps[row["trial"]].values()) > min(others)


@pytest.mark.parametrize("trials", [1, pytest.param(2, marks=pytest.mark.release)])  # a process for each trial
def test_worker_processes_share_the_trials(plan: Callable[..., SearchPlan], trials: int) -> None:
    events: list[TrialEvent] = []
    run_search(plan(trials=trials, workers=2), events.append)
    ends = [event for event in events if event.state != "running"]
    assert sorted(event.trial for event in ends) == list(range(trials))
    assert all(event.state == "finished" for event in ends)


def test_an_error_of_a_worker_is_reported(plan: Callable[..., SearchPlan], tmp_path: Path) -> None:
    lost = SearchPlan(
        plan().recipe, tmp_path / "lost", data=tmp_path / "nowhere", trials=2, workers=2, accelerator="cpu"
    )
    with pytest.raises(Exception, match="nowhere"):
        run_search(lost)


def test_the_command_shows_the_best_trials_and_names_their_recipe(images: Path, tmp_path: Path) -> None:
    words = ["search", tiny(tmp_path), "train.ema_decay=0.5", "--data", str(images), "--trials", "2", "--seed", "7"]
    done = CliRunner().invoke(app, [*words, "--device", "cpu", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    heads, *rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    assert heads == ["trial", "accuracy", "lr", "batch_size", "widths", "epochs", "epochs", "seconds"]
    assert len(rows) == 2
    assert "2 trials finished, 0 pruned" in done.stdout
    assert f"mien train {tmp_path / 'out' / 'best.toml'}" in done.stdout
    best = recipes.load(str(tmp_path / "out" / "best.toml"))
    assert best.train.ema_decay == 0.5
    assert "train.ema_decay=0.5" in best.about
    refused = CliRunner().invoke(app, ["search", "conv4"])
    assert refused.exit_code == 2
    assert "has no [search] section" in refused.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"train.lrr" = [0.1]', r"'train.lrr' cannot be 0.1: .*unknown key 'lrr'; did you mean 'lr'"),
        ('"train.lr" = { low = 1, high = 0.1 }', r"'train.lr': low \(1\) must be below high"),
        ('"train.lr" = { low = 0.1 }', "high is missing"),
        ('"train.lr" = { low = 0, high = 1, log = true }', "starts above 0"),
        ('"train.lr" = { low = "a", high = 1 }', "low is a number"),
        ('"train.lr" = { low = 0.1, high = 1, stp = 2 }', "unknown key 'stp'; did you mean 'step'"),
        ('"train.lr" = { low = 0.1, high = 1, step = 2 }', "step"),
        ('"train.lr" = { low = -0.1, high = 1 }', r"'train.lr' cannot be -0.1: .*lr is in \(0, inf\)"),
        ('"train.batch_size" = { low = 16.5, high = 32 }', "batch_size is of type int"),
        ('"train.batch_size" = []', "choices is a list of values"),
        ('"train.batch_size" = [32, 32]', "names a value twice"),
        ('"train.batch_size" = 32', "is a list of choices or a table"),
        ('"train.batch_size" = { choices = [32], low = 1 }', "choices cannot have low"),
        ('objective = "recall"', "objective is one of accuracy, log_loss"),
        ('objective = "accuracy"', "names no key"),
    ],
)
def test_a_wrong_space_is_one_clear_line(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        read_space(tiny(tmp_path, f"[search]\n{line}\n"))


def test_the_error_for_a_recipe_without_a_space_explains_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"has no \[search\] section"):
        read_space(tiny(tmp_path, ""))


def test_the_space_is_that_of_the_file(tmp_path: Path) -> None:
    nested = '[search]\nobjective = "log_loss"\n[search.train]\nlr = { low = 0.1, high = 0.2 }\nbatch_size = [14, 28]\n'
    space = read_space(tiny(tmp_path, nested))
    assert space.keys == {"train.lr": Range(0.1, 0.2), "train.batch_size": Choices((14, 28))}
    assert space.direction == "minimize"
    # The learning rate of the recipe is outside of the range, so only its batch size is in the first trial.
    assert space.starting_point(recipes.load(str(tmp_path / "tiny.toml"))) == {"train.batch_size": "28"}


@pytest.mark.parametrize("name", [name for name in recipes.recipe_names() if recipes.search_space(name)])
def test_every_shipped_space_is_valid(name: str) -> None:
    assert read_space(name).keys
