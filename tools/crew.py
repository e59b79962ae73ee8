"""Trainings side by side: as many at once as a machine takes, each when the runs that it starts from are there."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mien.lab.recipe import load
from queue_file import Wanted

LOOK = 0.2  # seconds between two looks at the processes
UNREADY = 2  # exit status that stands for a training that could not begin


def train_all(
    queue: Sequence[Wanted],
    jobs: int,
    words: Callable[[Wanted], list[str]],
    *,
    root: Path,
    runs: Path,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Wanted, int]]:
    """Train ``queue`` in its order, ``jobs`` at once, until ``is_over``; yields each with its exit status as it ends.

    ``words`` are those of mien for a training. Of several at once each has its share of the cores and tells its
    progress to ``runs/RECIPE/seed-N.log``. One whose beginnings nobody has made is told of, and yielded as failed.
    """
    waiting, running = list(queue), dict[subprocess.Popen[bytes], Wanted]()
    try:
        while waiting or running:
            if is_over():
                waiting.clear()
            for wanted in [each for each in waiting if not missing(each, root)][: jobs - len(running)]:
                waiting.remove(wanted)
                running[_start(words(wanted), runs / wanted.run, root, jobs)] = wanted
            if not running:
                break
            ended = _next(running)
            yield running.pop(ended), ended.returncode
    finally:  # an interrupt reaches them, too: each writes its checkpoint
        for process in running:
            process.wait()
    for wanted in waiting:
        print(f"{wanted.member}: needs {', '.join(missing(wanted, root))}; make that first", file=sys.stderr)
        yield wanted, UNREADY


def missing(wanted: Wanted, root: Path) -> list[str]:
    """The runs and files that the recipe starts from or is taught by, and that are not there."""
    recipe = load(wanted.member)
    named = [*recipe.target.teachers, recipe.net.weights if recipe.net.weights != "imagenet" else ""]
    return [name for name in named if name and not _is_there(root / name)]


def _is_there(path: Path) -> bool:
    return path.is_file() or (path / "final.pt").is_file()


def _start(words: list[str], run: Path, root: Path, jobs: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mien", *words]
    if jobs == 1:
        return subprocess.Popen(command, cwd=root)
    log = run.with_name(f"{run.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{' '.join(words)} > {log}", flush=True)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with log.open("ab") as output:
        environment = {"OMP_NUM_THREADS": threads, **os.environ}
        return subprocess.Popen(command, cwd=root, env=environment, stdout=output, stderr=output)


def _next(running: dict[subprocess.Popen[bytes], Wanted]) -> subprocess.Popen[bytes]:
    """The next one that ends."""
    while True:
        for process in running:
            if process.poll() is not None:
                return process
        time.sleep(LOOK)
