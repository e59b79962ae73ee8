"""Who may ask: host, origin, token. Around the whole application, so that nothing can be reached past it."""

import contextlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mien.serve.engine import Metrics
from mien.serve.problems import Problem

log = logging.getLogger("mien.serve")

# Paths whose answers a token guards; page, docs and health hold nothing of anybody.
_GUARDED = ("/v1/", "/metrics")
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_PRIVATE = ((b"cache-control", b"no-store"), (b"cross-origin-resource-policy", b"same-origin"))


@dataclass(frozen=True)
class Access:
    """Who may ask. ``hosts`` are names by which the server may be called, besides addresses and ``localhost``.

    ``origins`` are the origins (``https://example.org``) of other pages that may use it; ``token`` is what every
    request must show, if it is set.
    """

    token: str | None = None
    hosts: Collection[str] = ()
    origins: Collection[str] = ()

    def check(self, headers: Headers) -> None:
        """Raises the ``Problem`` 403 for a request that a page elsewhere has a browser send, 400 without a Host.

        A browser calls a site by its name: when a foreign name leads here (DNS rebinding), the Host header says so.
        And it names the page's origin with everything but plain reading, WebSockets included.
        """
        hosts, origin = headers.getlist("host"), headers.get("origin")
        if len(hosts) != 1:  # two readers of the same request might each believe another one
            raise Problem(400, f"a request has one Host header, not {len(hosts)}; name this server in it")
        (host,) = hosts
        if not self._knows(_name(host)):
            raise Problem(403, f"this server is not known as {_name(host)[:80]!r}; start it with --allow-host NAME")
        if origin is None or origin in self.origins:
            return
        if origin.partition("://")[2].lower() != host.lower():
            raise Problem(403, f"pages of {origin[:80]!r} may not use this server; start it with --allow-origin")

    def admits(self, offered: str | None) -> bool:
        """Whether ``offered`` is the token; compared in constant time. Without a token everybody is admitted."""
        if self.token is None:
            return True
        return hmac.compare_digest((offered or "").encode("utf-8", "replace"), self.token.encode("utf-8", "replace"))

    def _knows(self, name: str) -> bool:
        if name == "localhost" or name.endswith(".localhost") or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)  # an address is nobody's to point elsewhere
        except ValueError:
            return False
        return True


def bearer(headers: Headers) -> str | None:
    """The token of an ``Authorization: Bearer`` header."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _name(host: str) -> str:
    """The name in a Host header: without port, brackets, final dot; in small letters."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Guard:
    """Checks, counts and logs every request; adds the headers that all answers have."""

    def __init__(self, app: ASGIApp, *, access: Access, metrics: Metrics, lines: bool) -> None:
        """``lines`` logs a line for each request: method, path, status, milliseconds; no query, no names."""
        self._app = app
        self._access = access
        self._metrics = metrics
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket."""
        if scope["type"] == "http":
            await _Exchange(scope, send, self._metrics, lines=self._lines).answer(self._app, self._access, receive)
        elif scope["type"] == "websocket":
            try:
                self._access.check(Headers(scope=scope))
            except Problem as problem:
                await _refuse_socket(problem, scope, receive, send)
            else:
                await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send, metrics: Metrics, *, lines: bool) -> None:
        self._scope, self._send, self._metrics, self._lines = scope, send, metrics, lines
        self._started = time.perf_counter()
        self._status = 0

    async def answer(self, app: ASGIApp, access: Access, receive: Receive) -> None:
        headers = Headers(scope=self._scope)
        try:
            self._check(access, headers)
            await app(self._scope, receive, self.send)
        except Problem as problem:
            await problem.to_response()(self._scope, receive, self.send)
        except ConnectionError:  # the sender has gone: there is nobody to answer
            self._status = 499
        except Exception:
            log.exception("%s %s failed", self._scope["method"], self._path())
            if not self._status:
                await Problem(500, "the server failed to answer; its log says why").to_response()(
                    self._scope, receive, self.send
                )
        finally:
            self._count()

    def _check(self, access: Access, headers: Headers) -> None:
        access.check(headers)
        path = self._scope["path"]
        # A preflight carries no token by the rules of CORS; it reads nothing.
        if path.startswith(_GUARDED) and self._scope["method"] != "OPTIONS" and not access.admits(bearer(headers)):
            detail = "this server wants its token; send the header Authorization: Bearer TOKEN"
            raise Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            extra = [*_HEADERS, *(_PRIVATE if self._scope["path"].startswith(_GUARDED) else ())]
            message["headers"] = [*message.get("headers", ()), *extra]
        await self._send(message)

    def _count(self) -> None:
        seconds = time.perf_counter() - self._started
        path = self._path()
        self._metrics.requests.labels(path, str(self._status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        if self._lines:
            log.info("%s %s %d %.1f ms", self._scope["method"], path, self._status, 1000 * seconds)

    def _path(self) -> str:
        """The route's path: a made-up one must neither grow the metrics nor write into the log."""
        route = self._scope.get("route")
        return getattr(route, "path", "") or "other"


async def _refuse_socket(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the handshake with a status where the server can (ASGI's denial response), else close it: 403."""
    await receive()
    if "websocket.http.response" in scope.get("extensions", {}):
        body = problem.to_response()
        headers = [pair for pair in body.raw_headers if pair[0] != b"content-length"]  # uvicorn adds its own
        start = {"status": body.status_code, "headers": headers}
        await send({"type": "websocket.http.response.start", **start})
        await send({"type": "websocket.http.response.body", "body": body.body})
    else:
        with contextlib.suppress(RuntimeError):
            await send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:120]})
