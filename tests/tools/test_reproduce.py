"""The queue of trainings: recipes exist, finished runs are known, and runs travel whole."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

import reproduce
from mien import DataError
from mien.lab.recipe import dump, load, members, parse
from mien.lab.recipe_summary import explanation
from support.paths import ROOT

ENTRY = '[[run]]\nrecipe = "{}"\nseeds = [0, 1]\non = "{}"\nminutes = 3\nwhy = "a reason"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "queue.toml"
    path.write_text(text)
    return path


def test_the_queue_is_listed_with_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["reproduce.py", "--list"])
    assert reproduce.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(reproduce.read_queue()) + 1
    assert lines[-1].startswith("left: ")
    assert {line.split()[0] for line in lines[:-1]} <= {"done", "trained", "begun", "to"}


@pytest.mark.parametrize(
    ("only", "status", "expected"),
    [
        ("nosuch", 2, "results/queue.toml has no training that begins with 'nosuch'"),
        ("attention-resnet-128", 0, "nothing to do for one core: 1 found, all in results/ or for another place"),
    ],
)
def test_a_call_without_a_training_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], only: str, status: int, expected: str
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["reproduce.py", "--only", only])
    assert reproduce.main() == status
    assert expected in "".join(capsys.readouterr())


def test_a_list_of_which_nobody_reads_the_end_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "tools/reproduce.py", "--list"]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_no_training_is_wanted_twice() -> None:
    runs = [(training.run, training.on) for training in reproduce.read_queue()]
    assert len(set(runs)) == len(runs)


# The networks of the documents that are too large for a core, and the course that mien-1 lacks.
TRUE_SIZE = {"resnet18-64", "attention-resnet", "attention-resnet-leaky", "hybrid-resnet50-tuned", "hybrid-resnet50"}
TRUE_SIZE |= {"hybrid-resnet50-scratch", "hybrid-resnet50-meant", "efficientnet-b3", "xception", "mobilenetv3-small"}
TRUE_SIZE |= {"mien-1-long", "teacher-vgg", "teacher-resnet", "teacher-squeeze", *members("vgg-vs-resnet")}
RATE = 17e12  # multiplications and additions a second, as results/queue.toml says


def test_the_queue_has_every_net_at_its_true_size_with_its_cost() -> None:
    queue = [each for each in reproduce.read_queue() if each.on == "accelerator"]
    assert {each.member for each in queue} >= TRUE_SIZE
    seeds = {each.seed for each in queue if each.member in ("resnet18-64", "attention-resnet", "hybrid-resnet50-tuned")}
    assert seeds == {0, 1, 2}
    for each in (each for each in queue if not each.folds):
        assert each.mmacs > 0, each.member
        recipe = load(each.member)
        epochs = sum(phase.train.get("epochs", 0) for phase in recipe.phases) or recipe.train.epochs
        least = 6e6 * each.mmacs * epochs * 14_000 / RATE / 60  # of the smallest class set, before any expansion
        assert each.minutes > 0.5 * least, each.member


def mean_mmacs(recipe: str) -> float:
    """Millions of multiply-accumulates of a recipe; of a family the mean."""
    found = explanation(recipe)
    nets = [member["net"] for member in found["members"]] or [found["net"]]
    return float(fmean(net["macs"] for net in nets) / 1e6)


@pytest.mark.parametrize("recipe", ["conv4", "attention-resnet"])
def test_the_cost_in_the_queue_is_that_of_the_net(recipe: str) -> None:
    (mmacs,) = {each.mmacs for each in reproduce.read_queue() if each.member == recipe and each.mmacs}
    assert mmacs == pytest.approx(mean_mmacs(recipe), abs=0.06)


@pytest.mark.release
def test_every_cost_in_the_queue_is_that_of_its_net() -> None:
    known = {each.member.partition("/")[0]: each.mmacs for each in reproduce.read_queue() if each.mmacs}
    assert {name: mean_mmacs(name) for name in known} == pytest.approx(known, abs=0.06)


def test_a_leaky_run_is_done_without_private_test(tmp_path: Path) -> None:
    training = reproduce.read_queue(write(tmp_path, ENTRY.format("attention-resnet-leaky", "core")))[0]
    (tmp_path / training.run).mkdir(parents=True)
    (tmp_path / training.run / "metrics.json").write_text('{"metrics": {"leaky": {}}}')
    assert reproduce.is_done(training, tmp_path)


def test_a_family_is_its_members_and_each_seed_a_training(tmp_path: Path) -> None:
    queue = reproduce.read_queue(write(tmp_path, ENTRY.format("conv4-ideas", "core")))
    assert [training.seed for training in queue] == [0] * 4 + [1] * 4
    assert queue[0].member == "conv4-ideas/published"
    assert queue[0].run == Path("conv4-ideas/published/seed-0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no queue"),
        ("[[run]\n", "no queue"),
        ('[[run]]\nrecipe = "conv4"\n', "a run has recipe, seeds, on, minutes and why"),
        (ENTRY.format("conv4", "moon"), "on is one of core, accelerator, not 'moon'"),
    ],
)
def test_a_wrong_queue_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        reproduce.read_queue(write(tmp_path, text))


def test_only_runs_evaluated_on_privatetest_are_done(tmp_path: Path) -> None:
    training = reproduce.read_queue(write(tmp_path, ENTRY.format("conv4", "core")))[0]
    assert not reproduce.is_done(training, tmp_path)
    place = tmp_path / training.run
    place.mkdir(parents=True)
    start = dataclasses.replace(training, final=False)
    for evaluated, done in (('{"public": {}}', False), ('{"public": {}, "private": {}}', True)):
        (place / "metrics.json").write_text(f'{{"metrics": {evaluated}}}')
        assert reproduce.is_done(training, tmp_path) == done
        assert reproduce.is_done(start, tmp_path)


def test_a_parcel_brings_finished_runs_without_their_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished, begun = reproduce.read_queue(write(tmp_path, ENTRY.format("conv4", "core")))
    there, here, parcel = tmp_path / "there", tmp_path / "here", tmp_path / "parcel"
    for training, files in ((finished, ("final.pt", "checkpoint.pt")), (begun, ("checkpoint.pt",))):
        (there / training.run).mkdir(parents=True)
        for name in files:
            (there / training.run / name).write_bytes(bytes(range(256)) * 10)
    monkeypatch.setattr(reproduce, "RUNS", there)
    monkeypatch.setattr(reproduce, "PART", 100)  # bytes, so that there are several parts
    reproduce.parcel([finished, begun], parcel)
    assert len(list(parcel.iterdir())) > 1
    monkeypatch.setattr(reproduce, "RUNS", here)
    assert reproduce.unpack(parcel) == 0
    assert capsys.readouterr().out.split() == ["conv4/seed-0", "conv4/seed-1"]
    assert sorted(path.name for path in (here / finished.run).iterdir()) == ["final.pt"]
    assert (here / begun.run / "checkpoint.pt").read_bytes() == bytes(range(256)) * 10
    next(iter(sorted(parcel.iterdir()))).unlink()
    with pytest.raises(DataError, match="not a complete parcel"):
        reproduce.unpack(parcel)


def recipe_file(folder: Path, name: str, weights: str = "") -> reproduce.Training:
    """A training whose net starts from the run ``weights``."""
    table = dump(load("conv4")) | {"name": name}
    table["net"]["weights"] = weights
    path = folder / f"{name}.json"
    path.write_text(json.dumps(table))
    return reproduce.Training(str(path), name, 0, "core", 1, "a test")


@pytest.fixture
def trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs of trainings that take a second, and keep when they began and ended."""
    script = """
import sys, time, pathlib
begun, run = time.monotonic(), pathlib.Path(sys.argv[1])
time.sleep(1)
run.mkdir(parents=True, exist_ok=True)
(run / "final.pt").touch()
(run / "times").write_text(f"{begun} {time.monotonic()}")
sys.exit(3 if "fails" in str(run) else 0)
"""
    monkeypatch.setattr(reproduce, "load", lambda path: parse(json.loads(Path(path).read_text()), where=path))
    runs, python = tmp_path / "runs", [sys.executable, "-c", script]
    monkeypatch.setattr(
        reproduce, "_start", lambda arguments, *_: subprocess.Popen([*python, str(runs / arguments[0] / "seed-0")])
    )
    return runs


def times(run: Path) -> tuple[float, float]:
    begun, ended = (run / "seed-0" / "times").read_text().split()
    return float(begun), float(ended)


def test_trainings_run_side_by_side_and_each_waits_for_what_it_starts_from(tmp_path: Path, trains: Path) -> None:
    queue = [recipe_file(tmp_path, "second", "runs/first/seed-0")]
    queue += [recipe_file(tmp_path, name) for name in ("first", "other", "fails")]
    found = reproduce.run_queue(queue, 2, lambda training: [training.name], root=tmp_path, runs=trains)
    assert {training.name: status for training, status in found} == {"second": 0, "first": 0, "other": 0, "fails": 3}
    assert times(trains / "first")[0] < times(trains / "other")[1]
    assert times(trains / "other")[0] < times(trains / "first")[1]
    assert times(trains / "second")[0] > times(trains / "first")[1]


def test_a_training_without_a_source_of_its_starting_weights_is_reported(
    tmp_path: Path, trains: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    queue = [recipe_file(tmp_path, "second", "runs/first/seed-0"), recipe_file(tmp_path, "other")]
    found = dict(reproduce.run_queue(queue, 1, lambda training: [training.name], root=tmp_path, runs=trains))
    assert found == {queue[1]: 0, queue[0]: reproduce.UNREADY}
    assert "needs runs/first/seed-0; train that first" in capfd.readouterr().err


def test_nothing_begins_once_the_time_is_over(tmp_path: Path, trains: Path) -> None:
    queue = [recipe_file(tmp_path, name) for name in ("one", "two")]
    looks = iter([False, True, True])
    found = reproduce.run_queue(
        queue, 1, lambda training: [training.name], root=tmp_path, runs=trains, is_over=lambda: next(looks)
    )
    assert [training.name for training, _ in found] == ["one"]
