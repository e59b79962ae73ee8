"""``WS /v1/stream``: frames of a camera in, moments out; every connection follows its own faces.

A client that sends faster than frames are read loses the older ones: the newest waits, the others are counted as
dropped. A connection so holds one frame that is read and one that waits, however fast it sends.
"""

import asyncio
import contextlib
import functools
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from starlette.datastructures import QueryParams
from starlette.websockets import WebSocket, WebSocketDisconnect

from mien._errors import ImageError, MienError
from mien.decode import decode
from mien.serve.auth import bearer
from mien.serve.engine import Named, Sent
from mien.serve.problems import Problem
from mien.serve.responses import maps_dict
from mien.serve.service import Service
from mien.video import Tracker

BAD_MESSAGE, REFUSED = 1003, 1008  # close codes of RFC 6455


_LONGEST = 4096  # characters of a text message


_MOST = 1_000_000  # frames or seconds that a wish may name: Python's whole numbers have no end


@dataclass(frozen=True)
class Wish:
    """How a connection wants its faces followed."""

    every: int = 3
    smooth: float = 0.5
    maps: bool = False


def pairs_of(query: bytes) -> dict[str, Any]:
    """The wishes in a query: numbers and flags as JSON spells them. Raises ``Problem`` with a close code."""
    said: dict[str, Any] = {}
    for name, value in QueryParams(query).multi_items():
        if name == "token":
            raise Problem(REFUSED, 'an address stands in logs: send the token as a header or as {"token": "..."}')
        try:
            said[name] = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Problem(BAD_MESSAGE, f"{name[:40]} is a number, true or false, not {value[:40]!r}") from error
    return said


def message_of(text: str) -> dict[str, Any]:
    """The JSON object of a text message. Raises ``Problem`` with a close code."""
    try:
        said = json.loads(text) if len(text) <= _LONGEST else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Problem(BAD_MESSAGE, 'a text message is a JSON object such as {"every": 3, "smooth": 0.5}')
    return said


def wish_of(said: dict[str, Any], before: Wish | None = None) -> Wish:
    """``before`` (or the usual wish) with what is ``said``. Raises ``Problem`` for a value of another type or size."""
    kinds = {"every": (int,), "smooth": (int, float), "maps": (bool,)}
    for name, value in said.items():
        if name not in kinds:
            raise Problem(BAD_MESSAGE, f"{name[:40]!r} is unknown; a stream takes {', '.join(kinds)}")
        if type(value) not in kinds[name]:
            words = " or ".join(kind.__name__ for kind in kinds[name])
            raise Problem(BAD_MESSAGE, f"{name} is {words}, not {str(value)[:40]!r}")
        if type(value) is int and abs(value) > _MOST:
            raise Problem(BAD_MESSAGE, f"{name} is at most {_MOST:,}")
    return replace(before or Wish(), **said)


log = logging.getLogger("mien.serve")


# Close codes: of RFC 6455 where one fits, else of the range kept for applications, after the status of HTTP.
FAILED, FULL, TOO_SLOW = 1011, 1013, 4408


_GREETING = 5.0  # seconds in which a connection must show its token


class Streams:
    """The path of streams."""

    def __init__(self, service: Service) -> None:
        """``service`` reads the frames."""
        self._service = service

    async def run(self, socket: WebSocket) -> None:
        """One connection, from its handshake to its end."""
        await socket.accept()
        try:
            wish = await self._admit(socket)
            with self._place():
                await _Connection(socket, self._service, wish).run()
        except Problem as problem:
            await _close(socket, problem.status, problem.detail)
        except (WebSocketDisconnect, ConnectionError):
            pass
        except Exception:
            log.exception("a stream failed")
            await _close(socket, FAILED, "the server failed; its log says why")

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """One of the streams that may be open; only who was admitted takes one."""
        service = self._service
        if service.draining or service.streams >= service.limits.streams:
            raise Problem(FULL, f"{service.streams} of {service.limits.streams} streams are open; try again later")
        service.streams += 1
        service.metrics.streams.inc()
        try:
            yield
        finally:
            service.streams -= 1
            service.metrics.streams.dec()

    async def _admit(self, socket: WebSocket) -> Wish:
        """What the connection wishes, once it has shown the token."""
        wish = wish_of(pairs_of(socket.scope["query_string"]))
        if not self._service.access.admits(bearer(socket.headers)):
            wish = await self._greet(socket, wish)
        return wish

    async def _greet(self, socket: WebSocket, wish: Wish) -> Wish:
        """Wait for the message that shows the token: browsers cannot send headers with a WebSocket."""
        try:
            async with asyncio.timeout(_GREETING):
                message = await _receive(socket)
        except TimeoutError as error:
            raise Problem(REFUSED, 'this server wants its token; send {"token": "..."} first') from error
        said = message_of(message.get("text") or "")
        if not self._service.access.admits(str(said.pop("token", ""))):
            raise Problem(REFUSED, "the token is wrong; it is what the server was started with")
        return wish_of(said, wish)


class _Connection:
    """One stream: a task that receives, and the loop that reads the newest frame."""

    def __init__(self, socket: WebSocket, service: Service, wish: Wish) -> None:
        self._socket = socket
        self._service = service
        self._started = time.perf_counter()
        self._received = self._dropped = 0
        self._newest: tuple[int, float, bytes] | None = None
        self._arrived = asyncio.Event()
        self._wish, self._tracker = wish, self._track(wish)

    def _set(self, wish: Wish) -> None:
        """Follow as wished from now on; whom it follows is forgotten only where the following itself changes."""
        if replace(wish, maps=self._wish.maps) != self._wish:
            self._tracker = self._track(wish)
        self._wish = wish

    def _track(self, wish: Wish) -> Tracker:
        try:
            return Tracker(self._service.engine.reader, every=wish.every, smooth=wish.smooth)
        except MienError as error:
            raise Problem(BAD_MESSAGE, str(error)) from error

    async def run(self) -> None:
        receiving = asyncio.create_task(self._receive())
        reading = asyncio.create_task(self._read())
        try:
            done, _ = await asyncio.wait((receiving, reading), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (receiving, reading):
                task.cancel()
            await asyncio.gather(receiving, reading, return_exceptions=True)

    async def _receive(self) -> None:
        idle = self._service.limits.idle
        end = time.monotonic() + idle
        while True:
            try:
                async with asyncio.timeout(max(0, end - time.monotonic())):
                    message = await _receive(self._socket)
            except TimeoutError as error:
                detail = f"no frame for {idle:g} s; open the stream again when there is one"
                raise Problem(TOO_SLOW, detail) from error
            if message.get("bytes") is not None:
                end = time.monotonic() + idle  # words alone keep no stream open
                self._take(message["bytes"])
            else:
                said = message_of(message.get("text") or "")
                said.pop("token", None)
                self._set(wish_of(said, self._wish))

    def _take(self, data: bytes) -> None:
        if self._newest is not None:
            self._drop()
        self._newest = (self._received, time.perf_counter() - self._started, data)
        self._received += 1
        self._arrived.set()

    def _drop(self) -> None:
        self._dropped += 1
        self._service.metrics.frames["dropped"].inc()

    async def _read(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            if self._newest is None:
                continue
            (number, seconds, data), self._newest = self._newest, None
            answer = await self._answer(number, seconds, data)
            del data
            if answer is not None:
                await self._socket.send_text(json.dumps(answer, separators=(",", ":")))

    async def _answer(self, number: int, seconds: float, data: bytes) -> dict[str, Any] | None:
        """What is said of a frame; nothing when the queue is full, which drops it."""
        metrics = self._service.metrics
        limits = self._service.limits
        work = functools.partial(_step, self._tracker, data, seconds, self._wish.maps, limits.max_pixels)
        counted = {"received": number, "dropped": self._dropped}
        begun = time.perf_counter()
        try:
            moment = await asyncio.wrap_future(self._service.engine.run(work))
        except Problem:
            self._drop()
            return None
        except ImageError as error:
            metrics.frames["error"].inc()
            return {**counted, "error": " ".join(str(error).split())}
        metrics.frames["read"].inc()
        metrics.faces.inc(len(moment["faces"]))
        return {**moment, **counted, "ms": round(1000 * (time.perf_counter() - begun), 2)}


def _step(tracker: Tracker, data: bytes, seconds: float, maps: bool, max_pixels: int) -> dict[str, Any]:
    """One frame, in a thread of the engine."""
    moment = tracker.step(decode(Named(Sent("frame", data)), max_pixels=max_pixels).pixels, seconds)
    said = {**moment.to_dict(), "size_wh": list(moment.size_wh)}
    if maps:
        for face, plain in zip(moment.faces, said["faces"], strict=True):
            plain.update(maps_dict(face.face))
    return said


async def _receive(socket: WebSocket) -> dict[str, Any]:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    return dict(message)


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    # A reason has room for 123 bytes (RFC 6455, section 5.5).
    with contextlib.suppress(RuntimeError, ConnectionError, WebSocketDisconnect):
        await socket.close(code, reason.encode()[:123].decode("utf-8", "ignore"))
