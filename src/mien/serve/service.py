"""State that all endpoints of one server share, and the steps from a request to its readings as JSON and PNG."""

import asyncio
import base64
import io
import ipaddress
import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from mien._emotions import Emotion
from mien._face import Face, Reading
from mien.overlay import map_over_crop
from mien.serve.auth import Access
from mien.serve.engine import Engine, Limits, Metrics, TimedReading, Upload
from mien.serve.problems import Problem, stopping
from mien.serve.uploads import Body, HeldBytes

_T = TypeVar("_T")
_PNG_LEVEL = 3  # of 9: takes a third of the time of the default 6, files are a tenth larger


class Slots:
    """Counts what is open, in all and for each network."""

    def __init__(self, limit: int, share: float) -> None:
        """Start with nothing open.

        Args:
            limit: Largest number in all.
            share: Share of it that one network may use, from 0 to 1; at least one.
        """
        self.limit = limit
        self._each = max(1, int(limit * share))
        self._open: Counter[str] = Counter()

    def take(self, network: str) -> bool:
        """Open one more if there is room for it.

        Args:
            network: Where it comes from, as ``network_of`` returns it.

        Returns:
            Whether there was room.
        """
        fits = self._open.total() < self.limit and self._open[network] < self._each
        self._open[network] += fits
        return fits

    def give(self, network: str) -> None:
        """Close one.

        Args:
            network: Where it came from.
        """
        self._open[network] -= 1
        self._open += Counter()  # without networks that have nothing open

    def __str__(self) -> str:
        return f"{self._open.total()} of {self.limit} (one address: {self._each})"


def network_of(client: Sequence[object] | None) -> str:
    """Return the network of a client: an IPv4 address, or the first 64 bits of an IPv6 address.

    Args:
        client: Its address and port; ``None`` or empty if unknown.

    Returns:
        A key that other addresses of the same client share.
    """
    name = str(client[0]) if client else ""
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or int(address) >> 64)
    return name


@dataclass(eq=False)
class Service:
    """Shared state of the endpoints.

    Attributes:
        engine: Reads the images.
        limits: Limits of requests and streams.
        metrics: Prometheus metrics.
        access: Rules of access.
        held: Counts the bytes that are received and not decoded.
        connections: Open connections, streams included.
        streams: Open streams.
        draining: Whether the server is stopping and accepts nothing new.
    """

    engine: Engine
    limits: Limits
    metrics: Metrics
    access: Access
    held: HeldBytes
    connections: Slots
    streams: Slots
    draining: bool = False

    async def read(
        self, request: Request, *, max_images: int | None = None
    ) -> "tuple[list[str], list[Future[TimedReading]]]":
        """Read the images in a request's body.

        Args:
            request: The request.
            max_images: Largest number of images that this endpoint takes; ``None``: the server's limit.

        Returns:
            The names of the images, and a finished future for each.

        Raises:
            Problem: The images cannot be received (see ``Body.images``) or put into the queue, or 504: the time limit.
            ConnectionError: The client has left.
        """
        with Body(Headers(scope=request.scope), request.receive, limits=self.limits, held=self.held) as body:
            uploads = await self._receive(body)
            if max_images is not None and len(uploads) > max_images:
                raise Problem(422, f"this path takes {max_images} image, not {len(uploads)}; send a request for each")
            names = [upload.name for upload in uploads]
            futures = self.engine.read(uploads)
            del uploads  # the engine releases the bytes once they are decoded
            await self.wait(futures, request.receive)
        return names, futures

    async def _receive(self, body: Body) -> list[Upload]:
        started = time.perf_counter()
        try:
            if self.draining:
                raise stopping()
            self.engine.check()
            uploads = await body.images()
        except Problem as problem:
            await body.drain()
            if not body.ended:  # more may come: end the connection after the response
                problem.headers["Connection"] = "close"
            raise
        self.metrics.stages["receive"].observe(time.perf_counter() - started)
        return uploads

    async def wait(self, futures: "Sequence[Future[_T]]", receive: Receive) -> None:
        """Wait until all futures are done; on failure, cancel those that are still waiting.

        Args:
            futures: Futures of the engine.
            receive: ASGI channel of the request, after the end of its body.

        Raises:
            Problem: 504, the time limit.
            ConnectionError: The client has left.
        """

        async def disconnected() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        leaving = asyncio.ensure_future(disconnected())
        results = asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        # Without this, asyncio logs the cancellation.
        results.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait((results, leaving), timeout=self.limits.timeout, return_when=asyncio.FIRST_COMPLETED)
            if results.done():
                return
            if leaving.done():
                raise ConnectionError("the client has left")
            raise Problem(504, f"no result within {self.limits.timeout:g} s; send fewer or smaller images")
        finally:
            leaving.cancel()
            results.cancel()


def json_response(value: dict[str, Any], status: int = 200) -> Response:
    """Return a JSON response.

    Args:
        value: JSON values.
        status: HTTP status.

    Returns:
        The response.
    """
    return Response(json.dumps(value, ensure_ascii=False, separators=(",", ":")), status, media_type="application/json")


def reading_dict(timed: TimedReading, *, maps: bool) -> dict[str, Any]:
    """Convert a reading to JSON values.

    Args:
        timed: The reading and its durations.
        maps: Add the saliency maps of every face (see ``maps_dict``).

    Returns:
        ``Reading.to_dict()`` with ``timings_ms``.
    """
    reading = timed.reading
    values = reading.to_dict()
    values["timings_ms"] = {stage: round(1000 * seconds, 2) for stage, seconds in timed.seconds.items()}
    if maps:
        for face, face_values in zip(reading.faces, values["faces"], strict=True):
            face_values.update(maps_dict(face))
    return values


def failed_dict(name: str, error: str) -> dict[str, Any]:
    """Convert the error of one image among several to the JSON values of a reading.

    Args:
        name: Name of the image.
        error: Why it could not be read.

    Returns:
        A reading without faces.
    """
    return {**Reading((), name, (0, 0), error=error).to_dict(), "timings_ms": {}}


def maps_dict(face: Face) -> dict[str, Any]:
    """Convert the saliency maps of a face to a few hundred bytes.

    Args:
        face: The face; its maps are ``[C, h, w]``.

    Returns:
        ``maps``, ``to_image`` (affine ``[2, 3]`` from crop pixels ``(x, y, 1)`` to the image) and ``crop_size`` (a map
        spans 0..``crop_size`` of the crop). ``maps["data"]`` is base64 of bytes ``[C, h, w]``: each map is scaled to
        0..255 of its own peak, negative values are 0.
    """
    positive = np.maximum(face.maps, 0)
    peaks = positive.max(axis=(1, 2))
    scaled = np.rint(positive * (255 / np.maximum(peaks, 1e-12))[:, None, None]).astype(np.uint8)
    return {
        "maps": {
            "emotions": [str(emotion) for emotion in face.probs],
            "shape": list(scaled.shape),
            "peaks": [round(float(peak), 4) for peak in peaks],
            "data": _base64(scaled.tobytes()),
        },
        "to_image": [[round(float(value), 4) for value in row] for row in face.to_image],
        "crop_size": face.crop.shape[0],
    }


def overlay_png(face: Face, emotion: Emotion, *, size: int) -> bytes:
    """Draw the saliency map of an emotion over the crop of a face.

    Args:
        face: The face.
        emotion: The emotion of the map.
        size: Side of the square image in pixels.

    Returns:
        A PNG file.
    """
    stream = io.BytesIO()
    Image.fromarray(map_over_crop(face, emotion, size=size)).save(stream, "PNG", compress_level=_PNG_LEVEL)
    return stream.getvalue()


def explained_dict(face: Face, emotion: Emotion, png: bytes) -> dict[str, Any]:
    """Convert a face with the saliency map of one emotion to JSON values.

    Args:
        face: The face.
        emotion: The emotion of the overlay.
        png: The overlay, a PNG file.

    Returns:
        ``Face.to_dict()`` with the maps, the emotion and the overlay in base64.
    """
    return {**face.to_dict(), **maps_dict(face), "explained": str(emotion), "overlay_png": _base64(png)}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
