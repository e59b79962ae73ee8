"""`WS /v1/stream`: frames in, results out, access, and messages that end a stream."""

import contextlib
import json
import time
from collections.abc import Iterator
from socket import SHUT_RDWR
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from websockets.exceptions import InvalidStatus

from mien import Reader
from mien.serve import Limits, create_app
from mien.serve.auth import Access
from mien.video import Tracker
from support.encoded_images import encode
from support.http_server import SECONDS, Gate, Running, serving, until


def stream(server: Running, query: str = "", **headers: str) -> ClientConnection:
    """A connection to the server's stream; underscores in names of headers stand for hyphens."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return connect(f"ws://127.0.0.1:{server.port}/v1/stream{query}", additional_headers=sent, proxy=None)


def said(socket: ClientConnection) -> Any:
    """The next message, which is JSON."""
    return json.loads(socket.recv(SECONDS))


def closed(socket: ClientConnection) -> tuple[int, str]:
    """Code and reason of the close that comes next."""
    with pytest.raises(ConnectionClosed) as caught:
        socket.recv(SECONDS)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


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
            assert face["track_id"] == other["track_id"] == 1
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
        assert [face["track_id"] for face in first["faces"] + second["faces"]] == [1, 1]
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
        for bad, words in ((b"no", "not an image"), (frames[0][:900], "cut off"), (b"", "no bytes")):
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


TOKEN = "s3cret-token"


@pytest.mark.parametrize(
    ("query", "text", "words"),
    [
        ("?every=0", None, "every must be at least 1"),
        ("?every=two", None, "every must be a number"),
        ("?smooth=-1", None, "seconds from 0"),
        ("?smooth=NaN", None, "seconds from 0"),
        ("?maps=1", None, "maps must be bool"),
        ("?fast=true", None, "'fast' is unknown"),
        ("", "hello", "must be a JSON object"),
        ("", "[1]", "must be a JSON object"),
        ("", '{"every": true}', "every must be int"),
        ("", "{" * 9000, "must be a JSON object"),
    ],
)
def test_wrong_options_end_the_stream(server: Running, query: str, text: str | None, words: str) -> None:
    with stream(server, query) as socket:
        if text is not None:
            socket.send(text)
        code, reason = closed(socket)
        assert (code, words in reason) == (1003, True), reason


def test_a_frame_with_too_many_bytes_ends_the_stream(server: Running, frames: list[bytes]) -> None:
    with stream(server) as socket:
        socket.send(bytes(300_001))
        assert closed(socket)[0] == 1009
    assert server.serves(frames[0])


def test_more_streams_than_allowed_are_sent_away(server: Running) -> None:
    with stream(server), stream(server):
        until(lambda: server.metric("mien_streams") == 2)
        with stream(server) as third:
            assert closed(third) == (1013, "2 of 2 streams are open; try again later")


def test_a_silent_stream_is_closed(reader: Reader) -> None:
    with serving(create_app(reader, limits=Limits(idle=0.2))) as server, stream(server) as socket:
        code, reason = closed(socket)
        assert (code, "no frame for 0.2 s" in reason) == (4408, True)


def test_a_stream_wants_the_token_as_header_or_first_message(reader: Reader, frames: list[bytes]) -> None:
    with serving(create_app(reader, access=Access(TOKEN))) as server:
        with stream(server, Authorization=f"Bearer {TOKEN}") as socket:
            socket.send(frames[0])
            assert said(socket)["frame"] == 0
        with stream(server) as socket:
            socket.send(json.dumps({"token": TOKEN, "every": 2}))
            socket.send(frames[0])
            assert said(socket)["frame"] == 0
        for first in (json.dumps({"token": "wrong"}), json.dumps({"every": 2}), json.dumps({"token": None})):
            with stream(server) as socket:
                socket.send(first)
                code, reason = closed(socket)
                assert (code, "the token is wrong" in reason) == (1008, True)
        with stream(server) as socket:
            socket.send(frames[0])  # a frame before the token is no token
            assert closed(socket)[0] in (1003, 1008)
        with stream(server, f"?token={TOKEN}") as socket:
            code, reason = closed(socket)
            assert (code, "addresses end up in logs" in reason) == (1008, True)


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"}]
)
def test_pages_elsewhere_may_not_open_a_stream(server: Running, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as caught:
        stream(server, **headers)
    assert caught.value.response.status_code == 403


def test_its_own_page_may_open_a_stream(server: Running, frames: list[bytes]) -> None:
    with stream(server, Origin=f"http://127.0.0.1:{server.port}") as socket:
        socket.send(frames[0])
        assert len(said(socket)["faces"]) == 1


@pytest.mark.parametrize(
    "text", ["[" * 4000, '{"smooth": %s}' % ("9" * 4000), '{"every": %s}' % ("9" * 4000), '{"every": 1}' + " " * 5000]
)
def test_words_without_measure_are_a_wrong_message_and_no_fault(
    server: Running, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with stream(server) as socket:
        socket.send(text)
        assert closed(socket)[0] == 1003
    query = "?every=" + "[" * 4000
    with stream(server, query) as socket:
        assert closed(socket)[0] == 1003
    assert not caplog.records


def test_words_alone_keep_no_stream_open(reader: Reader) -> None:
    with serving(create_app(reader, limits=Limits(idle=0.5))) as server, stream(server) as socket:
        end = time.monotonic() + 5
        with contextlib.suppress(ConnectionClosed):
            while time.monotonic() < end:
                socket.send('{"maps": true}')
                with contextlib.suppress(TimeoutError):
                    socket.recv(0.05)
        assert time.monotonic() < end
        assert closed(socket)[0] == 4408
