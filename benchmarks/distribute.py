"""Measure `mien distribute` beside one process: cost of an image, Ray's fixed cost, bytes of a reading, memory.

    python benchmarks/distribute.py --out results/distribute.json
    python benchmarks/distribute.py --cores 2 --out results/cores.json

The second line measures `Reader.read_many` instead: its rate with a worker for each of two cores, divided by that of
one core. Both take turns. Rates hold on idle cores alone. So the results have the share that other programs took, and
the ratio on idle cores, which follows from the CPU times and from how long the processes had nothing to do.

The images are one photograph with a face (`examples/astronaut.png`) as JPEG of three sizes. Every run is a program of
its own, so that start and end count. The fixed cost is a run over one image, or one for each worker; the cost of an
image is what a run over many takes beyond it. CPU times hold on a machine that is shared with other programs, wall
times do not.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance

from mien._measure import environment, peak_memory_mb
from mien.cluster.output import Partitions
from mien.cluster.plan import Plan
from mien.reader import Reader

ROOT = Path(__file__).parents[1]
RUNS = {"one process": 0, "1 worker": 1, "2 workers": 2}
SIZES = {"112x112": (112, 112), "640x480": (640, 480), "1280x720": (1280, 720)}
COUNTS = {"112x112": 4000, "640x480": 1600, "1280x720": 800}
TURNS = 3
WARM = 64  # images after which processes and models are warm


def write_images(folder: Path, size_wh: tuple[int, int], count: int) -> int:
    """Write images of the photograph, each at another place and brightness; return the mean size of a file."""
    folder.mkdir()
    generator = random.Random(0)
    with Image.open(ROOT / "examples" / "astronaut.png") as picture:
        face = picture.convert("RGB")
    for number in range(count):
        side = round(min(size_wh) * generator.uniform(0.8, 1))
        image = Image.new("RGB", size_wh, (90, 110, 120))
        place = (generator.randint(0, size_wh[0] - side), generator.randint(0, size_wh[1] - side))
        image.paste(ImageEnhance.Brightness(face.resize((side, side))).enhance(generator.uniform(0.6, 1.2)), place)
        image.save(folder / f"{number:05}.jpg", quality=85)
    return round(sum(path.stat().st_size for path in folder.iterdir()) / count)


def children_seconds() -> float:
    """CPU time of the programs that have ended, in seconds."""
    times = os.times()
    return times.children_user + times.children_system


def run(words: list[str], folder: Path) -> dict[str, float]:
    """Run `mien WORDS`; return its wall time and CPU time in seconds, and the largest memory of its processes in MB.

    Memory that several processes share counts once (PSS).
    """
    start, cpu, most = time.perf_counter(), children_seconds(), 0.0
    job = subprocess.Popen([sys.executable, "-m", "mien", *words], cwd=folder, stderr=subprocess.DEVNULL)
    used: dict[int, float] = {}
    while job.poll() is None:
        processes = [job.pid, *below(job.pid)]
        used |= {process: seconds for process in processes if (seconds := cpu_seconds(process)) is not None}
        most = max(most, sum(map(memory_mb, processes)))
        time.sleep(0.2)
    assert job.returncode == 0, words
    wall = time.perf_counter() - start
    # The processes of Ray are not waited for by this program, so the CPU time is what was last seen of each.
    own = children_seconds() - cpu
    return {"wall_s": round(wall, 2), "cpu_s": round(max(own, sum(used.values())), 2), "memory_mb": round(most)}


def below(root: int) -> list[int]:
    """The processes that a process has started, directly or not."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {root}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {root})


def cpu_seconds(process: int) -> float | None:
    """CPU time of a process so far; `None` if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int) -> float:
    """Proportional memory of a process in MB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:")), 0.0)


def measure_fixed(folder: Path) -> dict[str, Any]:
    """Measure one process, one worker and two workers on one image each, so that every worker starts."""
    fixed = {}
    for name, workers in RUNS.items():
        place = f"few-{workers}"
        write_images(folder / place, SIZES["640x480"], max(1, workers))
        given = words(place, workers, folder)
        fixed[name] = run([*given[:-1], "0.001"] if workers else given, folder)
    return fixed


def measure(size: str, share: float, fixed: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Measure one process, one worker and two workers on images of one size."""
    count = round(share * COUNTS[size])
    measured: dict[str, Any] = {"images": count, "bytes_of_an_image": write_images(folder / size, SIZES[size], count)}
    for name, workers in RUNS.items():
        many, more = run(words(size, workers, folder), folder), count - max(1, workers)
        measured[name] = {
            "wall_s": round(many["wall_s"], 2),
            "wall_ms_of_an_image": round(1000 * (many["wall_s"] - fixed[name]["wall_s"]) / more, 3),
            "cpu_ms_of_an_image": round(1000 * (many["cpu_s"] - fixed[name]["cpu_s"]) / more, 3),
            "memory_mb": round(many["memory_mb"]),
        }
    written = list((folder / "out").glob("part-*.parquet"))
    measured["partitions"] = len(written)
    measured["bytes_of_a_reading"] = round(sum(path.stat().st_size for path in written) / count, 1)
    return measured


def measure_driver(fixed: dict[str, Any], folder: Path) -> dict[str, float]:
    """Measure what the driver does alone: a block each image, partitions on the disk, the plan of a million names."""
    count = 200
    write_images(folder / "small", SIZES["112x112"], count)
    many = run([*words("small", 2, folder)[:-1], "0.001"], folder)
    (folder / "names.txt").write_text(
        "".join(f"photos/{number // 1000:04}/{number:07}.jpg\n" for number in range(10**6))
    )
    planned = subprocess.run(
        [sys.executable, __file__, "--plan", "names.txt"], cwd=folder, capture_output=True, text=True, check=True
    )
    with Partitions(folder / "written", {}, resume=False) as partitions:
        partitions.plan([])
        content, start = os.urandom(150_000), time.perf_counter()
        for number in range(200):
            partitions.add(number, content, images=1000, faces=1000, failed=0)
        seconds = (time.perf_counter() - start) / 200
    return {
        "block_wall_ms": round(1000 * (many["wall_s"] - fixed["2 workers"]["wall_s"]) / (count - 2), 2),
        "block_cpu_ms": round(1000 * (many["cpu_s"] - fixed["2 workers"]["cpu_s"]) / (count - 2), 2),
        "partition_written_ms": round(1000 * seconds, 2),
        **json.loads(planned.stdout),
    }


def plan(names: str) -> None:
    """Plan a list of names, and print what that takes."""
    start = time.perf_counter()
    with Partitions("planned", {}, resume=False) as partitions:
        partitions.plan(Plan([names], fps=None, column=None))
        facts = {"million_names_blocks": partitions.size, "million_names_s": round(time.perf_counter() - start, 1)}
    facts["million_names_mb"] = round(peak_memory_mb() or 0)
    print(json.dumps(facts))


def measure_cores(size: str, share: float, cores: int, folder: Path) -> dict[str, Any]:
    """Measure the rates of one core and of several on images of one size, in turns, and what limits the ratio."""
    count = WARM + round(share * COUNTS[size])
    write_images(folder / size, SIZES[size], count)
    names = sorted(str(path) for path in (folder / size).iterdir())
    here = sorted(os.sched_getaffinity(0))[:cores]
    if len(here) < cores:
        raise SystemExit(f"this machine has {len(here)} cores")
    turns = [(read(names, 1, here[:1]), read(names, cores, here)) for _ in range(TURNS)]
    one, many = (
        {key: statistics.median(run[key] for run in runs) for key in runs[0]} for runs in zip(*turns, strict=True)
    )
    return {
        "images": count,
        "one": one,
        "many": many,
        "ratio": round(statistics.median(many["per_s"] / one["per_s"] for one, many in turns), 3),
        "ratios": [round(many["per_s"] / one["per_s"], 3) for one, many in turns],
        "ratio_on_idle_cores": round(statistics.median(_on_idle_cores(one, many, cores) for one, many in turns), 3),
        # The ratio if all cores were always busy: the processes do more work, and cores share caches and memory.
        "limit_by_cpu_time": round(cores * one["cpu_ms"] / many["cpu_ms"], 3),
        # The number of cores from which on the process that yields the readings is busy all the time.
        "limit_by_main_process": round(many["cpu_ms"] / many["main_ms"], 1),
    }


def _on_idle_cores(one: dict[str, float], many: dict[str, float], cores: int) -> float:
    return cores * one["cpu_ms"] / many["cpu_ms"] * (1 - many["idle"]) / (1 - one["idle"])


def read(names: list[str], workers: int, cores: list[int]) -> dict[str, float]:
    """Read images on some cores: images a second, CPU time of an image, and what kept the cores from it."""
    os.sched_setaffinity(0, cores)  # what is started from here on inherits it
    readings = Reader().read_many(names, workers=workers)
    clocks = []
    for number, _ in enumerate(readings, 1):
        if number in (WARM, len(names)):
            own = [scheduled_seconds(process) for process in (os.getpid(), *below(os.getpid()))]
            run, waited = map(sum, zip(*(own[1:] or own), strict=True))
            clocks.append((time.perf_counter(), time.process_time(), run, waited, busy_seconds(cores)))
    wall, main, run, waited, busy = (end - begin for begin, end in zip(*clocks, strict=True))
    cpu = run if workers == 1 else run + main
    count = len(names) - WARM
    return {
        "per_s": round(count / wall, 2),
        "cpu_ms": round(1000 * cpu / count, 3),
        "main_ms": round(1000 * main / count, 3),
        "idle": round(1 - (run + waited) / wall / workers, 3),  # share of the time in which processes had nothing to do
        "of_others": round(max(0.0, busy - cpu) / wall / len(cores), 3),  # share of the cores
    }


def scheduled_seconds(process: int) -> tuple[float, float]:
    """How long the first thread of a process has run, and has waited for a core, so far."""
    run, waited, _ = Path(f"/proc/{process}/schedstat").read_text().split()
    return int(run) / 1e9, int(waited) / 1e9


def busy_seconds(cores: list[int]) -> float:
    """Time for which some cores have been busy so far."""
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    times = [list(map(int, line[1:])) for line in lines if line[0] in {f"cpu{core}" for core in cores}]
    return sum(sum(each[:8]) - each[3] - each[4] for each in times) / os.sysconf("SC_CLK_TCK")


def words(source: str, workers: int, folder: Path) -> list[str]:
    """The words of a run into a new place."""
    for old in (folder / "out", folder / "out.parquet"):
        shutil.rmtree(old, ignore_errors=True)
        old.unlink(missing_ok=True)
    if not workers:
        return ["predict", source, "--out", "out.parquet"]
    return ["distribute", source, "--out", "out", "--workers", str(workers), "--block-mb", "4"]


def measure_all(given: argparse.Namespace, results: dict[str, Any], folder: Path) -> None:
    """Measure `mien distribute`, and print each result as soon as it is there."""
    results["fixed"] = fixed = measure_fixed(folder)
    print(json.dumps(fixed), flush=True)
    for size in given.size or SIZES:
        results[size] = measure(size, given.share, fixed, folder)
        print(size, json.dumps(results[size]), flush=True)
    results["driver"] = measure_driver(fixed, folder)
    print(json.dumps(results["driver"]), flush=True)


def main() -> None:
    """Measure every size, and write or print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the results")
    parser.add_argument("--size", action="append", choices=SIZES, help="only this size; repeatable")
    parser.add_argument("--share", type=float, default=1.0, help="share of the images to read")
    parser.add_argument("--cores", type=int, default=0, help="measure the rate of so many cores instead")
    parser.add_argument("--plan", metavar="NAMES", help="only plan the names of a list, in a program of its own")
    given = parser.parse_args()
    if given.plan:
        plan(given.plan)
        return
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    results: dict[str, Any] = {"commit": commit.strip(), "machine": environment("onnxruntime", "ray", "pyarrow")}
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        for size in given.size or SIZES if given.cores else ():
            results[size] = measure_cores(size, given.share, given.cores, Path(folder))
            print(size, json.dumps(results[size]), flush=True)
        if not given.cores:
            measure_all(given, results, Path(folder))
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
