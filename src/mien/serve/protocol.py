"""Uvicorn's HTTP for senders that mean ill: connections that dawdle, heads and trailers without end."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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
