"""State that all endpoints of one server share, and the steps from a request to its readings."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive

from mien.serve.auth import Access
from mien.serve.engine import Engine, Limits, Metrics, TimedReading, Upload
from mien.serve.problems import Problem
from mien.serve.uploads import Body, HeldBytes

_T = TypeVar("_T")


@dataclass(eq=False)
class Service:
    """Shared state of the endpoints.

    Attributes:
        engine: Reads the images.
        limits: Limits of requests and streams.
        metrics: Prometheus metrics.
        access: Rules of access.
        held: Counts the bytes of request bodies.
        draining: Whether the server is stopping and accepts nothing new.
        streams: Number of open streams.
    """

    engine: Engine
    limits: Limits
    metrics: Metrics
    access: Access
    held: HeldBytes
    draining: bool = False
    streams: int = 0

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
                raise Problem(503, "the server is stopping; try again in 5 s", headers={"Retry-After": "5"})
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
