"""Train what results/queue.toml still wants, in its order, and write the evidence of what is finished.

    python tools/reproduce.py --list                       what is done, what is left, what it costs
    python tools/reproduce.py --minutes 60                 train on one core, go on where an earlier call stopped
    python tools/reproduce.py --jobs 2 --minutes 60        two at once, one core each
    python tools/reproduce.py --on accelerator --jobs 4 --minutes 9 --train-only --parcel OUT
    python tools/reproduce.py --unpack OUT                 runs that came back from another machine
    python tools/reproduce.py --record                     write results/ of every finished run that has none

A training that is stopped keeps its checkpoint, and the next call resumes it. `--train-only` leaves the evidence to
`--record`, on a machine that has the exporter. `--parcel` packs the runs that this call touched into files of at most
15 MiB, finished ones first. PrivateTest is judged once, when a run is recorded.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from crew import train_all
from mien._errors import DataError, MienError
from mien.lab.recipe import load
from queue_file import PLACES, ROOT, Wanted, is_done, read_queue

RESULTS, RUNS = ROOT / "results", ROOT / "runs"
PART = 15 * 2**20  # bytes of a parcel's part
MINUTE = 60.0  # seconds
# Seconds of a call that are kept for the last epoch's end and for packing.
KEPT_BACK = 30.0


def main() -> int:
    """Returns the exit status: 2 for what cannot be done, 1 where a training failed, 141 where nobody reads on."""
    options = parse()
    try:
        status = act(options)
        sys.stdout.flush()
        return status
    except MienError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the training has written its checkpoint
        return 130
    except BrokenPipeError:  # `| head` has seen enough; what Python flushes at its end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def act(options: argparse.Namespace) -> int:
    """What the options ask for."""
    if options.unpack:
        return unpack(options.unpack)
    queue = [wanted for wanted in read_queue() if not options.only or wanted.member.startswith(options.only)]
    if options.list:
        return show(queue)
    if options.record:
        return record([wanted for wanted in queue if not is_done(wanted, RESULTS) and is_trained(wanted)])
    return train([wanted for wanted in queue if wanted.on == options.on and not is_done(wanted, RESULTS)], options)


def show(queue: Sequence[Wanted]) -> int:
    """One line a training, and what is left in all."""
    left = dict.fromkeys(PLACES, 0.0)
    for wanted in queue:
        done = is_done(wanted, RESULTS)
        state = "done" if done else "trained" if is_trained(wanted) else "begun" if is_begun(wanted) else "to do"
        left[wanted.on] += 0 if done or is_trained(wanted) else wanted.minutes
        print(f"{state:8}{wanted.on:12}{wanted.minutes:5g} min  {wanted.member} seed {wanted.seed}: {wanted.why}")
    print("left: " + ", ".join(f"{minutes:g} min on one {place}" for place, minutes in left.items()))
    return 0


def train(queue: Sequence[Wanted], options: argparse.Namespace) -> int:
    """Train until the time is over; a training that fails is told of, and the others go on."""
    until = time.monotonic() + options.minutes * MINUTE - KEPT_BACK
    trained = [wanted for wanted in queue if is_trained(wanted)]
    failed = 0 if options.train_only else record(trained)
    touched: list[Wanted] = []

    def words(wanted: Wanted) -> list[str]:
        touched.append(wanted)
        device, left = "cpu" if options.on == "core" else "auto", until - time.monotonic()
        return ["train", wanted.member, f"--seed={wanted.seed}", f"--accelerator={device}", f"--time-limit={left:.0f}"]

    def is_over() -> bool:
        return time.monotonic() >= until

    rest = [wanted for wanted in queue if wanted not in trained]
    for wanted, status in train_all(rest, options.jobs, words, root=ROOT, runs=RUNS, is_over=is_over):
        failed += status != 0
        if is_trained(wanted) and not options.train_only:
            failed += record([wanted])
    if options.parcel:
        parcel(sorted(touched, key=lambda wanted: not is_trained(wanted)), options.parcel)
    return 1 if failed else 0


def record(trained: Sequence[Wanted]) -> int:
    """Write the evidence of finished runs; returns how many could not be."""
    failed = 0
    for wanted in trained:
        calibration = load(wanted.member).calibration  # as the recipe has it now: it is no part of the training
        out = ["--out", str(RESULTS / wanted.run), "--calibration", calibration]
        out += ["--no-int8"] if "/" in wanted.member else []  # of a study the answers are what counts
        out += ["--final"] if wanted.final else []
        failed += mien("record", str(RUNS / wanted.run), *out)
    return failed


def mien(*arguments: str) -> int:
    """One command of mien in a process of its own; 1 where it failed."""
    return int(subprocess.run([sys.executable, "-m", "mien", *arguments], cwd=ROOT, check=False).returncode != 0)


def is_trained(wanted: Wanted) -> bool:
    """Whether its run is finished."""
    return (RUNS / wanted.run / "final.pt").is_file()


def is_begun(wanted: Wanted) -> bool:
    """Whether its run has a checkpoint."""
    return (RUNS / wanted.run / "checkpoint.pt").is_file()


def parcel(touched: Sequence[Wanted], folder: Path) -> None:
    """The runs as parts of one archive: of a finished one without its checkpoint, which is five times as large."""
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for wanted in touched:
            for path in sorted((RUNS / wanted.run).glob("*")):
                if path.name != "checkpoint.pt" or not is_trained(wanted):
                    archive.add(path, arcname=str(path.relative_to(RUNS)))
    for number, start in enumerate(range(0, content.tell(), PART)):
        (folder / f"runs-{number:02}.part").write_bytes(content.getvalue()[start : start + PART])


def unpack(folder: Path) -> int:
    """Put the runs of a parcel below runs/. Raises ``DataError`` where its parts are missing or damaged."""
    parts = sorted(folder.glob("runs-*.part"))
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts)), mode="r:gz") as archive:
            archive.extractall(RUNS, filter="data")
            print("\n".join(names(archive)))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{folder}: no whole parcel ({error}); all its runs-NN.part files are needed") from error
    return 0


def names(archive: tarfile.TarFile) -> Iterator[str]:
    """The runs in an archive."""
    yield from sorted({str(Path(name).parent) for name in archive.getnames()})


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", choices=PLACES, default="core")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which to stop with a checkpoint")
    parser.add_argument(
        "--jobs", type=int, default=1, help="trainings at once; an accelerator takes several small ones"
    )
    parser.add_argument("--only", default="", help="trainings whose recipe begins so")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--parcel", type=Path, help="folder to pack the runs of this call into")
    parser.add_argument("--unpack", type=Path, help="folder of a parcel")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
