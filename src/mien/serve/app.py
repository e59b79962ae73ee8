"""The application: endpoints and middleware around a reader, the web page at / and the documentation at /docs."""

import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

import mien
from mien._errors import MienError
from mien._page import escape, head
from mien.bundled import BUNDLED, DEFAULT_MODEL
from mien.infer import Classifier, find_model
from mien.reader import Reader
from mien.serve.auth import Access, Guard
from mien.serve.engine import Engine, Limits, Metrics
from mien.serve.problems import Problem
from mien.serve.routes import add_routes
from mien.serve.schemas import SUMMARY, complete_openapi
from mien.serve.service import Service, Slots
from mien.serve.uploads import HeldBytes

_PACKAGE = Path(__file__).parent.parent
_PAGE = _PACKAGE / "serve" / "page"
_CLASSIFIER = "models/classifier.onnx"
# Address in the page -> file elsewhere in the package.
_ELSEWHERE = {
    "base.css": _PACKAGE / "_page.css",
    "models/blazeface-short-range.onnx": BUNDLED / "blazeface-short-range" / "model.onnx",
}
# ONNX Runtime Web is too large for the wheel; `make web` copies it into the page's folder.
# The files of onnxruntime-web that the page needs, and their SHA-256 in the version with which mien is tested.
RUNTIME_VERSION = "1.30.0"
_RUNTIME = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
# Python does not know these types on every system; a browser refuses modules and WebAssembly of another type.
_TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".webmanifest": "application/manifest+json",
}
# The page loads from and talks to this server only, and no other page may frame it. The cross-origin headers let
# WebAssembly use threads.
_POLICY = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; worker-src 'self' blob:; frame-ancestors "
    "'none'; base-uri 'none'; form-action 'none'",
    "permissions-policy": "camera=(self), microphone=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cache-control": "no-cache",
}
_NO_PAGE = """<body><main><h1>mien is running</h1>
<p>This installation has no web page. The interface for programs: <a href="docs">docs</a>,
<a href="openapi.json">openapi.json</a>.</p></main></body></html>"""
_DOCS_STYLE = """
main { max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
section { border-top: 1px solid var(--line); padding-top: .5rem; margin-top: 2rem; }
h2 { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
h2 small { opacity: .6; }
h3 { margin: 1rem 0 .25rem; font-size: 1rem; }
ul { margin: 0; padding-left: 1.25rem; }
pre { overflow-x: auto; padding: .75rem; background: var(--track); font-size: .85rem; }
"""
_STOP_SECONDS = 1.0  # in which the threads may end; all requests have their responses before
_PAGE_METHODS = ["GET", "HEAD"]
_MISSING = {404: "there is nothing at this path; /docs lists all paths", 405: "this path takes another method"}


def create_app(
    reader: Reader,
    *,
    threads: int = 1,
    limits: Limits | None = None,
    access: Access | None = None,
    batch_wait: float = 0.0,
    log_requests: bool = False,
    page: Path | None = None,
    runtime: Path | None = None,
) -> FastAPI:
    """Create the application around a reader. Its threads end with the server's lifespan.

    Args:
        reader: Reads the images.
        threads: Number of images that are decoded and searched for faces at the same time.
        limits: Limits of requests and streams; the default ones if ``None``.
        access: Rules of access. ``None`` admits every client that uses ``localhost`` or an address as host.
        batch_wait: Seconds to wait for crops of other requests before a batch is classified.
        log_requests: Log one line for each request.
        page: Folder of the web page at ``/``; the page of the package if ``None``.
        runtime: Folder of ONNX Runtime Web (``dist`` of its npm package), ``runtime`` in the page's folder if
            ``None``. Without these files the page sends images to the server instead of reading them itself.

    Returns:
        The application; ``app.state.service`` is the state that its endpoints share.

    Example:
        >>> from mien import Reader
        >>> app = create_app(Reader(), limits=Limits(queue=16))
    """
    limits, access, metrics = limits or Limits(), access or Access(), Metrics()
    engine = Engine(reader, threads=threads, limits=limits, metrics=metrics, batch_wait=batch_wait)
    connections, streams = (Slots(limit, limits.per_address) for limit in (limits.connections, limits.streams))
    service = Service(engine, limits, metrics, access, HeldBytes(limits.held_bytes, metrics), connections, streams)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close(_STOP_SECONDS)

    app = FastAPI(
        title="mien",
        version=mien.__version__,
        description=SUMMARY,
        docs_url=None,  # FastAPI's pages load scripts from other sites
        redoc_url=None,
        # No data leaves this machine, even where the environment configures OpenTelemetry.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        lifespan=lifespan,
        redirect_slashes=False,
        exception_handlers={HTTPException: _missing},
    )
    app.state.service = service
    add_routes(app, service)
    complete_openapi(app, token=access.token is not None)
    app.api_route("/docs", methods=_PAGE_METHODS, include_in_schema=False)(lambda: _docs_page(app.openapi()))
    _add_page(app, page or _PAGE, runtime=runtime, reader=reader, token=access.token is not None)
    app.add_middleware(Guard, access=access, metrics=metrics, log_requests=log_requests)
    if access.origins:
        methods, headers = ["GET", "POST"], ["authorization", "content-type"]
        app.add_middleware(
            CORSMiddleware, allow_origins=list(access.origins), allow_methods=methods, allow_headers=headers
        )
    return app


async def _missing(_: Request, error: Exception) -> Response:
    """Respond to unknown paths and methods with a problem."""
    assert isinstance(error, HTTPException)
    detail = _MISSING.get(error.status_code, error.detail)
    return Problem(error.status_code, detail, headers=error.headers).to_response()


def _add_page(app: FastAPI, folder: Path, *, runtime: Path | None, reader: Reader, token: bool) -> None:
    """Serve the web page at ``/``.

    The page reads with the server's classifier. The page's files need no token. Therefore, if the server has a token
    and a model that is not bundled, the page reads with the default model.
    """
    if not (folder / "index.html").is_file():
        app.api_route("/", methods=_PAGE_METHODS, include_in_schema=False)(
            lambda: HTMLResponse(head("mien", "") + _NO_PAGE)
        )
        return
    runtime = runtime or folder / "runtime"
    is_private = token and not reader.model.path.is_relative_to(BUNDLED)
    model = Classifier(find_model(DEFAULT_MODEL)) if is_private else reader.model
    files = _ELSEWHERE | {_CLASSIFIER: model.path} | {f"runtime/{name}": runtime / name for name in _RUNTIME}
    has_runtime = all((runtime / name).is_file() for name in _RUNTIME)
    # The thresholds by size of a face, as the page interpolates them.
    thresholds = model.unsure_below if reader.abstain == "card" else {0: reader.abstain}
    site = {
        "server": True,
        "runtime": has_runtime,
        "token": token,
        "unsure_below": list(thresholds.items()),
        "min_quality": reader.min_quality,
    }
    app.api_route("/site.json", methods=_PAGE_METHODS, include_in_schema=False)(
        lambda: JSONResponse(site, headers={"cache-control": "no-cache"})
    )
    # Not mounted: a mount at / would also take requests with a wrong method to the API's paths.
    app.router.default = _Page(folder, files)


def check_runtime(folder: Path) -> None:
    """Check that a folder holds the pinned files of onnxruntime-web, so that no other code runs in the page.

    Args:
        folder: The folder ``dist`` of the npm package.

    Raises:
        MienError: A file is missing, or its SHA-256 is another.
    """
    for name, expected in _RUNTIME.items():
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError:
            found = ""
        if found != expected:
            cure = f"install that version: npm install onnxruntime-web@{RUNTIME_VERSION}"
            raise MienError(f"{folder}: has no {name} of onnxruntime-web {RUNTIME_VERSION}; {cure}")


class _Page(StaticFiles):
    """Static files with the right types and the page's policy."""

    def __init__(self, folder: Path, elsewhere: dict[str, Path]) -> None:
        super().__init__(directory=folder, html=True)
        self._elsewhere = elsewhere

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        file = self._elsewhere.get(path.replace(os.sep, "/"))
        try:
            if file is None:
                return super().lookup_path(path)
            return (str(file), file.stat()) if file.is_file() else ("", None)
        except (OSError, ValueError):  # a path that no file can have: too long, or with a null character
            return "", None

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_POLICY)
        kind = _TYPES.get(Path(scope["path"]).suffix)
        if kind is not None and response.status_code == 200:
            response.headers["content-type"] = kind
        return response

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Respond with 404 to every method where there is no file; ``StaticFiles`` checks the method first."""
        if scope["method"] not in _PAGE_METHODS and self.lookup_path(path)[1] is None:
            raise HTTPException(404)
        return await super().get_response(path, scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await super().__call__(scope, receive, send)
        else:
            await WebSocketClose()(scope, receive, send)


def _docs_page(api: dict[str, Any]) -> Response:
    """The OpenAPI document as a page that loads nothing."""
    info = api["info"]
    title = f"{info['title']} {info['version']}"
    summary = escape(info["description"]).replace("\n\n", "</p><p>")
    sections = [_section(path, name, each) for path, methods in api["paths"].items() for name, each in methods.items()]
    return HTMLResponse(
        f"{head(title, _DOCS_STYLE)}<body><main><h1>{escape(title)}</h1><p>{summary}</p>"
        f'<p>For programs: <a href="openapi.json">openapi.json</a></p>{"".join(sections)}</main></body></html>'
    )


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = [
        f"<code>{escape(each['name'])}</code> {escape(_type(each['schema']))}: {escape(each.get('description', ''))}"
        for each in operation.get("parameters", ())
    ]
    responses = operation["responses"]
    lists = {
        "Query": parameters,
        "Body": [f"<code>{escape(kind)}</code>" for kind in operation.get("requestBody", {}).get("content", ())],
        "Responses": [f"<b>{code}</b> {escape(each.get('description', ''))}" for code, each in responses.items()],
    }
    html = f"<h2><small>{method.upper()}</small> {escape(path)}</h2><p>{escape(operation.get('description', ''))}</p>"
    for title, items in lists.items():
        if items:
            html += f"<h3>{title}</h3><ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"
    example = responses.get("200", {}).get("content", {}).get("application/json", {}).get("example")
    if example is not None:
        html += f"<h3>Example</h3><pre>{escape(json.dumps(example, indent=2))}</pre>"
    return f"<section>{html}</section>"


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    bounds = f" {schema['minimum']}..{schema['maximum']}" if "minimum" in schema else ""
    return f"{schema.get('type', '')}{bounds}"
