"""Pasting faces into a photograph for `paste.py`: enlarged, rotated, feathered, away from the faces in it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mien._face import Box

ROOM = 2.5  # the photograph's short side is at least so many times the largest face
FEATHER = 0.04  # of the face's side
TRIES = 200  # random positions to try for one away from the photograph's own faces
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Condition:
    """Parameters of pasting: side in pixels, angle in degrees (clockwise), feathered or hard edge."""

    name: str
    side: int
    angle: float = 0.0
    feathered: bool = True


CONDITIONS = (
    *(Condition(f"{side} px", side) for side in (48, 72, 96, 192, 384)),
    *(Condition(f"192 px, {angle:+d} degrees", 192, angle) for angle in (-45, -30, -15, 15, 30, 45)),
    Condition("192 px, hard edge", 192, feathered=False),
)


@dataclass(frozen=True)
class Pasted:
    """A photograph with one more face in it, and the position of that face."""

    pixels: Pixels
    centre: tuple[float, float]
    side: int


def enlarge(pixels: Pixels) -> Pixels:
    """The photograph with room for the largest face."""
    height, width = pixels.shape[:2]
    factor = max(1, math.ceil(ROOM * max(c.side for c in CONDITIONS) / min(height, width)))
    size_wh = (width * factor, height * factor)
    return np.asarray(Image.fromarray(pixels).resize(size_wh, Image.Resampling.BICUBIC))


def blow_up(faces: Pixels, side: int = 192) -> Pixels:
    """The faces enlarged to ``side`` pixels, before pasting."""
    enlarged = [Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC) for face in faces]
    return np.stack([np.asarray(face) for face in enlarged])


def paste(
    face: Pixels,
    photograph: Pixels,
    condition: Condition,
    *,
    taken: list[Box],
    generator: np.random.Generator,
) -> Pasted:
    """Paste the grey ``face`` into the RGB ``photograph``, outside of the boxes ``taken``."""
    side = condition.side
    margin = round(FEATHER * side) if condition.feathered else 0
    layer = Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC)
    mask = Image.new("L", (side, side), 0)
    mask.paste(255, (margin, margin, side - margin, side - margin))
    if margin:
        mask = mask.filter(ImageFilter.BoxBlur(margin))
    # Pillow rotates counterclockwise. The corners that it fills are masked out.
    layer, mask = (part.rotate(-condition.angle, Image.Resampling.BICUBIC, expand=True) for part in (layer, mask))
    left, top = draw_place(
        photograph.shape[1] - layer.width, photograph.shape[0] - layer.height, layer.size, taken, generator
    )
    image = Image.fromarray(photograph)
    image.paste(layer.convert("RGB"), (left, top), mask)
    return Pasted(np.asarray(image), (left + layer.width / 2, top + layer.height / 2), side)


def draw_place(
    right: int, bottom: int, size_wh: tuple[int, int], taken: list[Box], generator: np.random.Generator
) -> tuple[int, int]:
    """A random corner at which an area of ``size_wh`` pixels touches no box, if there is one."""
    width, height = size_wh
    for _ in range(TRIES):
        left, top = int(generator.integers(right + 1)), int(generator.integers(bottom + 1))
        if all(left > b.x2 or left + width < b.x1 or top > b.y2 or top + height < b.y1 for b in taken):
            break
    return left, top
