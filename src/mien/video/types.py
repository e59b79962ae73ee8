"""Data classes of face tracking: frames, tracked faces and the result of a frame. All are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mien._emotions import Emotion
from mien._face import Box, Face, Pixels


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
        return f"FrameResult({self.index} at {self.seconds:.3f} s: {len(self.faces)} faces {list(self.faces)})"
