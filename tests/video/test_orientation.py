"""Mirrored and rotated videos are shown as ffmpeg shows them: the matrix of the container, and that of each frame."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

av = pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

from mien.reader import Reader
from mien.video import open_source
from mien.video.outputs import TrackOutputs
from support.annotated_videos import frames_of
from support.frame_results import frame_result

ONE = 1 << 16
# a, b, c, d of a display matrix, which maps x to a x + c y and y to b x + d y; and the filters that ffmpeg inserts.
FILTERS: dict[tuple[float, float, float, float], list[tuple[str, str]]] = {
    (1, 0, 0, 1): [],
    (-1, 0, 0, 1): [("hflip", "")],
    (1, 0, 0, -1): [("vflip", "")],
    (-1, 0, 0, -1): [("hflip", ""), ("vflip", "")],
    (0, 1, 1, 0): [("transpose", "cclock_flip")],
    (0, 1, -1, 0): [("transpose", "clock")],
    (0, -1, 1, 0): [("transpose", "cclock")],
    (0, -1, -1, 0): [("transpose", "clock_flip")],
}
UNDEFINED = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 0, 1, 0), (0, 1, 0, 1)]  # ffmpeg shows the image as it is stored


def picture(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """An image without any symmetry."""
    y, x = np.mgrid[:height, :width]
    corner = np.where((x < 20) & (y < 12), 255, 0)
    return np.stack([x * 3, y * 4, corner], axis=-1).astype(np.uint8)


def shown_by_ffmpeg(frame: Any, filters: Sequence[tuple[str, str]]) -> NDArray[np.uint8]:
    """The frame after libavfilter."""
    graph = av.filter.Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    for name, argument in (*filters, ("buffersink", "")):
        step = graph.add(name, argument) if argument else graph.add(name)
        last.link_to(step)
        last = step
    graph.configure()
    graph.push(frame)
    shown: NDArray[np.uint8] = graph.pull().to_ndarray(format="rgb24")
    return shown


def write_with_matrix(path: Path, matrix: Sequence[float]) -> Path:
    """Write a video of two frames whose container has a display matrix."""
    a, b, c, d = (round(ONE * value) for value in matrix)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, width=64, height=48, options={"crf": "10"})
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for index in range(2):
            frame = av.VideoFrame.from_ndarray(picture(), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_both(path: Path, filters: Sequence[tuple[str, str]]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The first frame as mien reads it, and as ffmpeg shows it."""
    with open_source(path) as frames, av.open(str(path)) as container:
        return next(iter(frames)).pixels, shown_by_ffmpeg(next(container.decode(video=0)), filters)


@pytest.mark.parametrize(("matrix", "filters"), [*FILTERS.items(), *((matrix, []) for matrix in UNDEFINED)])
def test_the_matrix_of_a_container(tmp_path: Path, matrix: Sequence[float], filters: list[tuple[str, str]]) -> None:
    read, shown = read_both(write_with_matrix(tmp_path / "video.mp4", matrix), filters)
    np.testing.assert_array_equal(read, shown)


def test_a_scaled_mirror_is_a_mirror(tmp_path: Path) -> None:
    """FFmpeg takes the scaling for the shape of the stored pixels, which become square."""
    read, _ = read_both(write_with_matrix(tmp_path / "video.mp4", (-2, 0, 0, 1)), [])
    assert read.shape == (48, 128, 3)
    assert np.abs(read[:, ::2].astype(int) - picture()[:, ::-1]).mean() < 8


def test_any_other_rotation_is_undone_too(tmp_path: Path) -> None:
    matrix = (np.cos(np.pi / 6), 0.5, -0.5, np.cos(np.pi / 6))
    read, shown = read_both(write_with_matrix(tmp_path / "video.mp4", matrix), [("rotate", "30*PI/180")])
    assert np.median(np.abs(read.astype(int) - shown)) <= 3


def orientation_message(mirror: int, flip: int, quarters: int) -> bytes:
    """The SEI message of H.264 that shows a frame mirrored, upside down, and rotated counterclockwise."""
    bits = f"0{mirror}{flip}{quarters << 14:016b}101"
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return b"\0\0\0\1\6" + bytes([47, len(payload)]) + payload + b"\x80"


def test_each_frame_may_have_its_own_matrix(tmp_path: Path) -> None:
    kinds = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 0, 3), (0, 1, 1)]
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, "yuv420p", Fraction(1, 25)
    encoder.options = {"bf": "0", "crf": "10"}
    packets = []
    for index in range(len(kinds)):
        frame = av.VideoFrame.from_ndarray(picture(), format="rgb24")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    path, seen = tmp_path / "video.h264", set()
    path.write_bytes(b"".join(orientation_message(*k) + bytes(p) for k, p in zip(kinds, packets, strict=True)))
    with open_source(path) as frames, av.open(str(path)) as container:
        for frame, decoded in zip(frames, container.decode(video=0), strict=True):
            data = decoded.side_data.get("DISPLAYMATRIX")
            signs = (1, 0, 0, 1) if data is None else tuple(np.sign(np.frombuffer(data, np.int32)[[0, 1, 3, 4]]))
            np.testing.assert_array_equal(frame.pixels, shown_by_ffmpeg(decoded, FILTERS[signs]))
            seen.add(signs)
    assert len(seen) == 8


def test_the_orientation_of_each_image_of_motion_jpeg(tmp_path: Path) -> None:
    """PyAV does not know this kind of side data, only the rotation."""
    wanted = []
    with av.open(str(tmp_path / "video.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", 25, width=64, height=48, pix_fmt="yuvj420p")
        for index, orientation in enumerate((1, 3, 6, 8)):
            exif, data = Image.Exif(), io.BytesIO()
            exif[0x112] = orientation
            Image.fromarray(picture()).save(data, "JPEG", quality=95, exif=exif)
            wanted.append(np.asarray(ImageOps.exif_transpose(Image.open(data)).convert("RGB"), int))
            packet = av.Packet(data.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 25)
            container.mux(packet)
    with open_source(tmp_path / "video.mkv") as frames:
        for frame, image in zip(frames, wanted, strict=True):
            assert frame.pixels.shape == image.shape
            assert np.abs(frame.pixels - image).mean() < 4


def test_the_annotated_copy_is_upright(tmp_path: Path) -> None:
    source = write_with_matrix(tmp_path / "video.mp4", (0, 1, 1, 0))
    with open_source(source) as frames, TrackOutputs(frames, Reader(), mp4=tmp_path / "out.mp4") as outputs:
        for frame in frames:
            outputs.add(frame_result(frame.index, frame.seconds, size_wh=(48, 64)), frame.pixels)
    for _, pixels in frames_of(tmp_path / "out.mp4"):
        assert np.abs(pixels.astype(int) - picture().swapaxes(0, 1)).mean() < 8
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0
