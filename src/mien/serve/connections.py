"""One connection of a client: its limits, and the HTTP and WebSocket protocols that enforce them."""

import asyncio
import contextlib
from collections import deque
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.http11 import Request

from mien.serve.problems import Problem
from mien.serve.service import Service, network_of

KEEP_ALIVE_SECONDS = 30  # for which an idle connection stays open
_HEAD_SECONDS = 10.0  # in which the head of a request must arrive
_STALL_SECONDS = 10.0  # after which a response that the client does not take is given up
_MAX_OVERHEAD = 16_384  # bytes of a head, of the trailers, or of the extensions of one chunk
_MAX_HEADERS = 100
_MAX_PIPELINED = 8  # requests that wait for the response to an earlier one of their connection
_FIRST_BYTES = 8192  # of the first message of a WebSocket, before the server knows whether the client has the token
_MAX_FRAMES = 1000  # of a message, and messages that wait: each takes memory even if it is empty
_BAD_REQUEST = Problem(400, "this is not a request of HTTP/1.1; check the client")
_HEAD_TOO_LARGE = Problem(431, f"a head may have {_MAX_OVERHEAD:,} bytes and {_MAX_HEADERS} headers; send less")
_TOO_MANY_REQUESTS = Problem(400, "too many requests at once in one connection; wait for the responses")
_TOO_MANY_CONNECTIONS = Problem(503, "too many connections are open; try again in 1 s", headers={"Retry-After": "1"})


class _Connection:
    """The transport of one connection, for HTTP and for the WebSocket that it may become.

    It counts the connection and the bytes that it holds, ends it if the client reads nothing, and does nothing once
    it is closing: uvicorn would write to a closed transport, which raises an error.
    """

    def __init__(self, transport: asyncio.Transport, service: Service) -> None:
        self._transport, self._service = transport, service
        self.message = _Timeout(transport)  # in which a request, or its next part, must arrive
        self._stall = _Timeout(transport)
        self._full = self._stalled = self._lost = False
        self._held = 0
        self._network = network_of(transport.get_extra_info("peername"))
        self.counted = service.connections.take(self._network)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def hold(self, count: int) -> None:
        """Count ``count`` bytes as held by this connection. Raises ``Problem`` if there is no room for them."""
        if not self._lost:
            self._service.held.add(count - self._held)
            self._held = count

    def lost(self) -> None:
        self.message.stop()
        self._stall.stop()
        self.hold(0)
        self._lost = True
        if self.counted:
            self._service.connections.give(self._network)

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close once the client has read everything, or soon if it does not."""
        if not self._transport.is_closing():
            self._stall.start(_STALL_SECONDS)
            self._transport.close()

    def pause_reading(self) -> None:
        self._full = True
        self._update()

    def resume_reading(self) -> None:
        self._full = False
        self._update()

    def pause_writing(self) -> None:
        """Read nothing from a client that reads nothing: it would only get more responses."""
        self._stall.start(_STALL_SECONDS)
        self._stalled = True
        self._update()

    def resume_writing(self) -> None:
        if not self._transport.is_closing():
            self._stall.stop()
        self._stalled = False
        self._update()

    def _update(self) -> None:
        paused = self._full or self._stalled
        if not self._transport.is_closing() and paused == self._transport.is_reading():
            (self._transport.pause_reading if paused else self._transport.resume_reading)()


class _Counted(asyncio.Protocol):
    """What both protocols pass on to the connection."""

    transport: _Connection

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.transport.lost()

    def pause_writing(self) -> None:
        self.transport.pause_writing()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.transport.resume_writing()
        super().resume_writing()


class _LimitedProtocol(_Counted, HttpToolsProtocol):  # type: ignore[misc]
    """HTTP protocol with size limits and timeouts against slow or malicious clients."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._service: Service = self.config.app.state.service  # type: ignore[union-attr]
        connection = _Connection(transport, self._service)
        super().connection_made(connection)  # type: ignore[arg-type]
        self._overhead = 0  # bytes since the last complete head, piece of a body, or request
        self._in_head = self._in_message = False
        self._repeated = b""  # the head of a message that offers an upgrade which is ignored, without that offer
        self._refusal = _BAD_REQUEST
        self.transport.message.start(KEEP_ALIVE_SECONDS)
        if not connection.counted:
            self.send_400_response("", _TOO_MANY_CONNECTIONS)

    def data_received(self, data: bytes) -> None:
        self._overhead += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("")
        if self._overhead <= _MAX_OVERHEAD or self.transport.is_closing():
            return
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self.send_400_response("", _HEAD_TOO_LARGE)
        else:
            self.transport.abort()

    def _parse(self, data: bytes) -> None:
        """Parse bytes. After an offer to upgrade, the parser takes a body for something other than HTTP.

        Only WebSocket is accepted, and a server ignores other offers (RFC 9110, section 7.8): Java's client offers
        HTTP/2 with every request. uvicorn would lose the body, or read it as the next request.
        """
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            if self._repeated:
                self._parse(self._repeated + data[upgrade.args[0] :])
            elif self._should_upgrade():
                self.handle_websocket_upgrade()

    def send_400_response(self, msg: str, problem: Problem | None = None) -> None:  # noqa: ARG002
        """Respond with a problem without calling the application, and close the connection."""
        self.transport.write(_to_bytes(problem or self._refusal))
        self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        self.transport.message.stop()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._refuse(_TOO_MANY_REQUESTS)
        self.transport.message.start(_HEAD_SECONDS)
        self._in_head = self._in_message = True
        self._repeated = b""
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # after the head it is a trailer, which is ignored
            return
        if len(self.headers) >= _MAX_HEADERS:
            self._refuse(_HEAD_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.transport.message.start(self._service.limits.timeout + _HEAD_SECONDS)
        self._in_head = False
        self._overhead = 0
        if self.parser.should_upgrade() and not self._should_upgrade():
            others = [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
            if len(others) < len(self.headers):  # a CONNECT needs no such header
                version = self.parser.get_http_version().encode()
                target = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
                self._repeated = b"".join((target, *others, b"\r\n"))
                return
        if not self.url.startswith((b"/", b"*")):  # an absolute target names a server as well
            target = urlsplit(self.url).netloc.lower()
            hosts = [value.lower() for name, value in self.headers if name == b"host"]
            if target.removesuffix(b":80") not in [host.removesuffix(b":80") for host in hosts]:
                self.headers.append((b"host", target))  # two names are refused
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        if self.pipeline:  # it would be held until the requests before it have their responses
            self._refuse(_TOO_MANY_REQUESTS)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._repeated:
            return
        self._overhead = 0
        self._in_message = False
        super().on_message_complete()
        self._await_next()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_next()

    def _await_next(self) -> None:
        """Limit the time to the next request. uvicorn starts such a timer as well, but any byte stops it."""
        if not self._in_message:
            idle = self.cycle is not None and self.cycle.response_complete
            if idle:
                self.transport.message.start(KEEP_ALIVE_SECONDS)
            else:
                self.transport.message.stop()

    def _refuse(self, problem: Problem) -> None:
        """Stop parsing; uvicorn then calls ``send_400_response``."""
        self._refusal = problem
        raise ValueError(problem.detail)


class _LimitedSocket(_Counted, WebSocketsSansIOProtocol):  # type: ignore[misc]
    """WebSocket protocol that counts what it holds: parts of a frame or message, and messages that wait."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admitted = False
        self._waiting: deque[int] = deque()  # bytes of each message that waits
        self._waiting_bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:  # websockets refuses the handshake; uvicorn would leave it at that
            self.transport.write(b"".join(self.conn.data_to_send()) or _to_bytes(_BAD_REQUEST))
            self.transport.close()
        if self.transport.is_closing():
            self._discard()
        elif not self._admitted and not self._waiting and self._incomplete() > _FIRST_BYTES:
            self._fail(1009, f"the first message is limited to {_FIRST_BYTES} bytes")
        elif len(self.frames) > _MAX_FRAMES or len(self._waiting) > _MAX_FRAMES:
            self._fail(1009, f"more than {_MAX_FRAMES} frames at once; send fewer, larger ones")
        else:
            self._count()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["state"]["admit"] = self._admit  # called when the client may use the server

    def send_receive_event_to_app(self) -> None:
        try:
            if self.curr_msg_data_type == "text":
                b"".join(self.frames).decode()
        except UnicodeDecodeError:  # uvicorn would log a traceback
            self._fail(1007, "a text message must be UTF-8")
        if not self.close_sent:
            self._waiting.append(sum(map(len, self.frames)))
            self._waiting_bytes += self._waiting[-1]
        super().send_receive_event_to_app()

    async def send(self, message: ASGISendEvent) -> None:
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)
        if self.initial_response is not None:  # uvicorn would log an error after a refusal
            self.handshake_complete = True

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if message["type"] == "websocket.receive":
            self._waiting_bytes -= self._waiting.popleft()
            self._count()
        return message

    def handle_parser_exception(self) -> None:
        if self.conn.close_sent is None:  # a wrong frame before the response to the handshake
            self.transport.abort()
        else:
            super().handle_parser_exception()

    def shutdown(self) -> None:
        with contextlib.suppress(InvalidState):  # the client has closed already
            super().shutdown()
        self.transport.close()

    def _admit(self) -> None:
        self._admitted = True

    def _incomplete(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self.conn.reader.buffer) + (self.conn.current_size or 0)

    def _count(self) -> None:
        try:
            self.transport.hold(self._incomplete() + self._waiting_bytes)
        except Problem as problem:
            self._fail(1013, problem.detail)

    def _fail(self, code: int, reason: str) -> None:
        """Close the connection at once, and release what it holds."""
        if not self.close_sent:
            self.close_sent = True
            with contextlib.suppress(InvalidState):
                self.conn.send_close(code, reason)
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
            self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()
        self._discard()

    def _discard(self) -> None:
        self.conn.reader.discard()
        self.frames = []
        self.transport.hold(self._waiting_bytes)


def _to_bytes(problem: Problem) -> bytes:
    """The HTTP response to a request that does not reach the application; its connection ends."""
    response = problem.to_response()
    response.headers["connection"] = "close"
    head = b"".join(b"%b: %b\r\n" % pair for pair in response.raw_headers)
    status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
    return status + head + b"\r\n" + bytes(response.body)


class _Timeout:
    """Aborts a connection unless it is stopped in time."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


PROTOCOLS: dict[str, Any] = {"http": _LimitedProtocol, "ws": _LimitedSocket}  # arguments of uvicorn's configuration
