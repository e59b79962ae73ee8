"""Limits on the structure of image files: hostile files of every format are refused before they are decoded."""

import io
import struct
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from mien._errors import TooLargeError
from mien._structure import check_structure
from mien.decode import decode

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 60, 3), np.uint8)


def encoded(format_name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, format_name, **options)
    return stream.getvalue()


def frames(format_name: str, count: int) -> bytes:
    stream = io.BytesIO()
    images = [Image.fromarray(np.roll(PIXELS, each, 1)) for each in range(count)]
    images[0].save(stream, format_name, save_all=True, append_images=images[1:])
    return stream.getvalue()


def progressive(side: int, scans: int) -> bytes:
    """A grey JPEG whose scans hold runs of empty blocks; every scan refines the coefficients by one more bit."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    def table(kind: int, symbol: int) -> bytes:
        return segment(0xC4, bytes([kind, 1] + [0] * 15 + [symbol]))

    blocks = ((side + 7) // 8) ** 2
    head = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    first = segment(0xDA, b"\1\1\0\0\0\0") + bytes((blocks + 7) // 8)
    run = bytes((15 * -(-blocks // 16384) + 7) // 8 + 2)  # a run of 2**14 empty blocks takes 15 bits
    refined = segment(0xDA, b"\1\1\0\1\x3f\x0d") + run
    return b"\xff\xd8" + head + table(0, 0) + table(0x10, 0xE0) + first + refined * scans + b"\xff\xd9"


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(entries: list[tuple[int, int, int, int]], *, order: str = "<", pages: int = 0) -> bytes:
    """One page with these tags, then a chain of empty pages."""
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    first = struct.pack(order + "H", len(entries)) + b"".join(struct.pack(order + "HHII", *each) for each in entries)
    start = len(head) + len(first) + 4
    links = [start + 6 * (page + 1) if page < pages - 1 else 0 for page in range(pages)]
    chain = b"".join(struct.pack(order + "HI", 0, link) for link in links)
    return head + first + struct.pack(order + "I", start if pages else 0) + chain


def hostile() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes, and what the message names."""
    jpeg, png, gif = encoded("JPEG"), encoded("PNG"), encoded("GIF")
    yield "scans of a large JPEG", progressive(7000, 80), "scans"
    yield "scans of a small JPEG", progressive(16, 600), "scans"
    yield "empty JPEG comments", jpeg[:2] + b"\xff\xfe\0\2" * 20_000 + jpeg[2:], "segments"
    yield "JPEG fill bytes", jpeg[:2] + b"\xff" * 2_000_000 + jpeg[2:], "segments"
    yield "JPEG bytes between segments", jpeg[:20] + b"\0" * 2_000_000 + jpeg[20:], "segments"
    yield "private PNG chunks", png[:33] + chunk(b"abCd") * 20_000 + png[33:], "chunks"
    yield "empty PNG data", png[:-12] + chunk(b"IDAT") * 20_000 + png[-12:], "chunks"
    yield "GIF comments", gif[:-1] + b"!\xfe\x01a\0" * 20_000 + b";", "blocks"
    yield "GIF sub-blocks", gif[:-1] + b"!\xfe" + b"\x01a" * 20_000 + b"\0;", "blocks"
    yield "GIF bytes between blocks", gif[:-1] + b"\1" * 20_000 + b";", "blocks"
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\0"
    yield "GIF frames", gif[:-1] + frame * 20_000 + b";", "blocks"
    yield "TIFF pages", tiff([(256, 3, 1, 1)], pages=20_000), "pages"
    yield "TIFF pages, big-endian", tiff([(256, 3, 1, 1)], order=">", pages=20_000), "pages"
    yield "TIFF strips", tiff([(273, 4, 3_900_000, 8)]), "strips"
    yield "TIFF tiles", tiff([(324, 4, 3_900_000, 8)], order=">"), "strips"
    yield "text PPM", b"P3\n3000 3000\n255\n" + b"1 " * 4_500_000, "text"
    yield "text PBM", b"P1\n3000 3000\n" + b"1" * 9_000_000, "text"
    yield "PPM comment", b"P6\n#" + b"a" * 10_000 + b"\n2 2\n255\n" + bytes(12), "header"
    yield "PPM spaces", b"P6\n" + b" " * 10_000 + b"2 2\n255\n" + bytes(12), "header"
    rle = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 1078) + struct.pack("<IiiHHI", 40, 3000, 3000, 1, 8, 1) + bytes(20)
    yield "run-length coded BMP", rle + bytes(1024) + b"\1\1" * 4_500_000, "run-length"


@pytest.mark.parametrize(("data", "word"), [row[1:] for row in hostile()], ids=[row[0] for row in hostile()])
def test_hostile_structures_are_refused_before_decoding(data: bytes, word: str) -> None:
    started = time.process_time()
    with pytest.raises(TooLargeError, match=word) as caught:
        decode(data)
    assert time.process_time() - started < 2 * max(1, len(data) / 1e6)  # seconds of CPU for each megabyte
    assert str(caught.value).startswith("<bytes>: this ") or "header" in word
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_blocks": 1}),
        ("PNG", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"big_tiff": True}),
        ("BMP", {}),
        ("PPM", {}),
    ],
)
def test_ordinary_files_pass(format_name: str, options: dict[str, object]) -> None:
    data = encoded(format_name, **options)
    assert check_structure(data, format_name, "x") == 1
    assert decode(data).note is None


def test_a_jpeg_of_a_hundred_megapixels_may_have_the_scans_that_encoders_write() -> None:
    assert check_structure(progressive(9_992, 25), "JPEG", "x") == 1


@pytest.mark.parametrize("format_name", ["PNG", "GIF", "TIFF"])
@pytest.mark.parametrize("count", [2, 7])
def test_frames_are_counted_as_pillow_counts_them(format_name: str, count: int) -> None:
    data = frames(format_name, count)
    assert check_structure(data, format_name, "x") == count == Image.open(io.BytesIO(data)).n_frames


@pytest.mark.parametrize("format_name", ["WEBP", "AVIF", "JPEG2000"])
def test_other_formats_count_their_frames_themselves(format_name: str) -> None:
    assert check_structure(b"", format_name, "x") is None


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "PPM"])
def test_cut_and_changed_files_end_without_another_error(format_name: str) -> None:
    data = frames(format_name, 3) if format_name in ("PNG", "GIF", "TIFF") else encoded(format_name)
    for cut in range(0, len(data), max(1, len(data) // 100)):
        assert check_structure(data[:cut], format_name, "x") is not None
    for _ in range(300):
        changed = bytearray(data)
        for at in RNG.integers(0, min(len(data), 400), 3):
            changed[at] = RNG.integers(256)
        try:
            assert check_structure(bytes(changed), format_name, "x") is not None
        except TooLargeError:
            continue


def test_a_chain_of_pages_that_returns_to_its_start_ends() -> None:
    data = bytearray(tiff([(256, 3, 1, 1)]))
    data[-4:] = struct.pack("<I", 8)
    assert check_structure(bytes(data), "TIFF", "x") == 1
