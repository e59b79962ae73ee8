"""The HTTP endpoints. A new one is a method and a line in ``add_routes``; its JSON shape belongs into ``schemas``."""

import dataclasses
import functools
import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

import mien
from mien._emotions import Emotion
from mien._errors import ImageError
from mien._face import Face
from mien.serve import schemas
from mien.serve.engine import TimedReading
from mien.serve.problems import Problem, to_problem
from mien.serve.responses import explained_dict, failed_dict, json_response, overlay_png, reading_dict
from mien.serve.schemas import Parameter, parse_query, request_with_images, responses
from mien.serve.service import Service
from mien.serve.websocket import StreamEndpoint

_log = logging.getLogger("mien.serve")

_TOP = "top"
_MAPS = Parameter("maps", False, "Add the saliency maps of every face (see Maps).")
_IMAGE_PROBLEMS = (400, 401, 408, 413, 415, 422, 503, 504)


def add_routes(app: FastAPI, service: Service) -> None:
    """Add all endpoints with their descriptions in the OpenAPI document.

    Args:
        app: The application.
        service: Shared state of the endpoints.
    """
    routes = _Routes(service)
    app.post(
        "/v1/predict",
        responses=responses("A reading for each image, in order.", schemas.Predicted, *_IMAGE_PROBLEMS),
        openapi_extra=request_with_images([_MAPS], service.limits.max_images),
    )(routes.predict)
    png = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
    app.post(
        "/v1/explain",
        responses=responses(
            "The faces with their maps, or a PNG.", schemas.Explanation, 404, *_IMAGE_PROBLEMS, content=png
        ),
        openapi_extra=request_with_images(routes.explain_parameters, 1),
    )(routes.explain)
    not_ready = {"model": schemas.Health, "description": "The queue is full, or the server is stopping."}
    states = {
        "/v1/models": (routes.models, responses("The loaded model.", schemas.Models, 401)),
        "/healthz": (routes.health, responses("The server is alive.", schemas.Health)),
        "/readyz": (
            routes.ready,
            responses("An image sent now would be accepted.", schemas.Health) | {503: not_ready},
        ),
    }
    for path, (endpoint, described) in states.items():
        app.get(path, responses=described)(endpoint)
        app.head(path, include_in_schema=False)(endpoint)  # monitoring often sends HEAD
    text = {"text/plain": {"schema": {"type": "string"}}}
    app.get("/metrics", responses=responses("All series.", None, 401, content=text), response_class=Response)(
        routes.metrics
    )
    app.websocket("/v1/stream")(StreamEndpoint(service).run)


class _Routes:
    """The endpoints; their docstrings are their descriptions in the OpenAPI document."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._model = service.engine.reader.model
        self._header = {"model": self._model.name, "precision": self._model.metadata["precision"]}
        emotions = (_TOP, *map(str, self._model.emotions))
        self.explain_parameters = (
            Parameter("emotion", _TOP, "The emotion of the map; top: each face's most probable one.", emotions),
            Parameter("format", "json", "All faces as JSON, or one as a PNG.", ("json", "png")),
            Parameter("face", 1, "The face of the PNG, counted from the largest.", bounds=(1, 9999)),
            Parameter("size", 192, "Side of the overlay in pixels.", bounds=(16, 1024)),
        )

    async def predict(self, request: Request) -> Response:
        """Read images. An image that cannot be read has an error in its reading; if it is the only one, a problem."""
        maps = parse_query(request, [_MAPS])["maps"]
        names, futures = await self._service.read(request)
        if len(futures) == 1:
            readings = [reading_dict(_result(futures[0]), maps=maps)]
        else:
            readings = [_reading_or_error(name, each, maps) for name, each in zip(names, futures, strict=True)]
        return json_response({**self._header, "readings": readings})

    async def explain(self, request: Request) -> Response:
        """Draw the saliency map of an emotion: for every face as JSON, or for one face as a PNG."""
        query = parse_query(request, self.explain_parameters)
        _, (future,) = await self._service.read(request, max_images=1)
        timed = _result(future)
        faces = timed.reading.faces
        as_png, number = query["format"] == "png", query["face"]
        if as_png:
            if number > len(faces):
                raise Problem(404, f"the image has no face {number}; mien found {len(faces)}")
            faces = (faces[number - 1],)
        overlays = self._service.engine.run(functools.partial(_draw, faces, query["emotion"], query["size"]))
        await self._service.wait([overlays], request.receive)
        if as_png:
            emotion, png = overlays.result()[0]
            return Response(png, media_type="image/png", headers={"X-Mien-Emotion": str(emotion)})
        explained = [explained_dict(face, *overlay) for face, overlay in zip(faces, overlays.result(), strict=True)]
        return json_response({**self._header, "reading": {**reading_dict(timed, maps=False), "faces": explained}})

    async def models(self, _: Request) -> Response:
        """The loaded model, the detector, the limits."""
        reader, metadata = self._service.engine.reader, self._model.metadata
        model = {
            "name": self._model.name,
            "precision": metadata["precision"],
            "emotions": [str(emotion) for emotion in self._model.emotions],
            "size": self._model.size,
            "licence": metadata["licence"],
            "accuracy": _parsed(metadata["accuracy"]),
        }
        detector = getattr(reader.detector, "name", type(reader.detector).__name__)
        limits = dataclasses.asdict(self._service.limits)
        return json_response({"models": [model], "detector": detector, "version": mien.__version__, "limits": limits})

    async def health(self, _: Request) -> Response:
        """Whether the process is alive."""
        return json_response({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """Whether an image sent now would be accepted."""
        if self._service.draining:
            return json_response({"status": "stopping"}, 503)
        if self._service.engine.full:
            return json_response({"status": "queue full"}, 503)
        return json_response({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """All metrics in the text format of Prometheus."""
        return Response(self._service.metrics.to_text(), media_type=CONTENT_TYPE_LATEST)


def _draw(faces: Sequence[Face], emotion: str, size: int) -> list[tuple[Emotion, bytes]]:
    emotions = [face.top if emotion == _TOP else Emotion(emotion) for face in faces]
    return [(each, overlay_png(face, each, size=size)) for face, each in zip(faces, emotions, strict=True)]


def _reading_or_error(name: str, future: "Future[TimedReading]", maps: bool) -> dict[str, Any]:
    try:
        return reading_dict(_result(future), maps=maps)
    except Problem as problem:
        return failed_dict(name, problem.detail)


def _result(future: "Future[TimedReading]") -> TimedReading:
    """The result of a future that is done; the error of an image is raised as a ``Problem``."""
    try:
        return future.result()
    except Exception as error:
        if not isinstance(error, ImageError | MemoryError | Problem):
            _log.error("an image could not be read", exc_info=error)
        raise to_problem(error) from error


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
