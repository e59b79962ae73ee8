"""How long from nothing to 70 % on PublicTest? The wall time of whole trainings, everything counted.

    python benchmarks/speedrun.py [--recipe speedrun] [--runs 5] [--target 0.70] [--accelerator auto]
                                  [--json results/RECIPE/DEVICE.json] [--keep FOLDER] [key=value ...]

The clock starts when the command `mien train RECIPE` is started in a process of its own: imports, reading FER-2013,
building and every epoch's judgement on PublicTest count. It is read when the log tells of the first epoch whose
averaged weights reach the target, and on the way of the first ones that reach 50, 55, 60, 65, 68 and 69 %. Then the
training is stopped; with `--keep` its folder stays, and `mien train RECIPE --out FOLDER/seed-N --seed N` ends its
course. Each run has its own seed; a run whose course ends below the target counts as not reached, and no mean is
given. No teacher, no weights from before: what a training is given is counted with it.

PublicTest is what the race is run on, so its accuracy is the best of several looks: no figure for a table of results.
The file is written after every run, and runs that stand in it are not run again; a file of another recipe, target or
machine is refused.
Use a quiet machine: on a processor the training takes all of its cores.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien._errors import DataError, MienError
from mien.lab import recipe as recipes
from mien.lab.data import find_fer2013, load_fer2013
from mien.lab.files import save_text
from mien.lab.provenance import provenance
from mien.lab.recipe import dump

STEPS = (0.50, 0.55, 0.60, 0.65, 0.68, 0.69)  # accuracies on the way
LOOK = 0.05  # seconds between two looks at the log
RECIPE = "speedrun"


@dataclass(frozen=True)
class Lap:
    """One epoch that the log told of, and the clock then."""

    seconds: float
    epoch: int
    accuracy: float


def main() -> int:
    """Run, print and write; exit status 1 where a run did not reach the target, 130 where it was stopped."""
    options = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no training outlives its race
    try:
        return race(options)
    except MienError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: a race is run from its start, so this run counts for nothing; --json keeps those before it")
        return 130


def race(options: argparse.Namespace) -> int:
    """All runs that are not in the file yet."""
    recipe = recipes.load(options.recipe, options.changes)
    origin = provenance(load_fer2013(find_fer2013(None)).sha256)
    said = dump(recipe) | {"about": ""}
    header = {"recipe": said, "target": options.target, "machine": origin["machine"]}
    rows = kept_rows(options.json, header) if options.json and options.json.is_file() else []
    for seed in range(len(rows), options.runs):
        row = run(seed, options)
        rows.append(row | {"commit": origin["commit"]})
        print(told(row), flush=True)
        result = {"what": __doc__.splitlines()[0]} | header | {"runs": rows, **summary(rows)} | origin
        if options.json:
            save_text(options.json, json.dumps(result, indent=1) + "\n")
    print(json.dumps(summary(rows)))
    return 0 if all(row["seconds"] for row in rows) else 1


def kept_rows(path: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs in the file ``path``. Raises ``DataError`` where it was written under another ``header``."""
    kept = json.loads(path.read_text("utf-8"))
    for key, value in json.loads(json.dumps(header)).items():  # as a file gives it back: a tuple as a list
        if _whole(kept.get(key)) != _whole(value):
            raise DataError(f"{path}: holds runs of another {key}; name another file with --json")
    rows: list[dict[str, Any]] = kept["runs"]
    return rows


def _whole(said: Any) -> Any:
    """A recipe with every key, of which an older file may lack some; all else as it is."""
    return recipes.parse(said, where="recipe") if isinstance(said, dict) else said


def run(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One training from the start of its process to the target, or to its end."""
    folder = options.keep / f"seed-{seed}" if options.keep else Path(tempfile.mkdtemp(prefix="mien-speedrun-"))
    if (folder / "log.jsonl").exists():
        raise MienError(f"{folder} holds a run already; a race starts from nothing. Name another folder with --keep")
    command = [sys.executable, "-m", "mien", "train", options.recipe, *options.changes]
    started = time.perf_counter()
    training = subprocess.Popen(
        [*command, f"--seed={seed}", f"--out={folder}", f"--accelerator={options.accelerator}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        laps: list[Lap] = []
        for lap in watch(training, folder / "log.jsonl", started):
            laps.append(lap)
            if lap.accuracy >= options.target:
                break
        else:
            if training.returncode:
                raise MienError(f"the training failed: {training.stderr.read().strip().splitlines()[-1]}")
        return row_of(seed, laps, options.target)
    finally:
        end(training)
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def end(training: subprocess.Popen[str]) -> None:
    """Stop it, if it still runs. Not by SIGINT: what a shell starts with ``&`` ignores that, and so does its child."""
    training.terminate()
    training.communicate()


def watch(training: subprocess.Popen[str], log: Path, started: float) -> Iterator[Lap]:
    """Epochs as the log tells of them, until the training ends."""
    seen, over = 0, False
    while not over:
        over = training.poll() is not None  # before the look, so that the last line is not missed
        lines = log.read_text("utf-8").splitlines(keepends=True) if log.is_file() else []
        for line in (line for line in lines[seen:] if line.endswith("\n")):
            record = json.loads(line)
            seen += 1
            if "val_accuracy" in record:  # a recipe may judge every few epochs alone
                yield Lap(time.perf_counter() - started, record["epoch"], record["val_accuracy"])
        time.sleep(LOOK)


def row_of(seed: int, laps: Sequence[Lap], target: float) -> dict[str, Any]:
    """Seconds to the target and to the steps on the way; ``None`` for what was not reached."""
    best = max(laps, key=lambda lap: lap.accuracy)
    on_the_way = {f"{100 * step:.0f} %": first(laps, step) for step in STEPS if step < target}
    return {
        "seed": seed,
        "seconds": first(laps, target),
        "epochs": laps[-1].epoch,
        "accuracy": best.accuracy,
        "on_the_way": on_the_way,
        "ended_after": round(laps[-1].seconds, 1),
    }


def first(laps: Sequence[Lap], accuracy: float) -> float | None:
    """When the first epoch had this accuracy."""
    return next((round(lap.seconds, 1) for lap in laps if lap.accuracy >= accuracy), None)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of the seconds, where every run reached the target."""
    times = [row["seconds"] for row in rows if row["seconds"] is not None]
    said: dict[str, Any] = {"n": len(rows), "reached": len(times)}
    if rows and len(times) == len(rows):
        said["mean_seconds"] = round(statistics.fmean(times), 1)
        said["deviation_seconds"] = round(statistics.stdev(times), 1) if len(times) > 1 else None
    return said


def told(row: dict[str, Any]) -> str:
    """One line about a run."""
    steps = ", ".join(f"{name} after {value:,.0f} s" for name, value in row["on_the_way"].items() if value)
    goal = f"reached the target after {row['seconds']:,.1f} s" if row["seconds"] else "did not reach the target"
    return f"seed {row['seed']}: {goal}, {row['epochs']} epochs, at best {row['accuracy']:.2%} ({steps})"


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("changes", nargs="*", help="changes of the recipe, as in train.epochs=30")
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--target", type=float, default=0.70)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--keep", type=Path, help="folder for the runs, which are otherwise thrown away")
    parser.add_argument("--json", type=Path, help="file to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
