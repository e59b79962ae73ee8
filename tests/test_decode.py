"""Pictures of every kind become the pixels that a person sees: sources, orientation, frames."""

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mien.decode import Picture, decode
from support.encoded_images import encode


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    """A picture whose every pixel tells where it is: red grows rightwards, green downwards."""
    rows, columns = np.mgrid[0:30, 0:40]
    return np.stack([columns * 6, rows * 8, np.full_like(rows, 90)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("size_wh", [(1281, 719), (2503, 2400)])  # made an array at once, and in strips
def test_no_row_is_lost_on_the_way_out_of_pillow(size_wh: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode(pixels, "BMP")).pixels, pixels)


def test_every_kind_of_source_gives_the_same_pixels(rgb: NDArray[np.uint8], tmp_path: Path) -> None:
    data = encode(rgb)
    path = tmp_path / "a picture é.png"
    path.write_bytes(data)
    with path.open("rb") as stream:
        named = decode(stream)
    pictures = {
        str(path): decode(path),
        "<bytes>": decode(bytearray(data)),
        "<stream>": decode(io.BytesIO(data)),
        "<array>": decode(rgb),
        "<image>": decode(Image.fromarray(rgb)),
    }
    for source, picture in pictures.items():
        assert picture.source == source
        assert picture.note is None
        assert picture.pixels.dtype == np.uint8
        assert not picture.pixels.flags.writeable
        np.testing.assert_array_equal(picture.pixels, rgb)
    assert named.source == decode(str(path)).source == str(path)
    np.testing.assert_array_equal(decode(memoryview(data)).pixels, named.pixels)


def test_a_picture_comes_back_unchanged(rgb: NDArray[np.uint8]) -> None:
    picture = Picture(rgb, "mine", "a note")
    assert decode(picture) is picture


def test_a_pipe_is_read_to_its_end() -> None:
    data = encode(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for start in range(0, len(data), 5000):
                pipe.write(data[start : start + 5000])

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        picture = decode(pipe)
    thread.join()
    assert picture.pixels.shape == (300, 300, 3)
    assert picture.source == "<stream>"


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1)])
def test_grey_arrays_become_rgb(shape: tuple[int, ...]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels = decode(grey).pixels
    assert pixels.shape == (30, 40, 3)
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], grey.reshape(30, 40))


def test_arrays_are_copied_and_left_alone(rgb: NDArray[np.uint8]) -> None:
    before = rgb.copy()
    strided = rgb[::-1, ::2]
    picture, image_picture = decode(strided), decode(image := Image.fromarray(rgb))
    expected = strided.copy()
    np.testing.assert_array_equal(rgb, before)
    rgb[:] = 0
    image.paste("red", (0, 0, 40, 30))
    np.testing.assert_array_equal(picture.pixels, expected)
    np.testing.assert_array_equal(image_picture.pixels, before)


def test_a_callers_animation_keeps_its_frame_and_its_edits() -> None:
    frames = [Image.new("L", (8, 8), shade) for shade in (10, 100, 200)]
    image = Image.open(io.BytesIO(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    image.seek(2)
    assert decode(image).pixels[0, 0].tolist() == [200, 200, 200]
    assert image.tell() == 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_exif_orientation_is_applied(rgb: NDArray[np.uint8], orientation: int, file_format: str) -> None:
    # What a camera stores for each orientation (Exif 2.32, 4.6.4) so that turning it upright gives `rgb`.
    stored = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb),
        7: rgb.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(rgb, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(file_format, {})
    pixels = decode(encode(np.ascontiguousarray(stored), file_format, exif=exif, **options)).pixels
    assert pixels.shape == rgb.shape
    assert np.abs(pixels.astype(int) - rgb).max() <= (6 if file_format == "JPEG" else 0)


def test_damaged_exif_does_not_lose_the_picture(rgb: NDArray[np.uint8]) -> None:
    for exif in (
        b"Exif\0\0II*\0",
        b"Exif\0\0" + bytes(range(60)),
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\1\x99",
    ):
        assert decode(encode(rgb, "WEBP", exif=exif, lossless=True)).pixels.shape == rgb.shape


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_read_and_said(file_format: str) -> None:
    frames = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in (10, 100, 200)]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    picture = decode(data)
    assert picture.note == "animated, 3 frames: the first was read"
    assert np.abs(picture.pixels[5, 5].astype(int) - [10, 0, 0]).max() <= 6


def test_the_first_page_is_read_and_said() -> None:
    pages = [Image.new("L", (20, 10), shade) for shade in (10, 100)]
    picture = decode(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert picture.note == "2 pages: the first was read"
    assert (picture.pixels == 10).all()


def test_a_damaged_later_frame_leaves_the_first() -> None:
    frames = [Image.effect_noise((64, 64), sigma) for sigma in (10, 60, 90)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = decode(data[: len(data) * 2 // 3])
    assert picture.pixels.shape == (64, 64, 3)
    assert picture.note is not None


def test_a_previews_beside_a_jpeg_is_no_note(rgb: NDArray[np.uint8]) -> None:
    image = Image.fromarray(rgb)
    picture = decode(encode(image, "MPO", save_all=True, append_images=[image.resize((8, 6))]))
    assert picture.note is None
    assert picture.pixels.shape == rgb.shape
