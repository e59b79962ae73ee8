"""The cost of HTTP: `mien serve` under many clients, compared with the same pipeline without HTTP.

    python benchmarks/serve_load.py [--requests 20000] [--clients 64] [--threads 0] [--rounds 5] [--json FILE]

JPEG images of 640x480 pixels are made from the example portrait: scaled, mirrored, at many positions. Each round first
measures the pipeline (`Reader.read_many` in its own process, the images in memory, as many threads as the server has)
and then the server (`mien serve` as a user starts it), so a change of the machine's speed affects both. Every response
is compared with the reading of `Reader.read` for the same image.

The clients run in one thread of one process and send prepared bytes. They and the kernel's sockets use the same cores
as the server. Therefore there are two comparisons: requests per second with images per second, which counts the work
of the clients against the server, and CPU time per request with CPU time per image, which does not.

Memory is the server's resident set, recorded during the whole run. The overload section repeats the load with a short
queue: then responses are 200, or 503 with Retry-After, and no request waits longer than the queue is long.
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
IMAGES = 48  # different images


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
    parser.add_argument("--pipeline-images", type=int, default=1000, help="a round's measurement without HTTP")
    parser.add_argument("--overload", type=int, default=1000, help="requests against a queue of 16; 0: none")
    parser.add_argument("--batch-wait", type=float, default=0.0, help="as of mien serve")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "live" / "serve.json")
    parser.add_argument("--pipeline", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All results, with what is needed to reproduce them."""
    images = make_images()
    reader = Reader()
    expected = [reader.read(image).to_dict() for image in images]
    threads = arguments.threads or os.cpu_count() or 1
    rounds, responses = [], Tally()
    with Served(threads, "--batch-wait", str(arguments.batch_wait)) as server:
        load(server.port, images, expected, arguments.clients, 4 * arguments.clients, Tally(), server)  # warm up
        memory_before = server.memory_mb()
        for _ in range(arguments.rounds):
            plain = pipeline_apart(arguments.pipeline_images, threads)
            tally = Tally()
            server_before, client_before, started = server.cpu_seconds(), time.process_time(), time.perf_counter()
            count = arguments.requests // arguments.rounds
            load(server.port, images, expected, arguments.clients, count, tally, server)
            seconds = time.perf_counter() - started
            answered = max(tally.statuses[200], 1)
            rounds.append(
                {
                    "pipeline_images_per_s": round(plain["images"] / plain["seconds"], 2),
                    "pipeline_cpu_ms": round(1000 * plain["cpu_seconds"] / plain["images"], 3),
                    "requests_per_s": round(answered / seconds, 2),
                    "server_cpu_ms": round(1000 * (server.cpu_seconds() - server_before) / answered, 3),
                    "client_cpu_ms": round(1000 * (time.process_time() - client_before) / answered, 3),
                }
            )
            responses.add(tally)
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
        "image": {"size_wh": SIZE_WH, "format": "JPEG", "different": len(images), "bytes": mean_bytes(images)},
        "responses": responses.to_dict(),
        "rounds": rounds,
        "throughput_share": share(rounds, "requests_per_s", "pipeline_images_per_s"),
        "cpu_share": share(rounds, "pipeline_cpu_ms", "server_cpu_ms"),
        "client_cpu_ms": round(statistics.median(row["client_cpu_ms"] for row in rounds), 3),
        "crops_per_batch": batches,
        "per_image_ms": stages(reader, images[0]),
        "memory_mb": {"before": memory_before, "after": memory_after, **responses.memory()},
        "overload": overload(arguments, images, expected, threads) if arguments.overload else None,
    }


def stages(reader: Reader, image: bytes) -> dict[str, float]:
    """Milliseconds of each stage for an image of one face, and of a crop alone or in a batch."""
    pixels = decode(image).pixels
    crop = reader.read(pixels).faces[0].crop
    batches = {count: np.repeat(crop[None], count, axis=0) for count in (1, 8, 64)}
    calls = [lambda: decode(image), lambda: reader.detector(pixels)]
    calls += [lambda crops=crops: reader.model(crops) for crops in batches.values()]
    decoded, detected, *classified = median_ms(*calls, seconds=5)
    crops = {f"classify, {n} together": ms / n for n, ms in zip(batches, classified, strict=True)}
    return {key: round(ms, 3) for key, ms in {"decode": decoded, "detect": detected, **crops}.items()}


def share(rounds: Sequence[dict[str, float]], above: str, below: str) -> dict[str, float]:
    """Median, lowest and highest of the ratios of the rounds."""
    quotients = [row[above] / row[below] for row in rounds]
    return {
        "median": round(statistics.median(quotients), 3),
        "lowest": round(min(quotients), 3),
        "highest": round(max(quotients), 3),
    }


def overload(
    arguments: argparse.Namespace, images: list[bytes], expected: list[dict[str, Any]], threads: int
) -> dict[str, Any]:
    """The same clients with a queue of 16 images, and the time such a queue takes at the measured speed."""
    tally = Tally()
    with Served(threads, "--queue", "16") as server:
        started = time.perf_counter()
        load(server.port, images, expected, arguments.clients, arguments.overload, tally, server)
        speed = tally.statuses[200] / (time.perf_counter() - started)
    return {"queue": 16, "queue_ms": round(1000 * 16 / speed, 1), **tally.to_dict()}


def make_images() -> list[bytes]:
    """Different images of one face each; the same in every run."""
    generator = np.random.default_rng(0)
    with Image.open(ROOT / "examples" / "astronaut.png") as file:
        portrait = file.convert("RGB")
    images = []
    for index in range(IMAGES):
        side = int(generator.integers(300, 480))
        scene = Image.fromarray(np.full((*SIZE_WH[::-1], 3), generator.integers(40, 200, 3), np.uint8))
        face = portrait.resize((side, side), Image.Resampling.BICUBIC)
        face = face.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if index % 2 else face
        scene.paste(face, (int(generator.integers(0, SIZE_WH[0] - side)), int(generator.integers(0, 480 - side))))
        stream = io.BytesIO()
        scene.save(stream, "JPEG", quality=85)
        images.append(stream.getvalue())
    return images


def mean_bytes(images: list[bytes]) -> int:
    """The mean size of the files."""
    return round(statistics.mean(map(len, images)))


def run_pipeline(count: int, threads: int) -> dict[str, float]:
    """Read images without HTTP; runs in its own process, which measures its own time."""
    images = make_images()
    reader = Reader(threads=threads)
    for _ in reader.read_many(images):
        pass
    cpu, started = time.process_time(), time.perf_counter()
    for reading in reader.read_many(images[i % IMAGES] for i in range(count)):
        json.dumps(reading.to_dict())
    return {"images": count, "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def pipeline_apart(count: int, threads: int) -> dict[str, float]:
    """Start ``run_pipeline`` in its own process."""
    words = [sys.executable, __file__, "--pipeline", "--requests", str(count), "--threads", str(threads)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def commit() -> str:
    """The commit of the checkout, with a plus if files were changed."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def load_average() -> str:
    """Load of the machine."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def to_table(report: dict[str, Any]) -> Table:
    """The results as a table."""
    table = Table("what", "value", title=f"{report['clients']} clients, {report['threads']} threads")
    responses, throughput, cpu = report["responses"], report["throughput_share"], report["cpu_share"]
    table.add_row("responses", ", ".join(f"{count} x {status}" for status, count in responses["statuses"].items()))
    table.add_row("wrong", str(responses["wrong"]))
    table.add_row("p50, p99, longest", f"{responses['p50_ms']}, {responses['p99_ms']}, {responses['longest_ms']} ms")
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
