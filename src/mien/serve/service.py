"""What the paths of one server share."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from mien.serve.auth import Access
from mien.serve.engine import Engine, Limits, Metrics, Sent
from mien.serve.problems import Problem
from mien.serve.uploads import Body, Held, gone

_T = TypeVar("_T")


@dataclass(eq=False)
class Service:
    """The engine with its limits and metrics. ``draining`` is true from the moment the server is asked to stop."""

    engine: Engine
    limits: Limits
    metrics: Metrics
    access: Access
    held: Held
    draining: bool = False
    streams: int = 0

    def body(self, scope: Scope, receive: Receive) -> Body:
        """The body of a request, a context: to be held for as long as the bytes of its pictures live."""
        return Body(Headers(scope=scope), receive, limits=self.limits, held=self.held)

    async def pictures(self, body: Body) -> list[Sent]:
        """The pictures in a request's body.

        Raises ``Problem`` as ``Body.pictures``, and 503 when the queue is full. Then the rest of the body is taken in
        for a moment, so that the answer is read; the connection ends with it when there is still more to come.
        """
        started = time.perf_counter()
        try:
            if self.draining:
                raise Problem(503, "the server is stopping; ask again when it is back", headers={"Retry-After": "5"})
            self.engine.check()
            pictures = await body.pictures()
        except Problem as problem:
            await body.drain()
            if not body.ended:
                problem.headers["Connection"] = "close"
            raise
        self.metrics.stages["receive"].observe(time.perf_counter() - started)
        return pictures

    async def wait(self, futures: "Sequence[Future[_T]]", receive: Receive) -> None:
        """Wait until all are done. Raises ``Problem`` 504 after the time limit, ``ConnectionError`` when nobody waits.

        What has not begun by then is not done at all.
        """
        leaving = asyncio.ensure_future(gone(receive))
        asked = [asyncio.wrap_future(future) for future in futures]
        together = asyncio.gather(*asked, return_exceptions=True)
        together.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # else asyncio logs the cancelling
        try:
            await asyncio.wait((together, leaving), timeout=self.limits.timeout, return_when=asyncio.FIRST_COMPLETED)
            if together.done():
                return
            if leaving.done():
                raise ConnectionError("the sender has gone")
            raise Problem(504, f"no answer within {self.limits.timeout:g} s; send fewer or smaller pictures")
        finally:
            leaving.cancel()
            together.cancel()
