"""What following faces answers: frames, moments and the faces in them. All frozen; arrays in them are read-only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._face import Box, Face


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a film: ``pixels`` RGB uint8 ``[H, W, 3]``, upright, at ``seconds`` of presentation time.

    ``index`` counts the frames that were given out, from 0.
    """

    index: int
    seconds: float
    pixels: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """One face that is followed.

    ``id`` is the person's number, from 1, as long as the face is followed. ``face`` is the reading of this very frame.
    ``probs`` are its probabilities smoothed in time (they sum to 1), ``confidence`` the highest of them, ``emotion``
    its name, ``None`` where it lies below the reader's ``abstain`` threshold ("unsure"). ``box`` is the place, smoothed
    lightly so that it does not tremble.

    ``seen`` is false where the detector missed the face for a moment and its place was carried on from its motion.
    """

    id: int
    face: Face
    probs: Mapping[Emotion, float]
    emotion: Emotion | None
    confidence: float
    box: Box
    seen: bool = True

    @property
    def top(self) -> Emotion:
        """The most probable emotion of the smoothed probabilities, also when the reader abstains."""
        return max(self.probs, key=self.probs.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """The face as plain JSON values: id, box and smoothed reading, and under ``raw`` the reading of this frame."""
        return {
            "id": self.id,
            "seen": self.seen,
            "box": [round(v, 1) for v in self.box],
            "emotion": None if self.emotion is None else str(self.emotion),
            "confidence": round(self.confidence, 4),
            "probs": {str(e): round(p, 4) for e, p in self.probs.items()},
            "raw": self.face.to_dict(),
        }

    def __repr__(self) -> str:
        x1, y1, x2, y2 = (round(v) for v in self.box)
        place = f"{x1},{y1} {x2 - x1}x{y2 - y1}"
        return f"TrackedFace({self.id}: {self.emotion or 'unsure'} {self.confidence:.2f} at {place})"


@dataclass(frozen=True, eq=False)
class Moment:
    """The faces of one frame, by their ids.

    ``index`` and ``seconds`` are the frame's, ``size_wh`` its width and height in pixels. ``pixels`` is the RGB uint8
    ``[H, W, 3]`` frame, kept only where the caller asked for it.
    """

    index: int
    seconds: float
    size_wh: tuple[int, int]
    faces: tuple[TrackedFace, ...]
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """``{"frame", "seconds", "faces"}`` as plain JSON values."""
        faces = [face.to_dict() for face in self.faces]
        return {"frame": self.index, "seconds": round(self.seconds, 4), "faces": faces}

    def __repr__(self) -> str:
        return f"Moment({self.index} at {self.seconds:.3f} s: {len(self.faces)} faces {list(self.faces)})"
