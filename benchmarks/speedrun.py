"""Wall time of whole trainings from random weights to 70 % on PublicTest.

    python benchmarks/speedrun.py [--recipe speedrun] [--runs 5] [--target 0.70] [--device auto]
                                  [--json results/RECIPE/DEVICE.json] [--keep FOLDER] [key=value ...]

The clock starts with the process of `mien train RECIPE`: imports, reading FER-2013, building the net and validating
every epoch on PublicTest count. It stops when the log holds the first epoch whose averaged weights reach the target.
The times to 50, 55, 60, 65, 68 and 69 % are recorded, too. Then the training is stopped; with `--keep` its folder
remains, and `mien train RECIPE --out FOLDER/seed-N --seed N` completes it. Each run has its own seed. A run that ends
below the target counts as not reached, and then no mean is computed. Teachers and pretrained weights are not allowed.

The race is run on PublicTest, so the accuracy is the best of several epochs: it does not belong in a table of results.
The file is written after every run, and its runs are not repeated; a file of another recipe, target or machine is
refused. Use an idle machine: on a CPU the training takes all cores.
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

STEPS = (0.50, 0.55, 0.60, 0.65, 0.68, 0.69)  # accuracies before the target
POLL_SECONDS = 0.05  # between two reads of the log
RECIPE = "speedrun"


@dataclass(frozen=True)
class Lap:
    """One epoch of the log, and the seconds since the start."""

    seconds: float
    epoch: int
    accuracy: float


def main() -> int:
    """Run, print and write; the exit status is 1 if a run did not reach the target, 130 if it was stopped."""
    options = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, so that no training outlives this process
    try:
        return race(options)
    except MienError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "stopped; this run is lost, because a race starts from nothing. The file of --json keeps the runs before it"
        )
        return 130


def race(options: argparse.Namespace) -> int:
    """All runs that are not in the file yet."""
    recipe = recipes.load(options.recipe, options.changes)
    origin = provenance(load_fer2013(find_fer2013(None)).sha256)
    recorded = dump(recipe) | {"about": ""}
    header = {"recipe": recorded, "target": options.target, "machine": origin["machine"]}
    rows = kept_rows(options.json, header) if options.json and options.json.is_file() else []
    for seed in range(len(rows), options.runs):
        row = run(seed, options)
        rows.append(row | {"commit": origin["commit"]})
        print(to_line(row), flush=True)
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


def _whole(value: Any) -> Any:
    """A recipe with every key, since an older file may lack some; any other value unchanged."""
    return recipes.parse(value, where="recipe") if isinstance(value, dict) else value


def run(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One training from the start of its process to the target, or to its end."""
    folder = options.keep / f"seed-{seed}" if options.keep else Path(tempfile.mkdtemp(prefix="mien-speedrun-"))
    if (folder / "log.jsonl").exists():
        raise MienError(f"{folder} holds a run already; a race starts from nothing; name another folder with --keep")
    command = [sys.executable, "-m", "mien", "train", options.recipe, *options.changes]
    started = time.perf_counter()
    training = subprocess.Popen(
        [*command, f"--seed={seed}", f"--out={folder}", f"--device={options.device}"],
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
    """Stop it if it still runs. SIGINT would not do: a process that a shell starts with ``&`` ignores it."""
    training.terminate()
    training.communicate()


def watch(training: subprocess.Popen[str], log: Path, started: float) -> Iterator[Lap]:
    """Epochs as they appear in the log, until the training ends."""
    seen, over = 0, False
    while not over:
        over = training.poll() is not None  # checked before reading, so that the last line is not missed
        lines = log.read_text("utf-8").splitlines(keepends=True) if log.is_file() else []
        for line in (line for line in lines[seen:] if line.endswith("\n")):
            record = json.loads(line)
            seen += 1
            if "val_accuracy" in record:  # a recipe may validate only every few epochs
                yield Lap(time.perf_counter() - started, record["epoch"], record["val_accuracy"])
        time.sleep(POLL_SECONDS)


def row_of(seed: int, laps: Sequence[Lap], target: float) -> dict[str, Any]:
    """Seconds to the target and to the accuracies before it; ``None`` for what was not reached."""
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
    """Seconds to the first epoch with this accuracy."""
    return next((round(lap.seconds, 1) for lap in laps if lap.accuracy >= accuracy), None)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of the seconds, if every run reached the target."""
    times = [row["seconds"] for row in rows if row["seconds"] is not None]
    result: dict[str, Any] = {"n": len(rows), "reached": len(times)}
    if rows and len(times) == len(rows):
        result["mean_seconds"] = round(statistics.fmean(times), 1)
        result["deviation_seconds"] = round(statistics.stdev(times), 1) if len(times) > 1 else None
    return result


def to_line(row: dict[str, Any]) -> str:
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
    parser.add_argument("--device", default="auto")
    parser.add_argument("--keep", type=Path, help="folder for the runs, which are deleted otherwise")
    parser.add_argument("--json", type=Path, help="file to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
