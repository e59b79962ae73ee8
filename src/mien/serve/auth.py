"""Access by host, origin and token: a middleware around the whole application that also counts and logs requests."""

import asyncio
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

from mien._errors import MienError
from mien.serve.engine import Metrics
from mien.serve.problems import Problem, internal_error, stopping

_log = logging.getLogger("mien.serve")

# Paths that need the token. Page, documentation and health contain no data of users.
_GUARDED = ("/v1/", "/metrics")
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_PRIVATE = ((b"cache-control", b"no-store"), (b"cross-origin-resource-policy", b"same-origin"))


@dataclass(frozen=True)
class Access:
    """Rules of access.

    Attributes:
        token: Token that every request must send; ``None``: no token is required.
        hosts: Names of the server, without a port. Addresses and ``localhost`` are always accepted.
        origins: Origins (``https://example.org``) of other web pages that may use the server.

    Raises:
        MienError: No request could ever have the token, a host or an origin.
    """

    token: str | None = None
    hosts: Collection[str] = ()
    origins: Collection[str] = ()

    def __post_init__(self) -> None:
        token = self.token
        if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
            raise MienError("the token must be printable ASCII without spaces, and not empty")
        for field in ("hosts", "origins"):  # clients and this server compare both in lower case
            object.__setattr__(self, field, frozenset(rule.lower() for rule in getattr(self, field)))
        for host in self.hosts:
            if not _is_address(host) and ("*" in host or _host_name(host) != host):
                raise MienError(f"{host!r}: a host is a whole name without scheme and port, such as faces.example")
        for origin in self.origins:
            scheme, _, rest = origin.partition("://")
            port = {"http": ":80", "https": ":443"}.get(scheme, rest)  # browsers leave it out
            if not rest or rest.endswith(port) or set(rest) & set("/?#@* "):
                raise MienError(f"{origin}: an origin is a scheme and a name only, such as https://example.org")

    def check(self, headers: Headers) -> None:
        """Refuse requests that a foreign web page makes a browser send.

        Under DNS rebinding, a foreign name leads to this server: the Host header then contains that name. A browser
        sends the page's origin with every request except plain reading, WebSockets included.

        Args:
            headers: Headers of the request.

        Raises:
            Problem: 400 without exactly one Host header (another name in the target is a second one), 403 for a
                foreign host or origin.
        """
        hosts, origin = headers.getlist("host"), headers.get("origin")
        if len(hosts) != 1:  # a proxy and this server might each use another one
            raise Problem(400, f"a request names one server, not {len(hosts)}, in its target and its Host header")
        name = _host_name(hosts[0])
        if not self._is_own(name):
            raise Problem(403, f"this server is not known as {name[:80]!r}; add the name to its allowed hosts")
        if origin is None or origin in self.origins:
            return
        if origin.partition("://")[2].lower() != hosts[0].lower():
            detail = f"pages of {origin[:80]!r} may not use this server; add the origin to its allowed origins"
            raise Problem(403, detail)

    def admits(self, token: str | None) -> bool:
        """Compare a token in constant time.

        Args:
            token: The token that a client sent, if any.

        Returns:
            Whether it is the server's token, or the server has none.
        """
        if self.token is None:
            return True
        return hmac.compare_digest((token or "").encode("utf-8", "replace"), self.token.encode("utf-8", "replace"))

    def _is_own(self, name: str) -> bool:
        is_listed = name == "localhost" or name.endswith(".localhost") or name in self.hosts
        return is_listed or _is_address(name)  # no DNS can redirect an address


def _host_name(header: str) -> str:
    """The name in a Host header, in lower case, without port and brackets; empty if there is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def bearer_token(headers: Headers) -> str | None:
    """Return the token of an ``Authorization: Bearer`` header.

    Args:
        headers: Headers of a request.

    Returns:
        The token, or ``None`` without such a header.
    """
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


class Guard:
    """ASGI middleware that checks, counts and logs every request and adds the common headers to responses."""

    def __init__(self, app: ASGIApp, *, access: Access, metrics: Metrics, log_requests: bool) -> None:
        """Wrap an application.

        Args:
            app: The application.
            access: Rules of access.
            metrics: Counts requests and seconds.
            log_requests: Log method, path, status and milliseconds of each request; never its query or file names.
        """
        self._app = app
        self._access = access
        self._metrics = metrics
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or WebSocket."""
        if scope["type"] == "http":
            await self._handle_request(scope, receive, send)
            return
        if scope["type"] == "websocket":
            try:
                self._access.check(Headers(scope=scope))
            except Problem as problem:
                await _refuse_socket(problem, scope, receive, send)
                return
        with contextlib.suppress(asyncio.CancelledError):  # the server ends
            await self._app(scope, receive, send)

    async def _handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        guarded = scope["path"].startswith(_GUARDED)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS, *(_PRIVATE if guarded else ())]
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._access.check(headers)
            # By the rules of CORS, a preflight request has no token; it reads nothing.
            if guarded and scope["method"] != "OPTIONS" and not self._access.admits(bearer_token(headers)):
                detail = "this server requires its token; send the header Authorization: Bearer TOKEN"
                raise Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})
            await self._app(scope, receive, send_with_headers)
        except Problem as problem:
            await problem.to_response()(scope, receive, send_with_headers)
        except ConnectionError:  # the client has left: no response can be sent
            status = 499
        except asyncio.CancelledError:  # the server ends, and the request took too long
            if not status:
                await stopping().to_response()(scope, receive, send_with_headers)
        except Exception:
            _log.exception("%s %s failed", scope["method"], _route(scope))
            if not status:
                await internal_error().to_response()(scope, receive, send_with_headers)
        finally:
            path, seconds = _route(scope), time.perf_counter() - started
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(seconds)
            if self._log_requests:
                _log.info("%s %s %d %.1f ms", scope["method"], path, status, 1000 * seconds)


def _route(scope: Scope) -> str:
    """The path of the route. Unknown paths must neither add metrics nor appear in the log."""
    return getattr(scope.get("route"), "path", "") or "other"


async def _refuse_socket(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse the handshake with the problem's status if the server can (ASGI's denial response), else with 403."""
    await receive()
    if "websocket.http.response" in scope.get("extensions", {}):
        body = problem.to_response()
        headers = [pair for pair in body.raw_headers if pair[0] != b"content-length"]  # uvicorn adds its own
        await send({"type": "websocket.http.response.start", "status": body.status_code, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body.body})
    else:
        with contextlib.suppress(RuntimeError):
            await send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:120]})
