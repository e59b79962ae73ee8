"""Decoding: how much memory it takes, and whose memory the pixels are in."""

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mien import Reader, annotate
from mien._memory import is_shared, pillow_image
from mien.decode import DecodedImage, decode
from support.encoded_images import encode

PEAK = """
import sys
from mien.decode import decode
from mien._errors import TooLargeError
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
before = peak()
try:
    decode(sys.argv[1], max_pixels=16_000_000)
except TooLargeError:
    print("refused", end=" ")
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("mode", "file_format", "options"),
    [
        ("RGB", "PNG", {"compress_level": 1}),
        ("RGBA", "PNG", {"compress_level": 1}),
        ("LA", "PNG", {"compress_level": 1}),
        ("I;16", "PNG", {"compress_level": 1}),
        ("P", "GIF", {}),
        ("F", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("CMYK", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "WEBP", {"lossless": True, "method": 0}),
    ],
)
def test_decoding_keeps_to_its_budget_of_memory(
    mode: str, file_format: str, options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "large"
    side = 3000 if file_format == "TIFF" else 4000
    Image.new(mode, (side, side)).save(path, file_format, **options)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    budget = 4 * 16_000_000 + 50_000_000 + 15_000_000  # the last: Pillow's modules, a strip
    assert int(done.stdout.split()[-1]) < budget
    assert done.stdout.startswith("refused") == (file_format == "WEBP")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_read_in_the_memory_of_its_decoder(astronaut: NDArray[np.uint8], orientation: int) -> None:
    reader = Reader()
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(encode(astronaut, "JPEG", exif=exif, quality=90)).pixels
    assert not pixels.flags.owndata
    assert not pixels.flags.c_contiguous
    assert not pixels.flags.writeable
    assert is_shared(pixels) == (orientation == 1)
    shared, packed = reader.read(DecodedImage(pixels, "photo")), reader.read(DecodedImage(pixels.copy(), "photo"))
    assert shared.to_dict() == packed.to_dict()
    assert (annotate(pixels, shared) == annotate(pixels.copy(), packed)).all()
    assert all((one.crop == other.crop).all() for one, other in zip(shared.faces, packed.faces, strict=True))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("down", "across"), [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_parts_of_pixels_become_images(*, turned: bool, down: int, across: int) -> None:
    four = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    for part in (
        four[..., :3],
        four[2:7, 1:5, :3],
        four[::2, :, :3],
        four[..., 1:4],
        four[..., :3].copy(),
        four[:1, :1, :3],
    ):
        pixels = part[::down, ::across]
        pixels = pixels.transpose(1, 0, 2) if turned else pixels
        assert (np.asarray(pillow_image(pixels))[..., :3] == pixels).all()


def test_a_pillow_image_is_copied_and_left_as_it_was(astronaut: NDArray[np.uint8]) -> None:
    for image in (
        Image.fromarray(astronaut),
        Image.fromarray(astronaut).convert("CMYK"),
        Image.fromarray(astronaut).convert("RGBA"),
    ):
        before = image.tobytes()
        pixels = decode(image).pixels
        assert image.tobytes() == before
        kept = pixels.copy()
        image.paste((0,) * len(image.getbands()), (0, 0, *image.size))
        assert (pixels == kept).all()


def test_the_memory_outlives_the_file_and_the_image(astronaut: NDArray[np.uint8]) -> None:
    file = encode(astronaut, "BMP")
    parts = [decode(file).pixels[1:, ::-1] for _ in range(20)]
    gc.collect()
    assert all((part == astronaut[1:, ::-1]).all() for part in parts)
