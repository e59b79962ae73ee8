"""Faces beside their maps on one picture: what ``mien explain`` writes for every picture it reads."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mien._emotions import Emotion
from mien._face import Face, Reading
from mien.overlay import confidence_text, map_over_crop

# Pixels.
_TILE, _GAP, _LABEL, _MARGIN = 168, 12, 40, 28
_THUMB = (760, 420)
_WIDTH = 1560  # of a sheet, where one face's row needs no more
_LETTERS, _SMALL = 17, 14

_PAPER, _INK, _MUTED = "#f7f5f1", "#1d1c1a", "#67635b"


def asked(top: Emotion, emotions: Sequence[Emotion]) -> list[Emotion]:
    """The emotions whose maps are shown of a face: its ``top`` one, then ``emotions`` as they stand."""
    return list(dict.fromkeys([top, *emotions]))


def sheet(reading: Reading, emotions: Sequence[Emotion]) -> NDArray[np.uint8]:
    """The picture with its faces numbered, and below it each face beside its maps: RGB uint8 ``[H, W, 3]``.

    Each face has the map of its top emotion and of ``emotions``, with names and probabilities. ``reading.pixels`` must
    be kept.
    """
    thumb = numbered(reading, _THUMB)
    faces = reading.faces
    unit = max((1 + len(asked(face.top, emotions)) for face in faces), default=0) * (_TILE + _GAP)
    across = min(max(1, (_WIDTH - 2 * _MARGIN) // (unit + _MARGIN)), len(faces))
    down = -(-len(faces) // across) if across else 0
    width = 2 * _MARGIN + max(across * (unit + _MARGIN) - _MARGIN - _GAP, thumb.width)
    height = 2 * _MARGIN + thumb.height + down * (_MARGIN + _TILE + _LABEL)
    canvas = Image.new("RGB", (width, height), _PAPER)
    canvas.paste(thumb, (_MARGIN, _MARGIN))
    for index, face in enumerate(faces):
        x = _MARGIN + index % across * (unit + _MARGIN)
        y = 2 * _MARGIN + thumb.height + index // across * (_TILE + _LABEL + _MARGIN)
        _row(canvas, (x, y), face, emotions, f"face {index + 1}" if len(faces) > 1 else "the face")
    return np.asarray(canvas)


def numbered(reading: Reading, most_wh: tuple[int, int]) -> Image.Image:
    """The picture at ``most_wh`` pixels at most, a box around each face, and its number where there are several."""
    picture = Image.fromarray(np.asarray(reading.pixels))
    picture.thumbnail(most_wh, Image.Resampling.LANCZOS)
    scale = picture.width / reading.size_wh[0]
    draw = ImageDraw.Draw(picture)
    for number, face in reversed(list(enumerate(reading.faces, start=1))):
        _box(draw, [scale * edge for edge in face.box], face.top, str(number) if len(reading.faces) > 1 else "")
    return picture


def tiles(face: Face, emotions: Sequence[Emotion], *, size: int) -> list[tuple[Emotion, str, NDArray[np.uint8]]]:
    """Emotion, probability as text, and the crop under the map, RGB uint8 ``[size, size, 3]``, of each asked one."""
    return [(e, confidence_text(face.probs[e]), map_over_crop(face, e, size=size)) for e in asked(face.top, emotions)]


def _row(canvas: Image.Image, at: tuple[int, int], face: Face, emotions: Sequence[Emotion], name: str) -> None:
    draw, (x, y) = ImageDraw.Draw(canvas), at
    crop = Image.fromarray(face.crop).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
    canvas.paste(crop.convert("RGB"), at)
    letters, small = ImageFont.load_default(_LETTERS), ImageFont.load_default(_SMALL)
    draw.text((x, y + _TILE + 6), name, fill=_INK, font=letters)
    for place, (emotion, probability, image) in enumerate(tiles(face, emotions, size=_TILE), start=1):
        left = x + place * (_TILE + _GAP)
        canvas.paste(Image.fromarray(image), (left, y))
        draw.rectangle((left, y + _TILE + 9, left + 11, y + _TILE + 20), fill=emotion.color)
        draw.text((left + 18, y + _TILE + 5), str(emotion), fill=_INK, font=letters)
        draw.text((left + _TILE, y + _TILE + 7), probability, fill=_MUTED, font=small, anchor="ra")
        if not (face.map(emotion) > 0).any():
            draw.text((left + 18, y + _TILE + 25), "nothing speaks for it", fill=_MUTED, font=small)


def _box(draw: ImageDraw.ImageDraw, box: list[float], emotion: Emotion, number: str) -> None:
    draw.rectangle(box, outline=emotion.color, width=2)
    if number:
        font = ImageFont.load_default(_SMALL)
        width = round(font.getlength(number)) + 8
        x, y = box[0], max(box[1] - 17, 0)
        draw.rectangle((x, y, x + width, y + 17), fill=emotion.color)
        draw.text((x + width / 2, y + 8.5), number, fill="#0a0a0c", font=font, anchor="mm")
