"""Limits of requests: bytes, pixels, images and seconds, each with its own message."""

import base64
import contextlib
import json
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.serve import Limits, create_app
from mien.serve.problems import Problem
from mien.serve.uploads import _images_in_json
from support.encoded_images import encode
from support.http_server import FORM, LIMITS, RunningServer, form, head, read_all, serving, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving(create_app(Reader(detector="none"), limits=LIMITS)) as running:
        yield running


@pytest.fixture(scope="module")
def short_timeout() -> Iterator[RunningServer]:
    """A server with a short timeout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mien.serve.uploads._DRAIN_SECONDS", 0.5)
        with serving(create_app(Reader(detector="none"), limits=Limits(timeout=1.5))) as running:
            yield running


def test_too_many_bytes_are_refused_before_they_arrive(server: RunningServer, small: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(head(10**12))
        received = connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"100,000 bytes" in received
    assert b"connection: close" in received.lower()
    assert server.reads(small)


def test_too_many_bytes_are_refused_while_they_arrive(server: RunningServer, small: bytes) -> None:
    chunk = b"2000\r\n" + bytes(0x2000) + b"\r\n"
    with server.connect() as connection:
        connection.sendall(head(None))
        for _ in range(20):  # 163,840 bytes, which no header announced
            connection.sendall(chunk)
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert server.reads(small)


def test_a_client_that_sends_too_much_gets_the_response(server: RunningServer, small: bytes) -> None:
    response = server.request("/v1/predict", bytes(3_000_000))
    assert (response.status, response.json()["title"]) == (413, "Request Entity Too Large")
    assert server.form("/v1/predict", ("a.png", bytes(200_000))).status == 413
    assert server.reads(small)


def test_too_many_pixels_and_images_are_refused(server: RunningServer, small: bytes) -> None:
    large = server.request("/v1/predict", encode(np.zeros((101, 100), np.uint8)))
    assert (large.status, "100 x 101 pixels" in large.json()["detail"]) == (413, True)
    many = server.form("/v1/predict", *[("a.png", small)] * 4)
    assert (many.status, "more than 3 images" in many.json()["detail"]) == (422, True)
    assert server.form("/v1/predict", *[("a.png", small)] * 3).status == 200


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("text/plain", b"x", 415, "send image/jpeg"),
        ("application/x-www-form-urlencoded", b"file=x", 415, "send image/jpeg"),
        ("application/json", b"{}", 422, "no images in base64"),
        ("application/json", b'{"image": 1}', 422, "no images in base64"),
        ("application/json", b'{"image": "data:image/png;base64,?"}', 422, "not base64"),
        ("application/json", b'{"image": "data:image/png;base64,"}', 415, "no bytes"),
        ("application/json", b'{"image": ', 400, "no JSON"),
        ("application/json", b'{"images": ["YQ==", "YQ==", "YQ==", "YQ=="]}', 422, "more than 3 images"),
        ("application/json", b"[" * 90_000, 422, "too many values"),
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
def test_wrong_bodies_are_problems(
    server: RunningServer, small: bytes, kind: str, body: bytes, status: int, words: str
) -> None:
    response = server.request("/v1/predict", body, kind=kind)
    assert response.status == status, response.body
    assert any(word in response.json()["detail"] for word in words.split("|"))
    assert server.reads(small)


def test_a_compressed_body_is_refused(server: RunningServer, small: bytes) -> None:
    response = server.request("/v1/predict", small, Content_Encoding="gzip")
    assert (response.status, "compressed" in response.json()["detail"]) == (415, True)
    assert server.request("/v1/predict", small, Content_Encoding="Identity").status == 200  # names have no case


def test_a_stalled_upload_gets_408(short_timeout: RunningServer, small: bytes) -> None:
    with short_timeout.connect() as connection:
        connection.sendall(head(5000) + bytes(10))
        started = time.monotonic()
        received = read_all(connection)  # the server waits, responds, drains for a short time, closes
        assert time.monotonic() - started < 10
    assert received.startswith(b"HTTP/1.1 408 ")
    assert short_timeout.reads(small)


def test_a_slow_upload_gets_408(short_timeout: RunningServer, small: bytes) -> None:
    with short_timeout.connect() as connection:
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
    assert short_timeout.reads(small)


def test_a_head_that_does_not_arrive_ends_the_connection(
    server: RunningServer, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.serve.connections._HEAD_SECONDS", 0.2)
    monkeypatch.setattr("mien.serve.connections.KEEP_ALIVE_SECONDS", 0.2)
    for sent in (b"", b"POST /v1/pre", head(5)[:-2]):
        with server.connect() as connection:
            connection.sendall(sent)
            assert read_all(connection) == b""
    assert server.reads(small)


def test_a_client_that_reads_no_responses_is_disconnected(
    server: RunningServer, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.serve.connections._STALL_SECONDS", 0.2)
    with server.connect() as connection:
        connection.settimeout(0.1)
        with contextlib.suppress(OSError):
            for _ in range(3000):  # more responses than the system's buffers hold
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: not server.server.server_state.connections)
    assert server.reads(small)


@pytest.mark.parametrize("reset", [False, True])
def test_an_aborted_upload_leaves_no_bytes(server: RunningServer, small: bytes, reset: bool) -> None:
    for _ in range(5):
        connection = server.connect()
        connection.sendall(head(50_000) + bytes(30_000))
        wait_until(lambda: server.metric("mien_held_bytes") == 30_000)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        wait_until(lambda: server.metric("mien_held_bytes") == 0)
    assert server.reads(small)


def test_random_bytes_do_not_stop_the_server(server: RunningServer, small: bytes) -> None:
    generator = np.random.default_rng(0)
    for length in (1, 10, 1000, 100_000):
        with server.connect() as connection:
            connection.sendall(generator.bytes(length) + b"\r\n\r\n")
            with contextlib.suppress(OSError):  # "not connected", if the server has closed the connection already
                connection.shutdown(socket.SHUT_WR)
            read_all(connection)
    assert server.reads(small)


@pytest.mark.parametrize("end", [b"y", b" " * 6000])
def test_a_form_whose_image_repeats_the_boundary_is_refused_before_its_end(
    server: RunningServer, small: bytes, end: bytes
) -> None:
    """It would be parsed byte by byte, in which the server could do nothing else."""
    with server.connect() as connection:
        connection.sendall(head(90_000, kind="multipart/form-data; boundary=x") + b"--x\r\n\r\n\r\n--x" + end)
        received = connection.recv(65536)  # the rest never arrives
    assert received.startswith(b"HTTP/1.1 400 ")
    assert server.reads(small)


def test_json_that_never_fits_into_the_memory_is_too_large() -> None:
    limits = Limits(max_bytes=1_000_000, max_pixels=100_000, memory=4_000_000)
    text = json.dumps({"image": base64.b64encode(bytes(290_000)).decode()})
    chunked = f"Transfer-Encoding: chunked\r\n\r\n{len(text):x}\r\n{text}\r\n0\r\n\r\n"
    with serving(create_app(Reader(detector="none"), limits=limits)) as server:
        refused = server.request("/v1/predict", text.encode(), kind="application/json")
        assert (refused.status, "333,333 bytes; send the images without JSON" in refused.json()["detail"]) == (
            413,
            True,
        )
        with server.connect() as connection:
            kind = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json"
            connection.sendall(f"POST /v1/predict HTTP/1.1\r\n{kind}\r\n{chunked}".encode())
            assert read_all(connection).startswith(b"HTTP/1.1 413 ")
        assert server.request("/v1/predict", text[:300_000].encode(), kind="application/json").status == 400  # no JSON
        assert server.request("/v1/predict", bytes(600_000)).status == 415  # received whole: no image


def test_images_come_as_data_urls_in_json(server: RunningServer, small: bytes) -> None:
    text = base64.b64encode(small).decode()
    plain = server.request("/v1/predict", small).json()["readings"][0]["faces"]
    body = json.dumps({"image": f"data:image/png;base64,{text}"}).encode()
    one = server.request("/v1/predict", body, kind="application/json")
    assert (one.status, one.json()["readings"][0]["faces"]) == (200, plain)
    body = json.dumps({"images": [text, "YQ=="]}).encode()
    both = server.request("/v1/predict", body, kind="application/json").json()
    assert [reading["source"] for reading in both["readings"]] == ["image 1", "image 2"]
    assert both["readings"][0]["faces"] == plain
    assert "not an image" in both["readings"][1]["error"]
    wait_until(lambda: server.metric("mien_held_bytes") == 0)


@pytest.mark.parametrize("character", ["\U0001f600", "\\ud83d\\ude00"])
def test_a_character_that_no_image_has_makes_json_no_larger(character: str) -> None:
    body = f'{{"image": "{character}{"A" * 3_000_000}"}}'.encode()
    tracemalloc.start()
    with pytest.raises(Problem, match="no JSON in ASCII"):
        _images_in_json(body, 16)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2 * len(body)  # of the three that are counted, the body itself is one


def test_json_in_the_manners_of_other_languages_is_read(server: RunningServer, small: bytes) -> None:
    text = base64.b64encode(small).decode()
    for written in (text.replace("/", "\\/"), text.replace("+", "\\u002B")):  # PHP and .NET escape these
        body = b"\xef\xbb\xbf" + f'{{"image": "{written}"}}'.encode()
        assert server.request("/v1/predict", body, kind="application/json").status == 200
