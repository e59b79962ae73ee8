"""Two parts of `track.py`: what each step of following costs, and how rightly faces are followed."""

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

RATE = 30  # frames a second of the made films
SEEN = 0.7  # share of a face that can be seen, from which it counts
SAME = 0.3  # overlap of a reported box with the true one
Pixels = NDArray[np.uint8]


class Clock:
    """Adds up the time of this thread's core by the name of what was done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, its time added to ``name``."""

        def measured(*arguments: Any) -> Any:
            start = time.thread_time()
            answer = call(*arguments)
            self.seconds[name] += time.thread_time() - start
            return answer

        return measured


class TimedDetector:
    """A detector whose searches and looks are timed."""

    def __init__(self, detector: Detector, clock: Clock) -> None:
        self.name = detector.name
        self._search = clock.timed("search", detector)
        self._near = clock.timed("look", detector.near)  # type: ignore[attr-defined]

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """As of every detector."""
        return self._search(pixels)

    def near(self, pixels: Pixels, box: Box) -> list[Detection]:
        """As of ``BlazeFace``."""
        return self._near(pixels, box)


def measure_stages(film: Path, every: int, drawn: Path) -> dict[str, float]:
    """Milliseconds of one core a frame, step by step."""
    clock, reader = Clock(), Reader()
    reader.detector = TimedDetector(reader.detector, clock)
    reader.read_at = clock.timed("extract and classify", reader.read_at)  # type: ignore[method-assign]
    tracker = Tracker(reader, every=every)
    step = clock.timed("step", tracker.step)
    pictures = clock.timed("decode", lambda: next(decoding, None))
    with av.open(str(film)) as container, ExitStack() as stack:
        decoding = decode_all(container)
        size_wh = container.streams.video[0].width, container.streams.video[0].height
        writer = stack.enter_context(VideoWriter(drawn, source=None, size_wh=size_wh, rate=float(RATE)))
        write = clock.timed("annotate and encode", writer.write)
        count = 0
        while (frame := pictures()) is not None:
            write(frame[0], step(*frame))
            count += 1
    times = {name: 1000 * seconds / count for name, seconds in clock.seconds.items()}
    inner = times["search"] + times["look"] + times["extract and classify"]
    times["follow, smooth and the rest"] = times.pop("step") - inner
    return {name: round(value, 3) for name, value in times.items()}


def decode_all(container: Any) -> Iterator[tuple[Pixels, float]]:
    """Every frame as RGB and its time, on this thread."""
    from mien.video.sources import to_pixels

    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    for frame in container.decode(stream):
        yield to_pixels(frame), frame.time


def measure_following(film: Path, every: int) -> dict[str, Any]:
    """The reports against the truth that lies beside the film."""
    truth = json.loads(film.with_suffix(".json").read_text("utf-8"))["frames"]
    tracker = Tracker(Reader(), every=every)
    found = wanted = wrong = switches = 0
    numbers: dict[int, int] = {}
    seconds = 0.0
    with open_source(film) as frames:
        for frame, true in zip(frames, truth, strict=True):
            start = time.thread_time()
            faces = [face for face in tracker.step(frame.pixels, frame.seconds).faces if face.detected]
            seconds += time.thread_time() - start
            boxes = {face["face"]: Box(*face["box"]) for face in true["faces"]}
            wrong += sum(all(iou(face.box, box) < SAME for box in boxes.values()) for face in faces)
            for number in (face["face"] for face in true["faces"] if face["visible"] >= SEEN):
                wanted += 1
                best = max(faces, key=lambda face: iou(face.box, boxes[number]), default=None)
                if best is not None and iou(best.box, boxes[number]) >= SAME:
                    found += 1
                    switches += numbers.setdefault(number, best.track_id) != best.track_id
                    numbers[number] = best.track_id
    return {
        "every": every,
        "faces": wanted,
        "found": found / wanted,
        "wrong_reports": wrong,
        "people": len({face["face"] for true in truth for face in true["faces"]}),
        "changes_of_number": switches,
        "step_cpu_ms": round(1000 * seconds / len(truth), 2),
    }
