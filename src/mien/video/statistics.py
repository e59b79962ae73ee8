"""Everyone who is seen in a video: when, for how long, with which emotions. Bounded, however many tracks pass by."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._emotions import Emotion
from mien._face import Box
from mien.video.types import FrameResult, TrackedFace

MAX_BINS = 2048  # kept of one track: more than a page has pixels


_FIRST_BIN = 0.1  # seconds; about three frames of a video, so that a bin is never empty by chance


_FIRST_ROOM = 64  # bins; most tracks are seen for seconds


class CurveSamples(NamedTuple):
    """A curve at even steps: sample ``i`` covers ``start + i * step`` to ``start + (i + 1) * step``, in seconds.

    ``means`` is float64 ``[N, C]``, the mean probabilities of each step, and NaN where the track was away.
    """

    start: float
    step: float
    means: NDArray[np.float64]

    @property
    def end(self) -> float:
        """Seconds at which the last sample ends."""
        return self.start + self.step * len(self.means)


class ProbabilityCurve:
    """Mean probabilities by bin, weighted with the time for which they held."""

    def __init__(self, start: float, classes: int) -> None:
        """``start`` in seconds is where the first bin begins; ``classes`` is how many probabilities come at a time."""
        self.start = start
        self.bin_seconds = _FIRST_BIN
        self._sums = np.zeros((_FIRST_ROOM, classes))
        self._weights = np.zeros(_FIRST_ROOM)  # seconds
        self._used = 0

    def add(self, start: float, end: float, probs: Sequence[float]) -> None:
        """Note that ``probs`` held from ``start`` to ``end``, in seconds; ``start`` never before the curve's."""
        if end <= start:
            return
        self._make_room(end)
        at = start
        index = int((start - self.start) / self.bin_seconds)
        while at < end:
            until = min(end, self.start + (index + 1) * self.bin_seconds)
            self._sums[index] += np.multiply(probs, max(0.0, until - at))
            self._weights[index] += max(0.0, until - at)
            at, index = max(at, until), index + 1
        self._used = max(self._used, index)

    def samples(self, most: int) -> CurveSamples:
        """The curve in at most ``most`` steps, neighbours merged."""
        merged = max(1, -(-self._used // most))
        count = -(-self._used // merged)
        sums = np.zeros((count * merged, self._sums.shape[1]))
        weights = np.zeros(count * merged)
        sums[: self._used], weights[: self._used] = self._sums[: self._used], self._weights[: self._used]
        weight = weights.reshape(count, merged).sum(axis=1)
        mean = sums.reshape(count, merged, sums.shape[1]).sum(axis=1) / np.where(weight > 0, weight, np.nan)[:, None]
        return CurveSamples(self.start, self.bin_seconds * merged, mean)

    def _make_room(self, end: float) -> None:
        """Bins up to ``end``: more of them, and once there are too many, half as many twice as long."""
        while (end - self.start) / self.bin_seconds >= MAX_BINS - 1:
            self._sums = _with_room(self._sums, MAX_BINS).reshape(MAX_BINS // 2, 2, -1).sum(axis=1)
            self._weights = _with_room(self._weights, MAX_BINS).reshape(-1, 2).sum(axis=1)
            self._used = -(-self._used // 2)
            self.bin_seconds *= 2
        needed = int((end - self.start) / self.bin_seconds) + 2
        if needed > len(self._weights):
            room = min(MAX_BINS, max(needed, 2 * len(self._weights)))
            self._sums, self._weights = _with_room(self._sums, room), _with_room(self._weights, room)


def _with_room(values: NDArray[np.float64], room: int) -> NDArray[np.float64]:
    padded = np.zeros((room, *values.shape[1:]))
    padded[: len(values)] = values
    return padded


_SIDE = 160  # pixels of a thumbnail, shown half as large: sharp on fine screens, about 6 kB


_QUALITY = 80  # of 100, JPEG


_SURROUNDINGS = 1.7  # sides of the box: the whole head ...


_HIGHER_UP = 0.1  # ... which goes on above the box, by this share of its height


_INSIDE = 0.85  # share of the box that must lie in the picture


_HIGHER = 0.02  # by which a moment must beat the one that is kept, so that a slow rise is not one picture a frame ...


_LATER = 0.5  # ... or come so many seconds after the last comparison


_LARGER = 1.5  # times the area: a better portrait


class Thumbnail(NamedTuple):
    """A picture of a face, with the result in seconds and the smoothed probability of the emotion it shows."""

    seconds: float
    emotion: Emotion | None
    probability: float
    jpeg: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode('ascii')}"


class Thumbnails:
    """The best moment of every emotion of one track, and a portrait: at most one picture more than emotions."""

    def __init__(self) -> None:
        self.portrait: Thumbnail | None = None
        self._best: dict[Emotion, Thumbnail] = {}
        self._looked: dict[Emotion, float] = {}
        self._area = 0.0

    def consider(self, face: TrackedFace, seconds: float, pixels: NDArray[np.uint8]) -> None:
        """Keep the face of this result, cut out of ``pixels``, where it is the best of its emotion so far."""
        if not face.detected or _inside(face.box, pixels.shape[1], pixels.shape[0]) < _INSIDE:
            return
        area = face.box.width * face.box.height
        if area > _LARGER * self._area:
            self._area = area
            self.portrait = _take(face, seconds, pixels)
        if face.emotion is not None and self._beats(face.emotion, face.confidence, seconds):
            self._best[face.emotion] = _take(face, seconds, pixels)

    def peaks(self, most: int) -> list[Thumbnail]:
        """The results of the ``most`` emotions that were read most surely, in the order of time."""
        surest = sorted(self._best.values(), key=lambda thumbnail: thumbnail.probability, reverse=True)
        return sorted(surest[:most], key=lambda thumbnail: thumbnail.seconds)

    def _beats(self, emotion: Emotion, probability: float, seconds: float) -> bool:
        best = self._best.get(emotion)
        if best is None or probability > best.probability + _HIGHER:
            self._looked[emotion] = seconds
            return True
        if seconds < self._looked[emotion] + _LATER:
            return False
        self._looked[emotion] = seconds
        return probability > best.probability


def _take(face: TrackedFace, seconds: float, pixels: NDArray[np.uint8]) -> Thumbnail:
    x1, y1, side = _square(face.box, pixels.shape[1], pixels.shape[0])
    cut = Image.fromarray(np.ascontiguousarray(pixels[y1 : y1 + side, x1 : x1 + side]))
    buffer = io.BytesIO()
    cut.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0).save(buffer, "JPEG", quality=_QUALITY)
    return Thumbnail(seconds, face.emotion, face.confidence, buffer.getvalue())


def _square(box: Box, width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of the square around a face, moved into the picture."""
    side = max(1, min(round(_SURROUNDINGS * max(box.width, box.height)), width, height))
    left = round((box.x1 + box.x2 - side) / 2)
    top = round((box.y1 + box.y2 - side) / 2 - _HIGHER_UP * box.height)
    return min(max(left, 0), width - side), min(max(top, 0), height - side), side


def _inside(box: Box, width: int, height: int) -> float:
    """The share of a box that lies in the picture."""
    x = max(0.0, min(box.x2, width) - max(box.x1, 0))
    y = max(0.0, min(box.y2, height) - max(box.y1, 0))
    return x * y / max(box.width * box.height, 1e-9)


MAX_TRACKS = 64  # kept with curve and thumbnails, about 200 kB each; beyond them the briefest are only counted


_LONGEST_STEP = 2.0  # seconds for which a frame stands at most: a camera may pause


_USUAL_STEP = 1 / 25  # seconds for which the only frame of a video stands


_REMEMBERED = 60.0  # seconds for which someone who is only counted is known again


@dataclass(eq=False)
class TrackStatistics:
    """One face as long as it was followed: times in seconds, ``shares`` the seconds by emotion (``None``: unsure).

    The columns of ``curve`` are the probabilities, and in the last one 1 where the reader was unsure, else 0.
    """

    track_id: int
    first: float
    last: float
    curve: ProbabilityCurve
    seconds: float = 0.0
    shares: dict[Emotion | None, float] = field(default_factory=dict)
    thumbnails: Thumbnails = field(default_factory=Thumbnails)


class VideoStatistics:
    """Takes results in their order. A frame stands until the next one comes, the last as long as the one before it."""

    def __init__(self) -> None:
        self.emotions: tuple[Emotion, ...] = ()
        self.count = 0
        self.merged = 0  # of them only counted
        self.merged_seconds = 0.0  # how long one of these was in sight, at most
        self._kept: dict[int, TrackStatistics] = {}
        self._merged_at: dict[int, float] = {}
        self._standing: tuple[TrackedFace, ...] = ()
        self._at: float | None = None
        self._step = _USUAL_STEP

    def __iter__(self) -> Iterator[TrackStatistics]:
        return iter(sorted(self._kept.values(), key=lambda track: track.track_id))

    def add(self, result: FrameResult) -> list[tuple[TrackStatistics, TrackedFace]]:
        """Take a moment; returns its faces beside the tracks whom they belong to, without those only counted."""
        if self._at is not None and result.seconds > self._at:
            self._step = result.seconds - self._at
            self._settle(result.seconds)
        self._at = result.seconds
        self._standing = result.faces
        present = {face.track_id for face in result.faces}
        found = [(self._track(face, result.seconds, present), face) for face in result.faces]
        return [(track, face) for track, face in found if track is not None]

    def finish(self) -> None:
        """Let the last moment stand for its time."""
        if self._at is not None:
            self._settle(self._at + self._step)
            self._standing = ()

    def _settle(self, until: float) -> None:
        """Give the time from the last moment on to the faces that stood in it."""
        start = self._at or 0.0
        end = min(until, start + _LONGEST_STEP)
        for face in self._standing:
            track = self._kept.get(face.track_id)
            if track is not None:
                track.last = end
                track.seconds += end - start
                track.shares[face.emotion] = track.shares.get(face.emotion, 0.0) + end - start
                track.curve.add(start, end, [*face.probs.values(), float(face.emotion is None)])

    def _track(self, face: TrackedFace, seconds: float, present: set[int]) -> TrackStatistics | None:
        if face.track_id in self._kept:
            return self._kept[face.track_id]
        if face.track_id in self._merged_at:
            self._merged_at[face.track_id] = seconds
            return None
        self.count += 1
        self.emotions = self.emotions or tuple(face.probs)
        if len(self._kept) >= MAX_TRACKS and not self._merge_briefest(seconds, present):
            self._merge(face.track_id, seconds, 0.0)
            return None
        track = TrackStatistics(face.track_id, seconds, seconds, ProbabilityCurve(seconds, len(face.probs) + 1))
        self._kept[face.track_id] = track
        return track

    def _merge_briefest(self, seconds: float, present: set[int]) -> bool:
        """Make room by only counting the one seen for the shortest time of those not seen now, if there is any."""
        away = [track for track in self._kept.values() if track.track_id not in present]
        if not away:
            return False
        briefest = min(away, key=lambda track: track.seconds)
        del self._kept[briefest.track_id]
        self._merge(briefest.track_id, seconds, briefest.seconds)
        return True

    def _merge(self, number: int, seconds: float, duration: float) -> None:
        self.merged += 1
        self.merged_seconds = max(self.merged_seconds, duration)
        self._merged_at = {i: at for i, at in self._merged_at.items() if seconds - at < _REMEMBERED}
        self._merged_at[number] = seconds
