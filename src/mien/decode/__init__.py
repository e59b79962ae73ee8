"""Source -> picture: a path, bytes, a stream, an array or a Pillow image becomes RGB uint8, the right way up."""

import os
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.decode.header import FORMATS, frames_note, open_image
from mien.decode.pixels import from_array, from_image
from mien.decode.source import name_of, read_bytes

__all__ = ["FORMATS", "MAX_BYTES", "MAX_PIXELS", "Picture", "Source", "decode", "name_of"]

MAX_BYTES = 64 * 2**20  # bytes of one image file
MAX_PIXELS = 100_000_000  # width x height; as RGB that is 300 MB of memory


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture: ``pixels`` RGB uint8 ``[H, W, 3]``, read-only and upright.

    ``source`` is what messages call it; ``note`` says what a reader should know, such as that only the first frame of
    an animation was read.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    source: str
    note: str | None = None


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any] | Image.Image | Picture


def decode(source: Source, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read one picture.

    ``source`` is a path, the bytes of an image file, a binary stream (read from where it stands to its end), an array
    (uint8; RGB ``[H, W, 3]``, RGBA ``[H, W, 4]``, grey ``[H, W]`` or ``[H, W, 1]``), a Pillow image (its current frame)
    or a ``Picture``, which is returned as it is. The pixels are a copy: an array may be reused for the next frame.

    EXIF orientation is applied. Transparent pixels are laid over white, as a page shows them; what colours lie hidden
    below them means nothing. Grey of 16 bits is scaled to 8, not cut. Of several frames the first is read.

    Raises ``TooLargeError`` above ``max_bytes`` (before reading a file whole) or ``max_pixels`` (before decoding),
    ``NotAnImageError``, ``TruncatedError``, and ``ImageError`` for everything else that cannot be read.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return Picture(from_array(source, name_of(source), max_pixels), name_of(source))
    if isinstance(source, Image.Image):
        return Picture(from_image(source, name_of(source), max_pixels), name_of(source))
    name, data = read_bytes(source, max_bytes)
    image = open_image(data, name)
    return Picture(from_image(image, name, max_pixels), name, frames_note(data, image.format))
