"""Two parts of `track.py`: the time of each step, and the accuracy of tracking."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mien._face import Box, Detection
from mien.detect import Detector
from mien.reader import Reader
from mien.video import Tracker, open_source
from mien.video.association import iou
from mien.video.video_writer import VideoWriter

RATE = 30  # frames per second of the generated videos
MIN_VISIBLE = 0.7  # share of a face from which it counts
MIN_OVERLAP = 0.3  # intersection over union of a reported box with the true one
Pixels = NDArray[np.uint8]


class Clock:
    """Adds up the CPU time of this thread by the names of the steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``call`` so that its time is added to ``name``."""

        def measured(*arguments: Any) -> Any:
            start = time.thread_time()
            result = call(*arguments)
            self.seconds[name] += time.thread_time() - start
            return result

        return measured


class TimedDetector:
    """A detector whose searches are timed."""

    def __init__(self, detector: Detector, clock: Clock) -> None:
        self.name = detector.name
        self._search = clock.timed("full search", detector)
        self._near = clock.timed("region search", detector.near)  # type: ignore[attr-defined]

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """Search the whole image."""
        return self._search(pixels)

    def near(self, pixels: Pixels, box: Box) -> list[Detection]:
        """Search a region of interest, like ``BlazeFace``."""
        return self._near(pixels, box)


def measure_steps(video: Path, every: int, drawn: Path) -> dict[str, float]:
    """Return the CPU milliseconds per frame of each step."""
    clock, reader = Clock(), Reader()
    reader.detector = TimedDetector(reader.detector, clock)
    reader.read_faces = clock.timed("extract and classify", reader.read_faces)  # type: ignore[method-assign]
    tracker = Tracker(reader, every=every)
    step = clock.timed("step", tracker.step)
    next_frame = clock.timed("decode", lambda: next(decoding, None))
    with av.open(str(video)) as container, ExitStack() as stack:
        decoding = decode_all(container)
        size_wh = container.streams.video[0].width, container.streams.video[0].height
        writer = stack.enter_context(VideoWriter(drawn, source=None, size_wh=size_wh, rate=float(RATE)))
        write = clock.timed("annotate and encode", writer.write)
        count = 0
        while (frame := next_frame()) is not None:
            write(frame[0], step(*frame))
            count += 1
    times = {name: 1000 * seconds / count for name, seconds in clock.seconds.items()}
    inner = times["full search"] + times["region search"] + times["extract and classify"]
    times["associate, smooth and the rest"] = times.pop("step") - inner
    return {name: round(value, 3) for name, value in times.items()}


def decode_all(container: Any) -> Iterator[tuple[Pixels, float]]:
    """Yield each frame as RGB and its time, decoded on this thread."""
    from mien.video.containers import to_pixels

    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    for frame in container.decode(stream):
        yield to_pixels(frame), frame.time


def measure_tracking(video: Path, every: int) -> dict[str, Any]:
    """Compare the tracks with the ground truth in the JSON file beside the video."""
    truth = json.loads(video.with_suffix(".json").read_text("utf-8"))["frames"]
    tracker = Tracker(Reader(), every=every)
    found = visible = false_positives = switches = 0
    numbers: dict[int, int] = {}
    seconds = 0.0
    with open_source(video) as frames:
        for frame, true in zip(frames, truth, strict=True):
            start = time.thread_time()
            faces = [face for face in tracker.step(frame.pixels, frame.seconds).faces if face.detected]
            seconds += time.thread_time() - start
            boxes = {face["face"]: Box(*face["box"]) for face in true["faces"]}
            false_positives += sum(all(iou(face.box, box) < MIN_OVERLAP for box in boxes.values()) for face in faces)
            for number in (face["face"] for face in true["faces"] if face["visible"] >= MIN_VISIBLE):
                visible += 1
                best = max(faces, key=lambda face: iou(face.box, boxes[number]), default=None)
                if best is not None and iou(best.box, boxes[number]) >= MIN_OVERLAP:
                    found += 1
                    switches += numbers.setdefault(number, best.track_id) != best.track_id
                    numbers[number] = best.track_id
    return {
        "every": every,
        "faces": visible,
        "recall": found / visible,
        "false_positives": false_positives,
        "identities": len({face["face"] for true in truth for face in true["faces"]}),
        "id_switches": switches,
        "step_cpu_ms": round(1000 * seconds / len(truth), 2),
    }
