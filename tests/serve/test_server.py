"""Malicious clients: endless heads and trailers, and clients that disconnect at once."""

import contextlib
import gc
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.serve import create_app
from mien.serve.engine import Upload
from support.encoded_images import encode
from support.http_server import Gate, Running, head, read_all, serving, until


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(create_app(Reader(detector="none"))) as running:
        yield running


@pytest.fixture(scope="module")
def small() -> bytes:
    return encode(np.random.default_rng(0).integers(0, 255, (48, 48), np.uint8))


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.mark.parametrize(
    "endless",
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"a: b\r\n" * 1000),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", b"a" * 6000),
        (head(None) + b"1\r\na\r\n0\r\n", b"a: b\r\n" * 1000),
        (head(None) + b"1;", b"a" * 6000),
    ],
    ids=["headers", "header", "trailers", "extension"],
)
def test_heads_and_trailers_without_end_are_cut_off(
    server: Running, small: bytes, endless: tuple[bytes, bytes]
) -> None:
    begin, more = endless
    with server.connect() as connection:
        connection.sendall(begin)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 20_000_000:
                connection.sendall(more)
                sent += len(more)
        assert sent < 20_000_000
    assert server.serves(small)


def test_a_head_that_is_too_long_is_told_so(server: Running, small: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 65_536)
        assert b"HTTP/1.1 431 " in read_all(connection)
    assert server.serves(small)


def test_what_was_given_up_while_it_waited_is_not_kept(small: bytes, gate: Gate) -> None:
    """A thread that is busy for long must not hold the pictures of those who left."""
    with serving(create_app(Reader(detector=gate))) as server, server.connect() as first:
        first.sendall(head(len(small)) + small)
        until(lambda: gate.waiting == 1)
        body = small + bytes(200_000)
        for _ in range(3):
            with server.connect() as connection:
                connection.sendall(head(len(body)) + body)
                until(lambda: server.service.engine.accepted == 2)
            until(lambda: server.service.engine.accepted == 1)
        until(lambda: not [kept for kept in gc.get_objects() if type(kept) is Upload and len(kept.data) == len(body)])
        gate.open.set()
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_who_leaves_is_not_worth_a_line_in_the_log(small: bytes, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    with serving(create_app(Reader(detector=gate))) as server:
        with server.connect() as connection:
            connection.sendall(head(len(small)) + small)
            until(lambda: gate.waiting == 1)
        until(lambda: server.metric('mien_requests_total{path="/v1/predict",status="499"}') == 1)
        gate.open.set()
        until(lambda: server.service.engine.accepted == 0)
        gc.collect()
        assert server.serves(small)
    assert [record.getMessage() for record in caplog.records] == []
