"""Colours as a person sees them: modes, transparency over white, sixteen bits, floats."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mien.decode import decode
from support.encoded_images import encode


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    """A picture whose every pixel tells where it is: red grows rightwards, green downwards."""
    rows, columns = np.mgrid[0:30, 0:40]
    return np.stack([columns * 6, rows * 8, np.full_like(rows, 90)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_opaque_modes_keep_the_picture(rgb: NDArray[np.uint8], mode: str) -> None:
    source = Image.fromarray(rgb)
    if mode == "LAB":
        image = Image.frombytes("LAB", (40, 30), bytes([128, 0, 0]) * 1200)
        assert decode(image).pixels.std() < 1
        return
    pixels = decode(source.convert(mode)).pixels
    expected = np.asarray(source.convert(mode).convert("RGB"))
    np.testing.assert_array_equal(pixels, expected)


def test_cmyk_jpeg_is_not_negative(rgb: NDArray[np.uint8]) -> None:
    data = encode(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=100)
    assert np.abs(decode(data).pixels.astype(int) - rgb).mean() < 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparent_pixels_lie_over_white(mode: str) -> None:
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[:, 3:, 3] = 255  # black throughout, the left half transparent
    image = Image.fromarray(rgba)
    if mode == "PA":
        image = Image.frombytes("PA", (6, 4), np.ascontiguousarray(rgba[..., 2:]).tobytes())
    elif mode in ("LA", "La"):
        image = image.convert("LA")
    image = image.convert(mode)
    pixels = decode(image).pixels
    assert (pixels[:, :3] == 255).all()
    assert (pixels[:, 3:] == 0).all()


def test_rgba_arrays_lie_over_white() -> None:
    rgba = np.full((2, 2, 4), 100, np.uint8)
    rgba[0, 0, 3], rgba[1, 1, 3] = 0, 255
    pixels = decode(rgba).pixels
    assert pixels[0, 0].tolist() == [255] * 3
    assert pixels[1, 1].tolist() == [100] * 3
    assert 180 < pixels[0, 1, 0] < 210


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_transparent_palettes_lie_over_white(transparency: int | bytes) -> None:
    image = Image.new("P", (6, 4), 1)
    image.putpalette([10, 20, 30, 0, 0, 0, 40, 50, 60])
    image.paste(2, (3, 0, 6, 4))
    pixels = decode(encode(image, "PNG", transparency=transparency)).pixels
    assert (pixels[:, :3] == 255).all()
    assert (pixels[:, 3:] == [40, 50, 60]).all()


@pytest.mark.parametrize(("mode", "transparency"), [("RGB", (0, 0, 0)), ("L", 0), ("1", 0)])
def test_a_transparent_colour_lies_over_white(mode: str, transparency: Any) -> None:
    assert (decode(encode(Image.new(mode, (3, 3)), "PNG", transparency=transparency)).pixels == 255).all()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_cut(file_format: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    pixels = decode(encode(Image.fromarray(ramp), file_format)).pixels
    np.testing.assert_array_equal(pixels[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_dark_sixteen_bit_pictures_stay_dark(dtype: str) -> None:
    dark = np.full((4, 4), 600, dtype)
    assert (decode(Image.fromarray(dark)).pixels == 2).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], np.int32), [0, 255]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[-1000, 1000]], np.int32), [0, 255]),
        (np.array([[0, 2**30]], np.int32), [0, 255]),
        (np.array([[0.0, 1.0]], np.float32), [0, 255]),
        (np.array([[0.0, 0.2]], np.float32), [0, 51]),
        (np.array([[0.0, 100.0]], np.float32), [0, 100]),
        (np.array([[-3.0, 3.0]], np.float32), [0, 255]),
        (np.array([[np.nan, 1.0]], np.float32), [0, 255]),
        (np.array([[np.inf, -np.inf]], np.float32), [0, 0]),
        (np.array([[7.5e37, 7.5e37]], np.float32), [0, 0]),
    ],
)
def test_wide_integers_and_floats_are_scaled(values: NDArray[Any], expected: list[int]) -> None:
    assert decode(Image.fromarray(values)).pixels[0, :, 0].tolist() == expected
