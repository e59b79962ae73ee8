"""Types of face tracking: frames, tracked faces, the result of a frame (all frozen), and which frames are read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mien._emotions import Emotion
from mien._errors import MienError, require_number
from mien._face import Box, Face, Pixels
from mien._format import counted

_TIME_ERROR = 1e-4  # seconds: time stamps are rounded to ticks


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame of a video.

    Args:
        index: Number of the frame among those delivered, from 0.
        seconds: Presentation time in seconds.
        pixels: Upright RGB image, uint8 ``[H, W, 3]``, read-only.
    """

    index: int
    seconds: float
    pixels: Pixels = field(repr=False)


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """One face of a track, in one frame.

    Args:
        track_id: Number of the track, from 1. It stays the same as long as the face is tracked.
        face: The reading of this frame alone.
        probs: Probability of each emotion, smoothed over time; they sum to 1.
        emotion: The most probable emotion; ``None`` ("unsure") below the reader's threshold.
        confidence: The highest of ``probs``.
        box: The face's box in pixels, smoothed lightly so that it does not jitter.
        detected: False where the detector missed the face in this frame; ``box`` is then predicted from its motion.
    """

    track_id: int
    face: Face
    probs: Mapping[Emotion, float]
    emotion: Emotion | None
    confidence: float
    box: Box
    detected: bool = True

    @property
    def top(self) -> Emotion:
        """The emotion with the highest smoothed probability, also when the reader abstains."""
        return max(self.probs, key=self.probs.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: track, box and smoothed reading, and under ``raw`` the reading of this frame alone."""
        return {
            "track_id": self.track_id,
            "detected": self.detected,
            "box": [round(v, 1) for v in self.box],
            "emotion": None if self.emotion is None else str(self.emotion),
            "confidence": round(self.confidence, 4),
            "probs": {str(e): round(p, 4) for e, p in self.probs.items()},
            "raw": self.face.to_dict(),
        }

    def __repr__(self) -> str:
        x1, y1, x2, y2 = (round(v) for v in self.box)
        place = f"{x1},{y1} {x2 - x1}x{y2 - y1}"
        return f"TrackedFace({self.track_id}: {self.emotion or 'unsure'} {self.confidence:.2f} at {place})"


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The tracked faces of one frame.

    Args:
        index: Number of the frame, from 0.
        seconds: Presentation time in seconds.
        size_wh: Width and height of the frame in pixels.
        faces: The tracked faces, sorted by ``track_id``.
        pixels: The RGB frame, uint8 ``[H, W, 3]``; kept only with ``keep_pixels``.
    """

    index: int
    seconds: float
    size_wh: tuple[int, int]
    faces: tuple[TrackedFace, ...]
    pixels: Pixels | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"frame", "seconds", "faces"}`` as JSON values."""
        faces = [face.to_dict() for face in self.faces]
        return {"frame": self.index, "seconds": round(self.seconds, 4), "faces": faces}

    def __repr__(self) -> str:
        return (
            f"FrameResult({self.index} at {self.seconds:.3f} s: {counted(len(self.faces), 'face')} {list(self.faces)})"
        )


class Sampling:
    """Chooses the frames of a source that are delivered, one after another.

    Args:
        fps: Frames per second at most, from the start on; ``None``: every frame.
        start: Time of the first frame in seconds.
        end: Time in seconds at which the source ends; ``None``: its own end.

    Raises:
        MienError: If a number is out of range, or ``end`` is not after ``start``.
    """

    def __init__(self, fps: float | None = None, start: float = 0.0, end: float | None = None) -> None:
        if fps is not None:
            require_number("fps", fps, lowest=1e-6, highest=1e6)
        require_number("start (seconds)", start, lowest=0, highest=1e9)
        if end is not None:
            require_number("end (seconds)", end, lowest=0, highest=1e9)
            if end <= start:
                raise MienError(f"the end, {end:g} s, is not after the start, {start:g} s; choose a later one")
        self.fps, self.start, self.end = fps, start, end
        self.is_all = fps is None and start == 0 and end is None
        self._next = start

    def takes(self, seconds: float) -> bool:
        """Return whether a frame is delivered: the first one at or after each time that is sampled.

        Args:
            seconds: Its time, not before that of the last frame.
        """
        if seconds < self._next - _TIME_ERROR:
            return False
        if self.fps is not None:
            count = math.floor((seconds - self.start) * self.fps + _TIME_ERROR * self.fps) + 1
            self._next = self.start + count / self.fps
        return True

    def needed(self, group: Sequence[Any], leading: Sequence[Any], zero: float) -> tuple[int, set[int]]:
        """Choose the packets to decode among those from a key frame to the next.

        Args:
            group: The packets of PyAV, in decoding order, each with a time stamp.
            leading: Those behind the next key frame that are shown before it. They refer to both groups.
            zero: Time of the source's beginning in seconds.

        Returns:
            How many packets to decode, of both parts one after the other, and the time stamps of the frames to deliver.
        """
        packets = [*group, *leading]
        shown = sorted((packet.pts, index) for index, packet in enumerate(packets) if packet.pts >= group[0].pts)
        base = group[0].time_base
        wanted = [index for pts, index in shown if self.takes(float(pts * base) - zero)]
        return max(wanted, default=-1) + 1, {packets[index].pts for index in wanted}

    def is_over(self, seconds: float) -> bool:
        """Return whether the source ends before a frame.

        Args:
            seconds: Its time.
        """
        return self.end is not None and seconds >= self.end - _TIME_ERROR
