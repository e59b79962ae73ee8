"""State that all endpoints of one server share, and the steps from a request to its readings."""

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive

from mien.serve.auth import Access
from mien.serve.engine import Engine, Limits, Metrics, TimedReading, Upload
from mien.serve.problems import Problem, stopping
from mien.serve.uploads import Body, HeldBytes

_T = TypeVar("_T")


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
