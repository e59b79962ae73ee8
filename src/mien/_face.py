"""The results of mien: boxes, key points, faces and readings. All are frozen, and their arrays are read-only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien._emotions import UNSURE_COLOR, Emotion
from mien._errors import ModelError, shown
from mien._suggest import suggest

Pixels = NDArray[np.uint8]  # an image, RGB uint8 [H, W, 3]
Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle in pixels of the image.

    Attributes:
        x1: Left edge.
        y1: Upper edge.
        x2: Right edge.
        y2: Lower edge.

    Example:
        >>> Box(10, 20, 50, 80).width
        40
    """

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.y2 - self.y1


class KeyPoints(NamedTuple):
    """The landmarks of a face, ``(x, y)`` in pixels of the image. Left and right are the subject's.

    Attributes:
        right_eye: The right eye, on the left of the image.
        left_eye: The left eye.
        nose: The tip of the nose.
        mouth: The middle of the mouth.
        right_ear: The right ear; ``None`` if the detector does not find ears.
        left_ear: The left ear; ``None`` if the detector does not find ears.
    """

    right_eye: Point
    left_eye: Point
    nose: Point
    mouth: Point
    right_ear: Point | None = None
    left_ear: Point | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """A face that a detector found.

    Attributes:
        box: The place of the face, in pixels of the image.
        score: The detector's score, 0..1.
        points: Key points; ``None`` if the detector has none.
    """

    box: Box
    score: float
    points: KeyPoints | None


@dataclass(frozen=True, eq=False)
class Face:
    """One face that was read.

    Attributes:
        box: The place of the face, in pixels of the image.
        score: The detector's score, 0..1.
        points: Key points; ``None`` if the detector has none.
        emotion: The most probable emotion; ``None`` ("unsure") if its probability is below the reader's ``abstain``.
        confidence: The highest probability, 0..1.
        probs: Calibrated probability of every emotion of the model; they sum to 1.
        maps: Class activation maps (Zhou et al., CVPR 2016), float32 ``[C, h, w]`` in the order of ``probs``. The
            spatial mean of a map is the calibrated logit of its class.
        crop: The grey input of the network, uint8 ``[S, S]``.
        to_image: Affine transform, float64 ``[2, 3]``, from pixels of the crop to pixels of the image.
    """

    box: Box
    score: float
    points: KeyPoints | None
    emotion: Emotion | None
    confidence: float
    probs: Mapping[Emotion, float]
    maps: NDArray[np.float32] = field(repr=False)
    crop: NDArray[np.uint8] = field(repr=False)
    to_image: NDArray[np.float64] = field(repr=False)

    @cached_property
    def top(self) -> Emotion:
        """The most probable emotion, also when the reader abstains."""
        return max(self.probs, key=self.probs.__getitem__)

    @property
    def color(self) -> str:
        """The colour of the face's box and label, as ``#rrggbb``: that of its emotion, or a neutral one if unsure."""
        return UNSURE_COLOR if self.emotion is None else self.emotion.color

    def map(self, emotion: Emotion | str | None = None) -> NDArray[np.float32]:
        """Return the map of an emotion: the evidence of each place.

        Args:
            emotion: An emotion of the model, or its name; the default is the most probable one.

        Returns:
            The class activation map, float32 ``[h, w]``, scaled to 0..1 with negative values cut to 0.

        Raises:
            ModelError: The model does not know the emotion.

        Example:
            >>> from mien import Reader
            >>> face = Reader().read("examples/astronaut.png").faces[0]
            >>> face.map("happy").shape
            (6, 6)
        """
        emotion = self.top if emotion is None else emotion
        names = [str(known) for known in self.probs]
        if not isinstance(emotion, str) or emotion not in names:
            raise ModelError(
                f"the model has no emotion {shown(emotion)}; it has {', '.join(names)}{suggest(shown(emotion), names)}"
            )
        positive = np.maximum(self.maps[names.index(emotion)], 0)
        peak = float(positive.max())
        return np.asarray(positive / peak if peak > 0 else positive)

    def to_dict(self) -> dict[str, Any]:
        """Return box, score, emotion, confidence and probs as JSON values, without crop and maps."""
        return {
            "box": [round(v, 1) for v in self.box],
            "score": round(self.score, 4),
            "emotion": None if self.emotion is None else str(self.emotion),
            "confidence": round(self.confidence, 4),
            "probs": {str(e): round(p, 4) for e, p in self.probs.items()},
        }

    def __repr__(self) -> str:
        name = self.emotion or "unsure"
        x1, y1, x2, y2 = (round(v) for v in self.box)
        return f"Face({name} {self.confidence:.2f} at {x1},{y1} {x2 - x1}x{y2 - y1})"


@dataclass(frozen=True, eq=False)
class Reading:
    """The faces of one image.

    Attributes:
        faces: The faces, largest first.
        source: The name of the image: its path, or what kind of source it was.
        size_wh: Width and height of the image in pixels.
        note: What users should know, for example that only the first frame of an animation was read.
        error: Why an image of a batch could not be read, in one line. Such a reading has no faces.
        pixels: The image, RGB uint8 ``[H, W, 3]``, with ``keep_pixels=True``; otherwise ``None``.
    """

    faces: tuple[Face, ...]
    source: str
    size_wh: tuple[int, int]
    note: str | None = None
    error: str | None = None
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return ``source``, ``faces`` and ``error`` as JSON values, and ``note`` if there is one."""
        plain: dict[str, Any] = {"source": self.source, "faces": [f.to_dict() for f in self.faces], "error": self.error}
        if self.note is not None:
            plain["note"] = self.note
        return plain

    def __repr__(self) -> str:
        if self.error is not None:
            return f"Reading({self.source}: {self.error})"
        return f"Reading({self.source}: {len(self.faces)} faces {list(self.faces)})"
