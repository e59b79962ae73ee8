"""image bytes -> one grey face."""

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mien._errors import DataError
from mien.lab.data.faceset import SIZE, Split, nearest, quote

# How people name the parts of a set. What one calls validation is PublicTest here: it selects.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), Split.TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev", "publictest"), Split.PUBLIC_TEST),
    **dict.fromkeys(("test", "testing", "privatetest"), Split.PRIVATE_TEST),
}


# What Pillow reads everywhere that people keep faces in.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")


@dataclass(frozen=True, slots=True)
class Entry:
    """One face that is yet to be read. ``name`` is what the hash calls it, ``where`` what errors call it."""

    path: Path
    name: str
    label: str
    split: Split
    group: str  # the person or scene it belongs to; empty: nobody says
    where: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The faces of ``source`` in their order. ``digests``: name and sha256 of the files that were read to list them."""

    source: Path
    entries: Sequence[Entry]
    digests: tuple[tuple[str, str], ...] = ()


def read_split_name(name: str, *, where: str) -> Split:
    """The split that ``name`` means. Raises ``DataError`` for an unknown one."""
    key = name.strip().lower()
    if key not in SPLIT_NAMES:
        known = ", ".join(SPLIT_NAMES)
        raise DataError(f"{where}: {quote(name)} is no split{nearest(key, SPLIT_NAMES)}; splits are called {known}")
    return SPLIT_NAMES[key]


_THREADS = 8  # at most; Pillow decodes and resizes without holding Python's lock


def read_pictures(entries: Sequence[Entry], side: int) -> tuple[NDArray[np.uint8], list[str]]:
    """The faces uint8 ``[N, side, side]`` and the sha256 of each file. Raises ``DataError`` for a broken one."""
    images = np.empty((len(entries), side, side), np.uint8)

    def read(index: int) -> str:
        entry = entries[index]
        try:
            content = entry.path.read_bytes()
        except OSError as error:
            raise DataError(f"{entry.where}: cannot be read ({error.strerror or error})") from error
        images[index] = read_picture(content, side, where=entry.where)
        return hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(min(_THREADS, _cores())) as pool:
        return images, list(pool.map(read, range(len(entries))))


def read_picture(content: bytes, side: int, *, where: str) -> NDArray[np.uint8]:
    """One picture as uint8 ``[side, side]``: upright by EXIF, grey, its middle square, resized (bicubic, antialiased).

    Transparent pixels are laid over white, grey of more than 8 bits is scaled to 8; of several frames the first counts.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.draft("L", (2 * side, 2 * side))  # lets JPEG decode at a fraction of its size
            grey = _grey(ImageOps.exif_transpose(picture))
    except Exception as error:  # Pillow's readers answer damaged bytes with whatever they stumble over
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{where}: not a readable picture ({reason}); get the file again, or remove it") from error
    return resize(grey, side)


def resize(grey: Image.Image, side: int) -> NDArray[np.uint8]:
    """The middle square of a grey picture at ``side`` pixels."""
    short = min(grey.size)
    left, top = (grey.width - short) // 2, (grey.height - short) // 2
    if grey.size == (side, side):
        return np.asarray(grey)
    box = (left, top, left + short, top + short)
    return np.asarray(grey.resize((side, side), Image.Resampling.BICUBIC, box=box))


def _grey(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(_to_eight_bits(np.asarray(picture), picture.mode))
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return picture.convert("L")


def _to_eight_bits(values: NDArray[np.generic], mode: str) -> NDArray[np.uint8]:
    """Integers span 0..65535 unless they all fit in 0..255; floats 0..1, else 0..255."""
    levels = np.nan_to_num(values.astype(np.float32)).clip(min=0)
    highest = float(levels.max(initial=0))
    tops = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0,) if ";16" in mode else (255.0, 65535.0)
    top = next((top for top in tops if highest <= top), highest)
    return np.rint(levels * (255 / top)).astype(np.uint8)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
