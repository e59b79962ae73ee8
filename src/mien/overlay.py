"""Image, reading -> the image with boxes, labels and maps, drawn with Pillow."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mien._emotions import Emotion
from mien._errors import MienError, require_kind
from mien._face import Box, Face, Pixels, Reading
from mien._format import probability_percent
from mien._memory import pillow_image

_PIXELS = "an image of RGB uint8 [H, W, 3]"
_INKS = ("#0a0a0c", "#ffffff")
_GRID = 96  # pixels: the side to which a map is enlarged (bicubic) before it is drawn over a face
_FADE = 0.08  # fraction of the crop's side over which a map fades out towards the edge of the crop
_OPACITY = 0.72  # of the largest value, so that the face stays visible under the map
# The conversion from Oklab to linear sRGB.
_OKLAB_TO_LMS = ((0.3963377774, 0.2158037573), (-0.1055613458, -0.0638541728), (-0.0894841775, -1.2914855480))
_LMS_TO_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)
_BAND_PIXELS = 2**20  # of a face whose map is drawn at a time
_MIN_FONT = 11  # pixels: smaller letters are not readable
_CROWD = 20  # faces: with more, labels much wider than their faces would cover the image


def annotate(pixels: Pixels, reading: Reading, *, maps: bool = False) -> Pixels:
    """Draw a box and a label for each face of a reading.

    Lines and letters scale with the image and the face. A label stays inside the image; where faces are too small or
    too close together, it is shortened or left out.

    Args:
        pixels: The image, RGB uint8 ``[H, W, 3]``. It is not changed.
        reading: The reading of the image.
        maps: Whether to draw the map of each face's top emotion over the face.

    Returns:
        A new array, RGB uint8 ``[H, W, 3]``.

    Example:
        >>> import numpy as np
        >>> from mien import Reader, annotate
        >>> pixels = np.zeros((64, 64, 3), np.uint8)
        >>> annotate(pixels, Reader(detector="none").read(pixels)).shape
        (64, 64, 3)
    """
    return np.asarray(draw_faces(pixels, reading, maps=maps))


def draw_faces(pixels: Pixels, reading: Reading, *, maps: bool) -> Image.Image:
    """Do what ``annotate`` does, for an image that is written to a file.

    Args:
        pixels: The image, RGB uint8 ``[H, W, 3]``. It is not changed.
        reading: The reading of the image.
        maps: Whether to draw the map of each face's top emotion over the face.

    Returns:
        A new image: the only copy of the pixels.
    """
    require_kind("pixels", pixels, np.ndarray, _PIXELS)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise MienError(f"pixels is {pixels.dtype} {list(pixels.shape)}; it must be {_PIXELS}")
    require_kind("reading", reading, Reading, "what Reader.read returns")
    image = pillow_image(pixels)
    canvas = image if image.mode == "RGB" else image.convert("RGB")
    if maps:
        _draw_maps(canvas, reading)
    draw = ImageDraw.Draw(canvas)
    for face in reversed(reading.faces):  # the largest last, so that no other box covers its box
        _draw_box(draw, face, canvas.size)
    placed: list[Box] = []
    for face in reading.faces:
        label = _place_label(face, reading, canvas.size, placed)
        if label is not None:
            x1, y1, x2, y2 = label.area
            draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=label.color)
            draw.text(((x1 + x2) / 2, (y1 + y2) / 2), label.text, ink(label.color), label.font, anchor="mm")
            placed.append(label.area)
    return canvas


def heat(map01: NDArray[np.floating]) -> Pixels:
    """Turn values into colours, from indigo over rose and orange to pale yellow.

    The lightness in Oklab (Ottosson, 2020) is linear, so that equal steps look equal, also in greyscale.

    Args:
        map01: Values from 0 to 1, of any shape ``[...]``.

    Returns:
        RGB uint8 ``[..., 3]``.
    """
    index = np.clip(np.rint(np.asarray(map01) * 255), 0, 255).astype(np.uint8)
    return np.asarray(_ramp()[index])


def opacity(map01: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the opacity of the colours of ``heat`` over an image.

    Args:
        map01: Values from 0 to 1, of any shape.

    Returns:
        Opacity, float32 of the same shape: 0 for the value 0, 0.72 for 1.
    """
    value = np.clip(np.asarray(map01, dtype=np.float32), 0, 1)
    return _OPACITY * value * (2 - value)


def enlarge(map01: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Enlarge a map with bicubic interpolation.

    Args:
        map01: Values from 0 to 1, float32 ``[h, w]``.
        size: Side of the result in pixels.

    Returns:
        Values from 0 to 1, float32 ``[size, size]``.
    """
    smooth = Image.fromarray(np.asarray(map01, dtype=np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(np.clip(np.asarray(smooth), 0, 1))


def blend(pixels: Pixels, map01: NDArray[np.float32]) -> Pixels:
    """Draw a map over an image.

    Args:
        pixels: The image, RGB uint8 ``[H, W, 3]``.
        map01: Values from 0 to 1, float32 ``[H, W]``.

    Returns:
        A new image, RGB uint8 ``[H, W, 3]``.
    """
    alpha = opacity(map01)[..., None]
    return np.asarray(np.rint(pixels * (1 - alpha) + heat(map01) * alpha), np.uint8)


def map_over_crop(face: Face, emotion: Emotion | None = None, *, size: int = 192, own_scale: bool = False) -> Pixels:
    """Draw the map of an emotion over the crop of a face.

    Args:
        face: The face.
        emotion: The emotion whose map is drawn; the default is the most probable one.
        size: Side of the result in pixels.
        own_scale: Whether the map has its own scale instead of that of all maps of the face, as in ``Face.map``.

    Returns:
        RGB uint8 ``[size, size, 3]``.
    """
    crop = Image.fromarray(face.crop).resize((size, size), Image.Resampling.BICUBIC)
    return blend(np.asarray(crop.convert("RGB")), enlarge(face.map(emotion, own_scale=own_scale), size))


@cache
def _ramp() -> Pixels:
    t = np.linspace(0, 1, 256)
    lightness = 0.30 + 0.65 * t
    chroma = 0.06 + 0.135 * np.sin(np.pi * t**0.9)
    hue = np.radians(285 + 180 * t)  # blue-violet, past red, to yellow
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    lms = np.stack([lightness + u * a + v * b for u, v in _OKLAB_TO_LMS])
    linear = np.clip(np.array(_LMS_TO_RGB) @ lms**3, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: Pixels = np.rint(255 * encoded.T).astype(np.uint8)
    table.flags.writeable = False
    return table


def _draw_maps(canvas: Image.Image, reading: Reading) -> None:
    for face in reversed(reading.faces):
        side = face.crop.shape[0]
        corners = np.array([(0, 0, 1), (side, 0, 1), (side, side, 1), (0, side, 1)]) @ face.to_image.T
        x1, y1 = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0).tolist()
        x2, y2 = np.minimum(np.ceil(corners.max(axis=0)).astype(int), canvas.size).tolist()
        rows = max(1, _BAND_PIXELS // max(x2 - x1, 1))  # a face may fill a large image
        for top in range(y1, y2 if x1 < x2 else y1, rows):
            area = (x1, top, x2, min(top + rows, y2))
            values = _warp_map(face, area[:2], (x2 - x1, area[3] - top))
            canvas.paste(Image.fromarray(blend(np.asarray(canvas.crop(area)), values)), area)


def _warp_map(face: Face, origin: tuple[int, int], size_wh: tuple[int, int]) -> NDArray[np.float32]:
    """Warp the map of a face into the window of the image at ``origin``. It fades out at the edges of the crop."""
    grid_to_crop = np.diag([face.crop.shape[1] / _GRID, face.crop.shape[0] / _GRID, 1.0])
    to_window = np.vstack([face.to_image, (0, 0, 1)]) @ grid_to_crop
    to_window[:2, 2] -= origin
    back = np.linalg.inv(to_window)[:2].ravel().tolist()
    from_edge = (np.arange(_GRID) + 0.5) / _GRID
    t = np.clip(np.minimum(from_edge, 1 - from_edge) / _FADE, 0, 1)
    ramp = (t * t * (3 - 2 * t)).astype(np.float32)
    faded = Image.fromarray(enlarge(face.map(), _GRID) * np.minimum.outer(ramp, ramp))
    warped = faded.transform(size_wh, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
    return np.asarray(np.clip(np.asarray(warped), 0, 1))


class _Label(NamedTuple):
    text: str
    area: Box
    font: "ImageFont.FreeTypeFont | ImageFont.ImageFont"
    color: str


def ink(background: str) -> str:
    """Return the text colour with the higher contrast ratio (WCAG 2.2) on a background.

    Args:
        background: A colour as ``#rrggbb``.

    Returns:
        A dark or a light colour as ``#rrggbb``.
    """
    ground = _luminance(background)
    dark, light = (_luminance(ink) for ink in _INKS)
    return _INKS[0] if (ground + 0.05) / (dark + 0.05) >= (light + 0.05) / (ground + 0.05) else _INKS[1]


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _draw_box(draw: ImageDraw.ImageDraw, face: Face, size_wh: tuple[int, int]) -> None:
    width = line_width(face.box, size_wh)
    x1, y1 = (max(0, round(v)) for v in face.box[:2])
    x2, y2 = (min(side - 1, round(v)) for v, side in zip(face.box[2:], size_wh, strict=True))
    if x2 < x1 or y2 < y1:
        return  # the box is outside the image
    if width > 1:  # a thin dark line around the colour, for bright backgrounds
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_INKS[0])
    draw.rectangle((x1, y1, x2, y2), outline=face.color, width=width)
    if face.emotion is not None:
        return
    gap = max(2, 3 * width)  # dashes
    for x in range(x1 + 2 * gap, x2 - gap, 3 * gap):
        for y in (y1, y2 - width + 1):
            draw.rectangle((x, y, x + gap, y + width - 1), fill=_INKS[0])
    for y in range(y1 + 2 * gap, y2 - gap, 3 * gap):
        for x in (x1, x2 - width + 1):
            draw.rectangle((x, y, x + width - 1, y + gap), fill=_INKS[0])


def line_width(box: Box, size_wh: tuple[int, int]) -> int:
    """Return the width of the line around a face.

    Args:
        box: The box of the face, in pixels of the image.
        size_wh: Width and height of the image in pixels.

    Returns:
        Pixels, 1 or more.
    """
    return max(1, round(min(min(box.width, box.height) / 40, max(size_wh) / 300)))


def _place_label(face: Face, reading: Reading, size_wh: tuple[int, int], placed: list[Box]) -> _Label | None:
    """Return the longest label that fits beside all faces, or else over another face. It never covers another label."""
    if len(reading.faces) > _CROWD and face.box.width < 2 * _MIN_FONT:
        return None  # only the colour of the box shows the emotion
    fontsize = max(_MIN_FONT, round(min(0.18 * min(face.box.width, face.box.height), max(size_wh) / 32)))
    font = ImageFont.load_default(fontsize)
    others = [other.box for other in reading.faces if other is not face]
    texts = ["unsure"]
    if face.emotion is not None:
        texts = [f"{face.emotion} {probability_percent(face.confidence)}", str(face.emotion)]
    for taken in (placed + others, placed):
        for text in texts:
            if font.getlength(text) > 1.6 * face.box.width and text != texts[-1]:
                continue  # a small face gets a short label
            width = round(font.getlength(text) + 0.8 * fontsize)
            for area in label_areas(face.box, width, round(1.5 * fontsize), size_wh):
                if not any(overlap(area, other) for other in taken):
                    return _Label(text, area, font, face.color)
    return None


def label_areas(box: Box, width: int, height: int, size_wh: tuple[int, int]) -> list[Box]:
    """Return the possible places of a label: above the box, below it, inside its upper edge.

    Args:
        box: The box of the face, in pixels of the image.
        width: Width of the label in pixels.
        height: Height of the label in pixels.
        size_wh: Width and height of the image in pixels.

    Returns:
        The places that are inside the image, best first.
    """
    full_width, full_height = size_wh
    if width > full_width or height > full_height:
        return []
    left = min(max(0, round(box.x1)), full_width - width)
    tops = (round(box.y1) - height, round(box.y2) + 1, max(0, round(box.y1)))
    return [Box(left, top, left + width, top + height) for top in tops if 0 <= top <= full_height - height]


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes have an area in common.

    Args:
        one: A box.
        other: Another box, in the same pixels.

    Returns:
        Whether they overlap.
    """
    return one.x1 < other.x2 and other.x1 < one.x2 and one.y1 < other.y2 and other.y1 < one.y2
