"""The application: a reader behind HTTP and WebSocket."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

import mien
from mien._page import head
from mien.bundled import BUNDLED, DEFAULT_MODEL
from mien.reader import Reader
from mien.serve import routes as spec
from mien.serve import schemas
from mien.serve.auth import Access, Guard
from mien.serve.engine import Engine, Limits, Metrics
from mien.serve.problems import Problem
from mien.serve.routes import About, Pictures, docs_page
from mien.serve.service import Service
from mien.serve.uploads import Held
from mien.serve.websocket import Streams

PACKAGE = Path(__file__).parent.parent


FOLDER = PACKAGE / "serve" / "page"


# Files of the page that stand elsewhere in the package: their addresses, and where they are.
_CLASSIFIER = "models/classifier.onnx"


_ELSEWHERE = {
    "base.css": PACKAGE / "_page.css",
    "models/blazeface-short-range.onnx": BUNDLED / "blazeface-short-range" / "model.onnx",
    _CLASSIFIER: BUNDLED / DEFAULT_MODEL / "model.onnx",
}


# ONNX Runtime Web, of which a wheel has no room for: `make web` lays it into the page's folder.
_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


# Files whose type Python does not know everywhere; a browser refuses a module or WebAssembly of another type.
_TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".webmanifest": "application/manifest+json",
}


# The page loads from here alone and talks to here alone; nobody may frame it. The last two let WebAssembly use threads.
_POLICY = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; worker-src 'self' blob:; frame-ancestors "
    "'none'; base-uri 'none'; form-action 'none'",
    "permissions-policy": "camera=(self), microphone=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cache-control": "no-cache",
}


def add_page(
    app: FastAPI,
    folder: Path | None = None,
    *,
    model: Path,
    abstain: float = 0.0,
    runtime: Path | None = None,
    token: bool = False,
) -> None:
    """Serve the page at ``/``, from ``folder`` or the one that comes with mien.

    ``model`` is the classifier that the server reads with: the page reads with the same file, unless it is somebody's
    own and a ``token`` guards the server, for the page's files need none; then it reads with the default model, and
    says so. ``abstain`` is where its threshold stands at first. ``runtime`` is the folder of ONNX Runtime Web (the
    ``dist`` of its npm package), by default ``runtime`` in ``folder``: without one the page sends pictures to the
    server instead of reading them itself. ``token`` tells the page that it must ask for one.
    """
    folder = folder or FOLDER
    if not (folder / "index.html").is_file():
        app.get("/", include_in_schema=False)(_plain)
        return
    runtime = runtime or folder / "runtime"
    files = _ELSEWHERE | {f"runtime/{name}": runtime / name for name in _RUNTIME}
    if not token or model.is_relative_to(BUNDLED):
        files[_CLASSIFIER] = model
    able = all((runtime / name).is_file() for name in _RUNTIME)
    said = {"server": True, "runtime": able, "token": token, "abstain": abstain}

    async def site(_: Request) -> Response:
        return JSONResponse(said, headers={"cache-control": "no-cache"})

    app.get("/site.json", include_in_schema=False)(site)
    # Not mounted: a mount at / would also answer for the API's paths when they are asked by a wrong method.
    app.router.default = _Site(folder, files)


class _Site(StaticFiles):
    """Static files with the right types and the page's policy."""

    def __init__(self, folder: Path, elsewhere: dict[str, Path]) -> None:
        super().__init__(directory=folder, html=True)
        self._elsewhere = elsewhere

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """A file of the folder, or one of those that stand elsewhere."""
        file = self._elsewhere.get(path.replace(os.sep, "/"))
        if file is None:
            return super().lookup_path(path)
        return (str(file), file.stat()) if file.is_file() else ("", None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await WebSocketClose()(scope, receive, send)
            return
        kind = _TYPES.get(Path(scope["path"]).suffix)

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers.update(_POLICY)
                if kind is not None and message["status"] == 200:
                    headers["content-type"] = kind
            await send(message)

        await super().__call__(scope, receive, send_with_policy)


async def _plain(_: Request) -> Response:
    return HTMLResponse(head("mien", "") + _PLAIN)


_PLAIN = """<body><main><h1>mien is here</h1>
<p>This installation has no page to try it with. What programs can ask: <a href="docs">docs</a>,
<a href="openapi.json">openapi.json</a>.</p></main></body></html>"""


def create_app(
    reader: Reader,
    *,
    threads: int = 1,
    limits: Limits | None = None,
    access: Access | None = None,
    batch_wait: float = 0.0,
    lines: bool = False,
    page: Path | None = None,
    runtime: Path | None = None,
) -> FastAPI:
    """The application around ``reader``; its threads end with the server's lifespan.

    ``threads`` pictures are read side by side. ``access`` says who may ask: without it everybody who calls the server
    by ``localhost`` or an address. ``batch_wait`` is in seconds (see ``Batcher``). ``lines`` logs a line a request.
    ``page`` is the folder of the page at ``/`` (default: the one that comes with mien), ``runtime`` that of ONNX
    Runtime Web, with which the page reads pictures itself. ``app.state.service`` is what the paths share.
    """
    limits, access, metrics = limits or Limits(), access or Access(), Metrics()
    engine = Engine(reader, threads=threads, limits=limits, metrics=metrics, batch_wait=batch_wait)
    service = Service(engine, limits, metrics, access, Held(limits.held_bytes, metrics))
    app = FastAPI(
        title="mien",
        version=mien.__version__,
        description=spec.SUMMARY,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        # Nothing leaves this machine, also where the environment has OpenTelemetry set up.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        lifespan=_lifespan(engine),
        redirect_slashes=False,
    )
    app.state.service = service
    _add_paths(app, service)
    guarded = access.token is not None
    add_page(app, page, model=reader.model.path, abstain=reader.abstain, runtime=runtime, token=guarded)
    app.add_exception_handler(HTTPException, _tell)
    app.add_middleware(Guard, access=access, metrics=metrics, lines=lines)
    if access.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    return app


def _add_paths(app: FastAPI, service: Service) -> None:
    pictures, about = Pictures(service), About(service)
    emotions = tuple(map(str, service.engine.reader.model.emotions))
    guarded = spec.problems(401)
    app.post("/v1/predict", responses=spec.predicted(), openapi_extra=spec.predict(service.limits))(pictures.predict)
    app.post("/v1/explain", responses=spec.explained(), openapi_extra=spec.explain(emotions))(pictures.explain)
    app.get("/v1/models", responses={200: {"model": schemas.Models, "description": "What is loaded."}, **guarded})(
        about.models
    )
    app.get("/healthz", responses={200: {"model": schemas.Health, "description": "Alive."}, **spec.problems()})(
        about.health
    )
    ready: dict[int | str, dict[str, Any]] = {
        200: {"model": schemas.Health, "description": "A picture sent now would be accepted."},
        503: {"model": schemas.Health, "description": "The queue is full, or the server is stopping."},
    }
    app.get("/readyz", responses={**spec.problems(), **ready})(about.ready)
    text: dict[int | str, dict[str, Any]] = {
        200: {"description": "All series.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    }
    app.get("/metrics", responses={**text, **guarded}, response_class=Response)(about.metrics)
    for path, told in (("/v1/models", about.models), ("/healthz", about.health), ("/readyz", about.ready)):
        app.head(path, include_in_schema=False)(told)  # whoever watches a server often asks for heads alone
    app.websocket("/v1/stream")(Streams(service).run)
    _describe(app, token=service.access.token is not None)

    async def docs(_: Request) -> Response:
        return docs_page(app.openapi())

    app.get("/docs", include_in_schema=False)(docs)


def _describe(app: FastAPI, *, token: bool) -> None:
    """Add to the OpenAPI what FastAPI cannot know: the shape of problems, and the token where one is wanted."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            said = made()
            parts = said.setdefault("components", {})
            parts.setdefault("schemas", {})["Problem"] = schemas.Problem.model_json_schema()
            good = said["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]
            good["example"] = schemas.PREDICTED  # FastAPI itself leaves every null out
            if token:
                parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                for path in (path for path in said["paths"] if path.startswith(("/v1/", "/metrics"))):
                    for method in said["paths"][path].values():
                        method["security"] = [{"token": []}]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _lifespan(engine: Engine) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    return lifespan


async def _tell(_: Request, error: Exception) -> Response:
    """Paths and methods that do not exist, as problems."""
    assert isinstance(error, HTTPException)
    words = {404: "there is nothing at this path; /docs lists the paths", 405: "this path takes another method"}
    return Problem(error.status_code, words.get(error.status_code, error.detail), headers=error.headers).to_response()
