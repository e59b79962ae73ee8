"""`WS /v1/stream`: frames in, moments out, over a real WebSocket."""

import json
from collections.abc import Iterator
from socket import SHUT_RDWR

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.serve import Limits, create_app
from mien.stream import Tracker
from support.encoded_images import encode
from support.http_server import SECONDS, Gate, Running, serving, until
from support.websocket_client import closed, said, stream


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def server(reader: Reader) -> Iterator[Running]:
    limits = Limits(max_bytes=300_000, max_pixels=300_000, streams=2, idle=SECONDS)
    with serving(create_app(reader, threads=2, limits=limits)) as running:
        yield running


@pytest.fixture(scope="module")
def frames(astronaut: np.ndarray) -> list[bytes]:
    """The portrait, moving to the left by four pixels a frame."""
    return [encode(astronaut[:256, 60 + 4 * i : 380 + 4 * i], "JPEG") for i in range(6)]


def test_frames_are_followed_as_the_tracker_does(server: Running, reader: Reader, frames: list[bytes]) -> None:
    from mien.decode import decode

    tracker = Tracker(reader, every=2, smooth=0)
    with stream(server, "?every=2&smooth=0&maps=true") as socket:
        for number, frame in enumerate(frames):
            socket.send(frame)
            answer = said(socket)
            expected = tracker.step(decode(frame).pixels, answer["seconds"]).to_dict()
            assert (answer["frame"], answer["received"], answer["dropped"]) == (number, number, 0)
            assert answer["size_wh"] == [320, 256]
            (face,), (other,) = answer["faces"], expected["faces"]
            assert face["id"] == other["id"] == 1
            assert face["emotion"] == other["emotion"]
            # The answer's seconds are rounded, which moves predicted places by hundredths of a pixel.
            assert face["box"] == pytest.approx(other["box"], abs=0.5)
            assert face["raw"]["probs"] == pytest.approx(other["raw"]["probs"], abs=0.02)
            assert face["maps"]["shape"] == [7, 6, 6]
    assert server.serves(frames[0])


def test_every_connection_follows_its_own_faces(server: Running, frames: list[bytes]) -> None:
    with stream(server) as one, stream(server) as other:
        one.send(frames[0])
        assert said(one)["frame"] == 0
        one.send(frames[1])
        other.send(frames[5])
        first, second = said(one), said(other)
        assert (first["frame"], second["frame"]) == (1, 0)
        assert [face["id"] for face in first["faces"] + second["faces"]] == [1, 1]
        assert server.metric("mien_streams") == 2
    until(lambda: server.metric("mien_streams") == 0)


def test_the_newest_frame_wins(frames: list[bytes]) -> None:
    gate = Gate()
    with serving(create_app(Reader(detector=gate))) as server, stream(server) as socket:
        socket.send(frames[0])
        until(lambda: gate.waiting == 1)
        for frame in frames[1:]:
            socket.send(frame)
        until(lambda: server.metric('mien_frames_total{result="dropped"}') == 4)
        gate.open.set()
        first, second = said(socket), said(socket)
        assert (first["received"], first["frame"]) == (0, 0)
        assert (second["received"], second["frame"], second["dropped"]) == (5, 1, 4)
        with pytest.raises(TimeoutError):
            socket.recv(0.2)


def test_a_frame_that_cannot_be_read_is_said_and_the_stream_goes_on(server: Running, frames: list[bytes]) -> None:
    with stream(server) as socket:
        for bad, words in ((b"no", "not a picture"), (frames[0][:900], "cut off"), (b"", "no bytes")):
            socket.send(bad)
            assert words in said(socket)["error"]
        socket.send(encode(np.zeros((600, 600), np.uint8)))
        assert "pixels exceed the limit" in said(socket)["error"]
        socket.send(frames[0])
        answer = said(socket)
        assert (answer["frame"], answer["received"], len(answer["faces"])) == (0, 4, 1)


def test_wishes_may_come_as_text_at_any_time(server: Running, frames: list[bytes]) -> None:
    with stream(server) as socket:
        socket.send(frames[0])
        assert "maps" not in said(socket)["faces"][0]
        socket.send(json.dumps({"maps": True, "every": 1}))
        socket.send(frames[1])
        assert "maps" in said(socket)["faces"][0]


def test_a_vanished_client_leaves_nothing(server: Running, frames: list[bytes]) -> None:
    for _ in range(3):
        with stream(server) as socket:
            socket.send(frames[0])
            socket.socket.shutdown(SHUT_RDWR)
    until(lambda: server.metric("mien_streams") == 0)
    assert server.serves(frames[0])


def test_stopping_closes_streams(reader: Reader, frames: list[bytes]) -> None:
    with serving(create_app(reader)) as server, stream(server) as socket:
        socket.send(frames[0])
        said(socket)
        server.server.stop()
        assert closed(socket)[0] == 1012


def test_a_wish_for_maps_forgets_nobody(server: Running, frames: list[bytes]) -> None:
    with stream(server) as socket:
        socket.send(frames[0])
        assert said(socket)["frame"] == 0
        socket.send('{"maps": true}')
        socket.send(frames[1])
        moment = said(socket)
        assert (moment["frame"], "maps" in moment["faces"][0]) == (1, True)
