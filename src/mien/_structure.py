"""Limits on the structure of an image file, checked before a decoder reads it.

The work of a decoder does not follow from the size of a file or of its image: a JPEG of 200 kB may hold a thousand
scans, a GIF of 30 MB millions of empty blocks, a TIFF a chain of pages without an end. The functions here read only
markers, lengths and offsets, and they stop at a limit, so a hostile file costs no more than an ordinary one.
"""

import re
import struct

from mien._errors import TooLargeError

# Chunks, segments, sub-blocks or pages of a file: the first number, and one more for so many bytes of the file.
# Encoders write blocks of 255 bytes (GIF) to 64 kB (JPEG, PNG).
_MIN_BLOCKS = 10_000
_BYTES_PER_BLOCK = 128
_MAX_SCANS = 500  # of a JPEG; encoders write at most about 20
_MAX_SCANNED = 3_000_000_000  # pixels x components, summed over the scans of a JPEG; 1.5 s of decoding
_MAX_GARBAGE = 1_000_000  # bytes between the segments of a JPEG, which Pillow skips one by one in Python
_MAX_VALUES = 100_000  # of one TIFF tag, such as the offsets of strips
_MAX_HEADER = 4096  # bytes of a PNM header with its comments, which Pillow reads one by one in Python
_MAX_SLOW_BYTES = 8_000_000  # of formats that Pillow decodes in Python: text PNM, run-length coded BMP

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNM_HEADER = re.compile(rb"P[1-6f](?:\s|#[^\r\n]*[\r\n])+(\d+)(?:\s|#[^\r\n]*[\r\n])+(\d+)\s")


class _LimitError(Exception):
    """A limit is exceeded; the message says which."""


def check_structure(data: bytes, format_name: str, name: str) -> int | None:
    """Count the frames of an image file, and refuse one that costs far more to decode than others of its size.

    Args:
        data: The whole file.
        format_name: Pillow's name of its format.
        name: The name of the image in messages.

    Returns:
        The number of frames or pages, at least 1, as far as the file is sound: damage is left to the decoder.
        ``None`` for formats whose decoders count frames without reading them.

    Raises:
        TooLargeError: A limit is exceeded.
    """
    if format_name not in _WALKS:
        return None
    try:
        return _WALKS[format_name](data)
    except _LimitError as error:
        raise TooLargeError(f"{name}: {error}; open it in an image editor and save it again") from None
    except (struct.error, IndexError):
        return 1


def _max_blocks(data: bytes) -> int:
    return _MIN_BLOCKS + len(data) // _BYTES_PER_BLOCK


def _jpeg(data: bytes) -> int:
    at = blocks = scans = pixels = scanned = garbage = 0
    limit = _max_blocks(data)
    while found := _JPEG_MARKER.search(data, at):
        marker = data[found.end() - 1]
        garbage += 0 if scans else found.start() - at
        at, blocks = found.end(), blocks + 1
        if blocks > limit or garbage > _MAX_GARBAGE:
            raise _LimitError(f"this JPEG has more than {limit:,} segments or {_MAX_GARBAGE:,} bytes between them")
        if marker == 0xD9:  # end of the image; what follows is not decoded
            break
        if marker in (0x01, 0xD8):  # markers without a length
            continue
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            pixels = height * width
        elif marker == 0xDA:
            scans, scanned = scans + 1, scanned + pixels * data[at + 2]
            if scans > _MAX_SCANS or scanned > _MAX_SCANNED:
                raise _LimitError(f"this JPEG has too many scans for its size ({scans:,} or more)")
        at += struct.unpack_from(">H", data, at)[0]
    return 1


def _png(data: bytes) -> int:
    at, blocks, frames, limit = 8, 0, 1, _max_blocks(data)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL":
            frames = max(1, struct.unpack_from(">I", data, at + 8)[0])
        at, blocks = at + 12 + length, blocks + 1
        if blocks > limit:
            raise _LimitError(f"this PNG has more than {limit:,} chunks")
    return frames


def _gif(data: bytes) -> int:
    at, blocks, frames, limit = 13 + _color_table(data[10]), 0, 0, _max_blocks(data)
    while at < len(data) and data[at] != 0x3B:
        kind, blocks = data[at], blocks + 1
        if kind == 0x2C:
            frames += 1
            at += 11 + _color_table(data[at + 9])
        elif kind == 0x21:
            at += 2
        else:
            at += 1  # decoders skip bytes between blocks
        if kind in (0x21, 0x2C):
            while at < len(data) and data[at] and blocks <= limit:
                at, blocks = at + 1 + data[at], blocks + 1
            at += 1
        if blocks > limit:
            raise _LimitError(f"this GIF has more than {limit:,} blocks")
    return max(1, frames)


def _color_table(flags: int) -> int:
    """Bytes of the color table that the flags of a GIF announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _tiff(data: bytes) -> int:
    order = ">" if data[:2] == b"MM" else "<"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    head, entry, offset = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    at = struct.unpack_from(order + offset, data, 8 if big else 4)[0]
    seen: set[int] = set()
    while 0 < at < len(data) and at not in seen:
        seen.add(at)
        if len(seen) > _MIN_BLOCKS:
            raise _LimitError(f"this TIFF has more than {_MIN_BLOCKS:,} pages")
        (count,) = struct.unpack_from(order + head, data, at)
        first = at + struct.calcsize(order + head)
        if len(seen) == 1:
            _check_tags(data, first, min(count, 65_535), order + entry)
        end = first + count * struct.calcsize(order + entry)
        at = struct.unpack_from(order + offset, data, end)[0] if end + struct.calcsize("<" + offset) <= len(data) else 0
    return len(seen)


def _check_tags(data: bytes, at: int, count: int, entry: str) -> None:
    """Refuse numeric tags with many values, which Pillow turns into Python objects."""
    for number in range(count):
        _, kind, values, _ = struct.unpack_from(entry, data, at + number * struct.calcsize(entry))
        if kind not in (1, 2, 6, 7) and values > _MAX_VALUES:  # bytes and text are one object each
            raise _LimitError(f"this TIFF has more than {_MAX_VALUES:,} strips, tiles or values of a tag")


def _pnm(data: bytes) -> int:
    if len(data) > _MAX_HEADER and not _PNM_HEADER.match(data[:_MAX_HEADER]):
        raise _LimitError(f"the header of this PNM file is longer than {_MAX_HEADER:,} bytes")
    if data[1:2] in b"123" and len(data) > _MAX_SLOW_BYTES:
        raise _LimitError(f"this PNM file holds its pixels as text and more than {_MAX_SLOW_BYTES:,} bytes")
    return 1


def _bmp(data: bytes) -> int:
    compression = struct.unpack_from("<I", data, 30)[0] if data[14] >= 40 else 0
    if compression in (1, 2) and len(data) > _MAX_SLOW_BYTES:
        raise _LimitError(f"this BMP is run-length coded and has more than {_MAX_SLOW_BYTES:,} bytes")
    return 1


_WALKS = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "TIFF": _tiff, "PPM": _pnm, "BMP": _bmp}
