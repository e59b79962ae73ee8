"""Measure the speed, memory and accuracy of `mien track` in generated videos.

    python benchmarks/track.py [--frames 10000] [--size 1280x720] [--every 3] [--json FILE]

`tools/make_video.py` draws the scene; a long video repeats its encoded packets. The JSON file has three parts:

speed      Frames per second with one face, detection included: reading only, with JSON lines, with the annotated
           video. Each runs in its own process on all cores. Memory is the resident set of the process every 250
           frames; its growth is the mean of the last fifth minus that of the second fifth, which leaves out the start.
steps      CPU milliseconds per frame of each step. Decoding and annotating overlap with other steps, so the sum is not
           the time between two frames.
tracking   Accuracy against the ground truth of the video with four faces, for several values of `--every`: recall of
           the faces that are at least 70 % visible (overlap 0.3 or more), false positives, identity switches, and the
           CPU milliseconds of a step.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from mien._measure import environment, peak_memory_mb
from mien.reader import Reader
from mien.video import Tracker, open_source
from mien.video.outputs import FrameJsonLines
from mien.video.video_writer import VideoWriter
from track_steps import RATE, Pixels, measure_steps, measure_tracking

ROOT = Path(__file__).resolve().parent.parent
SCENE = 12  # seconds of the drawn scene, which repeats in a longer video
PARTS = ("reading only", "JSON lines", "annotated video")
MEMORY_EVERY = 250  # frames
EVERY = (1, 3, 5, 10)


def main() -> None:
    """Measure, write the JSON file, print tables."""
    arguments = parse()
    if arguments.part is not None:
        print(json.dumps(track_video(arguments.video, arguments.part, arguments.every)))
        return
    report = measure(arguments)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    show(report)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT in pixels, even numbers")
    parser.add_argument("--every", type=int, default=3, help="as of `mien track`")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "live" / "track.json")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # one part, in its own process
    parser.add_argument("--video", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all parts; return them with the commit, the model and the machine."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = min(SCENE, arguments.frames / RATE)
        scene = make_video(Path(folder) / "one.mp4", arguments.size, seconds=seconds, faces=1)
        video = repeat(scene, Path(folder) / "long.mp4", arguments.frames)
        parts = [measure_part(video, part, arguments.every) for part in PARTS]
        steps = measure_steps(scene, arguments.every, Path(folder) / "drawn.mp4")
        crowd = make_video(Path(folder) / "four.mp4", arguments.size, seconds=seconds, faces=4)
        tracking = [measure_tracking(crowd, every) for every in EVERY]
    reader = Reader()
    return {
        "command": " ".join(["python", "benchmarks/track.py", *sys.argv[1:]]),
        "commit": commit(),
        "model": reader.model.name,
        "precision": reader.model.metadata["precision"],
        "size": arguments.size,
        "frames": arguments.frames,
        "every": arguments.every,
        "machine": environment("mien", "numpy", "onnxruntime", "pillow", "av"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "speed": parts,
        "steps": steps,
        "tracking": tracking,
    }


def make_video(path: Path, size: str, *, seconds: float, faces: int) -> Path:
    """Run ``tools/make_video.py``, which also writes the ground truth beside the video."""
    tool = ROOT / "tools" / "make_video.py"
    command = [sys.executable, tool, "--out", path, "--size", size, "--rate", RATE]
    command += ["--seconds", seconds, "--faces", faces]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return path


def repeat(scene: Path, path: Path, frames: int) -> Path:
    """Repeat the encoded packets of ``scene`` until there are ``frames``."""
    written = 0
    with av.open(str(path), "w") as copy:
        stream = None
        while written < frames:
            with av.open(str(scene)) as whole:
                source = whole.streams.video[0]
                stream = stream or copy.add_stream_from_template(source)
                shift = round(written / RATE / source.time_base)
                for packet in whole.demux(source):
                    if packet.dts is None or written >= frames:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    copy.mux(packet)
                    written += 1
    return path


def measure_part(video: Path, part: str, every: int) -> dict[str, Any]:
    """Measure one part in its own process."""
    command = [sys.executable, __file__, "--video", str(video), "--part", part, "--every", str(every)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def track_video(video: Path, part: str, every: int) -> dict[str, Any]:
    """Track the faces of ``video``, and write JSON lines or an annotated video to a temporary folder."""
    tracker = Tracker(Reader(), every=every)
    memory: list[float] = []
    faces = 0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        frames = stack.enter_context(open_source(video))
        add = sink(part, Path(folder), stack, video)
        cpu, start = time.process_time(), time.perf_counter()
        for frame in frames:
            result = tracker.step(frame.pixels, frame.seconds)
            add(frame.pixels, result)
            faces += len(result.faces)
            if frame.index % MEMORY_EVERY == 0:
                memory.append(resident_mb())
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    count = result.index + 1
    fifth = max(1, len(memory) // 5)
    return {
        "part": part,
        "frames": count,
        "faces_a_frame": round(faces / count, 3),
        "frames_per_second": round(count / seconds, 1),
        "cpu_ms_per_frame": round(1000 * cpu / count, 2),
        "memory_mb": [round(value, 1) for value in memory],
        "memory_growth_mb": round(float(np.mean(memory[-fifth:]) - np.mean(memory[fifth : 2 * fifth] or memory)), 2),
        "peak_mb": None if (peak := peak_memory_mb()) is None else round(peak, 1),
    }


def sink(part: str, folder: Path, stack: ExitStack, video: Path) -> Callable[[Pixels, Any], None]:
    """Return the function that takes each frame and result."""
    if part == "JSON lines":
        lines = FrameJsonLines(stack.enter_context((folder / "out.jsonl").open("w", encoding="utf-8")))
        return lambda _, result: lines.add(result)
    if part == "annotated video":
        with av.open(str(video)) as container:
            size_wh = container.streams.video[0].width, container.streams.video[0].height
        writer = stack.enter_context(VideoWriter(folder / "out.mp4", source=None, size_wh=size_wh, rate=float(RATE)))
        return writer.write
    return lambda _, __: None


def resident_mb() -> float:
    """Return the resident set of this process in MB, or its peak on systems without ``/proc``."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return peak_memory_mb() or 0.0
    kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return float(kib) * 1024 / 1e6


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    speed = Table("part", "frames/s", "CPU ms a frame", "memory MB", "growth MB", title="one face")
    for row in report["speed"]:
        metrics = (row["frames_per_second"], row["cpu_ms_per_frame"], row["memory_mb"][-1], row["memory_growth_mb"])
        speed.add_row(row["part"], *map(str, metrics))
    steps = Table("step", "CPU ms a frame", title=f"steps, every {report['every']}")
    for name, value in report["steps"].items():
        steps.add_row(name, str(value))
    tracking = Table("every", "recall", "false positives", "ID switches", "step CPU ms", title="four faces")
    for row in report["tracking"]:
        metrics = (f"{row['recall']:.1%}", row["false_positives"], row["id_switches"], row["step_cpu_ms"])
        tracking.add_row(str(row["every"]), *map(str, metrics))
    for table in (speed, steps, tracking):
        Console().print(table)


def commit() -> str:
    """Return the commit of the checkout, with a plus if files were changed."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "no checkout"


if __name__ == "__main__":
    main()
