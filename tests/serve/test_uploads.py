"""Limits of requests: bytes, pixels, images and seconds, each with its own message."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.serve import Limits, create_app
from support.encoded_images import encode
from support.http_server import FORM, LIMITS, Running, form, head, read_all, serving, until


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(create_app(Reader(detector="none"), limits=LIMITS)) as running:
        yield running


@pytest.fixture(scope="module")
def hasty() -> Iterator[Running]:
    """A server that does not wait long."""
    with serving(create_app(Reader(detector="none"), limits=Limits(timeout=1.5))) as running:
        yield running


@pytest.fixture(scope="module")
def small() -> bytes:
    return encode(np.random.default_rng(0).integers(0, 255, (48, 48), np.uint8))


def test_too_many_bytes_are_refused_before_they_are_read(server: Running, small: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(head(10**12))
        said = connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"100,000 bytes" in said
    assert b"connection: close" in said.lower()
    assert server.serves(small)


def test_too_many_bytes_are_refused_while_they_come(server: Running, small: bytes) -> None:
    chunk = b"2000\r\n" + bytes(0x2000) + b"\r\n"
    with server.connect() as connection:
        connection.sendall(head(None))
        for _ in range(20):  # 163,840 bytes without an end, and nobody said so before
            connection.sendall(chunk)
        said = read_all(connection)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert server.serves(small)


def test_who_sends_too_much_and_then_listens_gets_the_answer(server: Running, small: bytes) -> None:
    answer = server.ask("/v1/predict", bytes(3_000_000))
    assert (answer.status, answer.json()["title"]) == (413, "Request Entity Too Large")
    assert server.form("/v1/predict", ("a.png", bytes(200_000))).status == 413
    assert server.serves(small)


def test_too_many_pixels_and_pictures_are_refused(server: Running, small: bytes) -> None:
    large = server.ask("/v1/predict", encode(np.zeros((101, 100), np.uint8)))
    assert (large.status, "100 x 101 pixels" in large.json()["detail"]) == (413, True)
    many = server.form("/v1/predict", *[("a.png", small)] * 4)
    assert (many.status, "more than 3 images" in many.json()["detail"]) == (422, True)
    assert server.form("/v1/predict", *[("a.png", small)] * 3).status == 200


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("text/plain", b"x", 415, "send image/jpeg"),
        ("application/x-www-form-urlencoded", b"file=x", 415, "send image/jpeg"),
        ("application/json", b"{}", 415, "send image/jpeg"),
        ("multipart/form-data", b"x", 400, "names no boundary"),
        ("multipart/form-data; boundary=" + "b" * 999, b"x", 400, "broken"),
        (FORM, b"", 400, "ends before"),
        (FORM, b"no form", 400, "broken"),
        (FORM, form(("a.png", b"x"))[:-20], 400, "ends before"),
        (FORM, form(), 422, "has no image"),
        (FORM, form(("a.png", b"x"), field="image"), 422, "field 'image'"),
        (FORM, form(("a" * 9000, b"x")), 400, "broken|exceed"),
        (FORM, form(*[("a", b"")] * 99, field="x"), 422, "more than"),
    ],
)
def test_wrong_bodies_are_named(server: Running, small: bytes, kind: str, body: bytes, status: int, words: str) -> None:
    answer = server.ask("/v1/predict", body, kind=kind)
    assert answer.status == status, answer.body
    assert any(word in answer.json()["detail"] for word in words.split("|"))
    assert server.serves(small)


def test_a_compressed_body_is_refused(server: Running, small: bytes) -> None:
    answer = server.ask("/v1/predict", small, Content_Encoding="gzip")
    assert (answer.status, "compressed" in answer.json()["detail"]) == (415, True)


def test_a_slow_upload_is_given_up(hasty: Running, small: bytes) -> None:
    with hasty.connect() as connection:
        connection.sendall(head(5000) + bytes(10))
        started = time.monotonic()
        said = read_all(connection)  # the server waits, answers, drains for a moment, closes
        assert time.monotonic() - started < 10
    assert said.startswith(b"HTTP/1.1 408 ")
    assert hasty.serves(small)


def test_a_trickling_upload_is_given_up(hasty: Running, small: bytes) -> None:
    with hasty.connect() as connection:
        connection.sendall(head(5000))
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert b"HTTP/1.1 408 " in read_all(connection)
        finally:
            stop.set()
            thread.join()
    assert hasty.serves(small)


def test_a_head_that_does_not_arrive_ends_the_connection(
    server: Running, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.serve.server._HEAD_SECONDS", 0.2)
    monkeypatch.setattr("mien.serve.server._KEEP_ALIVE_SECONDS", 0.2)
    for said in (b"", b"POST /v1/pre", head(5)[:-2]):
        with server.connect() as connection:
            connection.sendall(said)
            assert read_all(connection) == b""
    assert server.serves(small)


def test_who_does_not_read_the_answers_is_cut_off(
    server: Running, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.serve.server._STALL_SECONDS", 0.2)
    with server.connect() as connection:
        connection.settimeout(0.1)
        with contextlib.suppress(OSError):
            for _ in range(3000):  # more answers than the system's buffers hold
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: not server.server.server_state.connections)
    assert server.serves(small)


@pytest.mark.parametrize("reset", [False, True])
def test_an_upload_that_is_given_up_leaves_nothing(server: Running, small: bytes, reset: bool) -> None:
    for _ in range(5):
        connection = server.connect()
        connection.sendall(head(50_000) + bytes(30_000))
        until(lambda: server.metric("mien_held_bytes") == 30_000)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        until(lambda: server.metric("mien_held_bytes") == 0)
    assert server.serves(small)


def test_noise_instead_of_http_leaves_it_serving(server: Running, small: bytes) -> None:
    generator = np.random.default_rng(0)
    for length in (1, 10, 1000, 100_000):
        with server.connect() as connection:
            connection.sendall(generator.bytes(length) + b"\r\n\r\n")
            with contextlib.suppress(OSError):  # "not connected", where the server has hung up already
                connection.shutdown(socket.SHUT_WR)
            read_all(connection)
    assert server.serves(small)
