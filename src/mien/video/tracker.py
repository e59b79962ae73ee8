"""Detect faces frame by frame, assign them to tracks, read them and smooth the readings."""

import math
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mien._errors import ImageError, MienError, require_integer, require_kind, require_number
from mien._face import Box, Detection, Face, KeyPoints, Pixels
from mien.detect import Detector
from mien.reader import Reader
from mien.video.association import Motion, Smoother, center_of, expired_tracks, iou, match_boxes
from mien.video.sources import FrameSource, open_source
from mien.video.types import FrameResult, TrackedFace

_MOST_SECONDS = 1e9  # of smooth and forget: no smaller limit is needed
_SURE_SCORE = 0.8  # detection score from which a new face is confirmed at once
_CONFIRM_SECONDS = 0.25  # for which any other new face must be detected ...
_CONFIRM_SHARE = 0.95  # ... with this share of its first score on average; scores of false positives usually fall
_HOLD_SECONDS = 0.2  # for which a face that the detector misses is still reported, at its predicted position
_SEPARATE_FRAMES = 0.25  # seconds; frames further apart are single images, whose faces are confirmed at once
_ROI_WIDTHS = 2.2  # side of the square region of interest, in widths of the expected face
_MIN_ROI_SIDE = 8  # pixels; a smaller region shows no face
_SAME_FACE = 0.4  # intersection over union from which two detections are one face
# Cut detection, on a grid of sampled pixels.
_ROWS, _COLUMNS = 36, 64
_MIN_CHANGE = 18.0  # of 255, mean over the grid; a moving camera changes less from frame to frame
_LARGE_CHANGE = 30.0  # the same for a cut within one room, where the colours hardly change
_MIN_NEW_COLORS = 0.15  # share of the grid whose colour is new; moving objects do not change the colours
_LONGEST_STEP = 0.25  # seconds; over a longer time, motion can look like a cut
# Correlation of two crops. It is higher in 4 % of 20,503 pairs of different people, and lower in 1 % of neighbouring
# frames of one person (two videos).
_SAME_PERSON = 0.6

_Found = list[tuple[int, Detection]]  # with the key of the track
_Seen = list[tuple[int, Face]]


class Tracker:
    """Tracks the faces of one video or camera. Use one tracker for each video, on one thread at a time.

    The whole frame is searched in every ``every``-th frame, after a cut, and when a face is lost. In the other frames
    the detector only searches a region of interest around the expected position of each face.

    Args:
        reader: Finds and reads the faces; several trackers may share it.
        every: Interval of full searches in frames, at least 1.
        smooth: Time constant of the smoothed probabilities in seconds; 0 disables smoothing.
        forget: Seconds after which an unseen track ends; up to three times as long while another face occludes it.

    Raises:
        MienError: If a number is out of its range.

    Example:
        >>> import numpy as np
        >>> from mien import Reader
        >>> tracker = Tracker(Reader())
        >>> tracker.step(np.zeros((90, 120, 3), np.uint8), seconds=0.0).faces
        ()
    """

    def __init__(self, reader: Reader, *, every: int = 3, smooth: float = 0.5, forget: float = 1.0) -> None:
        require_kind("reader", reader, Reader, "a Reader")
        require_integer("every", every, lowest=1)
        require_number("smooth (seconds)", smooth, lowest=0, highest=_MOST_SECONDS)
        require_number("forget (seconds)", forget, lowest=0, highest=_MOST_SECONDS)
        self.reader = reader
        self._every, self._smooth, self._forget = every, smooth, forget
        # Without a detector each image is one face, so there is no region to search. A plain function has no name.
        self._uses_roi = getattr(reader.detector, "name", "") != "none"
        self._cuts = _CutDetector()
        self._tracks: dict[int, _Track] = {}  # by key; candidates have a key, but no id yet
        self._index = self._since_search = self._last_key = self._last_id = 0
        self._seconds = -math.inf
        self._size_wh = (0, 0)

    def step(self, pixels: Pixels, seconds: float) -> FrameResult:
        """Process the next frame.

        Args:
            pixels: RGB image, uint8 ``[H, W, 3]``.
            seconds: Its presentation time in seconds, not before that of the last frame.

        Returns:
            The tracked faces of the frame.

        Raises:
            ImageError: If ``pixels`` is another kind of array.
            MienError: If ``seconds`` decreases.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ImageError(f"a frame is RGB uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        if not seconds >= self._seconds or not math.isfinite(seconds):
            raise MienError(f"frames must be in order of time: {seconds} s cannot follow {self._seconds} s")
        resized = self._resized(pixels)  # first, so that a cut does not leave the old size in place
        cut = self._cuts(pixels, seconds) or resized
        is_single = seconds - self._seconds > _SEPARATE_FRAMES
        found, new = self._find(pixels, seconds, searching=cut or is_single)
        faces = self.reader.read_faces(pixels, [detection for _, detection in found] + new)
        seen = [(key, face) for (key, _), face in zip(found, faces, strict=False)]
        if cut:
            seen = self._after_cut(seen, seconds)
        seen += [(self._start(face, seconds), face) for face in faces[len(found) :]]
        self._update(seen, seconds, at_once=cut or is_single)
        keys = {key for key, _ in seen}
        self._expire(keys, seconds)
        result = FrameResult(self._index, seconds, self._size_wh, self._faces(keys, seconds))
        self._index, self._seconds = self._index + 1, seconds
        return result

    def _resized(self, pixels: Pixels) -> bool:
        """Whether the size of the frame changed. All tracks then end, because their boxes are no longer valid."""
        before, self._size_wh = self._size_wh, (pixels.shape[1], pixels.shape[0])
        if before == self._size_wh:
            return False
        self._drop(list(self._tracks))
        return True

    def _find(self, pixels: Pixels, seconds: float, *, searching: bool) -> tuple[_Found, list[Detection]]:
        """Detections of known tracks, and those of new faces."""
        tracks = self._tracks.items() if self._uses_roi else ()
        expected = {key for key, track in tracks if track.motion.seconds == self._seconds}
        boxes = [self._tracks[key].motion.predict(seconds) for key in expected]
        near = [detection for box in boxes for detection in detect_near(self.reader.detector, pixels, box)]
        found = self._match(distinct(near), seconds, expected)
        self._since_search += 1
        lost = len(found) < len(expected)
        if not (searching or lost or self._since_search >= self._every or not self._uses_roi):
            return found, []
        self._since_search = 0
        detections = distinct(self.reader.detector(pixels), [detection for _, detection in found])
        again = self._match(detections, seconds, set(self._tracks) - {key for key, _ in found})
        known = [id(detection) for _, detection in again]
        return found + again, [detection for detection in detections if id(detection) not in known]

    def _match(self, detections: Sequence[Detection], seconds: float, among: set[int]) -> _Found:
        motions = {key: self._tracks[key].motion for key in among}
        keys = match_boxes([detection.box for detection in detections], motions, seconds)
        return [(key, detection) for key, detection in zip(keys, detections, strict=True) if key is not None]

    def _after_cut(self, seen: _Seen, seconds: float) -> _Seen:
        """End all tracks except those whose face looks the same after the cut."""
        kept = [(key, face) for key, face in seen if similar_crops(self._tracks[key].last.crop, face.crop)]
        same = {key for key, _ in kept}
        self._drop([key for key in self._tracks if key not in same])
        return kept + [(self._start(face, seconds), face) for key, face in seen if key not in same]

    def _start(self, face: Face, seconds: float) -> int:
        self._last_key += 1
        self._tracks[self._last_key] = _Track(face, seconds, time_constant=self._smooth)
        return self._last_key

    def _drop(self, keys: Iterable[int]) -> None:
        gone = set(keys)
        self._tracks = {key: track for key, track in self._tracks.items() if key not in gone}

    def _update(self, seen: _Seen, seconds: float, *, at_once: bool) -> None:
        """Add the readings to their tracks; confirmed tracks get an id, refuted ones end."""
        for key, face in seen:
            track = self._tracks[key]
            track.add(face, seconds)
            confirmed = at_once or track.id > 0 or track.confirmed(seconds)
            if confirmed is False:
                self._drop([key])
            elif confirmed and not track.id:
                self._last_id += 1
                track.id = self._last_id

    def _expire(self, seen: set[int], seconds: float) -> None:
        """End the tracks unseen for too long, and the candidates that are not in this frame."""
        elapsed = max(0.0, seconds - self._seconds) if self._index else 0.0
        candidates = [key for key, track in self._tracks.items() if not track.id and key not in seen]
        motions = {key: track.motion for key, track in self._tracks.items()}
        present = seen & self._tracks.keys()
        self._drop(candidates + expired_tracks(motions, present, seconds, elapsed=elapsed, forget=self._forget))

    def _faces(self, seen: set[int], seconds: float) -> tuple[TrackedFace, ...]:
        """The detected faces and those missed only briefly, sorted by id."""
        faces = []
        for key, track in self._tracks.items():
            if track.id and key in seen:
                faces.append(track.report(self.reader))
            elif (held := track.hold(seconds)) is not None:
                faces.append(held)
        least = self.reader.min_quality
        faces = [face for face in faces if least == 0 or face.face.quality.score >= least]
        return tuple(sorted(faces, key=lambda face: face.track_id))


def track(
    source: str | os.PathLike[str] | int,
    *,
    reader: Reader | None = None,
    every: int = 3,
    smooth: float = 0.5,
    forget: float = 1.0,
    rate: float = 25.0,
    fps: float | None = None,
    start: float = 0.0,
    end: float | None = None,
    keep_pixels: bool = False,
) -> Generator[FrameResult, None, None]:
    """Track the faces of a video, camera, stream or folder of frames.

    Memory does not grow with the length of the video. Closing the generator ends its threads and closes the source;
    leaving a loop over it does this, too.

    Args:
        source: What to read, as ``open_source`` takes it: a path, an address, or the number of a camera.
        reader: Finds and reads the faces; by default ``Reader()``.
        every: Interval of full searches in frames, at least 1.
        smooth: Time constant of the smoothed probabilities in seconds; 0 disables smoothing.
        forget: Seconds after which an unseen track ends.
        rate: Frame rate of a folder of frames, in frames per second.
        fps: Frames per second that are read at most; ``None``: every frame.
        start: Time of the first frame in seconds.
        end: Time in seconds at which to stop; ``None``: the end of the source.
        keep_pixels: Keep each frame in ``FrameResult.pixels``.

    Returns:
        A generator with one ``FrameResult`` for each frame.

    Raises:
        SourceError: If the source cannot be opened (at once), or breaks off (while iterating).
        MissingExtraError: If PyAV is not installed.

    Example:
        >>> import mien
        >>> for result in mien.track(mien.example().parent):  # or "video.mp4", 0, "rtsp://..."
        ...     for face in result.faces:
        ...         print(result.seconds, face.track_id, face.emotion)
        0.0 1 happy
    """
    tracker = Tracker(Reader() if reader is None else reader, every=every, smooth=smooth, forget=forget)
    results = _track_all(open_source(source, rate=rate, fps=fps, start=start, end=end), tracker, keep_pixels)
    next(results)  # enter the block that closes the source, even if no result is ever fetched
    return results


def _track_all(frames: FrameSource, tracker: Tracker, keep_pixels: bool) -> Generator[Any, None, None]:
    with frames:
        yield None
        for frame in frames:
            result = tracker.step(frame.pixels, frame.seconds)
            yield replace(result, pixels=frame.pixels) if keep_pixels else result


class _Track:
    """One tracked face. ``id`` is 0 for a candidate, which may be a false positive."""

    def __init__(self, face: Face, seconds: float, *, time_constant: float) -> None:
        self.id = 0
        self.last = face
        self.motion = Motion(face.box, seconds)
        self._since = seconds
        self._scores: list[float] = []
        self._smoother = Smoother(time_constant)
        self._reported: TrackedFace | None = None

    def add(self, face: Face, seconds: float) -> None:
        self.motion.update(face.box, seconds)
        self._smoother(np.array(list(face.probs.values())), seconds, face.quality.score)
        if not self.id:
            self._scores.append(face.score)
        self.last = face

    def confirmed(self, seconds: float) -> bool | None:
        """Whether it is a face; ``None`` while that is undecided."""
        if self.last.score >= _SURE_SCORE:
            return True
        if seconds - self._since < _CONFIRM_SECONDS:
            return None
        return float(np.mean(self._scores)) >= _CONFIRM_SHARE * self._scores[0]

    def report(self, reader: Reader) -> TrackedFace:
        probs = self._smoother.value
        best = int(probs.argmax())
        confidence, emotions = float(probs[best]), tuple(self.last.probs)
        is_sure = reader.abstain == 0 or confidence >= reader.threshold(self.last.quality.size)
        emotion = emotions[best] if is_sure else None
        smoothed = dict(zip(emotions, probs.tolist(), strict=True))
        self._reported = TrackedFace(self.id, self.last, smoothed, emotion, confidence, self.motion.steady)
        return self._reported

    def hold(self, seconds: float) -> TrackedFace | None:
        """The last report at the predicted position; ``None`` if the detector has missed the face for too long."""
        if self._reported is None or seconds - self.motion.seconds > _HOLD_SECONDS:
            return None
        return replace(self._reported, box=self.motion.predict(seconds, steady=True), detected=False)


@runtime_checkable
class _RoiDetector(Protocol):
    """A detector with its own search of a region of interest."""

    def near(self, pixels: Pixels, box: Box) -> list[Detection]: ...


def detect_near(detector: Detector, pixels: Pixels, box: Box) -> list[Detection]:
    """Detect the faces in the region of interest around a box, with the detector's own search or in a crop.

    Args:
        detector: The detector.
        pixels: The frame, RGB uint8 ``[H, W, 3]``.
        box: The expected face, in pixels of the frame.

    Returns:
        The faces, in pixels of the frame.
    """
    if isinstance(detector, _RoiDetector):
        return detector.near(pixels, box)
    height, width = pixels.shape[:2]
    half = _ROI_WIDTHS * max(box.width, box.height) / 2
    x, y = center_of(box)
    left, top = max(0, math.floor(x - half)), max(0, math.floor(y - half))
    right, bottom = min(width, math.ceil(x + half)), min(height, math.ceil(y + half))
    if right - left < _MIN_ROI_SIDE or bottom - top < _MIN_ROI_SIDE:
        return []
    return [_moved(found, left, top) for found in detector(pixels[top:bottom, left:right])]


def distinct(found: Sequence[Detection], known: Sequence[Detection] = ()) -> list[Detection]:
    """Remove duplicates, of which the one with the highest score remains.

    Args:
        found: The detections.
        known: Detections of faces that are removed as well.

    Returns:
        The rest, highest score first.
    """
    kept: list[Detection] = []
    for detection in sorted(found, key=lambda d: -d.score):
        if all(iou(detection.box, other.box) < _SAME_FACE for other in (*known, *kept)):
            kept.append(detection)
    return kept


def _moved(detection: Detection, dx: int, dy: int) -> Detection:
    box, points = detection.box, detection.points
    if points is not None:
        points = KeyPoints._make(None if point is None else (point[0] + dx, point[1] + dy) for point in points)
    return Detection(Box(box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy), detection.score, points)


class _CutDetector:
    """Detects cuts between frames. A change of the light also looks like a cut, so the crops must be compared."""

    def __init__(self) -> None:
        self._before: tuple[NDArray[np.int16], NDArray[np.float64]] | None = None
        self._seconds = 0.0

    def __call__(self, pixels: Pixels, seconds: float) -> bool:
        """Whether there is a cut between the last frame and this one."""
        height, width = pixels.shape[:2]
        grid = pixels[:: max(1, height // _ROWS), :: max(1, width // _COLUMNS)].astype(np.int16)
        colors = np.bincount(((grid >> 6) @ np.array([16, 4, 1])).ravel(), minlength=64) / grid[..., 0].size
        before, elapsed = self._before, seconds - self._seconds
        self._before, self._seconds = (grid, colors), seconds
        if before is None or before[0].shape != grid.shape or elapsed > _LONGEST_STEP:
            return False
        change = float(np.abs(grid - before[0]).mean())
        new_colors = float(np.abs(colors - before[1]).sum() / 2)
        return change >= _LARGE_CHANGE or (change >= _MIN_CHANGE and new_colors >= _MIN_NEW_COLORS)


def similar_crops(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two crops of neighbouring frames can show the same person, in any light.

    Args:
        one: A crop of a face, uint8 ``[S, S]``.
        other: Another crop of the same size.

    Returns:
        Whether they correlate enough.
    """
    a, b = (crop.astype(np.float64) - crop.mean() for crop in (one, other))
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return norm > 0 and float((a * b).sum()) / norm >= _SAME_PERSON
