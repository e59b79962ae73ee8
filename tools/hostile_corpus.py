"""Image files that cost far more than their size, and what mien does with each: error or image, CPU seconds, memory.

    python tools/hostile_corpus.py                    # make every file, read each in a process of its own
    python tools/hostile_corpus.py --scale small      # the part that the test suite reads
    python tools/hostile_corpus.py --keep FOLDER      # keep the files

The bounds are those of docs/how-to/read.md. The exit status is 1 if a file exceeds one. Memory is read from /proc
(Linux).
"""

import argparse
import io
import json
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

CPU_PER_MEGABYTE = 2.0  # seconds for each megabyte of the file, at least for one
CPU_PER_MEGAPIXEL = 0.05  # seconds for each megapixel of an image that is read
SPARE = 120_000_000  # bytes: a strip, the levels and tiles of the detector, the file itself twice at most
RESULT = """
import sys, time
from mien import MienError, Reader
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
reader = Reader()
before, started, megapixels = peak(), time.process_time(), 0
try:
    width, height = reader.read(sys.argv[1]).size_wh
    line, megapixels = f"read, {width} x {height}", width * height / 1e6
except MienError as error:
    line = f"{type(error).__name__}: {str(error).replace(sys.argv[1], 'FILE')}"
import json
print(json.dumps({"cpu": time.process_time() - started, "peak": peak() - before, "line": line,
                  "megapixels": megapixels}))
"""


class Hostile(NamedTuple):
    """A file of the corpus.

    Attributes:
        name: What it is.
        suffix: The ending of its file name.
        data: Its bytes.
        word: A word of the error that refuses it; empty for a file that may be read.
    """

    name: str
    suffix: str
    data: bytes
    word: str


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """Encode an image with Pillow.

    Args:
        image: The image.
        file_format: Pillow's name of the format.
        **options: Options of the encoder.

    Returns:
        The file.
    """
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def noise(file_format: str, **options: Any) -> bytes:
    """Encode 60 x 40 pixels of noise; the options are those of ``encode``."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    return encode(Image.fromarray(pixels), file_format, **options)


def progressive_jpeg(side: int, scans: int) -> bytes:
    """Write a grey JPEG whose scans hold runs of empty blocks; each scan refines the coefficients by one bit.

    Args:
        side: Side of the image in pixels.
        scans: Number of refining scans.

    Returns:
        The file: about 50 bytes for each scan of a megapixel.
    """

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


def png_chunk(kind: bytes, body: bytes = b"") -> bytes:
    """Write a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def empty_png(size_wh: tuple[int, int], depth: int, color: int, bytes_per_pixel: int) -> bytes:
    """Write a PNG whose pixels are all zero, compressed about a thousandfold."""
    width, height = size_wh
    packer, row = zlib.compressobj(9), bytes(1 + width * bytes_per_pixel)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND")


def tiff(entries: list[tuple[int, int, int, int]], *, order: str = "<", pages: int = 0) -> bytes:
    """Write a TIFF of one page with these tags, and a chain of empty pages behind it."""
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    first = struct.pack(order + "H", len(entries)) + b"".join(struct.pack(order + "HHII", *each) for each in entries)
    start = len(head) + len(first) + 4
    links = [start + 6 * (page + 1) if page < pages - 1 else 0 for page in range(pages)]
    chain = b"".join(struct.pack(order + "HI", 0, link) for link in links)
    return head + first + struct.pack(order + "I", start if pages else 0) + chain


def structures(count: int) -> Iterator[Hostile]:
    """Files with far more parts than encoders write.

    Args:
        count: Parts of each file; 20,000 exceed every limit, millions show what they would cost.

    Yields:
        The files, each with a word of its error.
    """
    jpeg, png, gif = noise("JPEG"), noise("PNG"), noise("GIF")
    gap = min(100 * count, 60_000_000)
    yield Hostile("scans of a large JPEG", ".jpg", progressive_jpeg(7000, max(80, count // 20)), "scans")
    yield Hostile("scans of a small JPEG", ".jpg", progressive_jpeg(16, max(600, count // 20)), "scans")
    yield Hostile("empty JPEG comments", ".jpg", jpeg[:2] + b"\xff\xfe\0\2" * count + jpeg[2:], "segments")
    yield Hostile("JPEG fill bytes", ".jpg", jpeg[:2] + b"\xff" * gap + jpeg[2:], "segments")
    yield Hostile("JPEG bytes between segments", ".jpg", jpeg[:20] + b"\0" * gap + jpeg[20:], "segments")
    yield Hostile("private PNG chunks", ".png", png[:33] + png_chunk(b"abCd") * count + png[33:], "chunks")
    yield Hostile("empty PNG data", ".png", png[:-12] + png_chunk(b"IDAT") * count + png[-12:], "chunks")
    yield Hostile("GIF comments", ".gif", gif[:-1] + b"!\xfe\x01a\0" * count + b";", "blocks")
    yield Hostile("GIF sub-blocks", ".gif", gif[:-1] + b"!\xfe" + b"\x01a" * count + b"\0;", "blocks")
    yield Hostile("GIF extensions", ".gif", gif[:-1] + b"!\xf9\0" * count + b";", "blocks")
    yield Hostile("GIF bytes between blocks", ".gif", gif[:-1] + b"\1" * count + b";", "blocks")
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\0"
    yield Hostile("GIF frames", ".gif", gif[:-1] + frame * count + b";", "blocks")
    yield Hostile("TIFF pages", ".tif", tiff([(256, 3, 1, 1)], pages=count), "pages")
    yield Hostile("TIFF pages, big-endian", ".tif", tiff([(256, 3, 1, 1)], order=">", pages=count), "pages")
    yield Hostile("TIFF strips", ".tif", tiff([(273, 4, 3_900_000, 8)]), "strips")
    yield Hostile("TIFF tiles", ".tif", tiff([(324, 4, 3_900_000, 8)], order=">"), "strips")
    yield Hostile("text PPM", ".ppm", b"P3\n3000 3000\n255\n" + b"1 " * max(4_500_000, count), "text")
    yield Hostile("text PBM", ".pbm", b"P1\n3000 3000\n" + b"1" * max(9_000_000, count), "text")
    yield Hostile("PPM comment", ".ppm", b"P6\n#" + b"a" * max(10_000, count) + b"\n2 2\n255\n" + bytes(12), "header")
    yield Hostile("PPM spaces", ".ppm", b"P6\n" + b" " * max(10_000, count) + b"2 2\n255\n" + bytes(12), "header")
    rle = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 1078) + struct.pack("<IiiHHI", 40, 3000, 3000, 1, 8, 1) + bytes(20)
    runs = b"\1\1" * max(4_500_000, count)
    yield Hostile("run-length coded BMP", ".bmp", rle + bytes(1024) + runs, "run-length")


def images(side: int) -> Iterator[Hostile]:
    """Small files of large images, in the modes of which a decoder or a conversion makes several copies.

    Args:
        side: Side of the images in pixels.

    Yields:
        The files; whether they are read or refused depends on the limits.
    """
    for name, depth, color, width in (
        ("RGB", 8, 2, 3),
        ("RGBA", 8, 6, 4),
        ("grey with alpha", 8, 4, 2),
        ("16-bit grey", 16, 0, 2),
        ("16-bit RGBA", 16, 6, 8),
    ):
        yield Hostile(f"{name} PNG", ".png", empty_png((side, side), depth, color, width), "")
    yield Hostile("PNG of one row", ".png", empty_png((side * side, 1), 8, 0, 1), "")
    deflate = {"compression": "tiff_adobe_deflate"}
    for mode in ("F", "I", "CMYK", "RGBA", "LAB"):
        yield Hostile(f"{mode} TIFF", ".tif", encode(Image.new(mode, (side, side)), "TIFF", **deflate), "")
    wide = (min(16_383, side * side // 4096), 4096)
    yield Hostile("lossless WebP", ".webp", encode(Image.new("RGB", wide), "WEBP", lossless=True, method=0), "")
    yield Hostile("AVIF", ".avif", encode(Image.new("RGB", (side, side)), "AVIF", speed=10), "")
    yield Hostile("JPEG 2000", ".jp2", encode(Image.new("RGB", (side, side)), "JPEG2000"), "")
    grey = encode(Image.new("L", (side, side)), "JPEG")
    yield Hostile("progressive JPEG", ".jpg", encode(Image.new("RGB", (side, side)), "JPEG", progressive=True), "")
    yield Hostile("CMYK JPEG", ".jpg", encode(Image.new("CMYK", (side, side)), "JPEG"), "")
    yield Hostile("JPEG with a false size", ".jpg", _with_size(grey, 10_001), "exceed")
    yield Hostile("PNG with a false size", ".png", _with_png_size(noise("PNG"), 2**31 - 1), "exceed")
    yield Hostile("GIF with a false size", ".gif", _with_gif_size(noise("GIF"), 65_535), "exceed")


def _with_size(jpeg: bytes, side: int) -> bytes:
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", side, side) + jpeg[at + 9 :]


def _with_png_size(png: bytes, side: int) -> bytes:
    header = struct.pack(">II", side, side) + png[24:29]
    return png[:8] + png_chunk(b"IHDR", header) + png[33:]


def _with_gif_size(gif: bytes, side: int) -> bytes:
    return gif[:6] + struct.pack("<HH", side, side) + gif[10:]


def corpus(scale: str) -> Iterator[Hostile]:
    """Every file of the corpus.

    Args:
        scale: ``"small"`` for files that are cheap to make, ``"full"`` for files near the limit of bytes and pixels.

    Yields:
        The files.
    """
    yield from structures(20_000 if scale == "small" else 2_000_000)
    for side in (1200,) if scale == "small" else (7070, 9999):
        yield from images(side)


def measure(path: Path) -> dict[str, Any]:
    """Read the faces of a file in a process of its own.

    Args:
        path: The file.

    Returns:
        ``cpu`` (seconds), ``peak`` (bytes of memory beyond that of the started process), ``megapixels`` of the image,
        0 if it was refused, and ``line`` (its size or the error).
    """
    done = subprocess.run([sys.executable, "-c", RESULT, str(path)], capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        return {
            "cpu": 0.0,
            "peak": 0,
            "megapixels": 0,
            "line": f"FAULT, status {done.returncode}: {done.stderr[-300:]}",
        }
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def faults_of(case: Hostile, result: dict[str, Any], budget: int) -> list[str]:
    """Return what a result exceeds.

    Args:
        case: The file.
        result: What ``measure`` returns.
        budget: Bytes of memory.

    Returns:
        A phrase for each fault: none if the file is handled as it should be.
    """
    line = str(result["line"])
    faults = [f"no clear error: {line}"] if line.startswith("FAULT") or "\n" in line else []
    if case.word and not (line.startswith("TooLargeError") and case.word in line):
        faults.append(f"not refused because of its {case.word}")
    seconds = CPU_PER_MEGABYTE * max(1, len(case.data) / 1e6) + CPU_PER_MEGAPIXEL * result["megapixels"]
    if result["cpu"] > seconds:
        faults.append(f"{result['cpu']:.1f} s of CPU")
    if result["peak"] > budget:
        faults.append(f"{result['peak'] / 1e6:,.0f} MB of memory")
    return faults


def main() -> int:
    """Make the corpus, read it, print the table.

    Returns:
        The exit status.
    """
    from mien.decode import MAX_PIXELS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    parser.add_argument("--keep", type=Path, help="folder for the files; default: a temporary one")
    given = parser.parse_args()
    budget, tried, faults = 4 * MAX_PIXELS + SPARE, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for tried, case in enumerate(corpus(given.scale), 1):
            path = folder / f"{tried:02}-{case.name.replace(' ', '-')}{case.suffix}"
            path.write_bytes(case.data)
            result = measure(path)
            wrong = faults_of(case, result, budget)
            faults += bool(wrong)
            size, peak = len(case.data) / 1e6, result["peak"] / 1e6
            print(f"{case.name:28} {size:7.2f} MB {result['cpu']:6.2f} s {peak:6.0f} MB  {result['line'][:110]}")
            for fault in wrong:
                print(f"    FAULT: {fault}")
            if not given.keep:
                path.unlink()
    print(
        f"{tried} tried, {tried - faults} held, {faults} faults; limits: {CPU_PER_MEGABYTE:g} s of CPU a megabyte, "
        f"{budget / 1e6:,.0f} MB of memory"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
