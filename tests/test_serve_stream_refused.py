"""`WS /v1/stream`: who may open a stream, and which words and frames end it."""

import contextlib
import json
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from websockets.exceptions import ConnectionClosed, InvalidStatus

from mien import Reader
from mien.serve import Limits, create_app
from mien.serve.guard import Access
from support.encoded_images import encode
from support.http_server import SECONDS, Running, serving, until
from support.websocket_client import closed, said, stream

TOKEN = "s3cret-token"


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


@pytest.mark.parametrize(
    ("query", "text", "words"),
    [
        ("?every=0", None, "every counts from 1"),
        ("?every=two", None, "every is a number"),
        ("?smooth=-1", None, "seconds from 0"),
        ("?smooth=NaN", None, "seconds from 0"),
        ("?maps=1", None, "maps is bool"),
        ("?fast=true", None, "'fast' is unknown"),
        ("", "hello", "is a JSON object"),
        ("", "[1]", "is a JSON object"),
        ("", '{"every": true}', "every is int"),
        ("", "{" * 9000, "is a JSON object"),
    ],
)
def test_wrong_wishes_end_the_stream(server: Running, query: str, text: str | None, words: str) -> None:
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
            assert (code, "an address stands in logs" in reason) == (1008, True)


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
