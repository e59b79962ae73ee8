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
from support.http_server import SECONDS, Gate, RunningServer, serving, wait_until


def stream(server: RunningServer, query: str = "", **headers: str) -> ClientConnection:
    """A connection to the server's stream; underscores in names of headers become hyphens."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return connect(f"ws://127.0.0.1:{server.port}/v1/stream{query}", additional_headers=sent, proxy=None)


def next_message(socket: ClientConnection) -> Any:
    """The next message, which is JSON."""
    return json.loads(socket.recv(SECONDS))


def closed(socket: ClientConnection) -> tuple[int, str]:
    """Code and reason of the close that comes next."""
    with pytest.raises(ConnectionClosed) as caught:
        socket.recv(SECONDS)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


@pytest.fixture(scope="module")
def server(reader: Reader) -> Iterator[RunningServer]:
    limits = Limits(max_bytes=300_000, max_pixels=300_000, streams=2, per_address=1, idle=SECONDS)
    with serving(create_app(reader, threads=2, limits=limits)) as running:
        yield running


@pytest.fixture(scope="module")
def frames(astronaut: np.ndarray) -> list[bytes]:
    """The portrait, moving to the left by four pixels a frame."""
    return [encode(astronaut[:256, 60 + 4 * i : 380 + 4 * i], "JPEG") for i in range(6)]


def test_results_are_those_of_the_tracker(server: RunningServer, reader: Reader, frames: list[bytes]) -> None:
    from mien.decode import decode

    tracker = Tracker(reader, every=2, smooth=0)
    with stream(server, "?every=2&smooth=0&maps=true") as socket:
        for number, frame in enumerate(frames):
            socket.send(frame)
            response = next_message(socket)
            expected = tracker.step(decode(frame).pixels, response["seconds"]).to_dict()
            assert (response["frame"], response["received"], response["dropped"]) == (number, number, 0)
            assert response["size_wh"] == [320, 256]
            (face,), (other,) = response["faces"], expected["faces"]
            assert face["track_id"] == other["track_id"] == 1
            assert face["emotion"] == other["emotion"]
            # The result's seconds are rounded, which moves predicted places by hundredths of a pixel.
            assert face["box"] == pytest.approx(other["box"], abs=0.5)
            assert face["raw"]["probs"] == pytest.approx(other["raw"]["probs"], abs=0.02)
            assert face["maps"]["shape"] == [7, 6, 6]
    assert server.reads(frames[0])


def test_every_connection_tracks_its_own_faces(server: RunningServer, frames: list[bytes]) -> None:
    with stream(server) as one, stream(server) as other:
        one.send(frames[0])
        assert next_message(one)["frame"] == 0
        one.send(frames[1])
        other.send(frames[5])
        first, second = next_message(one), next_message(other)
        assert (first["frame"], second["frame"]) == (1, 0)
        assert [face["track_id"] for face in first["faces"] + second["faces"]] == [1, 1]
        assert server.metric("mien_streams") == 2
    wait_until(lambda: server.metric("mien_streams") == 0)


def test_the_newest_frame_is_read_and_older_ones_are_dropped(frames: list[bytes]) -> None:
    gate = Gate()
    with serving(create_app(Reader(detector=gate))) as server, stream(server) as socket:
        socket.send(frames[0])
        wait_until(lambda: gate.waiting == 1)
        for frame in frames[1:]:
            socket.send(frame)
        wait_until(lambda: server.metric('mien_frames_total{result="dropped"}') == 4)
        gate.open.set()
        first, second = next_message(socket), next_message(socket)
        assert (first["received"], first["frame"]) == (0, 0)
        assert (second["received"], second["frame"], second["dropped"]) == (5, 1, 4)
        with pytest.raises(TimeoutError):
            socket.recv(0.2)


def test_an_unreadable_frame_is_reported_and_the_stream_continues(server: RunningServer, frames: list[bytes]) -> None:
    with stream(server) as socket:
        for bad, words in ((b"no", "not an image"), (frames[0][:900], "cut off"), (b"", "no bytes")):
            socket.send(bad)
            assert words in next_message(socket)["error"]
        socket.send(encode(np.zeros((600, 600), np.uint8)))
        assert "pixels exceed the limit" in next_message(socket)["error"]
        socket.send(frames[0])
        response = next_message(socket)
        assert (response["frame"], response["received"], len(response["faces"])) == (0, 4, 1)


def test_options_can_change_at_any_time(server: RunningServer, frames: list[bytes]) -> None:
    with stream(server) as socket:
        socket.send(frames[0])
        assert "maps" not in next_message(socket)["faces"][0]
        socket.send(json.dumps({"maps": True, "every": 1}))
        socket.send(frames[1])
        assert "maps" in next_message(socket)["faces"][0]


def test_a_disconnected_client_ends_its_stream(server: RunningServer, frames: list[bytes]) -> None:
    for _ in range(3):
        with stream(server) as socket:
            socket.send(frames[0])
            socket.socket.shutdown(SHUT_RDWR)
    wait_until(lambda: server.metric("mien_streams") == 0)
    assert server.reads(frames[0])


def test_stopping_closes_streams(reader: Reader, frames: list[bytes]) -> None:
    with serving(create_app(reader)) as server, stream(server) as socket:
        socket.send(frames[0])
        next_message(socket)
        server.server.stop()
        assert closed(socket)[0] == 1012


def test_the_option_maps_does_not_restart_tracking(server: RunningServer, frames: list[bytes]) -> None:
    with stream(server) as socket:
        socket.send(frames[0])
        assert next_message(socket)["frame"] == 0
        socket.send('{"maps": true}')
        socket.send(frames[1])
        result = next_message(socket)
        assert (result["frame"], "maps" in result["faces"][0]) == (1, True)


TOKEN = "s3cret-token"


@pytest.mark.parametrize(
    ("query", "text", "words"),
    [
        ("?every=0", None, "every is 0; it must be 1 or more"),
        ("?every=two", None, "every must be a number"),
        ("?smooth=-1", None, "smooth (seconds) is"),
        ("?smooth=NaN", None, "smooth (seconds) is"),
        ("?maps=1", None, "maps must be bool"),
        ("?fast=true", None, "'fast' is unknown"),
        ("", "hello", "must be a JSON object"),
        ("", "[1]", "must be a JSON object"),
        ("", '{"every": true}', "every must be int"),
        ("", "{" * 9000, "must be a JSON object"),
    ],
)
def test_wrong_options_end_the_stream(server: RunningServer, query: str, text: str | None, words: str) -> None:
    with stream(server, query) as socket:
        if text is not None:
            socket.send(text)
        code, reason = closed(socket)
        assert (code, words in reason) == (1003, True), reason


def test_a_frame_with_too_many_bytes_ends_the_stream(server: RunningServer, frames: list[bytes]) -> None:
    with stream(server) as socket:
        socket.send(bytes(300_001))
        assert closed(socket)[0] == 1009
    assert server.reads(frames[0])


def test_more_streams_than_allowed_are_refused(server: RunningServer) -> None:
    with stream(server), stream(server):
        wait_until(lambda: server.metric("mien_streams") == 2)
        with stream(server) as third:
            assert closed(third) == (1013, "2 of 2 (one address: 2) streams are open; try again later")


def test_a_stream_without_frames_is_closed(reader: Reader) -> None:
    with serving(create_app(reader, limits=Limits(idle=0.2))) as server, stream(server) as socket:
        code, reason = closed(socket)
        assert (code, "no frame for 0.2 s" in reason) == (4408, True)


def test_a_stream_requires_the_token_as_header_or_first_message(reader: Reader, frames: list[bytes]) -> None:
    with serving(create_app(reader, access=Access(TOKEN))) as server:
        with stream(server, Authorization=f"Bearer {TOKEN}") as socket:
            socket.send(frames[0])
            assert next_message(socket)["frame"] == 0
        with stream(server) as socket:
            socket.send(json.dumps({"token": TOKEN, "every": 2}))
            socket.send(frames[0])
            assert next_message(socket)["frame"] == 0
        cases = {'{"token": "wrong"}': "is wrong", '{"token": null}': "is wrong"}
        cases |= dict.fromkeys(['{"every": 2}', "hello", "[1]", frames[0]], "requires its token")
        for first, words in cases.items():
            with stream(server) as socket:
                socket.send(first)
                code, reason = closed(socket)
                assert (code, words in reason) == (1008, True), (first[:20], reason)
        with stream(server, f"?token={TOKEN}") as socket:
            code, reason = closed(socket)
            assert (code, "addresses end up in logs" in reason) == (1008, True)


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"}]
)
def test_pages_of_other_origins_cannot_open_a_stream(
    server: RunningServer, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        stream(server, **headers)
    assert caught.value.response.status_code == 403
    wait_until(lambda: not server.server.server_state.tasks)
    assert caplog.messages == []


def test_the_own_page_can_open_a_stream(server: RunningServer, frames: list[bytes]) -> None:
    with stream(server, Origin=f"http://127.0.0.1:{server.port}") as socket:
        socket.send(frames[0])
        assert len(next_message(socket)["faces"]) == 1


@pytest.mark.parametrize(
    "text", ["[" * 4000, '{"smooth": %s}' % ("9" * 4000), '{"every": %s}' % ("9" * 4000), '{"every": 1}' + " " * 5000]
)
def test_oversized_text_messages_are_wrong_messages(
    server: RunningServer, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with stream(server) as socket:
        socket.send(text)
        assert closed(socket)[0] == 1003
    query = "?every=" + "[" * 4000
    with stream(server, query) as socket:
        assert closed(socket)[0] == 1003
    assert not caplog.records


def test_text_messages_alone_do_not_prevent_the_idle_timeout(reader: Reader) -> None:
    with serving(create_app(reader, limits=Limits(idle=0.5))) as server, stream(server) as socket:
        end = time.monotonic() + 5
        with contextlib.suppress(ConnectionClosed):
            while time.monotonic() < end:
                socket.send('{"maps": true}')
                with contextlib.suppress(TimeoutError):
                    socket.recv(0.05)
        assert time.monotonic() < end
        assert closed(socket)[0] == 4408
