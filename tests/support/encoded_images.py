"""Images as the bytes of a file."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# EXIF orientation -> how an upright image is stored with it.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(image: Image.Image | NDArray[np.uint8], file_format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, file_format, **options)
    return stream.getvalue()


def turned_webp(pixels: NDArray[np.uint8], orientation: int) -> bytes:
    """A lossless WebP that becomes ``pixels`` when its EXIF orientation is applied."""
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112], exif.endian = orientation, "<" if orientation % 2 else ">"
    stored = image.transpose(_STORED[orientation]) if orientation in _STORED else image
    return encode(stored, "WEBP", lossless=True, exif=exif)
