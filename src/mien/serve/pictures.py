"""``POST /v1/predict`` and ``POST /v1/explain``: pictures in, readings or maps out."""

import functools
import logging
from concurrent.futures import Future
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from mien._emotions import Emotion
from mien._errors import ImageError
from mien._face import Face
from mien.serve.answers import explained_dict, failed_dict, json_response, overlay_png, reading_dict
from mien.serve.engine import Read
from mien.serve.problems import Problem, problem_of
from mien.serve.query import Query
from mien.serve.service import Service

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
