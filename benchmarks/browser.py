"""Speed of the page in a real browser: frames per second of a camera, milliseconds per step, one thread.

    make web
    python benchmarks/browser.py [--seconds 20] [--json results/live/browser.json]
    python benchmarks/browser.py --images FOLDER [--json results/live/agreement.json]

With ``--images`` it compares the readings of the page with those of Python instead, for the images of a folder.

The camera of a headless Chromium without a GPU plays a video of one moving face (640 x 480). The script uses the page
as a user does: start the camera, wait, save the results. Frames per second come from the saved times after a warm-up,
in which the browser compiles. The page's own modules time the steps.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from mien import Reader  # noqa: E402
from mien._measure import environment  # noqa: E402
from support.browser import Visit, build, camera_video, chromium, playing, serving  # noqa: E402

CAMERA = ("--use-fake-device-for-media-stream", "--use-file-for-fake-video-capture={video}")
WARM_UP = 5.0  # seconds
STEPS = ("grab", "decode", "detect", "extract", "infer", "total")
FOLLOW = """async (milliseconds) => {
    const { Browser } = await import("./browser.mjs");
    const engine = new Browser();
    const begun = performance.now();
    await engine.open();
    const opened = performance.now() - begun;
    const video = document.createElement("video");
    video.muted = true;
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
    await video.play();
    const frames = [];
    const start = performance.now();
    while (performance.now() - start < milliseconds) {
        const before = performance.now();
        const bitmap = await createImageBitmap(video);
        const grab = performance.now() - before;
        const { searched, faces, milliseconds } = await engine.frame(bitmap, (before - start) / 1000, { smooth: 0.5 });
        const total = performance.now() - before;
        frames.push({ at: before - start, searched, faces: faces.length, grab, total, ...milliseconds });
    }
    video.srcObject.getTracks().forEach((track) => track.stop());
    return { opened, frames };
}"""
READ = """async (text) => {
    const { Browser } = await import("./browser.mjs");
    const engine = new Browser();
    await engine.open();
    const blob = new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]);
    const times = [];
    for (let turn = 0; turn < 15; turn++) {
        const before = performance.now();
        const { bitmap } = await engine.read(blob);
        bitmap.close();
        times.push(performance.now() - before);
    }
    return times;
}"""


READ_ONCE = """async (text) => {
    globalThis.engine ??= new (await import("./browser.mjs")).Browser();
    await engine.open();
    const { bitmap, faces } = await engine.read(new Blob([Uint8Array.from(atob(text), (x) => x.charCodeAt(0))]));
    bitmap.close();
    return faces.map(({ box, probs }) => ({ box, probs }));
}"""


def main() -> None:
    """Measure, print and optionally write JSON."""
    arguments = parse()
    report = compare(arguments.images) if arguments.images else measure(arguments.seconds)
    if arguments.images:
        print(
            f"{report['faces']} faces, {report['unmatched']} only in one; probabilities differ by more than 0.01: "
            f"{report['above_0.01']:.1%}; 99th percentile {report['percentiles']['99']:.3f}"
        )
    else:
        show(report)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def show(report: dict[str, Any]) -> None:
    """Print the speeds."""
    camera = report["camera"]
    print(f"camera: {camera['frames_per_second']:.1f} frames/s, slowest of 20: {camera['slowest_of_twenty_ms']:.0f} ms")
    for kind in ("followed", "searched"):
        print(f"{kind}: " + ", ".join(f"{step} {value:.1f} ms" for step, value in report["steps"][kind].items()))
    print(f"an image of 512 x 512 pixels: {report['image_ms']:.0f} ms; opening: {report['open_ms']:.0f} ms")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each of the two measurements")
    parser.add_argument("--images", type=Path, help="compare the readings of the JPEG and PNG files of this folder")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def compare(folder: Path) -> dict[str, Any]:
    """How far the probabilities of the page are from those of Python, for the same faces of the same files."""
    import base64

    reader, pairs, unmatched = Reader(), [], 0
    images = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    with serving(built()) as address, playing() as player, chromium(player) as browser:
        visit = Visit(browser, address)
        for path in images:
            here = [(face.box, list(face.probs.values())) for face in reader.read(path)]
            there = visit.page.evaluate(READ_ONCE, base64.b64encode(path.read_bytes()).decode())
            for box, probs in here:
                nearest = min(there, key=lambda face: math.dist(face["box"], box), default=None)
                if nearest is None or math.dist(nearest["box"], box) > (box[2] - box[0]) / 4:
                    unmatched += 1
                    continue
                there.remove(nearest)
                pairs.append((probs, list(nearest["probs"].values())))
            unmatched += len(there)
        version = browser.version
        visit.close()
    here, there = np.array(pairs).transpose(1, 0, 2)
    largest = np.abs(here - there).max(1)
    return {
        "command": command(),
        "model": reader.model.name,
        "images": len(images),
        "faces": len(pairs),
        "unmatched": unmatched,
        "above_0.01": float((largest > 0.01).mean()),
        "top_differs": float((here.argmax(1) != there.argmax(1)).mean()),
        "percentiles": {str(q): float(np.percentile(largest, q)) for q in (50, 90, 99, 100)},
        "browser": f"Chromium {version}, headless, no GPU",
        "runtime": f"onnxruntime-web {package_version()}, WebAssembly, 1 thread",
        "machine": environment("mien", "onnxruntime"),
        "commit": commit(),
    }


def built() -> Path:
    """The folder of the page with its runtime; ends the program where it cannot be built."""
    try:
        site: Path = build()
    except BaseException as error:  # pytest's Skipped is no Exception
        sys.exit(f"error: {error}")
    return site


def measure(seconds: float) -> dict[str, Any]:
    """All results, with the machine, the browser and the commit."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, serving(built()) as address, playing() as player:
        path = camera_video(Path(folder) / "camera.mjpeg")
        with chromium(player, *(flag.format(video=path) for flag in CAMERA)) as browser:
            camera = use_page(browser, address, seconds)
            steps = follow(browser, address, seconds)
            image = read(browser, address)
            version = browser.version
    return {
        "command": command(),
        "camera": camera,
        **steps,
        "image_ms": round(statistics.median(image[5:]), 1),
        "browser": f"Chromium {version}, headless, no GPU",
        "runtime": f"onnxruntime-web {package_version()}, WebAssembly, 1 thread",
        "machine": {**environment("mien", "onnxruntime"), "load": f"{os.getloadavg()[0]:.1f}"},
        "commit": commit(),
    }


def use_page(browser: Any, address: str, seconds: float) -> dict[str, Any]:
    """Frames per second of the page, and the pause between frames that 5 % of the frames exceed."""
    visit = Visit(browser, address, permissions=["camera"]).ready()
    visit.page.click("#start")
    visit.page.locator("#tracks li").wait_for()
    time.sleep(WARM_UP + seconds)
    lines = [json.loads(line) for line in visit.saved("#camera-json").decode().splitlines()]
    visit.page.click("#stop")
    visit.close()
    end = lines[-1]["seconds"]
    times = [line["seconds"] for line in lines if line["seconds"] >= end - seconds]
    pauses = sorted(1000 * (later - before) for before, later in pairwise(times))
    return {
        "frames_per_second": round((len(times) - 1) / (times[-1] - times[0]), 2),
        "slowest_of_twenty_ms": round(pauses[int(0.95 * len(pauses))], 1),
        "frames": len(times),
        "faces": sorted({len(line["faces"]) for line in lines if line["seconds"] >= end - seconds}),
        "size_wh": [640, 480],
    }


def follow(browser: Any, address: str, seconds: float) -> dict[str, Any]:
    """Median milliseconds of each step, for frames with a full search and for frames between searches."""
    visit = Visit(browser, address, permissions=["camera"])
    answer = visit.page.evaluate(FOLLOW, 1000 * (WARM_UP + seconds))
    visit.close()
    frames = [frame for frame in answer["frames"] if frame["at"] >= 1000 * WARM_UP]
    steps = {
        kind: {
            step: round(statistics.median(f[step] for f in frames if f["searched"] == is_search), 2) for step in STEPS
        }
        for kind, is_search in (("followed", False), ("searched", True))
    }
    return {
        "open_ms": round(answer["opened"], 1),
        "steps": {**steps, "share_searched": round(sum(f["searched"] for f in frames) / len(frames), 3)},
    }


def read(browser: Any, address: str) -> list[float]:
    """Milliseconds of repeated readings of the example image."""
    import base64

    visit = Visit(browser, address)
    text = base64.b64encode((ROOT / "examples" / "astronaut.png").read_bytes()).decode()
    times: list[float] = visit.page.evaluate(READ, text)
    visit.close()
    return times


def package_version() -> str:
    """Installed version of ONNX Runtime Web."""
    package = ROOT / "web" / "node_modules" / "onnxruntime-web" / "package.json"
    version: str = json.loads(package.read_text("utf-8"))["version"]
    return version


def command() -> str:
    """The command line without the folders of this machine."""
    words = [f".../{Path(word).name}" if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python", "benchmarks/browser.py", *words])


def commit() -> str:
    """The commit of the checkout, with a plus if files were changed."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")


if __name__ == "__main__":
    main()
