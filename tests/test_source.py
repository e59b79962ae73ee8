"""Films and folders as sources: every frame at its time, upright; what is broken is skipped or named."""

import http.server
import sys
import threading
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

from mien import MienError, MissingExtraError, SourceError
from mien.stream import Frame, open_source
from support.videos import break_packets, shade_of, shades, times, write_film, write_sound


def frames_of(source: str | Path, **options: float) -> list[Frame]:
    with open_source(str(source), **options) as frames:
        return list(frames)


def test_a_film_gives_every_frame_in_order_at_its_time(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", shades(20), times(20))
    with open_source(path) as frames:
        given = list(frames)
        assert (frames.count, frames.skipped, frames.dropped, frames.note, frames.live) == (20, 0, 0, None, False)
    assert [frame.index for frame in given] == list(range(20))
    assert [shade_of(frame.pixels) for frame in given] == list(range(20))
    assert [frame.seconds for frame in given] == pytest.approx(times(20), abs=1e-4)
    assert given[0].pixels.shape == (48, 64, 3)
    assert not given[0].pixels.flags.writeable


def test_a_varying_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    wanted = [0.0, 0.04, 0.5, 0.52, 2.0, 2.01, 5.0]
    given = frames_of(write_film(tmp_path / "film.mp4", shades(7), wanted))
    assert [frame.seconds for frame in given] == pytest.approx(wanted, abs=2e-3)


def test_time_counts_from_the_first_frame(tmp_path: Path) -> None:
    given = frames_of(write_film(tmp_path / "film.mkv", shades(5), [7 + t for t in times(5)]))
    assert [frame.seconds for frame in given] == pytest.approx(times(5), abs=2e-3)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_film_is_shown_upright(tmp_path: Path, rotation: int) -> None:
    picture = np.full((48, 64, 3), 60, np.uint8)
    picture[:16, :16] = 220  # the upper left corner of what the sensor saw
    pixels = frames_of(write_film(tmp_path / "film.mp4", [picture] * 3, times(3), rotation=rotation))[0].pixels
    upright = np.rot90(picture, rotation // 90)
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < 6


def test_stored_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", shades(3), times(3), aspect=Fraction(4, 3))
    assert frames_of(path)[0].pixels.shape == (48, 85, 3)


def test_names_that_look_like_addresses_or_patterns_are_files(tmp_path: Path) -> None:
    for name in ("a:b.mp4", "take %03d.mp4", "5", "-x.mp4"):
        path = tmp_path / name
        path.write_bytes(write_film(tmp_path / "film.mp4", shades(3), times(3)).read_bytes())
        assert len(frames_of(path)) == 3


def test_a_film_on_a_web_server_is_read_whole(tmp_path: Path) -> None:
    """It knows its end: no frame is dropped, however slow the reader is."""
    write_film(tmp_path / "film.mkv", shades(30), times(30))
    handler = partial(QuietFiles, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        with open_source(f"http://127.0.0.1:{server.server_port}/film.mkv") as frames:
            assert not frames.live
            assert [shade_of(frame.pixels) for frame in frames] == list(range(30))
        server.shutdown()
        serving.join()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_film_that_is_cut_off_gives_what_there_is(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(50)]
    whole = write_film(tmp_path / "film.mkv", noise, times(50)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    with open_source(tmp_path / "cut.mkv") as frames:
        given = list(frames)
        assert 15 < len(given) < 35
        assert frames.note is not None
        assert "ends early" in frames.note


def test_broken_packets_are_skipped_and_counted(tmp_path: Path) -> None:
    """Motion JPEG: every picture stands alone, so that what is broken touches nothing else."""
    path = write_film(tmp_path / "film.mkv", shades(20), times(20), codec="mjpeg")
    break_packets(path, [5, 11])
    with open_source(path) as frames:
        given = [shade_of(frame.pixels) for frame in frames]
        assert frames.skipped == 2
    assert given == [i for i in range(20) if i not in (5, 11)]


def test_a_film_without_one_whole_frame_says_so(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mkv", shades(8), times(8), codec="mjpeg")
    break_packets(path, range(8))
    with pytest.raises(SourceError, match=r"none of its frames can be decoded \(8 are broken\); get the file again"):
        frames_of(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("text.mp4", b"these are only words\n" * 30, "cannot be opened"),
        ("notes.txt", b"these are only words\n" * 30, "is no film"),  # FFmpeg would play it as a terminal's art
        ("empty.mp4", b"", "cannot be opened"),
    ],
)
def test_what_is_no_film_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=said) as caught:
        open_source(tmp_path / name)
    assert "name a film such as MP4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sound_alone_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no video in it"):
        open_source(write_sound(tmp_path / "song.m4a"))
    with pytest.raises(SourceError, match="no such film; check the path"):
        open_source(tmp_path / "nowhere.mp4")
    with pytest.raises(MienError, match="fps is frames a second"):
        open_source(tmp_path, fps=0)


def test_pyav_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_film(tmp_path / "film.mp4", shades(2), times(2))
    monkeypatch.setitem(sys.modules, "av", None)
    for source in (str(path), "0", "http://127.0.0.1:9/camera"):
        with pytest.raises(MissingExtraError, match=r'pip install "mien\[video\]"'):
            open_source(source)


def test_a_folder_is_read_in_the_order_people_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, picture in enumerate(shades(12)):
        Image.fromarray(picture).save(tmp_path / f"Frame{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "frame3.mien.png").write_bytes(b"an annotated copy")
    monkeypatch.setitem(sys.modules, "av", None)  # folders need no PyAV
    given = frames_of(tmp_path, fps=10)
    assert [shade_of(frame.pixels) for frame in given] == list(range(12))
    assert [frame.seconds for frame in given] == pytest.approx(times(12, 10))


def test_pictures_that_cannot_be_read_are_skipped_but_time_goes_on(tmp_path: Path) -> None:
    for number, picture in enumerate(shades(4)):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"broken")
    with open_source(tmp_path, fps=10) as frames:
        assert [frame.seconds for frame in frames] == pytest.approx([0.0, 0.2, 0.3])
        assert frames.skipped == 1
    for number in (0, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    with pytest.raises(SourceError, match=r"none of its 4 pictures can be read; the first: .*0\.png"):
        frames_of(tmp_path)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no pictures in this folder"):
        open_source(tmp_path)
