"""Limits on the structure of image files: hostile files of every format are refused before they are decoded."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from hostile_corpus import CPU_PER_MEGABYTE, Hostile, progressive_jpeg, structures, tiff
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


@pytest.mark.parametrize("case", list(structures(20_000)), ids=lambda case: case.name)
def test_hostile_structures_are_refused_before_decoding(case: Hostile) -> None:
    started = time.process_time()
    with pytest.raises(TooLargeError, match=case.word) as caught:
        decode(case.data)
    assert time.process_time() - started < CPU_PER_MEGABYTE * max(1, len(case.data) / 1e6)
    assert str(caught.value).startswith("<bytes>: this ") or "header" in case.word
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
    assert check_structure(progressive_jpeg(9_992, 25), "JPEG", "x") == 1


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
