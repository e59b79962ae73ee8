"""Faces on a page: pictures as data URIs, alone or beside the map of where a network looked."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Warm and light where a map is strong, as on the pages of the reader.
_RAMP = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One face of a gallery: ``image`` uint8 ``[H, W]`` or ``[H, W, 3]``, a ``caption``, and a map ``[h, w]`` or none.

    Only what is positive in a map is drawn, scaled by its own maximum.
    """

    image: NDArray[np.uint8]
    caption: str
    map: NDArray[np.float32] | None = None


def gallery(tiles: Iterable[Tile]) -> str:
    """The ``tiles`` in a grid."""
    items = "".join(f"<li>{_tile(tile)}</li>" for tile in tiles)
    return f'<ul class="tiles">{items}</ul>'


def picture(image: NDArray[np.uint8], *, alt: str) -> str:
    """``image``, uint8 ``[H, W]`` or ``[H, W, 3]``, as an ``<img>`` that carries its own bytes."""
    stream = BytesIO()
    Image.fromarray(image).save(stream, "WEBP", quality=88)
    code = base64.b64encode(stream.getvalue()).decode("ascii")
    size = f'width="{image.shape[1]}" height="{image.shape[0]}"'
    return f'<img src="data:image/webp;base64,{code}" {size} alt="{escape(alt)}" decoding="async">'


def blend(image: NDArray[np.uint8], map_: NDArray[np.floating]) -> NDArray[np.uint8]:
    """``image`` uint8 ``[H, W]`` with the positive part of ``map_`` ``[h, w]`` laid over it: uint8 ``[H, W, 3]``."""
    height, width = image.shape[:2]
    strength = np.maximum(map_, 0).astype(np.float32)
    strength /= max(float(strength.max()), 1e-12)
    smooth = Image.fromarray(strength).resize((width, height), Image.Resampling.BICUBIC)
    shade = np.asarray(smooth, np.float32).clip(0, 1)
    place = shade * (len(_RAMP) - 1)
    low = np.minimum(place.astype(np.int64), len(_RAMP) - 2)
    part = (place - low)[..., None]
    colour = _RAMP[low] * (1 - part) + _RAMP[low + 1] * part
    grey = (image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)).astype(np.float32)
    weight = (0.75 * shade)[..., None]
    return np.asarray((grey * (1 - weight) + colour * weight).round().clip(0, 255), np.uint8)


def _tile(tile: Tile) -> str:
    shown = picture(tile.image, alt=tile.caption)
    if tile.map is not None:
        large = np.asarray(Image.fromarray(tile.image).resize((96, 96), Image.Resampling.BICUBIC))
        shown = f'<div class="pair">{shown}{picture(blend(large, tile.map), alt="map")}</div>'
    return f"<figure>{shown}<figcaption>{escape(tile.caption)}</figcaption></figure>"
