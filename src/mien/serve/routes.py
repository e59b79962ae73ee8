"""The HTTP endpoints. A new one is a method and a line in ``add_routes``; its JSON shape belongs into ``schemas``."""

import dataclasses
import logging
from concurrent.futures import Future

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

import mien
from mien._emotions import Emotion
from mien._errors import ImageError
from mien.serve import schemas
from mien.serve.engine import TimedReading
from mien.serve.problems import Problem, to_problem
from mien.serve.service import Service, explained_dict, failed_dict, json_response, overlay_png, reading_dict
from mien.serve.websocket import Stream

_log = logging.getLogger("mien.serve")

_MAPS = schemas.Parameter("maps", False, "Add the saliency maps of every face (see MapsOut).")
_MAX_DRAWN = 32_000_000  # pixels of all overlays in one response: 30 of the largest, 868 of the default size
_IMAGE_PROBLEMS = (400, 401, 408, 413, 415, 422, 503, 504)


def add_routes(app: FastAPI, service: Service) -> None:
    """Add all endpoints with their descriptions in the OpenAPI document.

    Args:
        app: The application.
        service: Shared state of the endpoints.
    """
    routes, responses = _Routes(service), schemas.responses
    app.post(
        "/v1/predict",
        responses=responses("A reading for each image, in order.", schemas.PredictionOut, *_IMAGE_PROBLEMS),
        openapi_extra=schemas.request_with_images([_MAPS], service.limits.max_images),
    )(routes.predict)
    png = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
    faces_or_png = "The faces with their maps, or a PNG."
    app.post(
        "/v1/explain",
        responses=responses(faces_or_png, schemas.ExplanationOut, 404, *_IMAGE_PROBLEMS, content=png),
        openapi_extra=schemas.request_with_images(routes.explain_parameters, 1),
    )(routes.explain)
    ready = responses("An image sent now would be accepted.", schemas.HealthOut)
    ready[503] = {
        "model": schemas.HealthOut,
        "description": "The queue is full, all threads are stuck, or the server is stopping.",
    }
    for path, endpoint, described in (
        ("/v1/models", routes.models, responses("The loaded model.", schemas.ModelsOut, 401)),
        ("/healthz", routes.health, responses("The server is alive.", schemas.HealthOut)),
        ("/readyz", routes.ready, ready),
    ):
        app.get(path, responses=described)(endpoint)
        app.head(path, include_in_schema=False)(endpoint)  # monitoring often sends HEAD
    metrics = responses("All series.", None, 401, content={"text/plain": {"schema": {"type": "string"}}})
    app.get("/metrics", responses=metrics, response_class=Response)(routes.metrics)

    @app.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        await Stream(socket, service).run()


class _Routes:
    """The endpoints; their docstrings are their descriptions in the OpenAPI document."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._model = service.engine.reader.model
        self._header = {"model": self._model.name, "precision": self._model.metadata["precision"]}
        emotions, top = ("top", *map(str, self._model.emotions)), "each face's most probable one"
        self.explain_parameters = (
            schemas.Parameter("emotion", "top", f"The emotion of the map; top: {top}.", emotions),
            schemas.Parameter("format", "json", "All faces as JSON, or one as a PNG.", ("json", "png")),
            schemas.Parameter("face", 1, "The face of the PNG, counted from the largest.", bounds=(1, 9999)),
            schemas.Parameter("size", 192, "Side of the overlay in pixels.", bounds=(16, 1024)),
        )

    async def predict(self, request: Request) -> Response:
        """Read images. An image that cannot be read has an error in its reading; if it is the only one, a problem."""
        maps = schemas.parse_query(request, [_MAPS])["maps"]
        names, futures = await self._service.read(request)
        readings = []
        for name, future in zip(names, futures, strict=True):
            try:
                readings.append(reading_dict(_result(future), maps=maps))
            except Problem as problem:
                if len(names) == 1:
                    raise
                readings.append(failed_dict(name, problem.detail))
        return json_response({**self._header, "readings": readings})

    async def explain(self, request: Request) -> Response:
        """Draw the saliency map of an emotion: for every face as JSON, or for one face as a PNG."""
        query = schemas.parse_query(request, self.explain_parameters)
        _, (future,) = await self._service.read(request, max_images=1)
        timed = _result(future)
        faces = timed.reading.faces
        as_png, number = query["format"] == "png", query["face"]
        if as_png:
            if number > len(faces):
                raise Problem(404, f"the image has no face {number}; mien found {len(faces)}")
            faces = (faces[number - 1],)

        if len(faces) * query["size"] ** 2 > _MAX_DRAWN:
            detail = f"overlays of {len(faces)} faces are too large; choose a smaller size, or format=png for one face"
            raise Problem(422, detail)

        def draw() -> list[tuple[Emotion, bytes]]:
            emotions = [face.top if query["emotion"] == "top" else Emotion(query["emotion"]) for face in faces]
            return [
                (each, overlay_png(face, each, size=query["size"])) for face, each in zip(faces, emotions, strict=True)
            ]

        overlays = self._service.engine.run(draw)
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
            "accuracy": self._model.accuracy,
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
        if self._service.engine.stuck:
            return json_response({"status": "busy"}, 503)
        return json_response({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """All metrics in the text format of Prometheus."""
        return Response(self._service.metrics.to_text(), media_type=CONTENT_TYPE_LATEST)


def _result(future: "Future[TimedReading]") -> TimedReading:
    """The result of a future that is done; the error of an image is raised as a ``Problem``."""
    try:
        return future.result()
    except Exception as error:
        if not isinstance(error, ImageError | MemoryError | Problem):
            _log.error("an image could not be read", exc_info=error)
        raise to_problem(error) from error
