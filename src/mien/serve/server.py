"""Uvicorn around the application: the socket, and signals."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mien._errors import MienError
from mien.serve.engine import Limits

KEEP_ALIVE = 30  # seconds for which an idle connection stays open


_HEAD = 10.0  # seconds in which a request's head must arrive


_ANSWER = 10.0  # seconds in which an answer must move on that its reader does not take


_MOST = 65_536  # bytes of a head, of the trailers, or of one chunk's extensions


_TOO_LONG = b"the head of a request is limited to 65,536 bytes; send fewer or shorter headers"


_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_TOO_LONG), _TOO_LONG)
)


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP with bounds that it does not have: it waits for a head without end, and keeps all of it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection: its first request may be a while in coming."""
        super().connection_made(transport)
        self._head, self._answer = _Patience(transport), _Patience(transport)
        self._overhead = 0  # bytes since a head was whole, a piece of a body came, or a request ended
        self._in_head = False
        self._head.start(KEEP_ALIVE)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._head.stop()
        self._answer.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as long as it leads to something."""
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > _MOST and not self.transport.is_closing():
            self._refuse()

    def _refuse(self) -> None:
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(_REFUSAL)
            self.transport.close()
        else:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head.start(_HEAD)
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; after the head it is a trailer, which nobody reads."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head.stop()
        self._in_head = False
        self._overhead = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._overhead = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The answer does not leave: its reader dawdles."""
        self._answer.start(_ANSWER)
        super().pause_writing()

    def resume_writing(self) -> None:
        """It leaves again."""
        self._answer.stop()
        super().resume_writing()


class _Patience:
    """Aborts a connection when what it waits for does not come in time."""

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


_BACKLOG = 512  # connections that wait to be taken


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; ``port`` 0 lets the system choose. Raises ``MienError`` that says why it cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise MienError(f"--host {host} is no address of this machine; take 127.0.0.1 or an address it has") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise MienError(_why(error, host, port)) from error
    return listener


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; choose another with --port, or --port 0 for a free one"
    if error.errno == errno.EACCES:
        return f"port {port} needs the rights of an administrator; choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is no address of this machine; take 127.0.0.1 or an address it has"
    return f"cannot listen on port {port} of {host} ({error.strerror}); choose another with --host or --port"


class Server(uvicorn.Server):
    """Uvicorn's server that drains: from the signal on nothing new is accepted, what is accepted is finished.

    Ctrl-C after that gives up what is not finished.
    """

    def __init__(self, app: FastAPI, *, started: Callable[[], None] | None = None) -> None:
        """``started`` is called when the first request can be answered."""
        limits: Limits = app.state.service.limits
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="websockets-sansio",
            ws_max_size=limits.max_bytes,
            ws_per_message_deflate=False,  # pictures are compressed already
            lifespan="on",
            log_config=None,
            access_log=False,  # uvicorn's would hold queries
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(2 * limits.timeout) + 5,
        )
        super().__init__(config)
        self.signal: int | None = None
        self._service = app.state.service
        self._started = started
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every broken body

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then says that it is there."""
        await super().startup(sockets)
        if self._started is not None:
            self._started()

    def stop(self) -> None:
        """Finish what is accepted, then end. May be called from any thread."""
        self._service.draining = True
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A signal: the first drains, Ctrl-C after it gives up. A manager may well send SIGTERM twice."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.signal = self.signal or sig
        self.stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; who gives up does not wait for pictures, nor reads of tasks that were cancelled."""
        await super().shutdown(sockets)
        if self.force_exit:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            self._service.engine.give_up()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but the signal is not raised again: what ends in order is no death by a signal."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
