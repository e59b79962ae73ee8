"""Malicious clients: endless heads and trailers, and clients that disconnect at once."""

import contextlib
import gc
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.serve import create_app
from mien.serve.engine import Upload
from support.http_server import Gate, RunningServer, head, read_all, serving, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving(create_app(Reader(detector="none"))) as running:
        yield running


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
def test_endless_heads_and_trailers_end_the_connection(
    server: RunningServer, small: bytes, endless: tuple[bytes, bytes]
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
    assert server.reads(small)


def test_a_head_that_is_too_long_gets_431(server: RunningServer, small: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 65_536)
        assert b"HTTP/1.1 431 " in read_all(connection)
    assert server.reads(small)


def test_waiting_images_of_disconnected_clients_leave_the_memory(small: bytes, gate: Gate) -> None:
    """A busy thread must not hold the images of clients that have left."""
    with serving(create_app(Reader(detector=gate))) as server, server.connect() as first:
        first.sendall(head(len(small)) + small)
        wait_until(lambda: gate.waiting == 1)
        body = small + bytes(200_000)
        for _ in range(3):
            with server.connect() as connection:
                connection.sendall(head(len(body)) + body)
                wait_until(lambda: server.service.engine.accepted == 2)
            wait_until(lambda: server.service.engine.accepted == 1)
        wait_until(
            lambda: not [each for each in gc.get_objects() if type(each) is Upload and len(each.data) == len(body)]
        )
        gate.open.set()
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_disconnected_clients_are_not_logged(small: bytes, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    with serving(create_app(Reader(detector=gate))) as server:
        with server.connect() as connection:
            connection.sendall(head(len(small)) + small)
            wait_until(lambda: gate.waiting == 1)
        wait_until(lambda: server.metric('mien_requests_total{path="/v1/predict",status="499"}') == 1)
        gate.open.set()
        wait_until(lambda: server.service.engine.accepted == 0)
        gc.collect()
        assert server.reads(small)
    assert [record.getMessage() for record in caplog.records] == []
