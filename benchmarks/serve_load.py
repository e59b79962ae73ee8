"""What does HTTP cost? `mien serve` under many clients at once, against the same pipeline without HTTP.

    python benchmarks/serve_load.py [--requests 20000] [--clients 64] [--threads 0] [--rounds 5] [--json FILE]

Pictures of 640x480 pixels (JPEG) are made from the example portrait: scaled, mirrored, laid at many places. Each round
measures first the pipeline (`Reader.read_many` in a process of its own, the pictures' bytes in memory, as many threads
as the server has) and then the server (`mien serve` as a user starts it), so that a machine that slows down slows
both. Every answer is compared with what `Reader.read` says of the same picture.

The clients are one process with one thread that sends prepared bytes; but it takes its time from the same cores, and
so do the kernel's sockets. Therefore two comparisons: requests per second against pictures per second, which blames the
clients' work on the server, and the server's processor time per request against the pipeline's per picture, which does
not.

Memory is the server's resident set, looked at all along. The overload section repeats the load with a short queue:
answers are then 200 or 503 with Retry-After, and nothing waits longer than the queue is long.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from mien._measure import environment, median_ms
from mien.decode import decode
from mien.reader import Reader
from serve_clients import SIZE_WH, Served, Tally, load

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 48  # different ones


def main() -> None:
    """Measure, write JSON, print a table."""
    arguments = parse()
    if arguments.pipeline:
        print(json.dumps(run_pipeline(arguments.requests, arguments.threads)))
        return
    report = measure(arguments)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    Console().print(to_table(report))
    print(f"written to {arguments.json}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="in all rounds together")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pipeline-pictures", type=int, default=1000, help="a round's measurement without HTTP")
    parser.add_argument("--overload", type=int, default=1000, help="requests against a queue of 16; 0: none")
    parser.add_argument("--batch-wait", type=float, default=0.0, help="as of mien serve")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "live" / "serve.json")
    parser.add_argument("--pipeline", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures, with what is needed to get them again."""
    pictures = make_pictures()
    reader = Reader()
    expected = [reader.read(picture).to_dict() for picture in pictures]
    threads = arguments.threads or os.cpu_count() or 1
    rounds, answers = [], Tally()
    with Served(threads, "--batch-wait", str(arguments.batch_wait)) as server:
        load(server.port, pictures, expected, arguments.clients, 4 * arguments.clients, Tally(), server)  # warm up
        memory_before = server.memory_mb()
        for _ in range(arguments.rounds):
            plain = pipeline_apart(arguments.pipeline_pictures, threads)
            tally = Tally()
            server_before, client_before, started = server.cpu_seconds(), time.process_time(), time.perf_counter()
            count = arguments.requests // arguments.rounds
            load(server.port, pictures, expected, arguments.clients, count, tally, server)
            seconds = time.perf_counter() - started
            answered = max(tally.statuses[200], 1)
            rounds.append(
                {
                    "pipeline_pictures_per_s": round(plain["pictures"] / plain["seconds"], 2),
                    "pipeline_cpu_ms": round(1000 * plain["cpu_seconds"] / plain["pictures"], 3),
                    "requests_per_s": round(answered / seconds, 2),
                    "server_cpu_ms": round(1000 * (server.cpu_seconds() - server_before) / answered, 3),
                    "client_cpu_ms": round(1000 * (time.process_time() - client_before) / answered, 3),
                }
            )
            answers.add(tally)
        batches = server.batches()
        memory_after = server.memory_mb()
    return {
        "command": " ".join(["python", "benchmarks/serve_load.py", *sys.argv[1:]]),
        "machine": {
            **environment("mien", "numpy", "onnxruntime", "pillow", "fastapi", "uvicorn"),
            "load": load_average(),
        },
        "commit": commit(),
        "model": reader.model.name,
        "clients": arguments.clients,
        "threads": threads,
        "picture": {"size_wh": SIZE_WH, "format": "JPEG", "different": len(pictures), "bytes": mean_bytes(pictures)},
        "answers": answers.to_dict(),
        "rounds": rounds,
        "throughput_share": share(rounds, "requests_per_s", "pipeline_pictures_per_s"),
        "cpu_share": share(rounds, "pipeline_cpu_ms", "server_cpu_ms"),
        "client_cpu_ms": round(statistics.median(row["client_cpu_ms"] for row in rounds), 3),
        "crops_per_batch": batches,
        "per_picture_ms": stages(reader, pictures[0]),
        "memory_mb": {"before": memory_before, "after": memory_after, **answers.memory()},
        "overload": overload(arguments, pictures, expected, threads) if arguments.overload else None,
    }


def stages(reader: Reader, picture: bytes) -> dict[str, float]:
    """What a picture of one face costs by stage, and a crop classified alone or in batches: does waiting pay?"""
    pixels = decode(picture).pixels
    crop = reader.read(pixels).faces[0].crop
    batches = {count: np.repeat(crop[None], count, axis=0) for count in (1, 8, 64)}
    calls = [lambda: decode(picture), lambda: reader.detector(pixels)]
    calls += [lambda crops=crops: reader.model(crops) for crops in batches.values()]
    decoded, detected, *classified = median_ms(*calls, seconds=5)
    crops = {f"classify, {n} together": ms / n for n, ms in zip(batches, classified, strict=True)}
    return {key: round(ms, 3) for key, ms in {"decode": decoded, "detect": detected, **crops}.items()}


def share(rounds: Sequence[dict[str, float]], above: str, below: str) -> dict[str, float]:
    """The median of the rounds' quotients, with the lowest and the highest."""
    quotients = [row[above] / row[below] for row in rounds]
    return {
        "median": round(statistics.median(quotients), 3),
        "lowest": round(min(quotients), 3),
        "highest": round(max(quotients), 3),
    }


def overload(
    arguments: argparse.Namespace, pictures: list[bytes], expected: list[dict[str, Any]], threads: int
) -> dict[str, Any]:
    """The same clients against a queue of 16 pictures, and how long such a queue takes at the speed it went."""
    tally = Tally()
    with Served(threads, "--queue", "16") as server:
        started = time.perf_counter()
        load(server.port, pictures, expected, arguments.clients, arguments.overload, tally, server)
        speed = tally.statuses[200] / (time.perf_counter() - started)
    return {"queue": 16, "queue_ms": round(1000 * 16 / speed, 1), **tally.to_dict()}


def make_pictures() -> list[bytes]:
    """Pictures of one face each, all different, always the same."""
    generator = np.random.default_rng(0)
    with Image.open(ROOT / "examples" / "astronaut.png") as file:
        portrait = file.convert("RGB")
    pictures = []
    for index in range(PICTURES):
        side = int(generator.integers(300, 480))
        scene = Image.fromarray(np.full((*SIZE_WH[::-1], 3), generator.integers(40, 200, 3), np.uint8))
        face = portrait.resize((side, side), Image.Resampling.BICUBIC)
        face = face.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if index % 2 else face
        scene.paste(face, (int(generator.integers(0, SIZE_WH[0] - side)), int(generator.integers(0, 480 - side))))
        stream = io.BytesIO()
        scene.save(stream, "JPEG", quality=85)
        pictures.append(stream.getvalue())
    return pictures


def mean_bytes(pictures: list[bytes]) -> int:
    """The mean size of the files."""
    return round(statistics.mean(map(len, pictures)))


def run_pipeline(count: int, threads: int) -> dict[str, float]:
    """Pictures through the reader without HTTP; in a process of its own, which measures its own time."""
    pictures = make_pictures()
    reader = Reader(threads=threads)
    for _ in reader.read_many(pictures):
        pass
    cpu, started = time.process_time(), time.perf_counter()
    for reading in reader.read_many(pictures[i % PICTURES] for i in range(count)):
        json.dumps(reading.to_dict())
    return {"pictures": count, "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def pipeline_apart(count: int, threads: int) -> dict[str, float]:
    """``run_pipeline`` in a process of its own."""
    words = [sys.executable, __file__, "--pipeline", "--requests", str(count), "--threads", str(threads)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def commit() -> str:
    """The commit of the checkout, with a plus where files were changed."""
    asked = ["git", "describe", "--always", "--abbrev=40", "--dirty=+"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def load_average() -> str:
    """How busy the machine was with other work as well."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def to_table(report: dict[str, Any]) -> Table:
    """The figures for people."""
    table = Table("what", "value", title=f"{report['clients']} clients, {report['threads']} threads")
    answers, throughput, cpu = report["answers"], report["throughput_share"], report["cpu_share"]
    table.add_row("answers", ", ".join(f"{count} x {status}" for status, count in answers["statuses"].items()))
    table.add_row("wrong", str(answers["wrong"]))
    table.add_row("p50, p99, longest", f"{answers['p50_ms']}, {answers['p99_ms']}, {answers['longest_ms']} ms")
    for name, row in enumerate(report["rounds"], 1):
        table.add_row(f"round {name}", ", ".join(f"{key} {value}" for key, value in row.items()))
    table.add_row(
        "throughput / pipeline", f"{throughput['median']} ({throughput['lowest']} to {throughput['highest']})"
    )
    table.add_row("processor time, pipeline / server", f"{cpu['median']} ({cpu['lowest']} to {cpu['highest']})")
    table.add_row("crops per batch", str(report["crops_per_batch"]))
    table.add_row("memory, MB", json.dumps(report["memory_mb"]))
    table.add_row("overload", json.dumps(report["overload"]))
    return table


if __name__ == "__main__":
    main()
