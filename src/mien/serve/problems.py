"""Errors as problem details for HTTP APIs (RFC 9457)."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from mien._errors import ImageError, NotAnImageError, TooLargeError, UnsupportedImageError

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 -- the name in RFC 9457
    """An error response."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Create a problem.

        Args:
            status: HTTP status; in the WebSocket endpoint the close code.
            detail: One line that names the cause and what to do.
            headers: Additional response headers.
        """
        super().__init__(detail)
        self.status = status
        self.detail = " ".join(detail.split())
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the members of RFC 9457. The type ``about:blank`` means that the status is the type."""
        title = HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}

    def to_response(self) -> Response:
        """Return the HTTP response."""
        return Response(json.dumps(self.to_dict()), self.status, self.headers, MEDIA_TYPE)


class TooSlowError(TooLargeError):
    """An image has taken longer to read than the time limit."""


def to_problem(error: Exception) -> Problem:
    """Convert an error of an image to a problem.

    Args:
        error: The error that decoding or reading raised.

    Returns:
        Status 413 (too large), 415 (not an image, or an unsupported variant), 422 (damaged image), 504 (too slow), or
        500 for any other error.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, MemoryError):
        return Problem(413, "not enough memory for this image; scale it down")
    statuses = {
        TooSlowError: 504,
        TooLargeError: 413,
        NotAnImageError: 415,
        UnsupportedImageError: 415,
        ImageError: 422,
    }
    for kind, status in statuses.items():
        if isinstance(error, kind):
            return Problem(status, str(error))
    return internal_error()


def stopping() -> Problem:
    """Return the problem of a request that the server does not answer any more."""
    return Problem(503, "the server is stopping; try again in 5 s", headers={"Retry-After": "5", "Connection": "close"})


def internal_error() -> Problem:
    """Return the problem of an unexpected error; details are in the log only."""
    return Problem(500, "the server failed; its log has the details")
