"""``WS /v1/stream``: receives frames of a camera and sends frame results; each connection tracks its own faces.

A client may send frames faster than they are read: the newest frame waits, older ones are dropped and counted. A
connection therefore has at most two frames in memory: the one that is being read and the one that waits.
"""

import asyncio
import contextlib
import functools
import json
import logging
import time
from dataclasses import dataclass, replace
from typing import Any

from starlette.datastructures import QueryParams
from starlette.websockets import WebSocket, WebSocketDisconnect

from mien._errors import ImageError, MienError
from mien.serve.auth import bearer_token
from mien.serve.engine import Engine, Upload
from mien.serve.problems import Problem
from mien.serve.service import Service, maps_dict, network_of
from mien.video import Tracker

_log = logging.getLogger("mien.serve")

# Close codes of RFC 6455; 4408 is in the range for applications and follows the HTTP status 408.
_BAD_MESSAGE, _REFUSED, _FAILED, _FULL, _IDLE = 1003, 1008, 1011, 1013, 4408
_TOKEN_SECONDS = 5.0  # in which a connection must send its token
_MAX_MESSAGE = 4096  # characters of a text message
_MAX_OPTION = 1_000_000  # frames or seconds of an option: JSON integers have no limit
_TYPES: dict[str, tuple[type, ...]] = {"every": (int,), "smooth": (int, float), "maps": (bool,)}


@dataclass(frozen=True)
class StreamOptions:
    """Options of a stream.

    Attributes:
        every: Detect faces in the whole image on every n-th frame.
        smooth: Time constant of the smoothing in seconds.
        maps: Whether results contain saliency maps.
    """

    every: int = 3
    smooth: float = 0.5
    maps: bool = False

    def updated(self, values: dict[str, Any]) -> "StreamOptions":
        """Return these options with new values.

        Args:
            values: JSON values by name.

        Returns:
            The new options.

        Raises:
            Problem: 1003, an unknown name, or a value of a wrong type or size.
        """
        for name, value in values.items():
            if name not in _TYPES:
                raise Problem(_BAD_MESSAGE, f"{name[:40]!r} is unknown; a stream takes {', '.join(_TYPES)}")
            if type(value) not in _TYPES[name]:
                types = " or ".join(each.__name__ for each in _TYPES[name])
                raise Problem(_BAD_MESSAGE, f"{name} must be {types}, not {str(value)[:40]!r}")
            if type(value) is int and abs(value) > _MAX_OPTION:
                raise Problem(_BAD_MESSAGE, f"{name} must be at most {_MAX_OPTION:,}")
        return replace(self, **values)


class Stream:
    """One connection: a task that receives messages, and one that reads the newest frame."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        """Prepare to serve a connection.

        Args:
            socket: The connection, not accepted yet.
            service: Shared state of the endpoints.
        """
        self._socket = socket
        self._service = service
        self._received = self._dropped = 0
        self._newest: tuple[int, float, bytes] | None = None
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        """Serve the connection until it ends."""
        service = self._service
        await self._socket.accept()
        try:
            self._options = await self._admit()
            network = network_of(self._socket.scope["client"])
            if service.draining or not service.streams.take(network):
                raise Problem(_FULL, f"{service.streams} streams are open; try again later")
            self._socket.scope.get("state", {}).get("admit", bool)()  # of our protocol: frames may be large from now on
            try:
                with service.metrics.streams.track_inprogress():
                    await self._serve()
            finally:
                service.streams.give(network)
        except Problem as problem:
            await self._close(problem.status, problem.detail)
        except (WebSocketDisconnect, ConnectionError):
            pass
        except Exception:
            _log.exception("a stream failed")
            await self._close(_FAILED, "the server failed; its log has the details")

    async def _admit(self) -> StreamOptions:
        """Check the token, in a header or in the first message; return the options."""
        options, access = StreamOptions().updated(_query_values(self._socket)), self._service.access
        if access.admits(bearer_token(self._socket.headers)):
            return options
        try:  # browsers cannot send headers with a WebSocket
            async with asyncio.timeout(_TOKEN_SECONDS):
                values = _parse_message(await self._receive())
            token = values.pop("token")
        except (TimeoutError, Problem, KeyError) as error:  # nothing, a frame or no JSON, other options
            raise Problem(_REFUSED, 'this server requires its token; send {"token": "..."} first') from error
        if not access.admits(str(token)):
            raise Problem(_REFUSED, "the token is wrong; send the token that the server was started with")
        return options.updated(values)

    async def _serve(self) -> None:
        self._started = time.perf_counter()
        self._tracker = self._new_tracker(self._options)
        tasks = [asyncio.create_task(self._receive_messages()), asyncio.create_task(self._read_frames())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._release(self._newest)

    def _new_tracker(self, options: StreamOptions) -> Tracker:
        try:
            return Tracker(self._service.engine.reader, every=options.every, smooth=options.smooth)
        except MienError as error:
            raise Problem(_BAD_MESSAGE, str(error)) from error

    async def _receive(self) -> dict[str, Any]:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        return dict(message)

    async def _receive_messages(self) -> None:
        idle = self._service.limits.idle
        end = time.monotonic() + idle
        while True:
            try:
                async with asyncio.timeout(max(0, end - time.monotonic())):
                    message = await self._receive()
            except TimeoutError as error:
                raise Problem(_IDLE, f"no frame for {idle:g} s; open a new stream when there is one") from error
            if message.get("bytes") is not None:
                end = time.monotonic() + idle  # text messages alone do not keep a stream open
                self._keep(message["bytes"])
                await asyncio.sleep(0)  # other connections get their turn between many small frames
            else:
                values = _parse_message(message)
                values.pop("token", None)
                options = self._options.updated(values)
                # Tracking starts again only if an option of tracking changes.
                if replace(options, maps=self._options.maps) != self._options:
                    self._tracker = self._new_tracker(options)
                self._options = options

    def _keep(self, data: bytes) -> None:
        """Make a frame the newest; the one that waited, or this one if there is no memory for it, is dropped."""
        if self._newest is not None:
            self._release(self._newest)
            self._drop()
        self._newest = None
        try:
            self._service.held.add(len(data))
        except Problem:
            self._drop()
        else:
            self._newest = (self._received, time.perf_counter() - self._started, data)
            self._arrived.set()
        self._received += 1

    def _release(self, frame: tuple[int, float, bytes] | None) -> None:
        if frame is not None:
            self._service.held.add(-len(frame[2]))

    def _drop(self) -> None:
        self._dropped += 1
        self._service.metrics.frames["dropped"].inc()

    async def _read_frames(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            frame, self._newest = self._newest, None
            if frame is None:
                continue
            try:
                result = await self._read(*frame)
            finally:
                self._release(frame)
            del frame
            if result is not None:
                await self._socket.send_text(json.dumps(result, separators=(",", ":")))

    async def _read(self, number: int, seconds: float, data: bytes) -> dict[str, Any] | None:
        """Read a frame; ``None`` if the queue is full: the frame is dropped."""
        metrics, engine = self._service.metrics, self._service.engine
        work = functools.partial(_read_frame, engine, self._tracker, data, seconds, self._options.maps)
        counts = {"received": number, "dropped": self._dropped}
        started = time.perf_counter()
        try:
            result = await asyncio.wrap_future(engine.run(work))
        except Problem:
            self._drop()
            return None
        except ImageError as error:
            metrics.frames["error"].inc()
            return {**counts, "error": " ".join(str(error).split())}
        metrics.frames["read"].inc()
        metrics.faces.inc(len(result["faces"]))
        return {**result, **counts, "ms": round(1000 * (time.perf_counter() - started), 2)}

    async def _close(self, code: int, reason: str) -> None:
        # A reason has at most 123 bytes (RFC 6455, section 5.5).
        with contextlib.suppress(RuntimeError, ConnectionError, WebSocketDisconnect):
            await self._socket.close(code, reason.encode()[:123].decode("utf-8", "ignore"))


def _read_frame(engine: Engine, tracker: Tracker, data: bytes, seconds: float, maps: bool) -> dict[str, Any]:
    """Decode a frame and track its faces, in a thread of the engine."""
    with engine.decoded(Upload("frame", data).open()) as image:
        result = tracker.step(image.pixels, seconds)
    values = {**result.to_dict(), "size_wh": list(result.size_wh)}
    if maps:
        for face, face_values in zip(result.faces, values["faces"], strict=True):
            face_values.update(maps_dict(face.face))
    return values


def _query_values(socket: WebSocket) -> dict[str, Any]:
    """The options in the query; their values are JSON."""
    values: dict[str, Any] = {}
    for name, text in QueryParams(socket.scope["query_string"]).multi_items():
        if name == "token":
            raise Problem(_REFUSED, 'addresses end up in logs; send the token as a header or as {"token": "..."}')
        try:
            values[name] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Problem(_BAD_MESSAGE, f"{name[:40]} must be a number, true or false, not {text[:40]!r}") from error
    return values


def _parse_message(message: dict[str, Any]) -> dict[str, Any]:
    """The JSON object of a text message."""
    text = message.get("text") or ""
    try:
        values = json.loads(text) if len(text) <= _MAX_MESSAGE else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise Problem(_BAD_MESSAGE, 'a text message must be a JSON object such as {"every": 3, "smooth": 0.5}')
    return values
