"""A Pillow image or an array -> RGB uint8 pixels: within the limit, upright, transparent ones over white."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from mien._errors import ImageError, TooLargeError
from mien.decode.wrong import first_line, why

# Exif 2.32, tag 0x0112: what turns a stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# How decoded pixels become an array: 0.9 MP at once take 0.6 ms, in strips 0.8; 12 MP 45 ms, in strips 16.
_AT_ONCE_BYTES = 16 * 2**20
_STRIP_BYTES = 2**18


def from_array(array: NDArray[Any], name: str, max_pixels: int) -> NDArray[np.uint8]:
    """The pixels of an array: a copy, read-only, RGB ``[H, W, 3]``. Raises ``ImageError`` for what is no picture."""
    if array.dtype != np.uint8:
        raise ImageError(f"{name}: the array is {array.dtype}; give uint8 with values 0..255")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"{name}: the array has shape {list(array.shape)}; give RGB [H, W, 3], RGBA [H, W, 4] or grey [H, W]"
        )
    _check_pixels((array.shape[1], array.shape[0]), name, max_pixels)
    if array.ndim == 3 and array.shape[2] == 4:
        return _frozen(_to_array(_over_white(Image.fromarray(array))))
    grey = array[..., None] if array.ndim == 2 else array
    return _frozen(np.array(np.broadcast_to(grey, (*array.shape[:2], 3)), order="C"))


def from_image(image: Image.Image, name: str, max_pixels: int) -> NDArray[np.uint8]:
    """The pixels of a Pillow image, decoded, upright and read-only, RGB ``[H, W, 3]``.

    Raises ``TooLargeError`` before decoding, ``TruncatedError`` and ``ImageError``.
    """
    _check_pixels(image.size, name, max_pixels)
    try:
        image.load()
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, ...: no common base
        raise why(error, name) from error
    try:
        upright = _to_rgb(image)
    except (ValueError, OSError, ImportError) as error:
        raise ImageError(
            f"{name}: colour mode {image.mode} cannot be read ({first_line(error)}); convert it to RGB"
        ) from error
    turn = _UPRIGHT.get(_orientation(image))
    return _frozen(_to_array(upright if turn is None else upright.transpose(turn)))


def _orientation(image: Image.Image) -> int:
    """Read after loading: Pillow turns TIFF itself while it loads, and takes the tag away."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF does not make the pixels unreadable
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_eight_bits(image)).convert("RGB")
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        return _over_white(straight.convert("RGBA"))
    return image.convert("RGB")


def _to_array(rgb: Image.Image) -> NDArray[np.uint8]:
    """The pixels; of a large picture in strips, because Pillow copies whole ones thrice into memory newly asked for."""
    if 3 * rgb.width * rgb.height <= _AT_ONCE_BYTES:
        return np.asarray(rgb)
    pixels = np.empty((rgb.height, rgb.width, 3), np.uint8)
    rows = max(1, _STRIP_BYTES // (3 * rgb.width))
    for top in range(0, rgb.height, rows):
        bottom = min(top + rows, rgb.height)
        pixels[top:bottom] = np.asarray(rgb.crop((0, top, rgb.width, bottom)))
    return pixels


def _over_white(rgba: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _to_eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of more than 8 bits scaled to 0..255: Pillow's own conversion cuts everything above 255 to white.

    16-bit formats span 0..65535 by definition. Other integers and floats carry no range: 0..1 (floats), 0..255 and
    0..65535 (integers) are taken as such where the values fit, else the values are stretched from lowest to highest.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        eight: NDArray[np.uint32] = (np.clip(values, 0, 65535).astype(np.uint32) * 255 + 32767) // 65535
        return eight.astype(np.uint8)
    known = (1.0, 255.0) if image.mode == "F" else (255.0, 65535.0)
    finite = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= known[-1]:
        low, high = 0.0, next(top for top in known if high <= top)
    scaled = (finite - np.float32(low)) * np.float32(255 / max(high - low, 1e-30))
    rounded: NDArray[np.float32] = np.rint(np.clip(scaled, 0, 255))
    return rounded.astype(np.uint8)


def _frozen(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels.flags.writeable = False
    return pixels


def _check_pixels(size_wh: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size_wh
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the picture has no pixels ({width} x {height}); give one of at least 1 x 1")
    if width * height > max_pixels:
        raise TooLargeError(
            f"{name}: {width} x {height} pixels exceed the limit of {max_pixels:,}; scale it down or raise max_pixels"
        )
