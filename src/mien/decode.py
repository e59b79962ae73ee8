"""Source -> image: a path, bytes, a stream, an array or a Pillow image becomes RGB uint8, upright."""

import ctypes
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, _imaging

from mien._errors import (
    ImageError,
    MienError,
    NotAnImageError,
    TooLargeError,
    TruncatedError,
    UnsupportedImageError,
    first_line,
)
from mien._memory import ONE_BLOCK, memory_of
from mien._structure import check_structure

__all__ = ["FORMATS", "MAX_BYTES", "MAX_PIXELS", "DecodedImage", "Source", "decode", "name_of"]

# Formats of photographs. Left out on purpose: EPS, which Pillow hands to Ghostscript, and formats without a
# signature, as which any text file could pass. HEIC needs pillow-heif.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JPEG2000", "PPM")
MAX_BYTES = 64 * 2**20  # bytes of one image file
MAX_PIXELS = 100_000_000  # width x height; as RGB that is 300 MB of memory
# Formats with several frames, and what the note calls them. A JPEG's further images (MPO) are previews: no note.
_FRAMES = dict.fromkeys(("GIF", "PNG", "WEBP", "AVIF"), "animated, {} frames") | {"TIFF": "{} pages"}
# Exif 2.32, tag 0x0112: the steps along the stored rows and columns of the orientations 2 to 8. Those of 5 to 8 are of
# the transposed image.
_MIRRORED = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}
# Brands of ISO base media files whose images are coded as HEVC or as AV1; mif1 and msf1 name only the container.
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
# Pillow's messages for sound files of a variant that it does not read.
_UNSUPPORTED = re.compile(
    "unknown (pixel mode|data organization)|unsupported|not yet supported|cannot handle|unable to determine", re.I
)
# Bytes of memory that Pillow and its libraries take for a pixel, measured on 20 MP; 4 elsewhere.
_DECODER_BYTES = {"progressive JPEG": 7, "TIFF": 8, "AVIF": 10, "HEIF": 10, "WEBP": 18, "JPEG2000": 20}
# Modes of less than four bytes a pixel: RGB, three bytes more, does not fit into the memory of the image.
_NARROW_MODES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_PNM = re.compile(rb"P[1-6f]\s+([\d#]|\Z)")  # Pillow also takes the words "Python" and "Py" for PNM
_HALVED_FROM = 2400  # pixels of the long side
_HEAD_BYTES = 16  # in which the signatures of all formats are
_MAX_WIDTH = 2**25  # pixels of a row, of which Pillow and numpy make several copies: 9 bytes a pixel
_SPARE_BYTES = 50_000_000  # of memory; a small limit of pixels refuses no small image
# How pixels of other modes become RGB: 0.9 MP at once take 0.6 ms, in strips 0.8; 12 MP 45 ms, in strips 16.
_AT_ONCE_BYTES = 16 * 2**20
_STRIP_BYTES = 2**18


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A decoded image.

    Attributes:
        pixels: RGB uint8 ``[H, W, 3]``, read-only and upright. Of a file with colours it is a view of Pillow's memory,
            in which a pixel takes four bytes; ``numpy.ascontiguousarray`` packs it.
        source: The name of the image in messages.
        note: What users should know, for example that only the first frame of an animation was read.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    source: str
    note: str | None = None


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any] | Image.Image | DecodedImage


def decode(
    source: Source,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    reserve: Callable[[int, int], object] | None = None,
) -> DecodedImage:
    """Read one image.

    EXIF orientation is applied. Transparent pixels are blended with white; colours hidden below them have no effect.
    Grey of 16 bits is scaled to 8 bits. The first of several frames is read.

    Args:
        source: A path, the bytes of an image file, a binary stream (read from its position to its end), an array
            (uint8; RGB ``[H, W, 3]``, RGBA ``[H, W, 4]``, grey ``[H, W]`` or ``[H, W, 1]``), a Pillow image (its
            current frame), or a ``DecodedImage``, which is returned unchanged.
        max_bytes: Largest size of a file in bytes.
        max_pixels: Largest width x height.
        reserve: Called before an image file is decoded, with the bytes of memory that decoding takes and the number
            of pixels. It may wait until there is room.

    Returns:
        The image. Its pixels are a copy: an array may be reused for the next frame.

    Raises:
        TooLargeError: ``max_bytes`` (checked before the whole file is read), ``max_pixels``, 4 bytes of memory for
            each of ``max_pixels``, or a limit of the file's structure (all checked before decoding) is exceeded.
        NotAnImageError: The bytes are in no format that mien reads.
        UnsupportedImageError: The file is sound, but of a variant that is not read, or HEIC without ``mien[heic]``.
        TruncatedError: The file is cut off or damaged.
        ImageError: Anything else that makes the image unreadable.

    Example:
        >>> import mien
        >>> decode(mien.example()).pixels.shape
        (320, 320, 3)
    """
    if isinstance(source, DecodedImage):
        return source
    if isinstance(source, np.ndarray):
        return DecodedImage(_from_array(source, name_of(source), max_pixels), name_of(source))
    if isinstance(source, Image.Image):
        _check_pixels(source.size, name_of(source), max_pixels)
        return DecodedImage(_from_image(source, name_of(source), copy=True), name_of(source))
    return _decode_file(source, max_bytes, max_pixels, reserve=reserve)[0]


def decode_half(source: Source, *, max_bytes: int, max_pixels: int) -> tuple[DecodedImage, bool]:
    """Read one image; a large JPEG at half of its width and height, in half of the time.

    Args:
        source: As for ``decode``, with the same errors. Only the bytes or the path of a JPEG are halved.
        max_bytes: Likewise.
        max_pixels: Likewise, of the whole image.

    Returns:
        The image, and whether it is halved.
    """
    # A pipe can be read only once. Path.is_file raises errors for names that no file can have.
    is_path = isinstance(source, str | os.PathLike) and os.path.isfile(name_of(source))  # noqa: PTH113
    if is_path or isinstance(source, bytes | bytearray | memoryview):
        return _decode_file(source, max_bytes, max_pixels, half=True)
    return decode(source, max_bytes=max_bytes, max_pixels=max_pixels), False


def _decode_file(
    source: Source, max_bytes: int, max_pixels: int, *, half: bool = False, reserve: Any = None
) -> tuple[DecodedImage, bool]:
    name, data = read_bytes(source, max_bytes)
    image, frames = _open(data, name)
    _check_pixels(image.size, name, max_pixels)
    needed = _check_memory(image, name, max_pixels)
    if reserve is not None:
        reserve(needed, image.width * image.height)
    half = half and data.startswith(b"\xff\xd8\xff") and max(image.size) >= _HALVED_FROM
    if half := half and image.width % 2 == image.height % 2 == 0:
        image.draft(None, (image.width // 2, image.height // 2))
    several = _FRAMES.get(str(image.format), "").format(frames) if frames > 1 else ""
    pixels = _from_image(image, name, copy=False)
    return DecodedImage(pixels, name, f"{several}: the first was read" if several else None), half


def is_single_image(source: object) -> bool:
    """Return whether ``decode`` takes an object as one image, although Python can iterate over it.

    Args:
        source: Any object.

    Returns:
        True for a path, bytes, a stream, a Pillow image, and an array ``[H, W]`` or ``[H, W, 1 to 4]``.
    """
    if isinstance(source, np.ndarray):
        return source.ndim < 3 or (source.ndim == 3 and source.shape[2] in (1, 2, 3, 4))
    single = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, DecodedImage)
    return isinstance(source, single) or hasattr(source, "read")


def name_of(source: object) -> str:
    """Return the name of an image in messages and readings.

    Args:
        source: The image as it is given to ``decode``.

    Returns:
        Its path, the name of its stream, or its kind: ``<bytes>``, ``<array>``, ``<image>`` or ``<stream>``.
    """
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return "<bytes>"
    if isinstance(source, np.ndarray | Image.Image):
        return "<array>" if isinstance(source, np.ndarray) else "<image>"
    label = source.source if isinstance(source, DecodedImage) else getattr(source, "name", None)
    return label if isinstance(label, str) else "<stream>"


def read_bytes(source: object, max_bytes: int) -> tuple[str, bytes]:
    """Return the name and the bytes of an encoded image.

    Args:
        source: A path, bytes or a binary stream.
        max_bytes: As for ``decode``, with the same errors.
    """
    name = name_of(source)
    if isinstance(source, bytes | bytearray | memoryview):
        _check_bytes(memoryview(source).nbytes, name, max_bytes)
        data = bytes(source)
    elif isinstance(source, str | os.PathLike):
        data = _read_file(name, max_bytes)
    elif hasattr(source, "read"):
        data = _read_stream(source, name, max_bytes)
    else:
        known = "a path, bytes, a binary stream, a numpy array or a Pillow image"
        raise ImageError(f"a {type(source).__name__} is not an image; give {known}")
    if not data:
        reason = "there are no bytes to read; the file is empty or the stream already read to its end"
        raise NotAnImageError(f"{name}: {reason}")
    return name, data


def _read_file(name: str, max_bytes: int) -> bytes:
    try:
        status = Path(name).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name}: this is a folder; give the image files in it")
        _check_bytes(status.st_size, name, max_bytes)
        with Path(name).open("rb") as stream:
            return _read_stream(stream, name, max_bytes)
    except FileNotFoundError as error:
        cure = "download it first and give its path or bytes" if "://" in name else "check the path"
        raise ImageError(f"{name}: no such file; {cure}") from error
    except PermissionError as error:
        raise ImageError(f"{name}: no permission to read it; change its access rights or run as its owner") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise ImageError(f"{name!r}: cannot be opened ({first_line(error)}); check the path") from error


def _read_stream(stream: Any, name: str, max_bytes: int) -> bytes:
    """At most one byte more than the limit, in as many reads as a pipe or socket needs."""
    parts: list[bytes] = []
    missing = max_bytes + 1
    while missing > 0:
        try:
            part = stream.read(missing)
        except MienError:
            raise
        except Exception as error:  # the stream is closed, or damaged: archives, gzip and HTTP have errors of their own
            raise ImageError(f"{name}: reading failed ({first_line(error)}); give an open binary stream") from error
        if isinstance(part, str):
            raise ImageError(f"{name}: the stream gives text; open it in binary mode ('rb')")
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    _check_bytes(sum(map(len, parts)), name, max_bytes)
    return b"".join(parts)


def _check_bytes(size: int, name: str, max_bytes: int) -> None:
    if size > max_bytes:
        cure = "make it smaller or raise max_bytes"
        raise TooLargeError(f"{name}: the file exceeds the limit of {max_bytes:,} bytes; {cure}")


def check_image_file(path: str) -> None:
    """Apply the limits of structure to a file that another decoder than Pillow will read; one that is no image passes.

    Args:
        path: A file; of a pipe nothing is read.

    Raises:
        TooLargeError: A limit is exceeded.
    """
    if not Path(path).is_file():
        return
    with Path(path).open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        if (found := _format_of(head)) is not None:
            check_structure(head + stream.read(MAX_BYTES), found[0], path)


def _format_of(data: bytes) -> tuple[str, Callable[..., Image.Image]] | None:
    """The format whose signature a file has, with Pillow's reader of it."""
    # Pillow's readers expect a few bytes, and it has a string for a format that it was built without.
    head = data[:_HEAD_BYTES].ljust(_HEAD_BYTES, b"\0")
    for load_formats in (Image.preinit, Image.init):  # the usual formats; all others only when these do not fit
        load_formats()
        for key in FORMATS:
            factory, accept = Image.OPEN.get(key, (None, None))
            is_text = key == "PPM" and not _PNM.match(head)
            if factory is not None and accept is not None and accept(head) is True and not is_text:
                return key, factory
    return None


def _open(data: bytes, name: str) -> tuple[Image.Image, int]:
    """The header of an image file, its pixels not yet decoded, and the number of its frames.

    ``Image.open`` would warn or refuse by its own limit, a global of the process that is not ours to change; so the
    format's reader is called directly and ``max_pixels`` alone decides.
    """
    found = ("HEIC", _heic_reader(name)) if _is_heic(data) else _format_of(data)
    if found is None:
        raise NotAnImageError(f"{name}: not an image that mien reads; convert it to {FORMATS[0]} or {FORMATS[1]}")
    key, factory = found
    frames = 1 if key == "HEIC" else check_structure(data, key, name)
    if key == "TIFF":
        silence_libtiff()
    try:
        image = factory(io.BytesIO(data), "")
        return image, getattr(image, "n_frames", 1) if frames is None else frames
    except Exception as error:  # a reader may raise anything at all on damaged bytes
        raise _pillow_error(error, name) from error


@cache
def silence_libtiff() -> None:
    """Stop libtiff from printing to standard error. Its errors are still raised by Pillow."""
    library = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetWarningHandler", "TIFFSetErrorHandler"):
        with suppress(AttributeError):  # libtiff is hidden in some builds of Pillow
            getattr(library, name)(None)


def _is_heic(data: bytes) -> bool:
    """Whether the file type box names a brand of HEIC and none of AVIF."""
    if data[4:8] != b"ftyp":
        return False
    size = min(int.from_bytes(data[:4], "big"), 1024)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, size, 4))}
    return bool(brands & _HEIC_BRANDS) and not brands & _AVIF_BRANDS


def _heic_reader(name: str) -> Callable[..., Image.Image]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise UnsupportedImageError(
            f"{name}: a HEIC image; install pillow-heif (pip install 'mien[heic]') or convert it to JPEG"
        ) from error
    return HeifImageFile


def _from_array(array: NDArray[Any], name: str, max_pixels: int) -> NDArray[np.uint8]:
    """The pixels of an array: a copy, read-only, RGB ``[H, W, 3]``. Raises ``ImageError`` for what is no image."""
    if array.dtype != np.uint8:
        raise ImageError(f"{name}: the array is {array.dtype}; give uint8 with values 0..255")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        known = "RGB [H, W, 3], RGBA [H, W, 4] or grey [H, W]"
        raise ImageError(f"{name}: the array has shape {list(array.shape)}; give {known}")
    _check_pixels((array.shape[1], array.shape[0]), name, max_pixels)
    if array.ndim == 3 and array.shape[2] == 4:
        return _frozen(_to_upright_rgb(Image.fromarray(array), None))
    grey = array[..., None] if array.ndim == 2 else array
    return _frozen(np.array(np.broadcast_to(grey, (*array.shape[:2], 3)), order="C"))


def _from_image(image: Image.Image, name: str, *, copy: bool) -> NDArray[np.uint8]:
    """The pixels of a Pillow image, decoded, upright and read-only, RGB ``[H, W, 3]``.

    Without ``copy`` they are in the memory of the image, if it has four bytes a pixel. Raises ``TruncatedError`` and
    ``ImageError``.
    """
    try:
        with ONE_BLOCK:
            image.load()
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, ...: no common base
        raise _pillow_error(error, name) from error
    try:
        memory = None if copy or image.mode in _NARROW_MODES else memory_of(image)
        return _frozen(_to_upright_rgb(image, memory))
    except MemoryError as error:  # also where Pillow refuses to convert a row of 90 million pixels
        raise _pillow_error(error, name) from error
    except (ValueError, OSError, ImportError) as error:
        raise ImageError(
            f"{name}: colour mode {image.mode} cannot be read ({first_line(error)}); convert it to RGB"
        ) from error


def _check_pixels(size_wh: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size_wh
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the image has no pixels ({width} x {height}); give one of at least 1 x 1")
    if width * height > max_pixels:
        cure = "scale it down or raise max_pixels"
        raise TooLargeError(f"{name}: {width} x {height} pixels exceed the limit of {max_pixels:,}; {cure}")


def _check_memory(image: Image.Image, name: str, max_pixels: int) -> int:
    """Return the bytes of memory that decoding takes; refuse more than 4 for each of ``max_pixels``."""
    kind = "progressive JPEG" if image.info.get("progressive") else str(image.format)
    narrow = _NARROW_MODES.get(image.mode)
    pixel_bytes = _DECODER_BYTES.get(kind, narrow or 4) + (3 if narrow else 0)
    needed, budget = image.width * image.height * pixel_bytes, 4 * max_pixels + _SPARE_BYTES
    if image.width > _MAX_WIDTH:
        raise TooLargeError(f"{name}: rows of {image.width:,} pixels exceed the limit of {_MAX_WIDTH:,}; scale it down")
    if needed > budget:
        raise TooLargeError(
            f"{name}: decoding {image.width} x {image.height} pixels of a {kind} file takes {needed // 10**6:,} MB of "
            f"memory, the limit is {budget // 10**6:,} MB; scale it down or raise max_pixels"
        )
    return needed


def _orientation(image: Image.Image) -> int:
    """Read after loading: Pillow turns TIFF itself while it loads, and takes the tag away."""
    try:
        exif = image.getexif()
        # Without it Pillow takes that of XMP, which editors leave when they turn the pixels, and browsers ignore.
        if image.info.get("xmp") or image.info.get("XML:com.adobe.xmp"):
            exif = Image.Exif()
            exif.load(image.info.get("exif") or b"")
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF does not make the pixels unreadable
        return 1


def _to_upright_rgb(image: Image.Image, memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Convert in strips: into ``memory``, which is that of the image, or into the only copy that is made."""
    orientation, (width, height) = _orientation(image), image.size
    transposed = orientation in (5, 6, 7, 8)
    down, across = _MIRRORED.get(orientation, (1, 1))
    if memory is None:
        upright = np.empty((width, height, 3) if transposed else (height, width, 3), np.uint8)
        stored = (upright.transpose(1, 0, 2) if transposed else upright)[::down, ::across]  # in the order of the file
    else:
        stored = memory[..., :3]
        upright = stored[::down, ::across]
        upright = upright.transpose(1, 0, 2) if transposed else upright
        if image.mode == "RGB" and "transparency" not in image.info:
            return upright
    span = _value_span(image) if image.mode.startswith(("I", "F")) else None
    for top, strip in _strips(image):
        stored[top : top + strip.height] = np.asarray(_to_rgb(strip)) if span is None else _to_eight_bits(strip, span)
    return upright


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in strips of whole rows, each with the number of its first row; a small image in one."""
    whole = 3 * image.width * image.height <= _AT_ONCE_BYTES
    strip_bytes = _AT_ONCE_BYTES if image.mode == "LAB" else _STRIP_BYTES  # Pillow prepares 11 ms for each part of LAB
    rows = image.height if whole else max(1, strip_bytes // (3 * image.width))
    for top in range(0, image.height, rows):
        yield top, image if whole else image.crop((0, top, image.width, min(top + rows, image.height)))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), straight.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _value_span(image: Image.Image) -> tuple[float, float]:
    """The values of a grey image of more than 8 bits that become 0 and 255.

    16-bit formats span 0..65535 by definition, a TIFF of 12 bits 0..4095. Other integers and floats have no range: 0..1
    (floats), 0..255 and 0..65535 (integers) are taken as such if the values fit, else the lowest and the highest value.
    A TIFF whose zero is white has them in reverse order.
    """
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    low, high = 0.0, 65535.0
    if image.mode.startswith("I;16"):
        high = float(2 ** tags.get(ExifTags.Base.BitsPerSample, (16,))[0] - 1)
    elif image.mode == "F" or image.format not in ("PNG", "PPM"):
        values = [_finite(strip) for _, strip in _strips(image)]
        low, high = min(float(each.min()) for each in values), max(float(each.max()) for each in values)
        known = (1.0, 255.0) if image.mode == "F" else (255.0, 65535.0)
        if low >= 0 and high <= known[-1]:
            low, high = 0.0, next(top for top in known if high <= top)
    return (high, low) if tags.get(ExifTags.Base.PhotometricInterpretation) == 0 else (low, high)  # zero is white


def _finite(image: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0.0, neginf=0.0)


def _to_eight_bits(image: Image.Image, span: tuple[float, float]) -> NDArray[np.uint8]:
    """Scale grey values to 0..255, uint8 ``[H, W, 1]``; Pillow itself would cut everything above 255 to white."""
    black, white = span
    width = white - black
    scaled = (_finite(image) - np.float32(black)) * np.float32(255 / (width if abs(width) > 1e-30 else 1e-30))
    rounded: NDArray[np.float32] = np.rint(np.clip(scaled, 0, 255))
    return rounded.astype(np.uint8)[..., None]


def _frozen(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels.flags.writeable = False
    return pixels


def _pillow_error(error: Exception, name: str) -> ImageError:
    """The ``ImageError`` for an exception of Pillow."""
    if isinstance(error, MemoryError):
        return TooLargeError(f"{name}: not enough memory for this image; scale it down")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return TooLargeError(f"{name}: more pixels than Pillow reads of this format; scale it down")
    if re.search("closed (image|file)", str(error)):
        return ImageError(f"{name}: the image or its file is closed ({first_line(error)}); give it before it is closed")
    if _UNSUPPORTED.search(str(error)):
        return UnsupportedImageError(
            f"{name}: this variant of the format is not read ({first_line(error)}); convert it to 8-bit RGB"
        )
    return TruncatedError(f"{name}: the image is cut off or damaged ({first_line(error)}); get the file again")
