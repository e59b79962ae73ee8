"""The application: a reader behind HTTP and WebSocket."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

import mien
from mien.pipeline import Reader
from mien.serve import schemas, spec
from mien.serve.about import About, docs_page
from mien.serve.bodies import Held
from mien.serve.engine import Engine
from mien.serve.guard import Access, Guard
from mien.serve.limits import Limits
from mien.serve.metrics import Metrics
from mien.serve.pictures import Pictures
from mien.serve.problems import Problem
from mien.serve.service import Service
from mien.serve.site import add_page
from mien.serve.stream import Streams


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
