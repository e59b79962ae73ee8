"""Decoding: sources, orientation, frames, colour modes, and files that are refused."""

import gzip
import io
import os
import struct
import sys
import threading
import tracemalloc
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mien._errors import ImageError, NotAnImageError, TooLargeError, TruncatedError, UnsupportedImageError
from mien.decode import MAX_PIXELS, DecodedImage, decode
from support.encoded_images import encode
from support.paths import ROOT


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    """An image in which each pixel encodes its position: red grows to the right, green downwards."""
    rows, columns = np.mgrid[0:30, 0:40]
    return np.stack([columns * 6, rows * 8, np.full_like(rows, 90)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("size_wh", [(1281, 719), (2503, 2400)])  # made an array at once, and in strips
def test_no_row_is_lost_in_the_copy_from_pillow(size_wh: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(Image.fromarray(pixels)).pixels, pixels)
    np.testing.assert_array_equal(decode(encode(pixels, "BMP")).pixels, pixels)


def test_every_kind_of_source_gives_the_same_pixels(rgb: NDArray[np.uint8], tmp_path: Path) -> None:
    data = encode(rgb)
    path = tmp_path / "an image é.png"
    path.write_bytes(data)
    with path.open("rb") as stream:
        named = decode(stream)
    images = {
        str(path): decode(path),
        "<bytes>": decode(bytearray(data)),
        "<stream>": decode(io.BytesIO(data)),
        "<array>": decode(rgb),
        "<image>": decode(Image.fromarray(rgb)),
    }
    for source, decoded in images.items():
        assert decoded.source == source
        assert decoded.note is None
        assert decoded.pixels.dtype == np.uint8
        assert not decoded.pixels.flags.writeable
        np.testing.assert_array_equal(decoded.pixels, rgb)
    assert named.source == decode(str(path)).source == str(path)
    np.testing.assert_array_equal(decode(memoryview(data)).pixels, named.pixels)


def test_a_decoded_image_is_returned_unchanged(rgb: NDArray[np.uint8]) -> None:
    decoded = DecodedImage(rgb, "mine", "a note")
    assert decode(decoded) is decoded


def test_a_pipe_is_read_to_its_end() -> None:
    data = encode(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    reading, writing = os.pipe()

    def fill() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for start in range(0, len(data), 5000):
                pipe.write(data[start : start + 5000])

    thread = threading.Thread(target=fill)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        decoded = decode(pipe)
    thread.join()
    assert decoded.pixels.shape == (300, 300, 3)
    assert decoded.source == "<stream>"


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
    decoded, decoded_image = decode(strided), decode(image := Image.fromarray(rgb))
    expected = strided.copy()
    np.testing.assert_array_equal(rgb, before)
    rgb[:] = 0
    image.paste("red", (0, 0, 40, 30))
    np.testing.assert_array_equal(decoded.pixels, expected)
    np.testing.assert_array_equal(decoded_image.pixels, before)


def test_an_opened_animation_keeps_its_frame_and_its_edits() -> None:
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


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_an_orientation_in_xmp_is_ignored_as_by_browsers(rgb: NDArray[np.uint8], file_format: str) -> None:
    xmp, exif, info = b'<rdf:Description tiff:Orientation="6"/>', Image.Exif(), PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    options: dict[str, Any] = {"pnginfo": info} if file_format == "PNG" else {"xmp": xmp}
    assert decode(encode(rgb, file_format, **options)).pixels.shape == rgb.shape
    exif[0x0112] = 8
    assert decode(encode(rgb, file_format, exif=exif, **options)).pixels.shape == (40, 30, 3)


def test_damaged_exif_does_not_lose_the_image(rgb: NDArray[np.uint8]) -> None:
    for exif in (
        b"Exif\0\0II*\0",
        b"Exif\0\0" + bytes(range(60)),
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\1\x99",
    ):
        assert decode(encode(rgb, "WEBP", exif=exif, lossless=True)).pixels.shape == rgb.shape


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_read_and_noted(file_format: str) -> None:
    frames = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in (10, 100, 200)]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    decoded = decode(data)
    assert decoded.note == "animated, 3 frames: the first was read"
    assert np.abs(decoded.pixels[5, 5].astype(int) - [10, 0, 0]).max() <= 6


def test_the_first_page_is_read_and_noted() -> None:
    pages = [Image.new("L", (20, 10), shade) for shade in (10, 100)]
    decoded = decode(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert decoded.note == "2 pages: the first was read"
    assert (decoded.pixels == 10).all()


def test_a_damaged_later_frame_leaves_the_first() -> None:
    frames = [Image.effect_noise((64, 64), sigma) for sigma in (10, 60, 90)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decoded = decode(data[: len(data) * 2 // 3])
    assert decoded.pixels.shape == (64, 64, 3)
    assert decoded.note is not None


def test_previews_beside_a_jpeg_give_no_note(rgb: NDArray[np.uint8]) -> None:
    image = Image.fromarray(rgb)
    decoded = decode(encode(image, "MPO", save_all=True, append_images=[image.resize((8, 6))]))
    assert decoded.note is None
    assert decoded.pixels.shape == rgb.shape


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_opaque_modes_keep_the_image(rgb: NDArray[np.uint8], mode: str) -> None:
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
def test_transparent_pixels_are_blended_over_white(mode: str) -> None:
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


def test_rgba_arrays_are_blended_over_white() -> None:
    rgba = np.full((2, 2, 4), 100, np.uint8)
    rgba[0, 0, 3], rgba[1, 1, 3] = 0, 255
    pixels = decode(rgba).pixels
    assert pixels[0, 0].tolist() == [255] * 3
    assert pixels[1, 1].tolist() == [100] * 3
    assert 180 < pixels[0, 1, 0] < 210


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_transparent_palettes_are_blended_over_white(transparency: int | bytes) -> None:
    image = Image.new("P", (6, 4), 1)
    image.putpalette([10, 20, 30, 0, 0, 0, 40, 50, 60])
    image.paste(2, (3, 0, 6, 4))
    pixels = decode(encode(image, "PNG", transparency=transparency)).pixels
    assert (pixels[:, :3] == 255).all()
    assert (pixels[:, 3:] == [40, 50, 60]).all()


@pytest.mark.parametrize(("mode", "transparency"), [("RGB", (0, 0, 0)), ("L", 0), ("1", 0)])
def test_a_transparent_colour_is_blended_over_white(mode: str, transparency: Any) -> None:
    assert (decode(encode(Image.new(mode, (3, 3)), "PNG", transparency=transparency)).pixels == 255).all()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_cut(file_format: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    pixels = decode(encode(Image.fromarray(ramp), file_format)).pixels
    np.testing.assert_array_equal(pixels[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_dark_sixteen_bit_images_stay_dark(dtype: str) -> None:
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


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_a_tiff_whose_zero_is_white_is_no_negative(bits: int) -> None:
    ramp = np.arange(256, dtype=np.uint32).reshape(16, 16)
    stored = {
        8: (255 - ramp).astype(np.uint8),
        16: (65535 - 257 * ramp).astype(np.uint16),
        32: 1 - np.float32(ramp) / 255,
    }
    image = Image.fromarray(stored[bits])
    data = bytearray(encode(image, "TIFF"))
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    data[at : at + 2] = struct.pack("<H", 0)  # PhotometricInterpretation: WhiteIsZero
    np.testing.assert_array_equal(decode(bytes(data)).pixels[..., 0], ramp)


def test_a_tiff_of_twelve_bits_is_not_dark() -> None:
    ramp = np.linspace(0, 4095, 256).round().astype(np.uint16).reshape(16, 8, 2)
    left, right = ramp[..., 0], ramp[..., 1]  # two values in three bytes
    packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], -1).astype(np.uint8).reshape(16, 24)
    data = encode(Image.fromarray(packed), "TIFF")
    for tag, before, now in ((256, 24, 16), (258, 8, 12)):  # the width and the bits
        at = data.index(struct.pack("<H", tag), 8) + 8
        assert data[at] == before
        data = data[:at] + bytes([now]) + data[at + 1 :]
    np.testing.assert_array_equal(decode(data).pixels[..., 0], np.arange(256).reshape(16, 16))


def test_a_float_map_is_not_black() -> None:
    ramp = np.arange(256, dtype=np.float32).reshape(16, 16) / 255
    data = b"Pf\n16 16\n-1.0\n" + ramp[::-1].astype("<f4").tobytes()  # the last row comes first
    np.testing.assert_array_equal(decode(data).pixels[..., 0], np.arange(256).reshape(16, 16))


def heic(pixels: NDArray[np.uint8], brand: bytes) -> bytes:
    """A HEIC image; ``brand`` is the major one, the compatible ones name HEVC."""
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(stream, quality=95)
    data = bytearray(stream.getvalue())
    data[8:12] = brand
    return bytes(data)


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"msf1"])
def test_heic_is_read_by_its_brands_whatever_was_read_before(
    astronaut: NDArray[np.uint8], brand: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = astronaut[:240, 105:345]
    data = heic(face, brand)
    avif = encode(face, "AVIF")
    assert decode(avif).pixels.shape == face.shape
    assert np.abs(decode(data).pixels.astype(int) - face).mean() < 6
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    for _ in range(2):
        with pytest.raises(UnsupportedImageError) as caught:
            decode(data)
        one_line(caught, "HEIC", "mien[heic]")
        assert decode(avif).pixels.shape == face.shape


def test_a_sound_file_of_an_unsupported_variant_is_not_called_damaged() -> None:
    data = bytearray(encode(Image.fromarray(np.zeros((4, 4, 3), np.uint8)), "TIFF"))
    at = data.index(struct.pack("<HH", 258, 3)) + 8  # BitsPerSample: three numbers elsewhere in the file
    (offset,) = struct.unpack_from("<I", data, at)
    data[offset : offset + 6] = struct.pack("<HHH", 24, 24, 24)
    with pytest.raises(UnsupportedImageError) as caught:
        decode(bytes(data))
    one_line(caught, "variant", "convert it to 8-bit RGB")


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header has a size and which has almost no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def one_line(caught: pytest.ExceptionInfo[ImageError], *parts: str) -> None:
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_named(
    astronaut: NDArray[np.uint8], tmp_path: Path, file_format: str, share: float
) -> None:
    data = encode(np.ascontiguousarray(astronaut[:200, :200]), file_format)
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(TruncatedError) as caught:
        decode(path)
    one_line(caught, str(path), "cut off or damaged", "get the file again")


@pytest.mark.parametrize("data", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x10\0\0\0WEBPVP8 "])
def test_a_cut_in_the_header_counts_as_truncated(data: bytes) -> None:
    with pytest.raises(TruncatedError):
        decode(data)


@pytest.mark.parametrize("data", [b"hello, this is a text file\n", b"%PDF-1.7\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0"])
def test_other_files_are_no_image(data: bytes) -> None:
    with pytest.raises(NotAnImageError) as caught:
        decode(data)
    one_line(caught, "<bytes>", "not an image", "convert it")


def test_empty_sources_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    for source in (empty, b"", io.BytesIO()):
        with pytest.raises(NotAnImageError) as caught:
            decode(source)
        one_line(caught, "no bytes")


def test_missing_files_folders_and_odd_paths(tmp_path: Path) -> None:
    for path, part in ((tmp_path / "no.png", "no such file"), (tmp_path, "folder"), ("a\0b", "cannot be opened")):
        with pytest.raises(ImageError) as caught:
            decode(path)
        one_line(caught, part)
    with pytest.raises(ImageError, match="cannot be opened"):
        decode(str(tmp_path / ("n" * 5000)))


def test_missing_rights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked.png"
    locked.write_bytes(b"x")
    locked.chmod(0)
    if os.access(locked, os.R_OK):  # root may read everything, so the refusal of the system is simulated
        monkeypatch.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(ImageError) as caught:
        decode(locked)
    one_line(caught, str(locked), "no permission")


def test_text_streams_and_closed_streams_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("abc")
    with path.open() as text, pytest.raises(ImageError, match="binary"):
        decode(text)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="reading failed"):
        decode(text)  # type: ignore[arg-type]


def test_too_many_bytes_are_not_read(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return b"x" * size

    big = tmp_path / "big.png"
    with big.open("wb") as file:
        file.truncate(10**10)  # a sparse file needs no space
    endless = Endless()
    for source in (big, endless, b"x" * 1001):
        with pytest.raises(TooLargeError) as caught:
            decode(source, max_bytes=1000)  # type: ignore[arg-type]
        one_line(caught, "1,000 bytes", "raise max_bytes")
    assert endless.given == 1001
    with pytest.raises(NotAnImageError):
        decode(b"x" * 1000, max_bytes=1000)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    tracemalloc.start()
    with pytest.raises(TooLargeError) as caught:
        decode(png_header(50_000, 50_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one_line(caught, "50000 x 50000", f"{MAX_PIXELS:,}", "raise max_pixels")
    assert peak < 10e6
    webp = bytes.fromhex("524946461a000000574542505650384c0e0000002ffebfff0f071011fd0f4444ff03")  # 16383 x 16383
    with pytest.raises(TooLargeError) as caught:
        decode(webp)
    one_line(caught, "pixels", "scale it down")  # by the limit of Pillow or of mien


def test_only_max_pixels_limits_the_size(rgb: NDArray[np.uint8]) -> None:
    # Pillow warns at 90 MP and refuses 200 MP. Only max_pixels may decide.
    for size in ((9_000, 10_000), (10_000, 20_000)):
        with pytest.raises(TruncatedError):
            decode(png_header(*size), max_pixels=10**9)
    for source in (rgb, Image.fromarray(rgb), encode(rgb)):
        assert decode(source, max_pixels=1200).pixels.size == 3600
        with pytest.raises(TooLargeError):
            decode(source, max_pixels=1199)


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros(4, np.uint8), "shape [4]"),
        (np.zeros((3, 4, 4, 3), np.uint8), "shape [3, 4, 4, 3]"),
        (np.zeros((4, 4, 2), np.uint8), "shape [4, 4, 2]"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 0), np.uint8), "no pixels"),
    ],
)
def test_wrong_arrays_are_explained(array: NDArray[Any], part: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(array)
    one_line(caught, "<array>", part, "give")


@pytest.mark.parametrize("source", [None, 3, [1, 2], {"a": 1}])
def test_other_objects_are_named(source: Any) -> None:
    with pytest.raises(ImageError, match=type(source).__name__):
        decode(source)


def test_a_damaged_archive_is_an_error_of_the_image() -> None:
    stream = io.BytesIO()
    content = (ROOT / "examples" / "astronaut.png").read_bytes()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", content)
    damaged = bytearray(stream.getvalue())
    damaged[5000] ^= 1
    with zipfile.ZipFile(io.BytesIO(damaged)) as archive, pytest.raises(ImageError, match=r"failed \(Bad CRC-32"):
        decode(archive.open("a.png"))  # type: ignore[arg-type]
    cut = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(content)[:-9000]))
    with pytest.raises(ImageError, match="reading failed"):
        decode(cut)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [b"PyTorch is a library", b"P1 is the plan", b"P0CMYK " * 900, b"P6, P7\n"])
def test_text_that_begins_like_pnm_is_no_image(text: bytes) -> None:
    with pytest.raises(NotAnImageError, match="not an image"):
        decode(text)


@pytest.mark.parametrize("data", [b"P5\n# remark\n1 1 255\n\0", b"P2 1 1 255 7", b"P6 1 1\t255 abc"])
def test_pnm_with_remarks_is_read(data: bytes) -> None:
    assert decode(data).pixels.shape == (1, 1, 3)


def test_a_closed_pillow_image_is_named() -> None:
    image = Image.new("RGB", (2, 2))
    image.close()
    with pytest.raises(ImageError, match="is closed"):
        decode(image)


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.tuples(
            st.sampled_from(
                [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"P5 ", b"P6\n", b"II*\0", b"MM\0*"]
            ),
            st.binary(max_size=300),
        ).map(b"".join),
    )
)
@example(b"P5 3 3 255 ")
@example(b"P")
def test_random_bytes_raise_nothing_but_our_errors(data: bytes) -> None:
    try:
        decoded = decode(data, max_pixels=10**6)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert decoded.pixels.ndim == 3


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]), st.data())
def test_damaged_images_raise_nothing_but_our_errors(file_format: str, draw: st.DataObject) -> None:
    data = bytearray(encode(Image.linear_gradient("L").resize((24, 24)), file_format))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(data), max_pixels=10**6)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert decoded.pixels.shape[2] == 3


def test_many_threads_read_the_same(astronaut: NDArray[np.uint8]) -> None:
    sources = [encode(astronaut, file_format) for file_format in ("PNG", "BMP", "TIFF")] * 8
    with ThreadPoolExecutor(8) as pool:
        for decoded in pool.map(decode, sources):
            np.testing.assert_array_equal(decoded.pixels, astronaut)


def test_damaged_files_print_nothing_of_their_own(capfd: pytest.CaptureFixture[str]) -> None:
    """The libraries of the formats print to the file descriptor, past ``sys.stderr``."""
    generator, failed = np.random.default_rng(7), 0
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        stream = io.BytesIO()
        Image.new("RGB", (64, 64), "red").save(stream, "TIFF", compression=compression)
        for _ in range(8):
            data = np.frombuffer(stream.getvalue(), np.uint8).copy()
            data[generator.integers(8, len(data), 8)] = generator.integers(0, 256, 8)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the command line ignores those of Pillow, too
                try:
                    decode(data.tobytes())
                except ImageError:
                    failed += 1
    assert failed > 8
    assert capfd.readouterr().err == ""
