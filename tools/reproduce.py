"""Train what results/queue.toml lists, in its order, and write the results of finished runs.

    python tools/reproduce.py --list                       what is done, what is left, what it costs
    python tools/reproduce.py --minutes 60                 train on one core, resume where an earlier call stopped
    python tools/reproduce.py --jobs 2 --minutes 60        two at once, one core each
    python tools/reproduce.py --on accelerator --jobs 4 --minutes 9 --train-only --parcel OUT
    python tools/reproduce.py --unpack OUT                 runs that came back from another machine
    python tools/reproduce.py --record                     write results/ of every finished run that has none
    python tools/reproduce.py --draw                       draw curves.png and confusion.svg of everything in results/

A training that is stopped keeps its checkpoint, and the next call resumes it. `--train-only` leaves the results to
`--record`, on a machine that has the exporter. `--parcel` packs the runs of this call into files of at most 15 MiB,
finished ones first. PrivateTest is evaluated when a run is recorded; the ledger refuses a second look at a family.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mien._errors import DataError, MienError
from mien.lab.files import CHECKPOINT, PREVIOUS, has_checkpoint, load_json
from mien.lab.recipe import load, members
from mien.lab.recipe_summary import is_family

ROOT = Path(__file__).resolve().parent.parent
QUEUE = ROOT / "results" / "queue.toml"
PLACES = ("core", "accelerator")


@dataclass(frozen=True)
class Training:
    """One entry of the queue, for one seed."""

    member: str  # what `mien train` takes
    name: str  # of its run and its results
    seed: int
    on: str  # one of PLACES
    minutes: float
    why: str
    folds: int = 0  # nets of a cross-validation; 0: one net
    final: bool = True  # evaluated on PrivateTest; False for runs that others start from and runs that serve a choice
    mmacs: float = 0.0  # millions of multiply-accumulates a face; 0: not known
    leaky: bool = False  # has learned from test faces: evaluated on its own validation faces alone

    @property
    def run(self) -> Path:
        """Its folder below runs/ and below results/."""
        return Path(self.name, f"{'folds-' if self.folds else ''}seed-{self.seed}")

    @property
    def evaluated(self) -> str:
        """What its results are of."""
        return "folds" if self.folds else "leaky" if self.leaky else "private" if self.final else "public"


def read_queue(path: Path = QUEUE) -> list[Training]:
    """The trainings in order, families as their members. Raises ``DataError`` that names the wrong entry."""
    try:
        entries = tomllib.loads(path.read_text("utf-8"))["run"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise DataError(f"{path}: no queue ({error}); it is a list of [[run]] tables") from error
    return [
        training for number, entry in enumerate(entries, start=1) for training in _expand(entry, f"{path} {number}")
    ]


def _expand(entry: dict[str, object], where: str) -> list[Training]:
    recipe, seeds, on, minutes, why = (entry.get(key) for key in ("recipe", "seeds", "on", "minutes", "why"))
    folds, final = int(str(entry.get("folds", 0))), bool(entry.get("final", True))
    mmacs = float(str(entry.get("mmacs", 0)))
    if not (isinstance(recipe, str) and isinstance(seeds, list) and isinstance(minutes, int | float) and why):
        raise DataError(f"{where}: a run has recipe, seeds, on, minutes and why")
    if on not in PLACES:
        raise DataError(f"{where}: on is one of {', '.join(PLACES)}, not {on!r}")
    names = members(recipe) if is_family(recipe) else (recipe,)
    recipes = {name: load(name) for name in names}
    return [
        Training(name, own.name, seed, str(on), minutes, str(why), folds, final, mmacs, own.data.expand_first)
        for seed in seeds
        for name, own in recipes.items()
    ]


def is_done(training: Training, results: Path) -> bool:
    """Whether its results exist, on PrivateTest too where it is final, and were made by the code of a commit."""
    path = results / training.run / "metrics.json"
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {"metrics": {}}
    return training.evaluated in content["metrics"] and not content.get("evaluated_at", "").endswith("+")


POLL = 0.2  # seconds between two polls of the processes
UNREADY = 2  # exit status of a training that could not start


def run_queue(
    queue: Sequence[Training],
    jobs: int,
    command: Callable[[Training], list[str]],
    *,
    root: Path,
    runs: Path,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Training, int]]:
    """Train ``queue`` in its order, ``jobs`` at once, until ``is_over``; yields each with its exit status as it ends.

    ``command`` gives the arguments of mien for a training. Trainings that run at once share the cores and write their
    progress to ``runs/RECIPE/seed-N.log``. A training whose weights or teachers are missing is yielded as failed.
    """
    waiting, running = list(queue), dict[subprocess.Popen[bytes], Training]()
    try:
        while waiting or running:
            if is_over():
                waiting.clear()
            for training in [each for each in waiting if not missing(each, root)][: jobs - len(running)]:
                waiting.remove(training)
                running[_start(command(training), runs / training.run, root, jobs)] = training
            if not running:
                break
            ended = _next(running)
            yield running.pop(ended), ended.returncode
    finally:  # Ctrl-C reaches the processes too: each writes its checkpoint
        for process in running:
            process.wait()
    for training in waiting:
        print(f"{training.member}: needs {', '.join(missing(training, root))}; train that first", file=sys.stderr)
        yield training, UNREADY


def missing(training: Training, root: Path) -> list[str]:
    """The weights and teachers of the recipe that do not exist."""
    recipe = load(training.member)
    named = [*recipe.target.teachers, recipe.net.weights if recipe.net.weights != "imagenet" else ""]
    return [name for name in named if name and not _exists(root / name)]


def _exists(path: Path) -> bool:
    return path.is_file() or (path / "final.pt").is_file()


def _start(arguments: list[str], run: Path, root: Path, jobs: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mien", *arguments]
    if jobs == 1:
        return subprocess.Popen(command, cwd=root)
    log = run.with_name(f"{run.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{' '.join(arguments)} > {log}", flush=True)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with log.open("ab") as output:
        environment = {"OMP_NUM_THREADS": threads, **os.environ}
        return subprocess.Popen(command, cwd=root, env=environment, stdout=output, stderr=output)


def _next(running: dict[subprocess.Popen[bytes], Training]) -> subprocess.Popen[bytes]:
    """Wait for the next process that ends."""
    while True:
        for process in running:
            if process.poll() is not None:
                return process
        time.sleep(POLL)


RESULTS, RUNS = ROOT / "results", ROOT / "runs"
PART = 15 * 2**20  # bytes of a parcel's part
MINUTE = 60.0  # seconds
RESERVE = 30.0  # seconds of a call kept for the end of the last epoch and for packing


def main() -> int:
    """Returns the exit status: 2 for a wrong request, 1 where a training failed, 141 where the output is closed."""
    options = parse()
    try:
        status = act(options)
        sys.stdout.flush()
        return status
    except MienError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the trainings have written their checkpoints
        return 130
    except BrokenPipeError:  # as with `| head`; Python's own flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def act(options: argparse.Namespace) -> int:
    """Do what the options ask for."""
    if options.unpack:
        return unpack(options.unpack)
    queue = [training for training in read_queue() if not options.only or training.member.startswith(options.only)]
    if not queue:
        raise DataError(f"results/queue.toml has no training that begins with {options.only!r}")
    if options.draw:
        return draw(RESULTS)
    if options.list:
        return show(queue)
    if options.record:
        return record([training for training in queue if not is_done(training, RESULTS) and is_trained(training)])
    left = [training for training in queue if training.on == options.on and not is_done(training, RESULTS)]
    if not left:
        print(f"nothing to do for one {options.on}: {len(queue)} found, all in results/ or for another place")
    return train(left, options)


def show(queue: Sequence[Training]) -> int:
    """Print one line per training, and the total that is left."""
    left = dict.fromkeys(PLACES, 0.0)
    for training in queue:
        done = is_done(training, RESULTS)
        state = "done" if done else "trained" if is_trained(training) else "begun" if is_begun(training) else "to do"
        left[training.on] += 0 if done or is_trained(training) else training.minutes
        cost = f"{training.on:12}{training.minutes:5g} min"
        print(f"{state:8}{cost}  {training.member} seed {training.seed}: {training.why}")
    print("left: " + ", ".join(f"{minutes:g} min on one {place}" for place, minutes in left.items()))
    return 0


def train(queue: Sequence[Training], options: argparse.Namespace) -> int:
    """Train until the time is over; one that fails does not stop the others."""
    until = time.monotonic() + options.minutes * MINUTE - RESERVE
    trained = [training for training in queue if is_trained(training)]
    failed = 0 if options.train_only else record(trained)
    touched: list[Training] = []

    def command(training: Training) -> list[str]:
        touched.append(training)
        device, left = "cpu" if options.on == "core" else "auto", until - time.monotonic()
        return [
            "train",
            training.member,
            f"--seed={training.seed}",
            f"--device={device}",
            f"--time-limit={left:.0f}",
            *([f"--folds={training.folds}"] if training.folds else []),
        ]

    def is_over() -> bool:
        return time.monotonic() >= until

    rest = [training for training in queue if training not in trained]
    for training, status in run_queue(rest, options.jobs, command, root=ROOT, runs=RUNS, is_over=is_over):
        failed += status != 0
        if is_trained(training) and not options.train_only:
            failed += record([training])
    if options.parcel:
        parcel(sorted(touched, key=lambda training: not is_trained(training)), options.parcel)
    return 1 if failed else 0


def record(trained: Sequence[Training]) -> int:
    """Write the results of finished runs; returns how many failed."""
    failed = 0
    for training in trained:
        out = ["--out", str(RESULTS / training.run)]
        if training.folds:
            failed += mien("record", str(RUNS / training.run), *out)
            continue
        out += ["--calibration", load(training.member).calibration]  # of the current recipe: not part of the training
        out += ["--no-int8"] if "/" in training.member else []  # a study compares the fp32 answers only
        out += ["--final"] if training.final else []
        if (RESULTS / training.run / "metrics.json").is_file():
            out += ["--force", "--again", "the first evaluation was made with uncommitted changes"]
        failed += mien("record", str(RUNS / training.run), *out)
    return failed


def draw(results: Path) -> int:
    """Draw the curves and the confusion matrix of every recorded run beside its metrics; git ignores the files."""
    # Here, as a machine that only trains may lack the exporter that `record` imports.
    from mien.lab.recipe import parse as parse_recipe
    from mien.lab.record import confusion_svg
    from mien.lab.train.curves import draw_curves
    from mien.lab.train.logging import read_log

    for path in sorted(results.rglob("seed-*/metrics.json")):
        folder = path.parent
        recipe = parse_recipe(load_json(folder / "recipe.json"), where=str(folder))
        draw_curves(recipe, read_log(folder), folder / "curves.png")
        (folder / "confusion.svg").write_text(confusion_svg(json.loads(path.read_text("utf-8"))), "utf-8")
    return 0


def mien(*arguments: str) -> int:
    """Run one command of mien in its own process; returns 1 where it failed."""
    return int(subprocess.run([sys.executable, "-m", "mien", *arguments], cwd=ROOT, check=False).returncode != 0)


def is_trained(training: Training) -> bool:
    """Whether its run is finished."""
    folders = [f"fold-{fold}" for fold in range(training.folds)] or [""]
    return all((RUNS / training.run / folder / "final.pt").is_file() for folder in folders)


def is_begun(training: Training) -> bool:
    """Whether its run has a checkpoint."""
    return has_checkpoint(RUNS / training.run) or has_checkpoint(RUNS / training.run / "fold-0")


def parcel(touched: Sequence[Training], folder: Path) -> None:
    """Pack runs into parts of one archive; finished ones without their checkpoint, which is five times as large."""
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for training in touched:
            for path in sorted(filter(Path.is_file, (RUNS / training.run).rglob("*"))):
                if path.name not in (CHECKPOINT, PREVIOUS) or not is_trained(training):
                    archive.add(path, arcname=str(path.relative_to(RUNS)))
    for number, start in enumerate(range(0, content.tell(), PART)):
        (folder / f"runs-{number:02}.part").write_bytes(content.getvalue()[start : start + PART])


def unpack(folder: Path) -> int:
    """Unpack the runs of a parcel to runs/. Raises ``DataError`` where parts are missing or damaged."""
    parts = sorted(folder.glob("runs-*.part"))
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts)), mode="r:gz") as archive:
            archive.extractall(RUNS, filter="data")
            print("\n".join(names(archive)))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{folder}: not a complete parcel ({error}); all runs-NN.part files are needed") from error
    return 0


def names(archive: tarfile.TarFile) -> Iterator[str]:
    """Names of the runs in an archive."""
    yield from sorted({str(Path(name).parent) for name in archive.getnames()})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", choices=PLACES, default="core")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="time after which to stop with a checkpoint"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="trainings at once; an accelerator takes several small ones"
    )
    parser.add_argument("--only", default="", help="only recipes whose name starts with this")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--parcel", type=Path, help="folder to pack the runs of this call into")
    parser.add_argument("--unpack", type=Path, help="folder of a parcel")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
