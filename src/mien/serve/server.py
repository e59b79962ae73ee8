"""Uvicorn for the application: socket, signals, and limits against slow or malicious clients."""

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
from mien.serve.service import Service

_KEEP_ALIVE_SECONDS = 30  # for which an idle connection stays open
_HEAD_SECONDS = 10.0  # in which the head of a request must arrive
_STALL_SECONDS = 10.0  # after which a response that the client does not take is given up
_MAX_OVERHEAD = 65_536  # bytes of a head, of the trailers, or of the extensions of one chunk
_BACKLOG = 512  # connections that wait to be accepted
_TOO_LONG = b"the head of a request is limited to 65,536 bytes; send fewer or shorter headers"
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_TOO_LONG), _TOO_LONG)
)


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Args:
        host: Name or address of this machine.
        port: Number of the port; with 0 the system chooses a free one.

    Returns:
        The socket.

    Raises:
        MienError: The address or port cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise MienError(_bind_error(OSError(errno.EADDRNOTAVAIL, ""), host, port)) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise MienError(_bind_error(error, host, port)) from error
    return listener


def _bind_error(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; choose another port, or port 0 for a free one"
    if error.errno == errno.EACCES:
        return f"port {port} requires the rights of an administrator; choose a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host {host} is not an address of this machine; choose 127.0.0.1 or one of its addresses"
    return f"cannot listen on port {port} of {host} ({error.strerror}); choose another host or port"


class Server(uvicorn.Server):
    """Uvicorn's server with an orderly stop: it accepts nothing new and finishes what it accepted.

    A second signal, if it is Ctrl-C, drops unfinished work.

    Attributes:
        signal: The first signal that stopped the server.
    """

    def __init__(self, app: FastAPI, *, started: Callable[[], None] | None = None) -> None:
        """Configure the server.

        Args:
            app: The application of ``create_app``.
            started: Called when the server accepts requests.
        """
        self._service: Service = app.state.service
        limits: Limits = self._service.limits
        config = uvicorn.Config(
            app,
            http=_LimitedProtocol,
            ws="websockets-sansio",
            ws_max_size=limits.max_bytes,
            ws_per_message_deflate=False,  # images are compressed already
            lifespan="on",
            log_config=None,
            access_log=False,  # uvicorn's would contain queries
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(2 * limits.timeout) + 5,
        )
        super().__init__(config)
        self.signal: int | None = None
        self._started = started
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every broken body

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then call ``started``.

        Args:
            sockets: The listening sockets.
        """
        await super().startup(sockets)
        if self._started is not None:
            self._started()

    def stop(self) -> None:
        """Finish what is accepted, then end. Any thread may call this."""
        self._service.draining = True
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Stop at the first signal. Only a later Ctrl-C forces the exit: service managers may send SIGTERM twice.

        Args:
            sig: Number of the signal.
            frame: Not used.
        """
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.signal = self.signal or sig
        self.stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does; a forced exit waits for no image and logs no cancelled task.

        Args:
            sockets: The listening sockets.
        """
        await super().shutdown(sockets)
        if self.force_exit:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            self._service.engine.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as uvicorn does, but do not raise them again: an orderly end is not an end by a signal."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class _LimitedProtocol(HttpToolsProtocol):
    """HTTP protocol with size limits and timeouts against slow or malicious clients."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head, self._stall = _Timeout(transport), _Timeout(transport)
        self._overhead = 0  # bytes since the last complete head, piece of a body, or request
        self._in_head = False
        self._head.start(_KEEP_ALIVE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.stop()
        self._stall.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead <= _MAX_OVERHEAD or self.transport.is_closing():
            return
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        else:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self._head.start(_HEAD_SECONDS)
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # after the head it is a trailer, which is ignored
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head.stop()
        self._in_head = False
        self._overhead = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._stall.start(_STALL_SECONDS)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stall.stop()
        super().resume_writing()


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
