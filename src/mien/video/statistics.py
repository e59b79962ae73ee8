"""Collect when each track of a video is seen, with which emotions, and its thumbnails, in bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._emotions import Emotion
from mien._face import Pixels
from mien._page import data_uri
from mien.video.types import FrameResult, TrackedFace

MAX_TRACKS = 64  # with curve and thumbnails, about 200 kB each; further tracks are only counted
MAX_BINS = 2048  # of one curve: more than a page is wide in pixels
_FIRST_BIN_SECONDS = 0.1  # about three frames, so that a bin is seldom empty by chance
_FIRST_BINS = 64  # most tracks last for seconds
# A frame counts for at most this time. It covers a folder at 0.5 frames per second; in a longer pause of a camera
# the face may have been elsewhere.
_MAX_FRAME_SECONDS = 2.0
_DEFAULT_FRAME_SECONDS = 1 / 25  # for which the only frame of a video counts
_REMEMBER_SECONDS = 60.0  # for which a track that is only counted is not counted again
# Thumbnails.
_SIDE = 160  # pixels, shown at half the size for sharp displays; about 8 kB as text
_JPEG_QUALITY = 80  # of 100
_MARGIN = 1.7  # side of the thumbnail in sides of the box: the whole head
_SHIFT_UP = 0.1  # of the centre, in heights of the box, because the head continues above it
_MIN_INSIDE = 0.85  # share of the box that must be inside the frame
_MIN_GAIN = 0.02  # of probability for a new thumbnail, so that a slow rise does not replace it in every frame ...
_RETRY_SECONDS = 0.5  # ... but after this time, any higher probability does
_MIN_ENLARGEMENT = 1.5  # ratio of the areas from which a face replaces the portrait


class CurveSamples(NamedTuple):
    """A curve at equal steps.

    Args:
        start: Time of the first sample in seconds.
        step: Length of a sample in seconds: sample ``i`` covers ``start + i * step`` to ``start + (i + 1) * step``.
        means: Mean probabilities of each sample, float64 ``[N, C]``; NaN where the track was away.
    """

    start: float
    step: float
    means: NDArray[np.float64]


class ProbabilityCurve:
    """Mean probabilities over time, in at most ``MAX_BINS`` bins, weighted by duration.

    Args:
        start: Time of the first bin in seconds.
        classes: Number of probabilities in each sample.

    Example:
        >>> curve = ProbabilityCurve(0.0, 2)
        >>> curve.add(0.0, 0.1, [0.75, 0.25])
        >>> curve.samples(10).means.round(2).tolist()
        [[0.75, 0.25]]
    """

    def __init__(self, start: float, classes: int) -> None:
        self.start = start
        self.bin_seconds = _FIRST_BIN_SECONDS
        self._sums = np.zeros((_FIRST_BINS, classes))
        self._weights = np.zeros(_FIRST_BINS)  # seconds
        self._used = 0

    def add(self, start: float, end: float, probs: Sequence[float]) -> None:
        """Add probabilities that held for a time.

        Args:
            start: Begin in seconds, not before that of the curve.
            end: End in seconds.
            probs: One value for each class.
        """
        if end <= start:
            return
        while (end - self.start) / self.bin_seconds >= MAX_BINS - 1:  # merge the bins in pairs
            self._sums = _padded(self._sums, MAX_BINS).reshape(MAX_BINS // 2, 2, -1).sum(axis=1)
            self._weights = _padded(self._weights, MAX_BINS).reshape(-1, 2).sum(axis=1)
            self._used = -(-self._used // 2)
            self.bin_seconds *= 2
        needed = int((end - self.start) / self.bin_seconds) + 2
        if needed > len(self._weights):
            length = min(MAX_BINS, max(needed, 2 * len(self._weights)))
            self._sums, self._weights = _padded(self._sums, length), _padded(self._weights, length)
        at = start
        index = int((start - self.start) / self.bin_seconds)
        while at < end:
            until = min(end, self.start + (index + 1) * self.bin_seconds)
            self._sums[index] += np.multiply(probs, max(0.0, until - at))
            self._weights[index] += max(0.0, until - at)
            at, index = max(at, until), index + 1
        self._used = max(self._used, index)

    def samples(self, most: int) -> CurveSamples:
        """Return the curve with neighbouring bins merged.

        Args:
            most: Maximum number of samples.

        Returns:
            The samples.
        """
        merged = max(1, -(-self._used // most))
        count = -(-self._used // merged)
        sums = _padded(self._sums[: self._used], count * merged).reshape(count, merged, self._sums.shape[1])
        weights = _padded(self._weights[: self._used], count * merged).reshape(count, merged).sum(axis=1)
        means = sums.sum(axis=1) / np.where(weights > 0, weights, np.nan)[:, None]
        return CurveSamples(self.start, self.bin_seconds * merged, means)


def _padded(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    padded = np.zeros((length, *values.shape[1:]))
    padded[: len(values)] = values
    return padded


class Thumbnail(NamedTuple):
    """An image of a face.

    Args:
        seconds: Time of the frame.
        emotion: Its smoothed emotion; ``None`` if unsure.
        probability: The smoothed probability of that emotion.
        uri: The image as a data URI of a JPEG file.
    """

    seconds: float
    emotion: Emotion | None
    probability: float
    uri: str


class Thumbnails:
    """The thumbnail with the highest probability of each emotion of one track, and a portrait."""

    def __init__(self) -> None:
        self.portrait: Thumbnail | None = None
        self._best: dict[Emotion, Thumbnail] = {}
        self._compared: dict[Emotion, float] = {}  # time of the last comparison in seconds
        self._area = 0.0

    def consider(self, face: TrackedFace, seconds: float, pixels: Pixels) -> None:
        """Keep a thumbnail of a face if it is better than the one of its emotion.

        Args:
            face: The face. One that was not detected, or is partly outside of the frame, is ignored.
            seconds: Time of the frame.
            pixels: The frame, RGB uint8 ``[H, W, 3]``.
        """
        box, (height, width) = face.box, pixels.shape[:2]
        inside_x = max(0.0, min(box.x2, width) - max(box.x1, 0))
        inside_y = max(0.0, min(box.y2, height) - max(box.y1, 0))
        area = box.width * box.height
        if not face.detected or inside_x * inside_y / max(area, 1e-9) < _MIN_INSIDE:
            return
        if area > _MIN_ENLARGEMENT * self._area:
            self._area = area
            self.portrait = _cut_thumbnail(face, seconds, pixels)
        if face.emotion is not None and self._is_better(face.emotion, face.confidence, seconds):
            self._best[face.emotion] = _cut_thumbnail(face, seconds, pixels)

    def peaks(self, most: int) -> list[Thumbnail]:
        """Return the thumbnails of the emotions with the highest probabilities.

        Args:
            most: Maximum number of emotions.

        Returns:
            One thumbnail for each, sorted by time.
        """
        highest = sorted(self._best.values(), key=lambda thumbnail: thumbnail.probability, reverse=True)
        return sorted(highest[:most], key=lambda thumbnail: thumbnail.seconds)

    def _is_better(self, emotion: Emotion, probability: float, seconds: float) -> bool:
        best = self._best.get(emotion)
        if best is None or probability > best.probability + _MIN_GAIN:
            self._compared[emotion] = seconds
            return True
        if seconds < self._compared[emotion] + _RETRY_SECONDS:
            return False
        self._compared[emotion] = seconds
        return probability > best.probability


def _cut_thumbnail(face: TrackedFace, seconds: float, pixels: Pixels) -> Thumbnail:
    """Cut the square around a face, moved into the frame."""
    box, (height, width) = face.box, pixels.shape[:2]
    side = max(1, min(round(_MARGIN * max(box.width, box.height)), width, height))
    x = min(max(round((box.x1 + box.x2 - side) / 2), 0), width - side)
    y = min(max(round((box.y1 + box.y2 - side) / 2 - _SHIFT_UP * box.height), 0), height - side)
    square = Image.fromarray(np.ascontiguousarray(pixels[y : y + side, x : x + side]))
    small = square.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return Thumbnail(seconds, face.emotion, face.confidence, data_uri(small, "JPEG", quality=_JPEG_QUALITY))


@dataclass(eq=False)
class TrackStatistics:
    """Statistics of one track.

    Args:
        track_id: Number of the track.
        first: Time at which it is first seen, in seconds.
        last: Time until which it is last seen, in seconds.
        curve: Its probabilities, with a last column that is 1 where the reader was unsure, else 0.
        seconds: How long it is seen in all.
        shares: Seconds by smoothed emotion; ``None`` is unsure.
        thumbnails: Its best images.
    """

    track_id: int
    first: float
    last: float
    curve: ProbabilityCurve
    seconds: float = 0.0
    shares: dict[Emotion | None, float] = field(default_factory=dict)
    thumbnails: Thumbnails = field(default_factory=Thumbnails)


class VideoStatistics:
    """Collects the results of a video in their order. Iterating yields the kept ``TrackStatistics``, by track number.

    A frame counts until the next one, for at most two seconds; the last one counts as long as the one before it. At
    most ``MAX_TRACKS`` tracks are kept. If there are more, the one seen most briefly becomes a count.

    Example:
        >>> statistics = VideoStatistics()
        >>> statistics.add(FrameResult(0, 0.0, (640, 480), ()))
        []
        >>> statistics.finish()
        >>> statistics.frames, statistics.count, list(statistics)
        (1, 0, [])
    """

    def __init__(self) -> None:
        self.emotions: tuple[Emotion, ...] = ()  # of the model; empty before the first face
        self.frames = self.faces = 0
        self.first: float | None = None  # time of the first frame in seconds
        self.last = 0.0  # time of the last frame in seconds
        self.count = 0  # of tracks
        self.merged = 0  # of them only counted
        self._kept: dict[int, TrackStatistics] = {}
        self._merged_at: dict[int, float] = {}  # by track number
        self._current: tuple[TrackedFace, ...] = ()
        self._step = _DEFAULT_FRAME_SECONDS

    def __iter__(self) -> Iterator[TrackStatistics]:
        return iter(sorted(self._kept.values(), key=lambda track: track.track_id))

    def add(self, result: FrameResult) -> list[tuple[TrackStatistics, TrackedFace]]:
        """Add a frame.

        Args:
            result: The frame, not before the last one.

        Returns:
            The statistics of each kept track in the frame, with its face.
        """
        if self.first is None:
            self.first = result.seconds
        elif result.seconds > self.last:
            self._step = result.seconds - self.last
            self._credit(result.seconds)
        self.frames, self.faces = self.frames + 1, self.faces + len(result.faces)
        self.last, self._current = result.seconds, result.faces
        present = {face.track_id for face in result.faces}
        found = [(self._track(face, present), face) for face in result.faces]
        return [(track, face) for track, face in found if track is not None]

    def finish(self) -> None:
        """Count the last frame. A second call does nothing."""
        self._credit(self.last + self._step)
        self._current = ()

    def _credit(self, until: float) -> None:
        """Add the time since the last frame to the tracks in it."""
        end = min(until, self.last + _MAX_FRAME_SECONDS)
        for face in self._current:
            track = self._kept.get(face.track_id)
            if track is not None:
                track.last = end
                track.seconds += end - self.last
                track.shares[face.emotion] = track.shares.get(face.emotion, 0.0) + end - self.last
                track.curve.add(self.last, end, [*face.probs.values(), float(face.emotion is None)])

    def _track(self, face: TrackedFace, present: set[int]) -> TrackStatistics | None:
        """The statistics of a face's track, new ones if necessary; ``None`` if it is only counted."""
        number = face.track_id
        if number in self._kept:
            return self._kept[number]
        if number in self._merged_at:
            self._merged_at[number] = self.last
            return None
        self.count += 1
        self.emotions = self.emotions or tuple(face.probs)
        if len(self._kept) >= MAX_TRACKS:
            away = [track for track in self._kept.values() if track.track_id not in present]
            if not away:
                self._merge(number)
                return None
            briefest = min(away, key=lambda track: track.seconds)
            del self._kept[briefest.track_id]
            self._merge(briefest.track_id)
        self._kept[number] = TrackStatistics(
            number, self.last, self.last, ProbabilityCurve(self.last, len(face.probs) + 1)
        )
        return self._kept[number]

    def _merge(self, number: int) -> None:
        self.merged += 1
        self._merged_at = {i: at for i, at in self._merged_at.items() if self.last - at < _REMEMBER_SECONDS}
        self._merged_at[number] = self.last
