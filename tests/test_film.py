"""Films that are written: every frame at its time, in colours and a form that players know."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mien.stream.film import FilmWriter
from support.annotated_videos import frames_of, gray, write_film
from support.frame_results import SIZE, moment

av = pytest.importorskip("av", reason="films need PyAV, which the video extra brings")


def test_every_frame_comes_back_at_its_time(tmp_path: Path) -> None:
    times = np.cumsum([0, 0.04, 0.02, 0.1, 0.033, 0.5, 0.001, 1.0, 0.04, 0.04]).tolist()
    write_film(tmp_path / "film.mp4", times)
    frames = frames_of(tmp_path / "film.mp4")
    np.testing.assert_allclose([seconds for seconds, _ in frames], times, atol=1e-4)
    for index, (_, pixels) in enumerate(frames):
        assert pixels.shape == (120, 160, 3)
        assert abs(pixels.astype(int) - (20 + 4 * index)).mean() < 2


def test_browsers_can_play_it_from_the_first_bytes(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", np.arange(50) / 25)
    data = (tmp_path / "film.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "film.mp4")) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert video.duration * video.time_base == pytest.approx(2, abs=0.05)


def test_colors_survive(tmp_path: Path) -> None:
    colors = [(229, 72, 77), (63, 127, 208), (242, 176, 30), (20, 160, 40)]
    with FilmWriter(tmp_path / "film.mp4", source=None, size_wh=SIZE, rate=25) as writer:
        for index, color in enumerate(colors):
            writer.write(np.broadcast_to(np.uint8(color), (120, 160, 3)), moment(index, index / 25))
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == 1  # BT.709, as players read it
        shown = [f.reformat(format="rgb24", src_colorspace="itu709").to_ndarray() for f in container.decode(video=0)]
    for color, pixels in zip(colors, shown, strict=True):
        np.testing.assert_allclose(pixels.mean(axis=(0, 1)), color, atol=4)


@pytest.mark.parametrize(("size_wh", "stored"), [((161, 121), (162, 122)), ((160, 121), (160, 122)), ((3, 5), (4, 6))])
def test_odd_sizes_get_one_more_pixel(tmp_path: Path, size_wh: tuple[int, int], stored: tuple[int, int]) -> None:
    write_film(tmp_path / "film.mp4", [0, 0.04], size_wh=size_wh)
    _, pixels = frames_of(tmp_path / "film.mp4")[0]
    assert (pixels.shape[1], pixels.shape[0]) == stored
    assert abs(pixels.astype(int) - 20).max() < 6


def test_frames_of_another_size_are_fitted_in(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "film.mp4", source=None, size_wh=SIZE, rate=25) as writer:
        writer.write(gray(200), moment(0, 0))
        writer.write(gray(200, (120, 160)), moment(1, 0.04, size_wh=(120, 160)))
    _, turned = frames_of(tmp_path / "film.mp4")[1]
    assert turned.shape == (120, 160, 3)
    assert abs(turned[:, 70:90].astype(int) - 200).mean() < 6
    assert turned[:, :25].mean() < 10
    assert turned[:, -25:].mean() < 10


def test_equal_times_and_strange_rates(tmp_path: Path) -> None:
    for rate in (0.0, float("nan"), 1e9, Fraction(30000, 1001)):
        write_film(tmp_path / "film.mp4", [0, 0, 0, 0.04], rate=rate)
        assert len(frames_of(tmp_path / "film.mp4")) == 4


def test_a_camera_counts_from_its_first_frame(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", [1000.0, 1000.04, 1000.2])
    np.testing.assert_allclose([t for t, _ in frames_of(tmp_path / "film.mp4")], [0, 0.04, 0.2], atol=1e-4)
