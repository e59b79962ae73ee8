"""What `make_film.py` draws with: the head of the example bent into an expression, and a room without faces."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "examples" / "astronaut.png"
HEAD = (130, 2, 322, 206)  # pixels of the example: what is cut out
MIDDLE = (226.0, 104.0)  # of the head, and half its width and height
OVAL = (84.0, 97.0)


def bend(mood: float) -> NDArray[np.float32]:
    """The head cut out of the example and bent into an expression, float32 [h, w, 4] in 0..255.

    mien-0 reads -1 as angry, 0 as happy and 1 as surprised.
    """
    with Image.open(PICTURE) as image:
        picture = np.asarray(image.convert("RGB"), np.float32)
    frown, gape = max(0.0, -mood), max(0.0, mood)
    y, x = np.mgrid[HEAD[1] : HEAD[3], HEAD[0] : HEAD[2]].astype(np.float32)
    u = x - 224  # from the middle of the mouth; the head leans a little
    v = y - 147 - 0.09 * u
    down = 21 * frown * ((u / 20) ** 2 - 0.45) * np.exp(-((v / 16) ** 2) - (u / 30) ** 4)
    down += gape * 10 * np.tanh(v / 4) * np.exp(-((v / 26) ** 2) - (u / 16) ** 4)
    down += gape * 4 * (v > 0) * np.exp(-((u / 40) ** 4)) * np.clip(1 - abs(v - 20) / 40, 0, 1)
    for eye_x, eye_y, side in ((205, 92, 1), (249, 96, -1)):
        near = np.exp(-(((x - eye_x) / 22) ** 4) - ((y - eye_y) / 9) ** 2)
        down += near * (8 * frown * (0.5 + side * (x - eye_x) / 22) - 6 * gape)
    aside = -gape * 0.5 * u * np.exp(-((v / 18) ** 2) - (u / 34) ** 4)
    bent = sample(picture, x - aside, y - down)
    mouth = np.clip(1.3 - ((u / 11) ** 2 + ((v - 1) / (11 * gape + 0.01)) ** 2), 0, 0.4)[..., None] / 0.4
    bent += (gape > 0) * mouth * (np.float32([60, 20, 25]) - bent)
    radius = np.hypot((x - MIDDLE[0]) / OVAL[0], (y - MIDDLE[1]) / OVAL[1])
    alpha = 255 * np.clip((1 - radius) / 0.06, 0, 1)
    return np.dstack([bent, alpha])


def sample(picture: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture at fractional places, bilinear."""
    x = np.clip(x, 0, picture.shape[1] - 1.001)
    y = np.clip(y, 0, picture.shape[0] - 1.001)
    left, top = x.astype(int), y.astype(int)
    across, below = (x - left)[..., None], (y - top)[..., None]
    upper = picture[top, left] * (1 - across) + picture[top, left + 1] * across
    lower = picture[top + 1, left] * (1 - across) + picture[top + 1, left + 1] * across
    return upper * (1 - below) + lower * below


def dress(head: NDArray[np.float32], gamma: float, tint: tuple[float, float, float]) -> Image.Image:
    """The head in the light and the tint of a role."""
    light = 255 * (head[..., :3] / 255) ** gamma * np.float32(tint)
    return Image.fromarray(np.rint(np.dstack([light, head[..., 3]]).clip(0, 255)).astype(np.uint8), "RGBA")


def draw_background(size_wh: tuple[int, int]) -> Image.Image:
    """A room: a wall that fades, a window, a picture, a floor. Nothing in it looks like a face."""
    width, height = size_wh
    fade = np.linspace(0, 1, height)[:, None, None]
    wall = (1 - fade) * [196, 205, 201] + fade * [150, 161, 160]
    image = Image.fromarray(np.broadcast_to(wall, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)

    def block(x1: float, y1: float, x2: float, y2: float, color: str) -> None:
        draw.rectangle((x1 * width, y1 * height, x2 * width, y2 * height), fill=color)

    block(0, 0.86, 1, 1, "#6b5a4a")
    block(0, 0.845, 1, 0.86, "#e8e4da")
    block(0.06, 0.08, 0.30, 0.58, "#f2efe6")
    for column in range(2):
        for row in range(2):
            left, top = 0.07 + 0.115 * column, 0.1 + 0.24 * row
            block(left, top, left + 0.105, top + 0.22, "#a9c6d8" if row == 0 else "#bcd3dc")
    block(0.74, 0.12, 0.95, 0.46, "#3d4650")
    block(0.752, 0.14, 0.938, 0.44, "#d9b98a")
    block(0.752, 0.33, 0.938, 0.44, "#7f8f6a")
    return image
