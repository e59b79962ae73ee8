"""Pictures that cannot be read, or should not: one line each, and nothing else raised."""

import io
import os
import struct
import tracemalloc
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

from mien._errors import ImageError, NotAnImageError, TooLargeError, TruncatedError
from mien.decode import MAX_PIXELS, decode
from support.encoded_images import encode


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    """A picture whose every pixel tells where it is: red grows rightwards, green downwards."""
    rows, columns = np.mgrid[0:30, 0:40]
    return np.stack([columns * 6, rows * 8, np.full_like(rows, 90)], axis=2).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and brings next to nothing."""

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
def test_truncated_files_say_so(astronaut: NDArray[np.uint8], tmp_path: Path, file_format: str, share: float) -> None:
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
    one_line(caught, "<bytes>", "not a picture", "convert it")


def test_nothing_to_read_says_so(tmp_path: Path) -> None:
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


def test_missing_rights_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked.png"
    locked.write_bytes(b"x")
    locked.chmod(0)
    if os.access(locked, os.R_OK):  # root reads everything: let the operating system's refusal come from here
        monkeypatch.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(ImageError) as caught:
        decode(locked)
    one_line(caught, str(locked), "no permission")


def test_text_streams_and_closed_streams_say_so(tmp_path: Path) -> None:
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
        file.truncate(10**10)  # sparse: takes no room
    endless = Endless()
    for source in (big, endless, b"x" * 1001):
        with pytest.raises(TooLargeError) as caught:
            decode(source, max_bytes=1000)  # type: ignore[arg-type]
        one_line(caught, "1,000 bytes", "raise max_bytes")
    assert endless.given == 1001
    with pytest.raises(NotAnImageError):
        decode(b"x" * 1000, max_bytes=1000)


def test_a_bomb_is_refused_by_its_header() -> None:
    tracemalloc.start()
    with pytest.raises(TooLargeError) as caught:
        decode(png_header(50_000, 50_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one_line(caught, "50000 x 50000", f"{MAX_PIXELS:,}", "raise max_pixels")
    assert peak < 10e6


def test_the_pixel_limit_is_ours_alone(rgb: NDArray[np.uint8]) -> None:
    # 90 MP lies above the size at which Pillow warns, 200 MP above the one that it refuses: both are for us to decide.
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
def test_wrong_arrays_say_what_is_wrong(array: NDArray[Any], part: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(array)
    one_line(caught, "<array>", part, "give")


@pytest.mark.parametrize("source", [None, 3, [1, 2], {"a": 1}])
def test_other_objects_are_named(source: Any) -> None:
    with pytest.raises(ImageError, match=type(source).__name__):
        decode(source)


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
def test_random_bytes_raise_nothing_but_our_errors(data: bytes) -> None:
    try:
        picture = decode(data, max_pixels=10**6)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert picture.pixels.ndim == 3


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]), st.data())
def test_damaged_pictures_raise_nothing_but_our_errors(file_format: str, draw: st.DataObject) -> None:
    data = bytearray(encode(Image.linear_gradient("L").resize((24, 24)), file_format))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        picture = decode(bytes(data), max_pixels=10**6)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert picture.pixels.shape[2] == 3


def test_many_threads_read_the_same(astronaut: NDArray[np.uint8]) -> None:
    sources = [encode(astronaut, file_format) for file_format in ("PNG", "BMP", "TIFF")] * 8
    with ThreadPoolExecutor(8) as pool:
        for picture in pool.map(decode, sources):
            np.testing.assert_array_equal(picture.pixels, astronaut)
