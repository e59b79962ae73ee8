"""Cameras and streams as sources: the newest frame, given up when they hang, no thread left."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

import mien.stream.camera
from mien import SourceError
from mien.stream import Frame, open_source
from mien.stream.ahead import Ahead
from support.videos import camera, shade_of, shades, times, write_film

THREADS = "mien-frames"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="cameras have other addresses elsewhere")
@pytest.mark.parametrize("source", [97, "97", "/dev/video97"])
def test_a_camera_that_is_not_there_is_named(source: str | int) -> None:
    with pytest.raises(SourceError, match=r"there is no such camera, /dev/video97 does not exist; connect one"):
        open_source(source)


def test_an_address_that_nobody_serves_is_named_without_its_password() -> None:
    with camera(shades(1)) as server:
        port = server.server_port
    with pytest.raises(SourceError, match="cannot be opened") as caught:
        open_source(f"http://me:secret@127.0.0.1:{port}/camera")
    assert "secret" not in str(caught.value)


def test_a_live_stream_gives_its_newest_frame_and_counts_the_others() -> None:
    pictures = shades(40)
    with camera(pictures, hangs=True) as server:
        server.release(len(pictures))  # all are there before anybody has fetched one
        with open_source(server.address) as frames:
            assert frames.live
            stream = iter(frames)
            given = [shade_of(next(stream).pixels)]
            deadline = threading.Event()
            while frames.dropped + len(given) < 35 and not deadline.wait(0.02):
                pass  # the reader's thread goes through all that has come
            given.append(shade_of(next(stream).pixels))
            assert given == sorted(set(given))
            assert given[-1] >= 35, "the newest frame, not the next one"
            assert frames.dropped >= 30


def test_a_live_stream_that_ends_is_an_error_after_its_frames() -> None:
    pictures = shades(30)
    given: list[Frame] = []
    with camera(pictures) as server:
        server.release(len(pictures))
        with pytest.raises(SourceError, match=r"the camera or stream ended after \d") as caught:
            _collect(server.address, given)
    assert given
    assert [frame.seconds for frame in given] == sorted(frame.seconds for frame in given)
    assert "connect it again" in str(caught.value)


def test_a_camera_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.stream.source.READ_SECONDS", 1.0)
    monkeypatch.setattr(mien.stream.camera, "READ_SECONDS", 1.0)
    given: list[Frame] = []
    with camera(shades(30), hangs=True) as server:
        server.release(30)
        with pytest.raises(SourceError, match=r"no picture for 1 s"):
            _collect(server.address, given)
    assert given


def _collect(address: str, given: list[Frame]) -> None:
    with open_source(address) as frames:
        for frame in frames:
            given.append(frame)  # noqa: PERF402 (an error comes after them)


def test_closing_in_the_middle_ends_the_thread(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", shades(40), times(40))
    before = [t for t in threading.enumerate() if t.name == THREADS]
    with open_source(path) as frames:
        stream = iter(frames)
        next(stream)
        assert [t for t in threading.enumerate() if t.name == THREADS] != before
    assert [t for t in threading.enumerate() if t.name == THREADS] == before


def test_leaving_the_iteration_ends_the_thread_too(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", shades(40), times(40))
    before = [t for t in threading.enumerate() if t.name == THREADS]
    for frame in open_source(path):
        if frame.index == 3:
            break
    assert [t for t in threading.enumerate() if t.name == THREADS] == before


def test_ahead_keeps_order_bounds_its_items_and_hands_on_errors() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            yield i
        raise KeyError("the source is broken")

    ahead = Ahead(items(), room=2)
    given = []
    with pytest.raises(KeyError, match="broken"):  # noqa: PT012
        for item in ahead:
            given.append(item)
            assert len(made) <= len(given) + 3, "at most two wait and one is in the making"
    assert given == list(range(10))
    ahead.close()


def test_ahead_closes_a_generator_on_its_own_thread() -> None:
    closed: list[str] = []

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    ahead = Ahead(items(), room=1)
    next(ahead)
    ahead.close()
    ahead.close()
    assert closed == [THREADS]
    assert list(ahead) == []
