"""The contact sheet: made faces, real ones beside them, and the made faces that are nearest to a training face.

It shows faces of the data set, so it is for whoever holds that set, and is written beside the made faces only.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mien._emotions import Emotion
from mien.lab.data import FaceSet
from mien.lab.gan.judge import Pairs

# Faces in a row and rows of a block; side of a face, height of a title and space between blocks in pixels.
COLUMNS, ROWS = 10, 4
CELL, TITLE, GAP = 72, 26, 16

_WIDTH = 2 * COLUMNS * CELL + 3 * GAP
_HEIGHT = 2 * TITLE + (ROWS + 2) * CELL + 2 * GAP  # of a band


class Band(NamedTuple):
    """What the sheet shows of one emotion: made faces uint8 ``[N, S, S]`` and their nearest training faces."""

    emotion: Emotion
    made: Tensor
    pairs: Pairs


def contact_sheet(bands: Sequence[Band], training: FaceSet) -> bytes:
    """A PNG, a band for each emotion: made faces left, real ones right; below, the closest pairs, made above real."""
    sheet = Image.new("L", (_WIDTH, len(bands) * _HEIGHT + GAP), 255)
    for number, band in enumerate(bands):
        _draw_band(sheet, band, training, top=GAP + number * _HEIGHT)
    stream = io.BytesIO()
    sheet.save(stream, "png")
    return stream.getvalue()


def _draw_band(sheet: Image.Image, band: Band, training: FaceSet, *, top: int) -> None:
    emotion, made, pairs = band
    real = training.images[training.labels == training.emotions.index(emotion)]
    right = 2 * GAP + COLUMNS * CELL
    _draw_block(sheet, f"{emotion}: made", made[: ROWS * COLUMNS], COLUMNS, at=(GAP, top))
    _draw_block(sheet, f"{emotion}: real, of Training", real[: ROWS * COLUMNS], COLUMNS, at=(right, top))
    closest = pairs.distance.argsort()[: 2 * COLUMNS]
    both = torch.cat([made[closest], training.images[pairs.row[closest]]])
    title = "the made faces that are nearest to a training face, and that face below each"
    _draw_block(sheet, title, both, len(closest), at=(GAP, top + TITLE + ROWS * CELL + GAP))


def _draw_block(sheet: Image.Image, title: str, faces: Tensor, columns: int, *, at: tuple[int, int]) -> None:
    left, top = at
    ImageDraw.Draw(sheet).text((left, top), title, fill=0, font=ImageFont.load_default(16))
    for number, face in enumerate(faces.numpy()):
        row, column = divmod(number, columns)
        picture = Image.fromarray(face).resize((CELL - 2, CELL - 2), Image.Resampling.BICUBIC)
        sheet.paste(picture, (left + column * CELL, top + TITLE + row * CELL))
