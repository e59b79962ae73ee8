"""A portrait to measure with: drawn, so that every installation has one, and set into pictures of any size."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

_GRAIN = 3.0  # standard deviation, of 255: as a camera's noise; without it a JPEG is unlike a photograph's in size


def draw_face(size: int = 512) -> NDArray[np.uint8]:
    """A drawn portrait, nobody's likeness, whose face detectors find: RGB uint8 ``[size, size, 3]``."""
    unit = size / 100
    canvas = Image.new("RGB", (size, size), "#78879a")
    draw = ImageDraw.Draw(canvas)

    def oval(x: float, y: float, wide: float, high: float, color: str) -> None:
        draw.ellipse([unit * v for v in (x - wide, y - high, x + wide, y + high)], fill=color)

    oval(50, 105, 34, 30, "#46506e")  # shoulders
    oval(50, 46, 19, 22, "#3c2a20")  # hair
    draw.rectangle([unit * v for v in (44, 65, 56, 80)], fill="#c4967a")
    oval(50, 50, 15, 20, "#deb296")
    for x in (43, 57):
        oval(x, 45, 3.6, 1.8, "#faf8f4")
        oval(x, 45, 1.6, 1.6, "#1e1612")
        draw.line([unit * v for v in (x - 4.4, 41.8, x, 40.4, x + 4.4, 41.6)], fill="#46301e", width=round(1.3 * unit))
    draw.polygon([unit * v for v in (50, 46, 47.2, 55, 52.8, 55)], fill="#ce9e82")
    oval(50, 62, 6.6, 2.4, "#b05450")
    oval(50, 61.4, 5.1, 0.9, "#f5f0eb")
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.5 * unit)))


def embed(face: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture of ``size_wh``: ``face`` as large as fits in its middle, a blurred wall of itself behind, and grain."""
    source = Image.fromarray(face)
    canvas = source.resize((32, 24), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(4)).resize(size_wh)
    scale = min(size_wh[0] / source.width, size_wh[1] / source.height)
    fitted = source.resize((round(source.width * scale), round(source.height * scale)), Image.Resampling.BICUBIC)
    canvas.paste(fitted, ((size_wh[0] - fitted.width) // 2, (size_wh[1] - fitted.height) // 2))
    grain = np.random.default_rng(0).normal(0, _GRAIN, (size_wh[1], size_wh[0], 1)).astype(np.float32)
    return np.clip(np.asarray(canvas) + grain, 0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """``pixels`` as the bytes of a JPEG file of quality 90."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()
