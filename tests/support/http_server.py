"""A real server in a thread, on a port chosen by the system, and helpers for its clients."""

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import FastAPI

from mien import Box
from mien._face import Detection
from mien.serve import Limits
from mien.serve.server import Server, bind
from mien.serve.service import Service

BOUNDARY = "mien-boundary"
HANDSHAKE = (
    "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)
TEXT, BINARY, CONTINUATION, PING = 1, 2, 0, 9  # opcodes of RFC 6455
# Tight limits, for the tests of limits.
LIMITS = Limits(max_bytes=100_000, max_pixels=10_000, max_images=3, timeout=20, queue=6)
SECONDS = 20.0  # after which a test that waits gives up


@dataclass(frozen=True)
class Response:
    """A response of the server."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body's value; a problem must have the shape of RFC 9457."""
        value = json.loads(self.body)
        if self.headers["content-type"] == "application/problem+json":
            assert set(value) == {"type", "title", "status", "detail"}
            assert value["status"] == self.status
            assert value["detail"]
            assert "\n" not in value["detail"]
        return value


@dataclass
class RunningServer:
    """A running server."""

    port: int
    service: Service
    server: Server

    def request(
        self,
        path: str,
        body: bytes | None = None,
        *,
        method: str | None = None,
        kind: str | None = "application/octet-stream",
        **headers: str,
    ) -> Response:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if body is not None and kind is not None:
                sent["Content-Type"] = kind
            connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            return Response(response.status, received, response.read())
        finally:
            connection.close()

    def form(self, path: str, *files: tuple[str, bytes], field: str = "file", **headers: str) -> Response:
        """A multipart form of these files, name and bytes."""
        return self.request(path, form(*files, field=field), kind=FORM, **headers)

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """A plain TCP connection from an address of this machine."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS, source_address=(source, 0))

    def upgrade(self, more: str = "") -> socket.socket:
        """A TCP connection after the handshake of a stream."""
        connection = self.connect()
        connection.sendall(f"{HANDSHAKE}{more}\r\n".encode())
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            received += connection.recv(1)
        assert received.startswith(b"HTTP/1.1 101 ")
        return connection

    def reads(self, image: bytes) -> bool:
        """Whether the server has released all earlier requests and still reads images."""
        wait_until(lambda: self.service.engine.accepted == 0)
        wait_until(lambda: self.metric("mien_held_bytes") == 0)
        return self.request("/v1/predict", image).status == 200

    def metric(self, line: str) -> float:
        """The value of a series of /metrics; 0 if it does not exist yet."""
        for each in self.request("/metrics").body.decode().splitlines():
            name, _, value = each.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0


FORM = f"multipart/form-data; boundary={BOUNDARY}"


def form(*files: tuple[str, bytes], field: str = "file") -> bytes:
    """The body of a multipart form."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@contextmanager
def serving(app: FastAPI) -> Iterator[RunningServer]:
    """``app`` on a free port of this machine, until the block ends."""
    started = threading.Event()
    with bind("127.0.0.1", 0) as listener:
        server = Server(app, started=started.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        port = listener.getsockname()[1]
        thread.start()
        try:
            assert started.wait(SECONDS)
            yield RunningServer(port, app.state.service, server)
        finally:
            server.stop()
            thread.join(SECONDS)
            assert not thread.is_alive()


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until ``condition()`` is true; fail after ``SECONDS``."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.005)


def read_all(connection: socket.socket) -> bytes:
    """Everything received until the other side closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@dataclass
class Gate:
    """A detector that waits until its gate opens, and then reports the whole image as a face."""

    name = "gate"
    open: threading.Event = field(default_factory=threading.Event)
    waiting: int = 0
    calls: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, pixels: np.ndarray) -> list[Detection]:
        with self._lock:
            self.waiting += 1
            self.calls += 1
        assert self.open.wait(SECONDS)
        with self._lock:
            self.waiting -= 1
        height, width = pixels.shape[:2]
        return [Detection(Box(0, 0, width, height), 1.0, None)]


def frame(opcode: int, data: bytes, *, length: int | None = None, final: bool = True) -> bytes:
    """A WebSocket frame whose header announces ``length`` bytes, those of ``data`` if ``None``."""
    size = struct.pack("!BQ", 0xFF, len(data) if length is None else length)
    return bytes([opcode | 0x80 * final]) + size + bytes(4) + data


def head(length: int | None, *, kind: str = "image/png", more: str = "") -> bytes:
    """The head of a request with an image; without a ``length`` its body is chunked."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{size}\r\n{more}\r\n".encode()
