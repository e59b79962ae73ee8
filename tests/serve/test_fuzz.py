"""Mutated bodies, messages and frames: each gets one well-formed answer, and the server reads images afterwards."""

import contextlib
import json
import random
import re
import socket
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.serve import Limits, create_app
from support.http_server import BINARY, FORM, SECONDS, TEXT, RunningServer, form, frame, head, serving

ROUNDS = 80
PIECES = [b"\r\n", b"--", b"\0", b"\xff", b";", b"=", b"{", b"[", b"9" * 400, b"\\u0000", b": ", b"1e999", b"file"]
CLOSE = 8  # opcode of RFC 6455


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    limits = Limits(max_bytes=100_000, max_pixels=100_000, timeout=2, per_address=1)
    with serving(create_app(Reader(detector="none"), limits=limits)) as running:
        yield running


def mutated(data: bytes, generator: random.Random) -> bytes:
    """``data`` with one to four changes: bits, pieces that are cut out, repeated, moved or put in."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        at, end = sorted(generator.randint(0, len(changed)) for _ in range(2))
        end = min(end, at + generator.choice((1, 4, 64, 4096)))
        piece = bytes(changed[at:end])
        change = generator.randrange(5)
        if change == 0 and piece:
            changed[at] ^= 1 << generator.randrange(8)
        elif change == 1:
            del changed[at:end]
        elif change == 2:
            changed[at:at] = piece * generator.randint(1, 3)
        elif change == 3:
            changed[at:end] = piece[::-1]
        else:
            changed[at:at] = generator.choice(PIECES)
    return bytes(changed)


def assert_is_one_response(received: bytes) -> int:
    """The status of the one HTTP response that ``received`` is."""
    top, _, body = received.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+\r\n", top)
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", top)
    assert status, received[:200]
    assert length, received[:200]
    assert len(body) == int(length[1])
    assert json.loads(body)
    return int(status[1])


def answer(connection: socket.socket, sent: bytes, *, seconds: float = SECONDS) -> bytes:
    """What the server sends after ``sent`` until it closes, or pauses for ``seconds`` because it expects more."""
    with contextlib.suppress(OSError):
        connection.sendall(sent)
    connection.settimeout(seconds)
    parts = []
    with contextlib.suppress(TimeoutError, ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("seed", range(2))
def test_mutated_forms_get_one_response(
    server: RunningServer, small: bytes, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    generator = random.Random(seed)
    valid = form(("one.png", small), ("two.png", small))
    statuses = set()
    for _ in range(ROUNDS):
        body = mutated(valid, generator)
        with server.connect() as connection:
            sent = head(len(body), kind=FORM, more="Connection: close\r\n") + body
            statuses.add(assert_is_one_response(answer(connection, sent)))
    assert statuses <= {200, 400, 413, 415, 422}
    assert {200, 400} <= statuses
    assert server.reads(small)
    assert caplog.messages == []


def test_mutated_requests_get_one_response_or_none(server: RunningServer, small: bytes) -> None:
    """A request whose end does not arrive gets none here: the test does not wait for its 408."""
    generator = random.Random(2)
    valid = head(len(small), more="Connection: close\r\n") + small
    split = valid.index(b"\r\n\r\n") + 4
    answered = 0
    for _ in range(ROUNDS):
        with server.connect() as connection:
            received = answer(connection, mutated(valid[:split], generator) + small, seconds=0.2)
        if received:
            answered += 1
            assert re.match(rb"HTTP/1\.1 [2345]\d\d ", received), received[:200]
    assert answered > ROUNDS / 2
    assert server.reads(small)


def frames_of(received: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of each frame of the server."""
    while received:
        size, at = received[1], 2
        assert size < 127  # larger ones would be of 64 kB and more
        if size == 126:
            size, at = int.from_bytes(received[2:4], "big"), 4
        assert len(received) >= at + size
        yield received[0] & 15, received[at : at + size]
        received = received[at + size :]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_mutated_messages_get_results_or_one_close(
    server: RunningServer, small: bytes, opcode: int, caplog: pytest.LogCaptureFixture
) -> None:
    """First the payload is mutated, then the whole frame, header included."""
    generator = random.Random(opcode)
    valid = b'{"every": 3, "smooth": 0.5, "maps": true}' if opcode == TEXT else small
    for number in range(ROUNDS):
        payload = mutated(valid, generator)
        sent = frame(opcode, payload) if number % 2 else mutated(frame(opcode, valid), generator)
        with server.upgrade() as connection:
            received = answer(connection, sent + frame(CLOSE, b"\x03\xe8"), seconds=0.2)
        for kind, data in frames_of(received):
            if kind == TEXT:
                assert json.loads(data)["received"] >= 0
            elif kind == CLOSE:
                assert int.from_bytes(data[:2], "big") in (1000, 1002, 1003, 1007, 1009)
            else:
                assert kind == 10, kind
    assert server.reads(small)
    assert caplog.messages == []
