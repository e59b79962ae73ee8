"""Bytes -> the header of an image file: its format, its size, how many frames it has; nothing is decoded yet."""

import io

from PIL import Image

from mien._errors import NotAnImageError
from mien.decode.wrong import why

# What people keep photographs in. Left out on purpose: EPS, which Pillow hands to Ghostscript, and formats without a
# signature, as which any text file could pass. HEIF counts where pillow-heif has registered it.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JPEG2000", "PPM")

# Formats with several frames, and what the note calls them. A JPEG's further pictures (MPO) are previews: no note.
_FRAMES = {
    "GIF": "animated, {} frames",
    "PNG": "animated, {} frames",
    "WEBP": "animated, {} frames",
    "AVIF": "animated, {} frames",
    "TIFF": "{} pages",
}


def open_image(data: bytes, name: str) -> Image.Image:
    """The header of an image file, its pixels not yet decoded.

    ``Image.open`` would warn or refuse by its own limit, a global of the process that is not ours to change; so the
    format's reader is called directly and ``max_pixels`` alone decides.
    """
    for load_formats in (Image.preinit, Image.init):  # the usual formats; all others only when these do not fit
        load_formats()
        for key in FORMATS:
            factory, accept = Image.OPEN.get(key, (None, None))
            # A format that this Pillow was built without answers a string here.
            if factory is None or accept is None or accept(data[:16]) is not True:
                continue
            try:
                return factory(io.BytesIO(data), "")
            except Exception as error:  # a reader may raise anything at all on damaged bytes
                raise why(error, name) from error
    raise NotAnImageError(f"{name}: not a picture that mien reads; convert it to {FORMATS[0]} or {FORMATS[1]}")


def frames_note(data: bytes, format_name: str | None) -> str | None:
    """What is said about further frames. They are counted in a second reader, as counting moves a reader's place."""
    if format_name not in _FRAMES:
        return None
    try:
        count = getattr(open_image(data, ""), "n_frames", 1)
    except Exception:  # a later frame is damaged, which does not touch the first
        return "several frames, some damaged: the first was read"
    return f"{_FRAMES[format_name].format(count)}: the first was read" if count > 1 else None
