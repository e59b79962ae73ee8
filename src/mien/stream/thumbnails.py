"""What a person looked like at the height of each emotion: a few small pictures, however long the film."""

import base64
import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._emotions import Emotion
from mien._face import Box
from mien.stream.records import TrackedFace

_SIDE = 160  # pixels of a thumbnail, shown half as large: sharp on fine screens, about 6 kB
_QUALITY = 80  # of 100, JPEG
_SURROUNDINGS = 1.7  # sides of the box: the whole head ...
_HIGHER_UP = 0.1  # ... which goes on above the box, by this share of its height
_INSIDE = 0.85  # share of the box that must lie in the picture
_HIGHER = 0.02  # by which a moment must beat the one that is kept, so that a slow rise is not one picture a frame ...
_LATER = 0.5  # ... or come so many seconds after the last comparison
_LARGER = 1.5  # times the area: a better portrait


class Thumbnail(NamedTuple):
    """A picture of a face, with the moment in seconds and the smoothed probability of the emotion it shows."""

    seconds: float
    emotion: Emotion | None
    probability: float
    jpeg: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode('ascii')}"


class Thumbnails:
    """The best moment of every emotion of one person, and a portrait: at most one picture more than emotions."""

    def __init__(self) -> None:
        self.portrait: Thumbnail | None = None
        self._best: dict[Emotion, Thumbnail] = {}
        self._looked: dict[Emotion, float] = {}
        self._area = 0.0

    def consider(self, face: TrackedFace, seconds: float, pixels: NDArray[np.uint8]) -> None:
        """Keep the face of this moment, cut out of ``pixels``, where it is the best of its emotion so far."""
        if not face.seen or _inside(face.box, pixels.shape[1], pixels.shape[0]) < _INSIDE:
            return
        area = face.box.width * face.box.height
        if area > _LARGER * self._area:
            self._area = area
            self.portrait = _take(face, seconds, pixels)
        if face.emotion is not None and self._beats(face.emotion, face.confidence, seconds):
            self._best[face.emotion] = _take(face, seconds, pixels)

    def peaks(self, most: int) -> list[Thumbnail]:
        """The moments of the ``most`` emotions that were read most surely, in the order of time."""
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
