"""Limits of connections: their number, what each holds, how long it may be idle, and what it may log."""

import contextlib
import logging
import socket
import threading

import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from collections.abc import Iterator

from mien import Reader
from mien.serve import Access, Limits, create_app
from mien.serve.server import FewLines
from mien.serve.service import network_of
from support.http_server import (
    BINARY,
    CONTINUATION,
    HANDSHAKE,
    PING,
    TEXT,
    RunningServer,
    frame,
    head,
    read_all,
    serving,
    wait_until,
)

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(detector="none")


@pytest.fixture(scope="module")
def server(reader: Reader) -> Iterator[RunningServer]:
    with serving(create_app(reader, limits=Limits(max_bytes=10_000, per_address=1))) as running:
        yield running


def code_of(connection: socket.socket) -> int:
    """The code of the close frame that comes next."""
    received = read_all(connection)
    assert received[:1] == b"\x88", received
    return int.from_bytes(received[2:4], "big")


def open_connections(server: RunningServer) -> int:
    return len(server.server.server_state.connections)


def test_a_socket_without_the_token_holds_a_few_kilobytes(reader: Reader, small: bytes) -> None:
    token = frame(TEXT, b'{"token": "s3cret"}')
    with serving(create_app(reader, access=Access("s3cret"))) as server:
        for begin in (frame(BINARY, bytes(9000), length=31_000_000), frame(TEXT, bytes(9000), final=False)):
            with server.upgrade() as connection:
                connection.sendall(begin)
                assert code_of(connection) == 1009
        assert server.service.held._count == 0
        with server.upgrade() as connection:  # frames may follow the token at once
            connection.sendall(token + frame(BINARY, small + bytes(100_000)))
            assert b'"frame":0' in connection.recv(65536)


def test_everything_that_is_received_shares_one_budget(server: RunningServer, small: bytes) -> None:
    """Bodies and frames that are not complete fill it; then both are refused."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(server.connect())
            connection.sendall(head(10_000) + bytes(9_999))
            stack.enter_context(server.upgrade()).sendall(frame(BINARY, bytes(9_998), length=9_999))
        wait_until(lambda: server.metric("mien_held_bytes") == 4 * 9_999 + 4 * 9_998)
        assert server.request("/v1/predict", bytes(9_999)).status == 503
        with server.upgrade() as connection:
            connection.sendall(frame(BINARY, bytes(5_000), length=9_999))
            assert code_of(connection) == 1013
    assert server.reads(small)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(BINARY, b"", final=False) + frame(CONTINUATION, b"", final=False) * 2000, 1009),
        (frame(BINARY, b"") * 20_000, 1009),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"\xff", final=False) + frame(CONTINUATION, b"\xfe"), 1007),
        (frame(BINARY, b"", length=10_001), 1009),
        (frame(3, b""), 1002),
    ],
    ids=["fragments", "messages", "text", "fragments of text", "too large", "opcode"],
)
def test_wrong_frames_close_the_stream_and_log_nothing(
    server: RunningServer, small: bytes, sent: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    with server.upgrade() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        assert code_of(connection) == code
    assert server.reads(small)
    assert caplog.messages == []


@pytest.mark.parametrize("header", ["X: " + "a" * 9000, "\r\n".join(["X: a"] * 99), "Sec-WebSocket-Key: no"])
def test_a_refused_handshake_has_a_response(server: RunningServer, header: str) -> None:
    with server.connect() as connection:
        connection.sendall(f"{HANDSHAKE}{header}\r\n\r\n".encode())
        assert read_all(connection).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


def test_connections_are_limited_in_all_and_for_each_address(reader: Reader) -> None:
    with serving(create_app(reader, limits=Limits(connections=4))) as server, contextlib.ExitStack() as stack:
        held = [stack.enter_context(server.connect(f"127.0.0.{number}")) for number in (2, 2, 3, 3)]
        wait_until(lambda: open_connections(server) == 4)
        with server.connect("127.0.0.4") as connection:
            assert b"HTTP/1.1 503 " in read_all(connection)
        held.pop().close()
        wait_until(lambda: open_connections(server) == 3)
        with server.connect("127.0.0.2") as connection:  # which has its half
            response = read_all(connection)
        assert b"retry-after: 1" in response
        assert b"application/problem+json" in response
        with server.connect("127.0.0.4") as connection:
            connection.sendall(GET)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("client", "network"),
    [
        (("192.0.2.7", 99), "192.0.2.7"),
        (("2001:db8::1", 99), network_of(("2001:db8::ffff:1", 1))),
        (("fe80::1%eth0", 99), network_of(("fe80::2", 1))),
        (("::ffff:192.0.2.7", 99), "192.0.2.7"),
        (None, ""),
        ("", ""),
    ],
)
def test_addresses_of_one_client_are_one_network(client: tuple[str, int] | None, network: str) -> None:
    assert network_of(client) == network
    assert network_of(("2001:db8:0:1::1", 99)) != network_of(("2001:db8:0:2::1", 99))


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (GET, b"\r\n"),
        (b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n", b"x"),
        (b"", b"\r\n"),
    ],
    ids=["empty lines", "a body after the response", "nothing else"],
)
def test_a_trickle_of_bytes_keeps_no_connection_open(
    reader: Reader, first: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.serve.connections.KEEP_ALIVE_SECONDS", 0.3)
    monkeypatch.setattr("mien.serve.connections._HEAD_SECONDS", 0.2)
    with serving(create_app(reader, limits=Limits(timeout=0.1))) as server, server.connect() as connection:
        connection.sendall(first)
        ended = threading.Event()
        reading = threading.Thread(target=lambda: (read_all(connection), ended.set()))
        reading.start()
        for _ in range(200):
            if ended.wait(0.05):
                break
            with contextlib.suppress(OSError):
                connection.sendall(more)
        assert ended.is_set()
        reading.join()


def test_pipelined_requests_are_few(server: RunningServer, small: bytes) -> None:
    for sent in (head(1) + b"x" + GET * 100, GET + head(5000) + bytes(5000)):
        with server.connect() as connection:
            connection.sendall(sent)
            assert b"HTTP/1.1 400 " in read_all(connection)
    with server.connect() as connection:
        connection.sendall(GET * 3)
        connection.settimeout(0.5)
        assert read_some(connection).count(b"HTTP/1.1 200 ") == 3
    assert server.reads(small)


def read_some(connection: socket.socket) -> bytes:
    """What arrives before the socket's timeout."""
    parts = []
    with contextlib.suppress(TimeoutError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_a_client_that_reads_no_pongs_is_disconnected(
    server: RunningServer, small: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mien.serve.connections._STALL_SECONDS", 0.2)
    with server.upgrade() as connection:
        connection.settimeout(0.5)
        pings = frame(PING, bytes(125)) * 500
        with contextlib.suppress(OSError):  # either the pongs fill the buffers, or the server has closed
            for _ in range(1000):
                connection.sendall(pings)
        wait_until(lambda: open_connections(server) == 0)
    assert server.reads(small)
    assert caplog.messages == []


def test_a_warning_of_one_place_is_logged_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    few = FewLines()

    def passed(line: int, level: int = logging.WARNING) -> str | None:
        record = logging.LogRecord("mien.serve", level, "file.py", line, "%s failed", ("it",), None)
        return record.getMessage() if few.filter(record) else None

    assert [passed(1), passed(1), passed(1), passed(2)] == ["it failed", None, None, "it failed"]
    assert [passed(1, logging.INFO)] * 2 == ["it failed"] * 2
    monkeypatch.setattr("mien.serve.server._LOG_SECONDS", 0.0)
    assert [passed(1), passed(1)] == ["it failed (2 more like this were left out)", "it failed"]


# What Java's client sends with every request; the second also with a header that uvicorn would take for the only one.
OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
OFFERS = (OFFER, f"{OFFER}Connection: keep-alive\r\n")


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_the_body_after_an_offer_of_http_2_is_read(server: RunningServer, small: bytes, offer: str, size: int) -> None:
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(small), small)
    for request in (head(len(small), more=offer) + small, head(None, more=offer) + chunk):
        with server.connect() as connection:
            for start in range(0, len(request), size):
                connection.sendall(request[start : start + size])
            connection.sendall(GET.replace(b"localhost", b"localhost\r\nConnection: close"))
            received = read_all(connection)
        assert (received.count(b"HTTP/1.1 200 OK"), received.count(b"HTTP/1.1 ")) == (2, 2), received
        assert b'"error":null' in received
        assert received.endswith(b'{"status":"ok"}')


@pytest.mark.parametrize("offer", OFFERS)
def test_the_body_after_an_offer_of_http_2_is_no_request(server: RunningServer, offer: str) -> None:
    with server.connect() as connection:
        connection.sendall(head(len(GET), more=offer) + GET)
        connection.sendall(GET.replace(b"localhost", b"localhost\r\nConnection: close"))
        received = read_all(connection)
    assert (received.count(b"HTTP/1.1 415 "), received.count(b"HTTP/1.1 ")) == (1, 2), received
