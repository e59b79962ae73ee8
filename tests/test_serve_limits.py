"""What `mien serve` refuses, and that it serves on after every upload that is huge, broken, slow or given up."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import MienError, Reader
from mien.serve import Limits, create_app
from serving import FORM, Answer, Gate, Running, encoded, form, head, read_all, serving, until

LIMITS = Limits(max_bytes=100_000, max_pixels=10_000, max_images=3, timeout=20, queue=6)


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
    return encoded(np.random.default_rng(0).integers(0, 255, (48, 48), np.uint8))


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


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
    large = server.ask("/v1/predict", encoded(np.zeros((101, 100), np.uint8)))
    assert (large.status, "100 x 101 pixels" in large.json()["detail"]) == (413, True)
    many = server.form("/v1/predict", *[("a.png", small)] * 4)
    assert (many.status, "more than 3 pictures" in many.json()["detail"]) == (422, True)
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
        (FORM, form(), 422, "holds no picture"),
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
    monkeypatch.setattr("mien.serve.protocol._HEAD", 0.2)
    monkeypatch.setattr("mien.serve.protocol.KEEP_ALIVE", 0.2)
    for said in (b"", b"POST /v1/pre", head(5)[:-2]):
        with server.connect() as connection:
            connection.sendall(said)
            assert read_all(connection) == b""
    assert server.serves(small)


def test_who_does_not_read_the_answers_is_cut_off(
    server: Running, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.serve.protocol._ANSWER", 0.2)
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
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)
    assert server.serves(small)


def test_a_full_queue_answers_503_and_when_to_ask_again(small: bytes, gate: Gate) -> None:
    app = create_app(Reader(detector=gate), limits=Limits(queue=3, max_images=3))
    with serving(app) as server, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(server.ask, "/v1/predict", small) for _ in range(2)]
        until(lambda: server.service.engine.accepted == 2)
        too_many = server.form("/v1/predict", ("a", small), ("b", small))
        assert (too_many.status, "2 of 3 pictures" in too_many.json()["detail"]) == (503, True)
        assert int(too_many.headers["retry-after"]) >= 1
        waiting.append(pool.submit(server.ask, "/v1/predict", small))
        until(lambda: server.service.engine.accepted == 3)
        assert server.ask("/v1/predict", small).status == 503
        assert server.ask("/v1/explain", small).status == 503
        assert (server.ask("/readyz").status, server.ask("/healthz").status) == (503, 200)
        assert server.metric("mien_queue_pictures") == 3
        gate.open.set()
        assert [future.result().status for future in waiting] == [200] * 3
        assert server.serves(small)


def test_bodies_that_fill_the_memory_kept_for_them_are_refused(gate: Gate) -> None:
    app = create_app(Reader(detector=gate), limits=Limits(max_bytes=10_000))
    with serving(app) as server:
        open_ones = [server.connect() for _ in range(8)]
        for connection in open_ones:
            connection.sendall(head(10_000) + bytes(9_999))
        until(lambda: server.metric("mien_held_bytes") == 8 * 9_999)
        answer = server.ask("/v1/predict", bytes(9_999))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        for connection in open_ones:
            connection.close()
        until(lambda: server.metric("mien_held_bytes") == 0)


def test_bodies_count_as_held_until_their_pictures_are_decoded(gate: Gate, small: bytes) -> None:
    """What waits in the queue is in memory, too."""
    with serving(create_app(Reader(detector=gate))) as server, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(server.ask, "/v1/predict", small) for _ in range(3)]
        until(lambda: server.service.engine.accepted == 3)
        assert server.metric("mien_held_bytes") == 3 * len(small)
        gate.open.set()
        assert [future.result().status for future in waiting] == [200] * 3
        assert server.serves(small)


def test_who_asks_before_sending_is_refused_before_sending(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(head(10**7, more="Expect: 100-continue\r\n"))
        said = read_all(connection)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in said


def test_what_takes_too_long_is_answered_504_and_not_begun(small: bytes, gate: Gate) -> None:
    app = create_app(Reader(detector=gate), limits=Limits(timeout=1))
    with serving(app) as server, ThreadPoolExecutor(3) as pool:
        answers: list[Answer] = list(pool.map(lambda _: server.ask("/v1/predict", small), range(3)))
        assert [answer.status for answer in answers] == [504] * 3
        assert "no answer within 1 s" in answers[0].json()["detail"]
        until(lambda: server.service.engine.accepted == 1)  # one has begun; the others were taken back
        gate.open.set()
        assert server.serves(small)
        assert server.metric('mien_pictures_total{result="read"}') == 2


def test_who_leaves_while_waiting_is_not_read(small: bytes, gate: Gate) -> None:
    with serving(create_app(Reader(detector=gate))) as server:
        with server.connect() as first:
            first.sendall(head(len(small)) + small)
            until(lambda: gate.waiting == 1)
            for _ in range(3):
                with server.connect() as connection:
                    connection.sendall(head(len(small)) + small)
                    until(lambda: server.service.engine.accepted == 2)
                until(lambda: server.service.engine.accepted == 1)
            gate.open.set()
            assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert server.serves(small)
        assert server.metric('mien_pictures_total{result="read"}') == 2
        assert server.metric('mien_requests_total{path="/v1/predict",status="499"}') == 3


def test_stopping_finishes_what_is_accepted_and_refuses_new(small: bytes, gate: Gate) -> None:
    with serving(create_app(Reader(detector=gate))) as server, ThreadPoolExecutor(3) as pool:
        accepted = [pool.submit(server.ask, "/v1/predict", small) for _ in range(3)]
        until(lambda: server.service.engine.accepted == 3)
        server.server.stop()
        until(lambda: refused(server))
        assert not any(future.done() for future in accepted)
        gate.open.set()
        assert [future.result().status for future in accepted] == [200] * 3


def refused(server: Running) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_fault_of_the_detector_is_a_problem_and_no_end(small: bytes, caplog: pytest.LogCaptureFixture) -> None:
    class Faulty:
        name = "faulty"
        broken = True

        def __call__(self, pixels: np.ndarray) -> list[object]:  # noqa: ARG002
            if self.broken:
                raise RuntimeError("out of order")
            return []

    detector = Faulty()
    with serving(create_app(Reader(detector=detector))) as server:
        answer = server.ask("/v1/predict", small)
        assert (answer.status, "out of order" in answer.json()["detail"]) == (500, False)
        assert "out of order" in caplog.text
        assert server.form("/v1/predict", ("a", small), ("b", small)).json()["readings"][0]["error"]
        detector.broken = False
        assert server.serves(small)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"queue": 0}, "--queue counts from 1"),
        ({"max_bytes": -1}, "--max-bytes counts from 1"),
        ({"timeout": 0}, "--timeout is a number of seconds above 0"),
        ({"idle": float("nan")}, "--idle is a number"),
        ({"streams": -1}, "--streams counts from 0"),
        ({"queue": 4, "max_images": 5}, "does not fit into --queue 4"),
    ],
)
def test_limits_that_let_nothing_through_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(MienError, match=words):
        Limits(**wrong)  # type: ignore[arg-type]
