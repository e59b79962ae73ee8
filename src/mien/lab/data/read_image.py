"""image bytes -> one grey face."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._errors import DataError
from mien.lab.data.faces import SIZE

# Grey stored in colour converts to L without loss; 16-bit and CMYK do not, and no copy of FER-2013 uses them.
_MODES = ("L", "LA", "P", "RGB", "RGBA", "1")


def read_image(content: bytes, *, where: str) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG to uint8 ``[48, 48]``; ``DataError`` says ``where`` and why it could not."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            if picture.size != (SIZE, SIZE):
                width, height = picture.size
                raise DataError(f"{where}: the image is {width}x{height}; FER-2013 faces are {SIZE}x{SIZE}")
            if picture.mode not in _MODES:
                raise DataError(f"{where}: the image has mode {picture.mode}; 8-bit grey (L) is expected")
            return np.asarray(picture if picture.mode == "L" else picture.convert("L"))
    # Pillow answers a damaged PNG chunk with SyntaxError and some damaged headers with ValueError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{where}: not a readable PNG or JPEG ({reason}); get the file again") from error
