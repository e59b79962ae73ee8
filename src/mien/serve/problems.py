"""Errors as problem details for HTTP APIs (RFC 9457): one JSON object with the status, its name and a clear line."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from mien._errors import ImageError, NotAnImageError, TooLargeError

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 -- RFC 9457 calls it so
    """A request that is not answered as it wished; ``detail`` is one line that names the cause and the cure."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        """``status`` is the HTTP status, ``headers`` go with the answer."""
        super().__init__(detail)
        self.status = status
        self.detail = " ".join(detail.split())
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """The members of RFC 9457; the type ``about:blank`` says that the status tells all."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }

    def to_response(self) -> Response:
        """The answer."""
        return Response(json.dumps(self.to_dict()), self.status, self.headers, MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """What a picture's error is in HTTP: 413 too large, 415 no picture, 422 damaged."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, TooLargeError):
        return Problem(413, str(error))
    if isinstance(error, NotAnImageError):
        return Problem(415, str(error))
    if isinstance(error, ImageError):
        return Problem(422, str(error))
    if isinstance(error, MemoryError):
        return Problem(413, "not enough memory for this picture; scale it down")
    return Problem(500, "the server failed to answer; its log says why")
