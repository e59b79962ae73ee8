"""What the OpenAPI says of each path beyond its answers' shapes: parameters, bodies, problems, examples."""

from typing import Any

from mien.serve import schemas
from mien.serve.limits import Limits
from mien.serve.pictures import LEAST_SIZE, MOST_SIZE, TOP, USUAL_SIZE
from mien.serve.problems import MEDIA_TYPE

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
