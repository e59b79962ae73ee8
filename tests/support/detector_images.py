"""Images for detectors, and the overlap of boxes."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._face import Box
from mien.detect.suppress import overlaps

Pixels = NDArray[np.uint8]


def share(box: Box, expected: tuple[float, ...]) -> float:
    """Intersection over union."""
    return float(overlaps(np.array(box), np.array([expected]))[0][0])


def at(astronaut: Pixels, width: float) -> Image.Image:
    """The astronaut's head and shoulders, so small that the face is ``width`` pixels wide."""
    head = Image.fromarray(astronaut).crop((132, 34, 316, 218))
    side = round(184 * width / 104)
    return head.resize((side, side), Image.Resampling.LANCZOS)


def pasted(background: Pixels, face: Image.Image, x: int, y: int) -> Pixels:
    picture = Image.fromarray(background)
    picture.paste(face, (x, y))
    return np.asarray(picture)


def gradient(width: int, height: int) -> Pixels:
    rows, columns = np.linspace(0, 80, height)[:, None], np.linspace(40, 150, width)[None]
    return np.repeat((rows + columns).astype(np.uint8)[:, :, None], 3, axis=2)
