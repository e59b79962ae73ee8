"""Uvicorn for the application: socket, signals, and an end within seconds."""

import contextlib
import ctypes
import errno
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mien._errors import MienError
from mien.serve.connections import KEEP_ALIVE_SECONDS, PROTOCOLS
from mien.serve.engine import Limits
from mien.serve.service import Service

_STOP_SECONDS = 5  # in which accepted requests are finished after a signal
_BACKLOG = 512  # connections that wait to be accepted
_M_MMAP_THRESHOLD = -3  # of malloc.h
_LOG_SECONDS = 60.0  # in which a warning appears once


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
        if os.name == "posix":  # on Windows, two servers could then share the port
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
            **PROTOCOLS,
            ws_max_size=limits.max_bytes,
            ws_per_message_deflate=False,  # images are compressed already
            lifespan="on",
            log_config=None,
            access_log=False,  # uvicorn's would contain queries
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
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
        """Stop as uvicorn does; a forced exit logs no cancelled task.

        Args:
            sockets: The listening sockets.
        """
        await super().shutdown(sockets)
        if self.force_exit:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

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


def return_large_blocks() -> None:
    """Make the C library return each freed block of 1 MB or more to the system.

    By default glibc raises this bound to 32 MB, and keeps twice the memory that the largest images took at a time.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems than Linux with glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)


class FewLines(logging.Filter):
    """Passes one warning a minute from each place in the code: clients may cause any number of them."""

    def __init__(self) -> None:
        """Start with nothing left out."""
        super().__init__()
        self._places: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record.

        Args:
            record: The record; if others were left out before it, their number is added to its message.
        """
        if record.levelno < logging.WARNING:
            return True
        place, now = (record.pathname, record.lineno), time.monotonic()
        last, left_out = self._places.get(place, (-math.inf, 0))
        passes = now - last >= _LOG_SECONDS
        self._places[place] = (now, 0) if passes else (last, left_out + 1)
        if passes and left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like this were left out)", ()
        return passes
