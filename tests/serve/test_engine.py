"""Under overload, the server refuses new requests in time, finishes accepted ones, and stops in order."""

import gc
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Box, MienError, Reader
from mien._face import Detection
from mien.serve import Limits, create_app
from mien.serve.problems import TooSlowError, to_problem
from support.encoded_images import encode
from support.http_server import LIMITS, Gate, Response, RunningServer, head, read_all, serving, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving(create_app(Reader(detector="none"), limits=LIMITS)) as running:
        yield running


def test_a_full_queue_responds_with_503_and_retry_after(small: bytes, gate: Gate) -> None:
    app = create_app(Reader(detector=gate), limits=Limits(queue=3, max_images=3))
    with serving(app) as server, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(server.request, "/v1/predict", small) for _ in range(2)]
        wait_until(lambda: server.service.engine.accepted == 2)
        too_many = server.form("/v1/predict", ("a", small), ("b", small))
        assert (too_many.status, "2 of 3 images" in too_many.json()["detail"]) == (503, True)
        assert int(too_many.headers["retry-after"]) >= 1
        waiting.append(pool.submit(server.request, "/v1/predict", small))
        wait_until(lambda: server.service.engine.accepted == 3)
        assert server.request("/v1/predict", small).status == 503
        assert server.request("/v1/explain", small).status == 503
        assert (server.request("/readyz").status, server.request("/healthz").status) == (503, 200)
        assert server.metric("mien_queue_images") == 3
        gate.open.set()
        assert [future.result().status for future in waiting] == [200] * 3
        assert server.reads(small)


def test_bodies_above_the_memory_limit_are_refused(gate: Gate) -> None:
    app = create_app(Reader(detector=gate), limits=Limits(max_bytes=10_000))
    with serving(app) as server:
        open_ones = [server.connect() for _ in range(8)]
        for connection in open_ones:
            connection.sendall(head(10_000) + bytes(9_999))
        wait_until(lambda: server.metric("mien_held_bytes") == 8 * 9_999)
        response = server.request("/v1/predict", bytes(9_999))
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        for connection in open_ones:
            connection.close()
        wait_until(lambda: server.metric("mien_held_bytes") == 0)


def test_bodies_count_as_held_until_their_images_are_decoded(gate: Gate, small: bytes) -> None:
    """Images that wait in the queue are in memory."""
    with serving(create_app(Reader(detector=gate))) as server, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(server.request, "/v1/predict", small) for _ in range(3)]
        wait_until(lambda: server.service.engine.accepted == 3)
        assert server.metric("mien_held_bytes") == 3 * len(small)
        gate.open.set()
        assert [future.result().status for future in waiting] == [200] * 3
        assert server.reads(small)


def test_expect_100_continue_is_refused_before_the_body(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(head(10**7, more="Expect: 100-continue\r\n"))
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in received


def test_images_that_wait_too_long_get_504_and_are_dropped(small: bytes, gate: Gate) -> None:
    app = create_app(Reader(detector=gate), limits=Limits(timeout=1))
    with serving(app) as server, ThreadPoolExecutor(3) as pool:
        responses: list[Response] = list(pool.map(lambda _: server.request("/v1/predict", small), range(3)))
        assert [response.status for response in responses] == [504] * 3
        assert "no result within 1 s" in responses[0].json()["detail"]
        wait_until(lambda: server.service.engine.accepted == 1)  # one has begun; the others were cancelled
        gate.open.set()
        assert server.reads(small)
        assert server.metric('mien_images_total{result="read"}') == 2


def test_images_wait_for_memory_and_no_step_begins_after_504(astronaut: np.ndarray, gate: Gate) -> None:
    """The memory is enough for one of these images; the second waits for it longer than its request lasts."""
    limits = Limits(max_bytes=2_000_000, max_pixels=700_000, memory=8_400_000, timeout=2)
    image = encode(np.tile(astronaut, (1, 2, 1)))
    app = create_app(Reader(detector=gate), threads=2, limits=limits)
    with serving(app) as server, ThreadPoolExecutor(2) as pool:
        responses = [pool.submit(server.request, "/v1/predict", image)]
        wait_until(lambda: gate.waiting == 1)
        responses.append(pool.submit(server.request, "/v1/predict", image))
        wait_until(lambda: len(server.service.engine._since) == 2)
        assert [each.result().status for each in responses] == [504, 504]
        assert gate.calls == 1
        gate.open.set()
        assert server.reads(image)
        assert gate.calls == 2  # of the first image and the one that ``reads`` sent


def test_an_image_of_many_faces_keeps_its_thread_for_the_time_limit(reader: Reader, astronaut: np.ndarray) -> None:
    """The search takes a run of the network for each face; it ends when the request has its response."""
    faces = np.tile(astronaut[30:220, 150:300][::5, ::4], (20, 20, 1))
    with serving(create_app(reader, limits=Limits(timeout=0.2))) as server:
        assert server.request("/v1/predict", encode(faces)).status == 504
        wait_until(lambda: server.metric('mien_images_total{result="error"}') == 1)
        assert server.service.engine.accepted == 0


def test_a_reading_that_ends_itself_at_the_time_limit_has_the_status_of_the_limit() -> None:
    """The thread and the request look at the clock on their own; whichever is first, the status is 504."""
    assert to_problem(TooSlowError("reading takes longer than 0.2 s")).status == 504


def test_an_image_that_fails_leaves_the_memory_at_once(small: bytes) -> None:
    """The error of an image refers to its pixels, and is part of a cycle that only the garbage collector would end."""
    pixels: list[weakref.ref[np.ndarray]] = []

    def fail(image: np.ndarray) -> list[Detection]:
        pixels.append(weakref.ref(image))
        raise ValueError("no faces here")

    with serving(create_app(Reader(detector=fail))) as server:
        gc.disable()
        try:
            assert server.request("/v1/predict", small).status == 500
            wait_until(lambda: pixels[0]() is None)
        finally:
            gc.enable()


def test_overlays_of_many_faces_are_refused_before_they_are_drawn(small: bytes) -> None:
    class Crowd:
        name = "crowd"

        def __call__(self, pixels: np.ndarray) -> list[Detection]:
            height, width = pixels.shape[:2]
            return [Detection(Box(0, 0, width, height), 1.0, None)] * 31

    with serving(create_app(Reader(detector=Crowd()))) as server:
        refused = server.request("/v1/explain?size=1024", small)
        assert (refused.status, "overlays of 31 faces" in refused.json()["detail"]) == (422, True)
        assert server.request("/v1/explain?size=1024&format=png", small).status == 200


def test_a_server_whose_threads_are_all_stuck_is_not_ready(
    small: bytes, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.serve.engine._STUCK_SECONDS", 0.1)
    app = create_app(Reader(detector=gate), threads=2)
    with serving(app) as server, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(server.request, "/v1/predict", small)]
        wait_until(lambda: gate.waiting == 1)
        time.sleep(0.2)
        assert server.request("/readyz").status == 200
        waiting.append(pool.submit(server.request, "/v1/predict", small))
        wait_until(lambda: server.request("/readyz").json() == {"status": "busy"})
        gate.open.set()
        assert [future.result().status for future in waiting] == [200] * 2
        assert server.request("/readyz").status == 200


def test_a_stuck_image_delays_the_end_by_seconds_only(
    small: bytes, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mien.serve.server._STOP_SECONDS", 1)
    monkeypatch.setattr("mien.serve.app._STOP_SECONDS", 0.1)
    with ThreadPoolExecutor(2) as pool:
        with serving(create_app(Reader(detector=gate))) as server:
            waiting = [pool.submit(server.request, "/v1/predict", small) for _ in range(2)]
            wait_until(lambda: server.service.engine.accepted == 2)
        for response in [each.result() for each in waiting]:  # the gate is still closed
            assert (response.status, "stopping" in response.json()["detail"]) == (503, True)
    assert len(caplog.messages) == 1
    assert "Traceback" not in caplog.text


def test_images_of_disconnected_clients_are_dropped(small: bytes, gate: Gate) -> None:
    with serving(create_app(Reader(detector=gate))) as server:
        with server.connect() as first:
            first.sendall(head(len(small)) + small)
            wait_until(lambda: gate.waiting == 1)
            for _ in range(3):
                with server.connect() as connection:
                    connection.sendall(head(len(small)) + small)
                    wait_until(lambda: server.service.engine.accepted == 2)
                wait_until(lambda: server.service.engine.accepted == 1)
            gate.open.set()
            assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert server.reads(small)
        assert server.metric('mien_images_total{result="read"}') == 2
        assert server.metric('mien_requests_total{path="/v1/predict",status="499"}') == 3


def test_stopping_finishes_accepted_requests_and_refuses_new_ones(small: bytes, gate: Gate) -> None:
    with serving(create_app(Reader(detector=gate))) as server, ThreadPoolExecutor(3) as pool:
        accepted = [pool.submit(server.request, "/v1/predict", small) for _ in range(3)]
        wait_until(lambda: server.service.engine.accepted == 3)
        server.server.stop()
        wait_until(lambda: refused(server))
        assert not any(future.done() for future in accepted)
        gate.open.set()
        assert [future.result().status for future in accepted] == [200] * 3


def refused(server: RunningServer) -> bool:
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
        response = server.request("/v1/predict", small)
        assert (response.status, "out of order" in response.json()["detail"]) == (500, False)
        assert "out of order" in caplog.text
        assert server.form("/v1/predict", ("a", small), ("b", small)).json()["readings"][0]["error"]
        detector.broken = False
        assert server.reads(small)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"queue": 0}, "queue must be at least 1"),
        ({"max_bytes": -1}, "max_bytes must be at least 1"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"idle": float("nan")}, "idle must be a number"),
        ({"streams": -1}, "streams must be at least 0"),
        ({"queue": 4, "max_images": 5}, "must not exceed queue"),
        ({"connections": 0}, "connections must be at least 1"),
        ({"per_address": 0}, "per_address must be a share above 0"),
        ({"per_address": 2}, "per_address must be a share above 0"),
        ({"memory": 10**8}, "memory must be at least 600,000,000 bytes for 33,554,432 bytes and 50,000,000 pixels"),
    ],
)
def test_limits_that_would_refuse_every_request_are_errors(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(MienError, match=words):
        Limits(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_a_number_of_threads_that_reads_nothing_is_an_error(threads: int) -> None:
    with pytest.raises(MienError, match="threads is"):
        create_app(Reader(detector="none"), threads=threads)
