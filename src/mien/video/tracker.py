"""Tracker: search or look, follow, read and smooth, for one frame after another."""

import math
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mien._errors import ImageError, MienError
from mien._face import Box, Detection, Face, KeyPoints, Point
from mien.detect import Detector
from mien.reader import Reader
from mien.video.association import Follower, Smoother, center_of, overlap_of
from mien.video.sources import Frames, open_source
from mien.video.types import Moment, TrackedFace

_SURE_SCORE = 0.8  # a new face that scores so is one; any other must show that it is


_PROVES_FOR = 0.25  # seconds; so long it must be found, with


_PROVES_SHARE = 0.95  # of its first score on average: what passes for a face at one moment seldom keeps doing so


_HOLDS_FOR = 0.2  # seconds; a face that the detector misses so long is still reported, where it should be


class Followed:
    """One followed face. ``number`` is the id that people see; 0 as long as it may be something else than a face."""

    def __init__(self, face: Face, seconds: float, *, time_constant: float) -> None:
        """``face`` is the first reading, at ``seconds``; ``time_constant`` (seconds) is that of its probabilities."""
        self.number = 0
        self.last = face
        self._since = seconds
        self._scores: list[float] = []
        self._smoother = Smoother(time_constant)
        self._reported: TrackedFace | None = None

    def add(self, face: Face, seconds: float) -> None:
        """The reading of one more frame."""
        self._smoother(np.array(list(face.probs.values())), seconds)
        if not self.number:
            self._scores.append(face.score)
        self.last = face

    def proves(self, seconds: float) -> bool | None:
        """Whether it is a face: yes, no, or ``None`` where that is still open."""
        if self.last.score >= _SURE_SCORE:
            return True
        if seconds - self._since < _PROVES_FOR:
            return None
        return float(np.mean(self._scores)) >= _PROVES_SHARE * self._scores[0]

    def report(self, box: Box, *, abstain: float) -> TrackedFace:
        """The face as it is in this frame, in its steady ``box``; unsure below the probability ``abstain``."""
        probs = self._smoother.value
        best = int(probs.argmax())
        confidence, emotions = float(probs[best]), tuple(self.last.probs)
        emotion = emotions[best] if confidence >= abstain else None
        smoothed = dict(zip(emotions, probs.tolist(), strict=True))
        self._reported = TrackedFace(self.number, self.last, smoothed, emotion, confidence, box)
        return self._reported

    def hold(self, box: Box, *, missed_for: float) -> TrackedFace | None:
        """The face as it was reported last, in ``box``, where the detector has not missed it for too long (seconds)."""
        if self._reported is None or missed_for > _HOLDS_FOR:
            return None
        return replace(self._reported, box=box, seen=False)


_SURROUNDINGS = 2.2  # widths of a face: the square around its place in which it is looked for


_SAME_FACE = 0.4  # intersection over union from which two places are one face


_LEAST_SIDE = 8  # pixels; less of a picture shows no face


@runtime_checkable
class _Near(Protocol):
    """A detector with a look of its own."""

    def near(self, pixels: NDArray[np.uint8], box: Box) -> list[Detection]:
        """The faces around ``box``."""
        ...


def look(detector: Detector, pixels: NDArray[np.uint8], box: Box) -> list[Detection]:
    """What ``detector`` finds around ``box``, with its own look or in a cut-out of the picture."""
    if isinstance(detector, _Near):
        return detector.near(pixels, box)
    height, width = pixels.shape[:2]
    half = _SURROUNDINGS * max(box.width, box.height) / 2
    x, y = center_of(box)
    left, top = max(0, math.floor(x - half)), max(0, math.floor(y - half))
    right, bottom = min(width, math.ceil(x + half)), min(height, math.ceil(y + half))
    if right - left < _LEAST_SIDE or bottom - top < _LEAST_SIDE:
        return []
    return [_moved(found, left, top) for found in detector(pixels[top:bottom, left:right])]


def distinct(found: Sequence[Detection], known: Sequence[Detection] = ()) -> list[Detection]:
    """``found`` without the faces that stand in ``known``, or twice in it: the surest of them stays."""
    kept: list[Detection] = []
    for detection in sorted(found, key=lambda d: -d.score):
        if all(overlap_of(detection.box, other.box) < _SAME_FACE for other in (*known, *kept)):
            kept.append(detection)
    return kept


def _moved(detection: Detection, dx: int, dy: int) -> Detection:
    def move(point: Point) -> Point:
        return point[0] + dx, point[1] + dy

    box, points = detection.box, detection.points
    if points is not None:
        ears = (None if ear is None else move(ear) for ear in points[4:])
        points = KeyPoints(*map(move, points[:4]), *ears)
    return Detection(Box(box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy), detection.score, points)


_ROWS, _COLUMNS = 36, 64  # places of a frame that are looked at


_LEAST_CHANGE = 18.0  # of 255, mean over these places: moving cameras stay below it from frame to frame


_LARGE_CHANGE = 30.0  # the same, where the colours stay: another place in the same room


_LEAST_REPAINTED = 0.15  # share of the places whose colour was not there before: what moves takes its colours along


_LONGEST_STEP = 0.25  # seconds; over a longer time, people may do what looks like a cut


# Correlation of two crops. Of 20,503 pairs of different people 4 % lie above it; in two films of one person, 1 % of
# neighbouring frames below.
_SAME_PERSON = 0.6


Values = NDArray[np.float64]


class Scene:
    """Tells for each frame whether a cut lies before it. Lights that go on look like a cut too: ask ``alike``."""

    def __init__(self) -> None:
        self._before: tuple[NDArray[np.int16], Values] | None = None
        self._seconds = 0.0

    def cuts(self, pixels: NDArray[np.uint8], seconds: float) -> bool:
        """Whether the RGB uint8 ``[H, W, 3]`` frame at ``seconds`` shows another picture than the one before."""
        height, width = pixels.shape[:2]
        places = pixels[:: max(1, height // _ROWS), :: max(1, width // _COLUMNS)].astype(np.int16)
        colors = np.bincount(((places >> 6) @ np.array([16, 4, 1])).ravel(), minlength=64) / places[..., 0].size
        before, elapsed = self._before, seconds - self._seconds
        self._before, self._seconds = (places, colors), seconds
        if before is None or before[0].shape != places.shape or elapsed > _LONGEST_STEP:
            return False
        change = float(np.abs(places - before[0]).mean())
        repainted = float(np.abs(colors - before[1]).sum() / 2)
        return change >= _LARGE_CHANGE or (change >= _LEAST_CHANGE and repainted >= _LEAST_REPAINTED)


def alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two crops of faces, a moment apart, may show the same person, whatever the light."""
    a, b = (crop.astype(np.float64) - crop.mean() for crop in (one, other))
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return norm > 0 and float((a * b).sum()) / norm >= _SAME_PERSON


_ALONE = 0.25  # seconds; frames further apart than this are single pictures: nobody can show himself over several


Found = list[tuple[int, Detection]]


Seen = list[tuple[int, Face]]


class Tracker:
    """Follows the faces of one film or camera: give it the frames in their order. One tracker, one film, one thread."""

    def __init__(self, reader: Reader, *, every: int = 3, smooth: float = 0.5, forget: float = 1.0) -> None:
        """``reader`` finds and reads the faces; several trackers may share it.

        The whole picture is searched on each ``every``-th frame, after a cut, and when a face is lost. On the others
        the detector only looks where faces are expected from their motion. ``smooth`` is the time constant in seconds
        of the smoothed probabilities, 0 leaves them as they are. A face that was not seen for more than ``forget``
        seconds is given up, and a new one when it comes back; behind another face it is waited for thrice as long.

        Raises ``MienError`` for a number out of its range.
        """
        if every < 1:
            raise MienError(f"every counts from 1 (each frame is searched), not {every}")
        if not (math.isfinite(smooth) and smooth >= 0 and math.isfinite(forget) and forget >= 0):
            raise MienError(f"smooth and forget are seconds from 0, not {smooth} and {forget}")
        self.reader = reader
        self._every, self._smooth, self._forget = every, smooth, forget
        # Without a detector each picture is one face: there is nothing to look for around it.
        self._looks = getattr(reader.detector, "name", "") != "none"  # a plain function may find faces, too
        self._follower, self._scene = Follower(), Scene()
        self._people: dict[int, Followed] = {}  # by the keys of the follower's paths
        self._index = self._searched_ago = self._last_number = 0
        self._seconds = -math.inf
        self._size_wh = (0, 0)

    def step(self, pixels: NDArray[np.uint8], seconds: float) -> Moment:
        """The faces of the next frame: ``pixels`` RGB uint8 ``[H, W, 3]``, ``seconds`` its presentation time.

        Raises ``ImageError`` for another array, ``MienError`` where ``seconds`` falls.
        """
        self._check(pixels, seconds)
        cut = self._scene.cuts(pixels, seconds) or self._resized(pixels)
        found, new = self._find(pixels, seconds, searching=cut)
        faces = self.reader.read_at(pixels, [detection for _, detection in found] + new)
        seen = [(key, face) for (key, _), face in zip(found, faces, strict=False)]
        if cut:
            seen = self._after_cut(seen, seconds)
        seen += [(self._start(face, seconds), face) for face in faces[len(found) :]]
        self._learn(seen, seconds, at_once=cut or seconds - self._seconds > _ALONE)
        self._give_up(self._unseen({key for key, _ in seen}, seconds))
        moment = Moment(self._index, seconds, self._size_wh, self._report({key for key, _ in seen}, seconds))
        self._index, self._seconds = self._index + 1, seconds
        return moment

    def _check(self, pixels: NDArray[np.uint8], seconds: float) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ImageError(f"a frame is RGB uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        if not seconds >= self._seconds or not math.isfinite(seconds):
            raise MienError(f"frames come in their order: {seconds} s cannot follow {self._seconds} s")

    def _resized(self, pixels: NDArray[np.uint8]) -> bool:
        """Whether the frame has another size than the last; places of before then mean nothing, and are given up."""
        before, self._size_wh = self._size_wh, (pixels.shape[1], pixels.shape[0])
        if before == self._size_wh:
            return False
        self._give_up(list(self._people))
        return True

    def _find(self, pixels: NDArray[np.uint8], seconds: float, *, searching: bool) -> tuple[Found, list[Detection]]:
        """The faces that are followed, with their places, and the places of new ones."""
        expected = {key for key, path in self._follower.paths.items() if path.seconds == self._seconds and self._looks}
        found = self._look(pixels, seconds, expected)
        self._searched_ago += 1
        lost = len(found) < len(expected)
        if not (searching or lost or self._searched_ago >= self._every or not self._looks):
            return found, []
        self._searched_ago = 0
        places = distinct(self.reader.detector(pixels), [detection for _, detection in found])
        again = self._match(places, seconds, set(self._follower.paths) - {key for key, _ in found})
        known = [id(detection) for _, detection in again]
        return found + again, [place for place in places if id(place) not in known]

    def _look(self, pixels: NDArray[np.uint8], seconds: float, expected: set[int]) -> Found:
        boxes = [self._follower.paths[key].predict(seconds) for key in expected]
        around = [detection for box in boxes for detection in look(self.reader.detector, pixels, box)]
        return self._match(distinct(around), seconds, expected)

    def _match(self, places: Sequence[Detection], seconds: float, among: set[int]) -> Found:
        keys = self._follower.match([place.box for place in places], seconds, among=among)
        return [(key, place) for key, place in zip(keys, places, strict=True) if key is not None]

    def _after_cut(self, seen: Seen, seconds: float) -> Seen:
        """After a cut, a face in the same place is the same person only when it looks like it; nobody else is kept."""
        kept = [(key, face) for key, face in seen if alike(self._people[key].last.crop, face.crop)]
        same = {key for key, _ in kept}
        self._give_up([key for key in self._people if key not in same])
        return kept + [(self._start(face, seconds), face) for key, face in seen if key not in same]

    def _start(self, face: Face, seconds: float) -> int:
        key = self._follower.start(face.box, seconds)
        self._people[key] = Followed(face, seconds, time_constant=self._smooth)
        return key

    def _give_up(self, keys: Iterable[int]) -> None:
        gone = set(keys)
        self._follower.drop(gone)
        self._people = {key: person for key, person in self._people.items() if key not in gone}

    def _learn(self, seen: Seen, seconds: float, *, at_once: bool) -> None:
        """Tell paths and people what was seen; those that have shown that they are faces get their numbers."""
        for key, face in seen:
            person = self._people[key]
            self._follower.paths[key].update(face.box, seconds)
            person.add(face, seconds)
            proven = at_once or person.number > 0 or person.proves(seconds)
            if proven is False:
                self._give_up([key])
            elif proven and not person.number:
                self._last_number += 1
                person.number = self._last_number

    def _unseen(self, seen: set[int], seconds: float) -> list[int]:
        """Who is given up: not seen for too long. What has not shown yet that it is a face is not waited for."""
        elapsed = max(0.0, seconds - self._seconds) if self._index else 0.0
        blinks = [key for key, person in self._people.items() if not person.number and key not in seen]
        here = seen & self._people.keys()
        return blinks + self._follower.wait(here, seconds, elapsed=elapsed, forget=self._forget)

    def _report(self, seen: set[int], seconds: float) -> tuple[TrackedFace, ...]:
        """Everybody who is seen, and those who are missed for a moment, by their numbers."""
        faces = []
        for key, person in self._people.items():
            path = self._follower.paths[key]
            if person.number and key in seen:
                faces.append(person.report(path.steady, abstain=self.reader.abstain))
            elif (held := person.hold(path.predict_steady(seconds), missed_for=seconds - path.seconds)) is not None:
                faces.append(held)
        return tuple(sorted(faces, key=lambda face: face.id))


def track(
    source: str | os.PathLike[str] | int,
    *,
    reader: Reader | None = None,
    every: int = 3,
    smooth: float = 0.5,
    forget: float = 1.0,
    fps: float = 25.0,
    keep_pixels: bool = False,
) -> Generator[Moment, None, None]:
    """Follow the faces of ``source`` (a film, camera, address or folder, as ``open_source`` says) through its frames.

        for moment in mien.track("film.mp4"):
            for face in moment.faces:
                print(moment.seconds, face.id, face.emotion, face.confidence)

    ``reader`` reads the faces, by default ``Reader()``. ``every``, ``smooth`` and ``forget`` are those of ``Tracker``,
    ``fps`` is for folders. ``keep_pixels`` leaves the frame in its moment. Memory stays the same at any length. Closing
    the generator, as leaving a loop over it does in the end, ends the threads and closes the file.

    Raises ``SourceError`` for what cannot be opened (at once) or breaks off, ``MissingExtraError`` without PyAV.
    """
    tracker = Tracker(reader or Reader(), every=every, smooth=smooth, forget=forget)
    moments = _follow(open_source(source, fps=fps), tracker, keep_pixels)
    next(moments)  # into the block that closes the source, also where nobody asks for a moment
    return moments


def _follow(frames: Frames, tracker: Tracker, keep_pixels: bool) -> Generator[Any, None, None]:
    with frames:
        yield None
        for frame in frames:
            moment = tracker.step(frame.pixels, frame.seconds)
            yield replace(moment, pixels=frame.pixels) if keep_pixels else moment
