"""``POST /v1/predict`` and ``POST /v1/explain``: pictures in, readings or maps out."""

import dataclasses
import functools
import json
import logging
from concurrent.futures import Future
from html import escape
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import mien
from mien._emotions import Emotion
from mien._errors import ImageError
from mien._face import Face
from mien._page import head
from mien.serve import schemas
from mien.serve.engine import Limits, Read
from mien.serve.problems import MEDIA_TYPE, Problem, problem_of
from mien.serve.responses import explained_dict, failed_dict, json_response, overlay_png, reading_dict
from mien.serve.service import Service
from mien.serve.uploads import Query


class About:
    """The paths that take nothing."""

    def __init__(self, service: Service) -> None:
        """``service`` is what they tell of."""
        self._service = service

    async def models(self, _: Request) -> Response:
        """The model that is loaded, the detector, the limits."""
        reader = self._service.engine.reader
        said = reader.model.metadata
        model = {
            "name": reader.model.name,
            "precision": said["precision"],
            "emotions": [str(emotion) for emotion in reader.model.emotions],
            "size": reader.model.size,
            "licence": said["licence"],
            "accuracy": _parsed(said["accuracy"]),
        }
        detector = getattr(reader.detector, "name", type(reader.detector).__name__)
        limits = dataclasses.asdict(self._service.limits)
        return json_response({"models": [model], "detector": detector, "version": mien.__version__, "limits": limits})

    async def health(self, _: Request) -> Response:
        """The process lives and its loop turns."""
        return json_response({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """Whether a picture sent now would be accepted."""
        engine = self._service.engine
        if self._service.draining:
            return json_response({"status": "stopping"}, 503)
        if engine.accepted >= engine.limits.queue:
            return json_response({"status": "queue full"}, 503)
        return json_response({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """Everything that is counted, for Prometheus."""
        return Response(self._service.metrics.to_text(), media_type=CONTENT_TYPE_LATEST)


def docs_page(api: dict[str, Any]) -> Response:
    """The OpenAPI as a page that loads nothing: every path with its parameters, answers and an example."""
    parts = [_path(path, method, said) for path, methods in api["paths"].items() for method, said in methods.items()]
    about = escape(api["info"]["description"]).replace("\n\n", "</p><p>")
    title = f"{api['info']['title']} {api['info']['version']}"
    body = f"<body><main><h1>{escape(title)}</h1><p>{about}</p>"
    body += '<p>For programs: <a href="openapi.json">openapi.json</a></p>'
    return HTMLResponse(head(title, _STYLE) + body + "".join(parts) + "</main></body></html>")


def _path(path: str, method: str, said: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{escape(p['name'])}</code> {escape(_kind(p['schema']))}: {escape(p.get('description', ''))}</li>"
        for p in said.get("parameters", ())
    )
    bodies = "".join(f"<li><code>{escape(kind)}</code></li>" for kind in said.get("requestBody", {}).get("content", ()))
    answers = "".join(
        f"<li><b>{status}</b> {escape(answer.get('description', ''))}</li>"
        for status, answer in said["responses"].items()
    )
    return (
        f"<section><h2><small>{method.upper()}</small> {escape(path)}</h2><p>{escape(said.get('description', ''))}</p>"
        + (f"<h3>Query</h3><ul>{parameters}</ul>" if parameters else "")
        + (f"<h3>Body</h3><ul>{bodies}</ul>" if bodies else "")
        + f"<h3>Answers</h3><ul>{answers}</ul>{_example(said)}</section>"
    )


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    ends = f" {schema['minimum']}..{schema['maximum']}" if "minimum" in schema else ""
    return f"{schema.get('type', '')}{ends}"


def _example(said: dict[str, Any]) -> str:
    example = said["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("example")
    return "" if example is None else f"<h3>Example</h3><pre>{escape(json.dumps(example, indent=2))}</pre>"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


_STYLE = """
main { max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
section { border-top: 1px solid var(--line); padding-top: .5rem; margin-top: 2rem; }
h2 { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
h2 small { opacity: .6; }
h3 { margin: 1rem 0 .25rem; font-size: 1rem; }
ul { margin: 0; padding-left: 1.25rem; }
pre { overflow-x: auto; padding: .75rem; background: var(--track); font-size: .85rem; }
"""


log = logging.getLogger("mien.serve")


LEAST_SIZE, USUAL_SIZE, MOST_SIZE = 16, 192, 1024  # pixels of an overlay's side


TOP = "top"


class Pictures:
    """The two paths that take pictures."""

    def __init__(self, service: Service) -> None:
        """``service`` reads them."""
        self._service = service
        reader = service.engine.reader
        self._model = {"model": reader.model.name, "precision": reader.model.metadata["precision"]}
        self._words = (TOP, *map(str, reader.model.emotions))

    async def predict(self, request: Request) -> Response:
        """A reading for each picture. One of several that cannot be read has its error, a single one is a problem."""
        query = Query(QueryParams(request.scope["query_string"]).multi_items())
        maps = query.flag("maps")
        query.end()
        names, futures = await self._read(request)
        if len(futures) == 1:
            return json_response({**self._model, "readings": [reading_dict(_result(futures[0]), maps=maps)]})
        readings = [_told(name, future, maps) for name, future in zip(names, futures, strict=True)]
        return json_response({**self._model, "readings": readings})

    async def explain(self, request: Request) -> Response:
        """Where the network sees an emotion: for every face as JSON, or for one of them as a PNG."""
        query = Query(QueryParams(request.scope["query_string"]).multi_items())
        emotion = query.word("emotion", self._words)
        kind = query.word("format", ("json", "png"))
        number = query.number("face", 1, least=1, most=9999)
        size = query.number("size", USUAL_SIZE, least=LEAST_SIZE, most=MOST_SIZE)
        query.end()
        _, futures = await self._read(request, most=1)
        read = _result(futures[0])
        faces = read.reading.faces
        if kind == "png":
            faces = faces[number - 1 : number]
            if not faces:
                raise Problem(404, f"the picture has no face {number}; mien found {len(read.reading.faces)}")
        drawn = await self._draw(request, faces, emotion, size)
        if kind == "png":
            return Response(drawn[0][1], media_type="image/png", headers={"X-Mien-Emotion": str(drawn[0][0])})
        explained = [explained_dict(face, *pair) for face, pair in zip(faces, drawn, strict=True)]
        return json_response({**self._model, "reading": {**reading_dict(read, maps=False), "faces": explained}})

    async def _read(self, request: Request, *, most: int | None = None) -> "tuple[list[str], list[Future[Read]]]":
        """The names of the pictures, and their futures, done."""
        service = self._service
        with service.body(request.scope, request.receive) as body:
            sent = await service.pictures(body)
            if most is not None and len(sent) > most:
                raise Problem(422, f"this path takes one picture, not {len(sent)}; send a request for each")
            names = [picture.name for picture in sent]
            futures = service.engine.read(sent)
            del sent  # the engine lets go of the bytes once they are decoded
            await service.wait(futures, request.receive)
        return names, futures

    async def _draw(
        self, request: Request, faces: tuple[Face, ...], emotion: str, size: int
    ) -> list[tuple[Emotion, bytes]]:
        work = functools.partial(_draw_all, faces, emotion, size)
        future = self._service.engine.run(work)
        await self._service.wait([future], request.receive)
        return future.result()


def _draw_all(faces: tuple[Face, ...], emotion: str, size: int) -> list[tuple[Emotion, bytes]]:
    asked = [face.top if emotion == TOP else Emotion(emotion) for face in faces]
    return [(each, overlay_png(face, each, size)) for face, each in zip(faces, asked, strict=True)]


def _result(future: "Future[Read]") -> Read:
    """What was read. Raises the ``Problem`` that a picture's error is."""
    error = future.exception()
    if error is None:
        return future.result()
    if not isinstance(error, Exception):
        raise error
    raise _problem(error) from error


def _told(name: str, future: "Future[Read]", maps: bool) -> dict[str, Any]:
    error = future.exception()
    if error is None:
        return reading_dict(future.result(), maps=maps)
    if not isinstance(error, Exception):
        raise error
    return failed_dict(name, _problem(error).detail)


def _problem(error: Exception) -> Problem:
    if not isinstance(error, ImageError | MemoryError | Problem):
        log.error("a picture could not be read", exc_info=error)
    return problem_of(error)


SUMMARY = """Reads facial expressions: for each face calibrated probabilities and a map of where the network looked.

Pictures are read in memory, and neither stored nor logged. Errors are problem details (RFC 9457): one line that names
the cause and the cure. WS /v1/stream takes the frames of a camera and answers the faces in them, followed over time;
docs/serving.md tells of its messages."""


_WORDS = {
    400: "The body is broken or empty.",
    401: "The token is missing or wrong.",
    403: "A page elsewhere may not use this server, or the server is called by a foreign name.",
    404: "The picture has no face of this number.",
    408: "The body did not arrive in time.",
    413: "Too many bytes or pixels.",
    415: "The body or the picture is of a type that is not read.",
    422: "The picture is damaged, there are too many, or the query or form is wrong.",
    500: "The server failed.",
    503: "The queue is full or the server is stopping; Retry-After says when to ask again.",
    504: "The pictures were not read in time.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers that are problems, of these statuses and of those that every path may give."""
    return {
        status: {
            "description": _WORDS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            **({"headers": {"Retry-After": {"schema": {"type": "integer"}}}} if status == 503 else {}),
        }
        for status in sorted({*statuses, 403, 500})
    }


PICTURES = (400, 401, 408, 413, 415, 422, 503, 504)


def predict(limits: Limits) -> dict[str, Any]:
    """The extras of ``POST /v1/predict``."""
    maps = _parameter("maps", {"type": "boolean", "default": False}, "Add the maps of every face (see Maps).")
    return {"parameters": [maps], "requestBody": _body(limits.max_images)}


def explain(emotions: tuple[str, ...]) -> dict[str, Any]:
    """The extras of ``POST /v1/explain``."""
    size = {"type": "integer", "minimum": LEAST_SIZE, "maximum": MOST_SIZE, "default": USUAL_SIZE}
    face = {"type": "integer", "minimum": 1, "maximum": 9999, "default": 1}
    return {
        "parameters": [
            _parameter("emotion", {"enum": [TOP, *emotions], "default": TOP}, "Whose map; top: each face's own."),
            _parameter("format", {"enum": ["json", "png"], "default": "json"}, "All faces as JSON, or one as a PNG."),
            _parameter("face", face, "Which face a PNG shows, counted from the largest."),
            _parameter("size", size, "Pixels of the overlay's side."),
        ],
        "requestBody": _body(1),
    }


def predicted() -> dict[int | str, dict[str, Any]]:
    """The good answer of ``POST /v1/predict`` and its problems."""
    good = {"model": schemas.Predicted, "description": "A reading for each picture, in order."}
    return {200: good, **problems(*PICTURES)}


def explained() -> dict[int | str, dict[str, Any]]:
    """The good answers of ``POST /v1/explain`` and its problems."""
    png = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
    good = {"model": schemas.Explanation, "description": "The faces with their maps, or a PNG.", "content": png}
    return {200: good, **problems(404, *PICTURES)}


def _parameter(name: str, schema: dict[str, Any], about: str) -> dict[str, Any]:
    if "enum" in schema:
        schema = {"type": "string", **schema}
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": about}


def _body(most: int) -> dict[str, Any]:
    picture = {"type": "string", "format": "binary"}
    files = {"type": "array", "items": picture, "minItems": 1, "maxItems": most}
    form = {
        "type": "object",
        "properties": {"file": files},
        "required": ["file"],
        "additionalProperties": False,
    }
    raw = {"schema": picture}
    kinds = ("image/jpeg", "image/png", "image/webp")
    return {
        "required": True,
        "description": f"A picture as the body, or up to {most} in the form field 'file'.",
        "content": {
            "multipart/form-data": {"schema": form, "encoding": {"file": {"contentType": ", ".join(kinds)}}},
            **dict.fromkeys((*kinds, "application/octet-stream"), raw),
        },
    }
