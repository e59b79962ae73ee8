"""What the tests of the reader share."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from mien import Reading

Draw = Callable[..., np.ndarray]


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def values(readings: list[Reading]) -> list[list[list[float]]]:
    return [[list(face.probs.values()) for face in reading.faces] for reading in readings]
