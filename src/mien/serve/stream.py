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
from dataclasses import replace
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from mien._errors import ImageError, MienError
from mien.decode import decode
from mien.serve.answers import maps_dict
from mien.serve.engine import Named, Sent
from mien.serve.guard import bearer
from mien.serve.problems import Problem
from mien.serve.service import Service
from mien.serve.wish import BAD_MESSAGE, REFUSED, Wish, message_of, pairs_of, wish_of
from mien.stream import Tracker

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
