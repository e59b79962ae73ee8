"""A portrait to measure with: drawn, so that every installation has one, and set into pictures of any size."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

_GRAIN = 3.0  # standard deviation, of 255: as a camera's noise; without it a JPEG is unlike a photograph's in size


def draw_face(size: int = 512) -> NDArray[np.uint8]:
    """A drawn portrait, nobody's likeness, whose face detectors find as surely as a photograph's.

    RGB uint8 ``[size, size, 3]``; the face is a third as wide, about as in a video call.
    """
    unit = size / 100
    canvas = Image.new("RGB", (size, size), "#78879a")
    draw = ImageDraw.Draw(canvas)

    def oval(x: float, y: float, wide: float, high: float, color: str) -> None:
        draw.ellipse([unit * v for v in (x - wide, y - high, x + wide, y + high)], fill=color)

    def polygon(*corners: float, color: str) -> None:
        draw.polygon([unit * v for v in corners], fill=color)

    oval(50, 110, 37.5, 33, "#46506e")  # shoulders
    oval(50, 43.5, 19.8, 22, "#3c2a20")  # hair
    polygon(43.4, 66, 56.6, 66, 57.7, 84.7, 42.3, 84.7, color="#b98a6e")
    oval(50, 49.5, 16.5, 22, "#deb296")
    for x in (40.6, 59.4):
        oval(x, 45.5, 5.6, 2.6, "#c99a7e")
        oval(x, 46.2, 4.2, 1.5, "#f4f0ea")
        oval(x, 46.2, 1.5, 1.5, "#1e1612")
        polygon(x - 5.2, 42.2, x, 41.1, x + 5.2, 42.2, x + 5.2, 43.6, x, 42.5, x - 5.2, 43.6, color="#46301e")
        oval(50 + (x - 50) / 5.7, 55, 1.1, 0.8, "#8a5c48")
    oval(50, 62.7, 7.3, 2.6, "#a84e4a")
    oval(50, 62.5, 5.8, 0.9, "#f5f0eb")
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.5 * unit)))


def embed(face: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture of ``size_wh``: ``face`` as large as fits in its middle, a blurred wall of itself behind, and grain."""
    source = Image.fromarray(face)
    canvas = source.resize((32, 24), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(4)).resize(size_wh)
    scale = min(size_wh[0] / source.width, size_wh[1] / source.height)
    fitted = source.resize((round(source.width * scale), round(source.height * scale)), Image.Resampling.BICUBIC)
    canvas.paste(fitted, ((size_wh[0] - fitted.width) // 2, (size_wh[1] - fitted.height) // 2))
    grain = _GRAIN * np.random.default_rng(0).standard_normal((size_wh[1], size_wh[0], 1), np.float32)
    grainy: NDArray[np.uint8] = np.clip(np.asarray(canvas) + grain, 0, 255).astype(np.uint8)
    return grainy


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """``pixels`` as the bytes of a JPEG file of quality 90."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()
