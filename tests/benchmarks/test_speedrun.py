"""The speedrun to 70 % reads its clock correctly."""

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import speedrun
from mien._errors import MienError
from speedrun import Lap

LAPS = [Lap(10.0, 1, 0.48), Lap(20.0, 2, 0.62), Lap(30.0, 3, 0.61), Lap(40.0, 4, 0.705)]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """`main` hears SIGTERM in its own way; the other tests shall not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_first_epoch_that_reaches_an_accuracy_counts() -> None:
    row = speedrun.row_of(3, LAPS, 0.70)
    assert (row["seed"], row["seconds"], row["epochs"], row["accuracy"]) == (3, 40.0, 4, 0.705)
    assert row["on_the_way"] == {"50 %": 20.0, "55 %": 20.0, "60 %": 20.0, "65 %": 40.0, "68 %": 40.0, "69 %": 40.0}
    assert "reached the target after 40.0 s" in speedrun.to_line(row)


def test_a_course_that_ends_too_early_has_no_time_and_the_race_no_mean() -> None:
    short = speedrun.row_of(0, LAPS[:3], 0.70)
    assert short["seconds"] is None
    assert short["on_the_way"]["65 %"] is None
    assert "did not reach the target" in speedrun.to_line(short)
    whole = speedrun.row_of(1, LAPS, 0.70)
    assert speedrun.summary([short, whole]) == {"n": 2, "reached": 1}
    assert speedrun.summary([whole, whole | {"seconds": 42.0}]) == {
        "n": 2,
        "reached": 2,
        "mean_seconds": 41.0,
        "deviation_seconds": 1.4,
    }


WRITER = """
import json, sys, time
with open(sys.argv[1], "w", buffering=1) as log:
    for epoch, accuracy in enumerate((0.3, 0.5, 0.7), start=1):
        line = json.dumps({"epoch": epoch, "val_accuracy": accuracy})
        log.write(line[:9]); time.sleep(0.2); log.write(line[9:] + "\\n")
        log.write(json.dumps({"epoch": epoch}) + "\\n")  # an epoch that was not validated
"""


def test_epochs_are_seen_as_they_are_written_half_lines_and_the_last_one_too(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", WRITER, str(log)], stdout=subprocess.DEVNULL, text=True) as writer:
        laps = list(speedrun.watch(writer, log, started))
    assert [(lap.epoch, lap.accuracy) for lap in laps] == [(1, 0.3), (2, 0.5), (3, 0.7)]
    assert 0 < laps[0].seconds < laps[1].seconds < laps[2].seconds


def test_an_unknown_key_is_refused_before_the_clock_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["speedrun.py", "train.epochz=3"])
    assert speedrun.main() == 2
    assert "epochz" in capsys.readouterr().err


def test_a_race_goes_on_where_its_file_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, seeds = tmp_path / "race.json", list[int]()

    def ran(seed: int, _: Namespace) -> dict[str, Any]:
        seeds.append(seed)
        return speedrun.row_of(seed, LAPS, 0.70)

    monkeypatch.setattr(speedrun, "run", ran)
    monkeypatch.setattr(speedrun, "load_fer2013", lambda _: SimpleNamespace(sha256="0" * 64))
    monkeypatch.setattr(speedrun, "find_fer2013", lambda _: None)
    options = Namespace(recipe="speedrun", changes=[], keep=None, device="cpu", target=0.7, runs=1, json=file)
    assert speedrun.race(options) == 0
    assert speedrun.race(Namespace(**vars(options) | {"runs": 3})) == 0
    assert seeds == [0, 1, 2]
    assert json.loads(file.read_text("utf-8"))["n"] == 3
    older = json.loads(file.read_text("utf-8"))
    del older["recipe"]["tta"]  # as the files of a version before that key
    file.write_text(json.dumps(older), "utf-8")
    assert speedrun.race(Namespace(**vars(options) | {"runs": 4})) == 0
    assert seeds == [0, 1, 2, 3]
    before = file.read_bytes()
    with pytest.raises(MienError, match="holds runs of another recipe; name another file"):
        speedrun.race(Namespace(**vars(options) | {"changes": ["train.epochs=3"]}))
    with pytest.raises(MienError, match="holds runs of another recipe"):
        speedrun.race(Namespace(**vars(options) | {"recipe": "speedrun-muon"}))
    assert file.read_bytes() == before
    assert "seed 2: reached the target" in capsys.readouterr().out


def test_ctrl_c_ends_the_race_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["speedrun.py", "--keep", "nowhere"])
    monkeypatch.setattr(speedrun, "race", interrupted)
    assert speedrun.main() == 130
    assert capsys.readouterr().out.startswith("stopped; this run is lost")


def test_a_killed_race_ends_its_training_even_one_that_ignores_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    training = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert training.stdout
    assert training.stdout.readline() == "deaf\n"

    def killed(_: Namespace) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            speedrun.end(training)
        return 0

    monkeypatch.setattr(sys, "argv", ["speedrun.py", "--keep", "nowhere"])
    monkeypatch.setattr(speedrun, "race", killed)
    started = time.perf_counter()
    assert speedrun.main() == 130
    assert training.returncode == -signal.SIGTERM
    assert time.perf_counter() - started < 30
    assert capsys.readouterr().out.startswith("stopped; this run is lost")


def test_a_kept_run_is_never_taken_for_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "log.jsonl").write_text('{"epoch": 1, "val_accuracy": 0.9}\n', "utf-8")
    options = Namespace(recipe="speedrun", changes=[], keep=tmp_path, device="cpu", target=0.7)
    with pytest.raises(MienError, match="holds a run already"):
        speedrun.run(0, options)
