"""Videos, folders, cameras and live streams: frame times, orientation, damage, timeouts, closed threads."""

import http.server
import os
import re
import struct
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

import mien.video.sources
from mien import MienError, MissingExtraError, SourceError
from mien.video import Frame, open_source
from mien.video.prefetch import Prefetcher
from support.videos import CLOCK, break_packets, camera, shade_of, shades, times, write_audio, write_video


def frames_of(source: str | Path, **options: float) -> list[Frame]:
    with open_source(str(source), **options) as frames:
        return list(frames)


def test_a_video_gives_every_frame_in_order_at_its_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", shades(20), times(20))
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
    given = frames_of(write_video(tmp_path / "video.mp4", shades(7), wanted))
    assert [frame.seconds for frame in given] == pytest.approx(wanted, abs=2e-3)


def test_time_counts_from_the_first_frame(tmp_path: Path) -> None:
    given = frames_of(write_video(tmp_path / "video.mkv", shades(5), [7 + t for t in times(5)]))
    assert [frame.seconds for frame in given] == pytest.approx(times(5), abs=2e-3)


@pytest.mark.parametrize("count", [5, 45])  # FFmpeg does not know the start of very short ones
def test_a_container_that_begins_late_is_complete(tmp_path: Path, count: int) -> None:
    path = write_video(tmp_path / "video.mkv", shades(count), times(count, start=100))
    with open_source(path) as frames:
        assert [frame.seconds for frame in frames] == pytest.approx(times(count), abs=2e-3)
        assert frames.note is None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv", "a.avi", "a.h264"])
def test_frames_that_are_stored_in_another_order_keep_their_times(tmp_path: Path, name: str) -> None:
    """AVI has no times of presentation, and a raw stream none at all."""
    path = write_video(tmp_path / name, shades(20), times(20), b_frames=2, clock=25)
    with open_source(path) as frames:
        given = list(frames)
        assert frames.note is None
    assert [shade_of(frame.pixels) for frame in given] == list(range(20))
    assert [frame.seconds for frame in given] == pytest.approx(times(20), abs=2e-3)


@pytest.mark.parametrize(
    ("edits", "shown"),
    [([(600, 0.2)], range(5, 20)), ([(200, 0.4)], range(10, 15)), ([(500, None), (400, 0.4)], range(10, 20))],
)
def test_an_edit_list_selects_frames(tmp_path: Path, edits: list[tuple[int, float | None]], shown: range) -> None:
    begin = len(edits) - 1  # a video that begins later has two edits
    path = write_video(tmp_path / "video.mp4", shades(20), times(20, start=begin))
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 8
    assert data[place : place + 4] == struct.pack(">I", len(edits))
    for index, (milliseconds, start) in enumerate(edits):
        ticks = -1 if start is None else round(start * CLOCK)
        data[place + 4 + 12 * index : place + 16 + 12 * index] = struct.pack(">IiI", milliseconds, ticks, 1 << 16)
    path.write_bytes(data)
    with open_source(path) as frames:
        given = list(frames)
        assert frames.note is None
    assert [shade_of(frame.pixels) for frame in given] == list(shown)
    assert [frame.seconds for frame in given] == pytest.approx(times(len(shown)), abs=2e-3)


def test_stored_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", shades(3), times(3), aspect=Fraction(4, 3))
    assert frames_of(path)[0].pixels.shape == (48, 85, 3)


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "video.mp4", shades(3), times(3))
    large = write_video(tmp_path / "large.mkv", shades(3, size_wh=(640, 480)), times(3), codec="mjpeg")
    data = large.read_bytes()
    assert data.count(b"\xb0\x82\x02\x80\xba\x82\x01\xe0") == 1  # the size in the header of Matroska
    large.write_bytes(data.replace(b"\xb0\x82\x02\x80\xba\x82\x01\xe0", b"\xb0\x82\x00\x40\xba\x82\x00\x30"))
    monkeypatch.setattr(mien.video.sources, "_MAX_FRAME_PIXELS", 64 * 48)
    assert len(frames_of(path)) == 3
    with pytest.raises(SourceError, match=r"pixels, more than 3,072; scale|none of its frames can be decoded"):
        frames_of(large)
    with pytest.raises(SourceError, match="its frames have 85 x 48 pixels, more than 3,072"):
        open_source(write_video(tmp_path / "wide.mp4", shades(3), times(3), aspect=Fraction(4, 3)))
    monkeypatch.setattr(mien.video.sources, "_MAX_FRAME_PIXELS", 64 * 48 - 1)
    with pytest.raises(SourceError, match=r"its frames have 64 x 48 pixels, more than 3,071; scale the video down"):
        frames_of(path)


def test_names_that_look_like_addresses_or_patterns_are_files(tmp_path: Path) -> None:
    for name in ("a:b.mp4", "take %03d.mp4", "5", "-x.mp4"):
        path = tmp_path / name
        path.write_bytes(write_video(tmp_path / "video.mp4", shades(3), times(3)).read_bytes())
        assert len(frames_of(path)) == 3


def test_a_video_on_a_web_server_is_read_whole(tmp_path: Path) -> None:
    """Its end is known, so no frame is dropped, however slow the reader is."""
    write_video(tmp_path / "video.mkv", shades(30), times(30))
    handler = partial(QuietFiles, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        with open_source(f"http://127.0.0.1:{server.server_port}/video.mkv") as frames:
            assert not frames.live
            assert [shade_of(frame.pixels) for frame in frames] == list(range(30))
        server.shutdown()
        serving.join()


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Unix")
@pytest.mark.parametrize("fps", [None, 1.0])
def test_a_pipe_is_read_from_its_beginning(fps: float | None, tmp_path: Path) -> None:
    """FFmpeg cannot go to the start in a pipe; it left out what it had read already."""
    random, pipe = np.random.default_rng(0), tmp_path / "pipe"
    noise = [random.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(150)]  # 2 MB: a part is read to open it
    video = write_video(tmp_path / "video.mkv", noise, times(150))
    with open_source(str(video), start=3.0, fps=fps) as frames:
        expected = [frame.seconds for frame in frames]
    os.mkfifo(pipe)
    writing = threading.Thread(target=lambda: pipe.write_bytes(video.read_bytes()))
    writing.start()
    with open_source(str(pipe), start=3.0, fps=fps) as frames:
        found = [frame.seconds for frame in frames]
    writing.join()
    assert found == expected
    assert expected[0] == pytest.approx(3.0)


def test_an_infinite_duration_in_a_tag_is_ignored(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", shades(30), times(30))
    content, count = re.subn(rb"00:00:\d\d\.\d{9}", b"inf:00:00.00000000", path.read_bytes())
    assert count
    path.write_bytes(content)
    with open_source(str(path)) as frames:
        assert [shade_of(frame.pixels) for frame in frames] == list(range(30))


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_truncated_video_delivers_its_frames(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(50)]
    whole = write_video(tmp_path / "video.mkv", noise, times(50)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    with open_source(tmp_path / "cut.mkv") as frames:
        given = list(frames)
        assert 15 < len(given) < 35
        assert frames.note is not None
        assert "ends early" in frames.note
    for options in ({"fps": 5.0}, {"start": 0.4}, {"fps": 5.0, "start": 0.4, "end": 1.9}):
        for name, is_cut in {"cut.mkv": True, "video.mkv": False}.items():
            with open_source(tmp_path / name, **options) as frames:
                assert list(frames)
                assert ("ends early" in str(frames.note)) == is_cut


def test_broken_packets_are_skipped_and_counted(tmp_path: Path) -> None:
    """In Motion JPEG a broken packet affects no other frame."""
    path = write_video(tmp_path / "video.mkv", shades(20), times(20), codec="mjpeg")
    break_packets(path, [5, 11])
    with open_source(path) as frames:
        given = [shade_of(frame.pixels) for frame in frames]
        assert frames.skipped == 2
    assert given == [i for i in range(20) if i not in (5, 11)]


def test_a_video_without_an_intact_frame_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", shades(8), times(8), codec="mjpeg")
    break_packets(path, range(8))
    with pytest.raises(SourceError, match=r"none of its frames can be decoded \(8 are broken\); get the file again"):
        frames_of(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.mp4", b"these are only words\n" * 30, "cannot be opened"),
        ("notes.txt", b"these are only words\n" * 30, "is not a video"),  # FFmpeg opens it as terminal art
        ("empty.mp4", b"", "cannot be opened"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(tmp_path / name)
    assert "name a video such as MP4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_audio_alone_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no video in it"):
        open_source(write_audio(tmp_path / "song.m4a"))
    with pytest.raises(SourceError, match="no such video; check the path"):
        open_source(tmp_path / "nowhere.mp4")
    with pytest.raises(SourceError, match="no such video; check the path"):
        open_source("x" * 300)
    with pytest.raises(MienError, match="rate is 0; it must be a number from"):
        open_source(tmp_path, rate=0)


def test_missing_pyav_is_an_error_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "video.mp4", shades(2), times(2))
    monkeypatch.setitem(sys.modules, "av", None)
    for source in (str(path), "0", "http://127.0.0.1:9/camera"):
        with pytest.raises(MissingExtraError, match=r'pip install "mien\[video\]"'):
            open_source(source)


def test_a_folder_is_read_in_natural_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, image in enumerate(shades(12)):
        Image.fromarray(image).save(tmp_path / f"Frame{number}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "frame3.mien.png").write_bytes(b"an annotated copy")
    monkeypatch.setitem(sys.modules, "av", None)  # folders need no PyAV
    given = frames_of(tmp_path, rate=10)
    assert [shade_of(frame.pixels) for frame in given] == list(range(12))
    assert [frame.seconds for frame in given] == pytest.approx(times(12, 10))


def test_images_that_cannot_be_read_are_skipped_but_their_time_passes(tmp_path: Path) -> None:
    for number, image in enumerate(shades(4)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"broken")
    with open_source(tmp_path, rate=10) as frames:
        assert [frame.seconds for frame in frames] == pytest.approx([0.0, 0.2, 0.3])
        assert frames.skipped == 1
    for number in (0, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    with pytest.raises(SourceError, match=r"none of its 4 images can be read; the first: .*0\.png"):
        frames_of(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images in this folder"):
        open_source(tmp_path)


THREADS = "mien-frames"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="cameras have other addresses elsewhere")
@pytest.mark.parametrize("source", [97, "97", "/dev/video97"])
def test_a_missing_camera_is_an_error(source: str | int) -> None:
    with pytest.raises(SourceError, match=r"there is no such camera, /dev/video97 does not exist; connect one"):
        open_source(source)


def test_a_long_number_is_no_camera_and_a_closed_source_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such video; check the path"):
        open_source("1" * 300)
    frames = open_source(write_video(tmp_path / "a.mp4", shades(2), [0, 0.04]))
    frames.close()
    with pytest.raises(SourceError, match="or it was closed; open it again"):
        next(iter(frames))


@pytest.mark.parametrize("password", ["secret", "p@secret"])
def test_the_error_of_an_address_hides_its_password(password: str) -> None:
    with camera(shades(1)) as server:
        port = server.server_port
    with pytest.raises(SourceError, match="cannot be opened") as caught:
        open_source(f"http://me:{password}@127.0.0.1:{port}/camera")
    assert "secret" not in str(caught.value)


def test_a_live_stream_gives_its_newest_frame_and_counts_the_others() -> None:
    images = shades(40)
    with camera(images, hangs=True) as server:
        server.release(20)
        with open_source(server.address) as frames:
            assert frames.live
            stream = iter(frames)
            given = [shade_of(next(stream).pixels)]
            server.release(20)  # after the first was fetched: on a fast machine that is already the newest of all
            deadline = threading.Event()
            while frames.dropped + len(given) < 35 and not deadline.wait(0.02):
                pass  # the thread of the reader processes all frames
            given.append(shade_of(next(stream).pixels))
            assert given == sorted(set(given))
            assert given[-1] >= 35, "the newest frame, not the next one"
            assert frames.dropped >= 30


def test_a_live_stream_that_ends_is_an_error_after_its_frames() -> None:
    images = shades(30)
    given: list[Frame] = []
    with camera(images) as server:
        server.release(len(images))
        with pytest.raises(SourceError, match=r"the camera or stream ended after \d") as caught:
            _collect(server.address, given)
    assert given
    assert [frame.seconds for frame in given] == sorted(frame.seconds for frame in given)
    assert "connect it again" in str(caught.value)


def test_a_camera_that_hangs_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.video.sources.READ_SECONDS", 1.0)
    monkeypatch.setattr(mien.video.sources, "READ_SECONDS", 1.0)
    given: list[Frame] = []
    with camera(shades(30), hangs=True) as server:
        server.release(30)
        with pytest.raises(SourceError, match=r"no image for 1 s"):
            _collect(server.address, given)
    assert given


def _collect(address: str, given: list[Frame]) -> None:
    with open_source(address) as frames:
        for frame in frames:
            given.append(frame)  # noqa: PERF402 (an error follows)


def test_closing_in_the_middle_ends_the_thread(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", shades(40), times(40))
    before = [t for t in threading.enumerate() if t.name == THREADS]
    with open_source(path) as frames:
        stream = iter(frames)
        next(stream)
        assert [t for t in threading.enumerate() if t.name == THREADS] != before
    assert [t for t in threading.enumerate() if t.name == THREADS] == before


def test_leaving_the_iteration_ends_the_thread_too(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", shades(40), times(40))
    before = [t for t in threading.enumerate() if t.name == THREADS]
    for frame in open_source(path):
        if frame.index == 3:
            break
    assert [t for t in threading.enumerate() if t.name == THREADS] == before


def test_a_prefetcher_keeps_the_order_bounds_its_buffer_and_raises_errors() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            yield i
        raise KeyError("the source is broken")

    prefetcher = Prefetcher(items(), capacity=2)
    given = []
    with pytest.raises(KeyError, match="broken"):  # noqa: PT012
        for item in prefetcher:
            given.append(item)
            assert len(made) <= len(given) + 3, "at most two wait and one is being made"
    assert given == list(range(10))
    prefetcher.close()


def test_a_prefetcher_closes_a_generator_on_its_own_thread() -> None:
    closed: list[str] = []

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    prefetcher = Prefetcher(items(), capacity=1)
    next(prefetcher)
    prefetcher.close()
    prefetcher.close()
    assert closed == [THREADS]
    assert list(prefetcher) == []
