"""Query parameters, JSON shapes of responses, and the OpenAPI document.

The JSON shapes describe responses in the OpenAPI document; responses are not checked against them at run time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import QueryParams
from starlette.requests import Request

from mien._emotions import SEVEN
from mien._suggest import suggest
from mien.bundled import DEFAULT_MODEL
from mien.serve.problems import MEDIA_TYPE, Problem
from mien.serve.uploads import FIELD

SUMMARY = """Reads facial expressions: calibrated probabilities of emotions for each face, and saliency maps.

Images are read in memory; they are neither stored nor logged. Errors are problem details (RFC 9457) with one line that
names the cause and what to do. WS /v1/stream reads the frames of a camera and tracks the faces in them; its messages
are described in docs/how-to/serve.md."""

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
_PROBLEMS = {
    400: "The body is broken or empty.",
    401: "The token is missing or wrong.",
    403: "The page's origin or the server's name is not allowed.",
    404: "The image has no face of this number.",
    408: "The body did not arrive in time.",
    413: "Too many bytes or pixels.",
    415: "The type of the body or of the image is not supported.",
    422: "The image is damaged, there are too many images, or the query or form is wrong.",
    500: "The server failed.",
    503: "The queue or the memory is full, or the server is stopping; Retry-After gives the seconds to wait.",
    504: "The images were not read in time.",
}

PROBLEM_EXAMPLE: dict[str, Any] = {
    "type": "about:blank",
    "title": "Unsupported Media Type",
    "status": 415,
    "detail": "notes.txt: not an image that mien reads; convert it to JPEG or PNG",
}
_PROBS = (0.0021, 0.0008, 0.0042, 0.9127, 0.0061, 0.0093, 0.0648)
PREDICTION_EXAMPLE: dict[str, Any] = {
    "model": DEFAULT_MODEL,
    "precision": "int8",
    "readings": [
        {
            "source": "portrait.jpg",
            "faces": [
                {
                    "box": [186.2, 77.5, 267.1, 177.0],
                    "score": 0.9312,
                    "points": {
                        "right_eye": [209.6, 110.3],
                        "left_eye": [243.1, 109.0],
                        "nose": [227.5, 130.2],
                        "mouth": [228.4, 149.8],
                        "right_ear": [192.0, 121.7],
                        "left_ear": [263.3, 118.9],
                    },
                    "emotion": "happy",
                    "confidence": 0.9127,
                    "probs": dict(zip(map(str, SEVEN), _PROBS, strict=True)),
                    "quality": {"score": 1.0, "size": 96.4, "sharpness": 0.3121, "turn": 0.067},
                }
            ],
            "error": None,
            "size_wh": [640, 480],
            "timings_ms": {"wait": 0.1, "decode": 1.1, "detect": 8.4, "classify": 0.6},
        },
        {"source": "notes.txt", "faces": [], "error": PROBLEM_EXAMPLE["detail"], "size_wh": [0, 0], "timings_ms": {}},
    ],
}


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MapsOut(_Out):
    """The saliency maps of one face, one for each emotion."""

    emotions: list[str] = Field(description="In the order of the maps.")
    shape: list[int] = Field(description="[C, h, w]: emotions, rows, columns.", min_length=3, max_length=3)
    peaks: list[float] = Field(description="The value of 255 in each map; 0 for a map without positive values.")
    data: str = Field(description="Base64 of C*h*w bytes, row by row, each map scaled to 0..255 of its own peak.")


class QualityOut(_Out):
    """How well a face can be seen, whatever its expression."""

    score: float = Field(description="0..1: the smallest of size / 32, sharpness / 0.15 and 2 - 2 |turn|.")
    size: float = Field(description="Side of the crop in pixels of the image.")
    sharpness: float = Field(description="0..1; low where the face is blurred or enlarged.")
    turn: float | None = Field(
        description="0: frontal; 1, -1: the nose is below the left, right eye; null without points."
    )


class FaceOut(_Out):
    """A face in an image."""

    box: list[float] = Field(description="x1, y1, x2, y2 in pixels of the image.", min_length=4, max_length=4)
    score: float = Field(description="Confidence of the detector, 0..1.")
    points: dict[str, list[float] | None] | None = Field(
        description="x, y of right_eye, left_eye, nose, mouth, right_ear and left_ear; null if the detector has none."
    )
    emotion: str | None = Field(description="The most probable emotion; null (unsure) below the threshold.")
    confidence: float = Field(description="The highest probability, 0..1.")
    probs: dict[str, float] = Field(description="Calibrated probabilities; they sum to 1.")
    quality: QualityOut
    maps: MapsOut | None = Field(None, description="With maps=true.")
    to_image: list[list[float]] | None = Field(
        None, description="With maps=true: affine [2, 3] from crop pixels (x, y, 1) to the image."
    )
    crop_size: int | None = Field(None, description="With maps=true: a map spans 0..crop_size of the crop.")


class ExplainedFaceOut(FaceOut):
    """A face with the saliency map of one emotion drawn over its crop."""

    explained: str = Field(description="The emotion of the overlay.")
    overlay_png: str = Field(description="Base64 of a PNG.")


class ReadingOut(_Out):
    """The faces in one image, from largest to smallest."""

    source: str = Field(description="The file name that was sent, or 'image'.")
    faces: list[FaceOut]
    error: str | None = Field(description="Why the image could not be read.")
    size_wh: list[int] = Field(description="Width and height in pixels, upright.", min_length=2, max_length=2)
    timings_ms: dict[str, float] = Field(description="wait, decode, detect, classify.")
    note: str | None = Field(None, description="For example: only the first frame of an animation was read.")


class ExplainedReadingOut(ReadingOut):
    """A reading with explained faces."""

    faces: list[ExplainedFaceOut]  # type: ignore[assignment]


class PredictionOut(_Out):
    """The response of /v1/predict: a reading for each image, in their order."""

    model: str
    precision: str
    readings: list[ReadingOut]


class ExplanationOut(_Out):
    """The response of /v1/explain."""

    model: str
    precision: str
    reading: ExplainedReadingOut


class ModelOut(_Out):
    """The loaded model."""

    name: str
    precision: str
    emotions: list[str] = Field(description="In the order of the model's outputs.")
    size: int = Field(description="Side of a crop in pixels.")
    licence: str
    accuracy: Any = Field(description="The metrics in the model file, with the split they were measured on.")


class ModelsOut(_Out):
    """The loaded model, and what the server accepts."""

    models: list[ModelOut]
    detector: str
    version: str = Field(description="The version of mien.")
    limits: dict[str, float] = Field(description="The limits by the names of the options, such as max_bytes.")


class HealthOut(_Out):
    """Whether the server is alive, or ready."""

    status: str


class ProblemOut(_Out):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": PROBLEM_EXAMPLE})
    type: str
    title: str
    status: int
    detail: str = Field(description="One line that names the cause and what to do.")


@dataclass(frozen=True)
class Parameter:
    """A query parameter: one declaration parses it and describes it in the OpenAPI document.

    Attributes:
        name: Name in the query.
        default: Value without the parameter; its type is the parameter's type.
        description: Description in the OpenAPI document.
        choices: Allowed words of a ``str`` parameter.
        bounds: Smallest and largest value of an ``int`` parameter.
    """

    name: str
    default: str | int | bool
    description: str
    choices: Sequence[str] = ()
    bounds: tuple[int, int] = (0, 0)

    def parse(self, text: str) -> str | int | bool:
        """Parse a value.

        Args:
            text: The value in the query.

        Returns:
            A value of the type of ``default``.

        Raises:
            Problem: 422, the value is not allowed.
        """
        shown = repr(text[:40])
        if isinstance(self.default, int) and not isinstance(self.default, bool):
            low, high = self.bounds
            if not (text.isascii() and text.isdecimal() and len(text) < 10 and low <= int(text) <= high):
                raise Problem(422, f"{self.name} must be an integer from {low} to {high}, not {shown}")
            return int(text)
        choices = ("false", "true") if isinstance(self.default, bool) else self.choices
        if text not in choices:
            hint = suggest(text[:40], choices)
            raise Problem(422, f"{self.name} must be one of {', '.join(choices)}, not {shown}{hint}")
        return text == "true" if isinstance(self.default, bool) else text

    def to_openapi(self) -> dict[str, Any]:
        """Return the parameter object of OpenAPI."""
        schema: dict[str, Any] = {"type": "string", "enum": list(self.choices)}
        if isinstance(self.default, bool):
            schema = {"type": "boolean"}
        elif isinstance(self.default, int):
            schema = {"type": "integer", "minimum": self.bounds[0], "maximum": self.bounds[1]}
        schema["default"] = self.default
        shown = {"name": self.name, "in": "query", "required": False, "description": self.description}
        return {**shown, "schema": schema}


def parse_query(request: Request, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Parse the query of a request.

    Args:
        request: The request.
        parameters: The parameters of its path.

    Returns:
        The value of every parameter by name.

    Raises:
        Problem: 422, an unknown parameter, one that is given twice, or a wrong value.
    """
    known = {parameter.name: parameter for parameter in parameters}
    texts: dict[str, str] = {}
    for name, text in QueryParams(request.scope["query_string"]).multi_items():
        if name not in known:
            raise Problem(422, f"{name[:40]!r} is unknown; this path takes: {', '.join(known) or 'none'}")
        if name in texts:
            raise Problem(422, f"{name!r} is given twice in the query; give it once")
        texts[name] = text
    return {name: each.parse(texts[name]) if name in texts else each.default for name, each in known.items()}


def responses(description: str, shape: type[BaseModel] | None, *statuses: int, **content: Any) -> Any:
    """Describe the responses of a path.

    Args:
        description: Describes the response 200.
        shape: Its JSON shape, if it has one.
        *statuses: Statuses of the path's problems; 403 and 500 are always added.
        **content: Further members of the response 200.

    Returns:
        The argument ``responses`` of FastAPI.
    """
    described = {
        status: {
            "description": _PROBLEMS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}},
            **({"headers": {"Retry-After": {"schema": {"type": "integer"}}}} if status == 503 else {}),
        }
        for status in sorted({*statuses, 403, 500})
    }
    return {200: {"description": description, **({"model": shape} if shape else {}), **content}, **described}


def request_with_images(parameters: Sequence[Parameter], max_images: int) -> dict[str, Any]:
    """Describe a request that carries images.

    Args:
        parameters: Query parameters.
        max_images: Largest number of images.

    Returns:
        The argument ``openapi_extra`` of FastAPI.
    """
    image = {"type": "string", "format": "binary"}
    files = {"type": "array", "items": image, "minItems": 1, "maxItems": max_images}
    form = {"type": "object", "properties": {FIELD: files}, "required": [FIELD], "additionalProperties": False}
    encoding = {FIELD: {"contentType": ", ".join(_IMAGE_TYPES)}}
    description = "A data URL, data:image/png;base64,...; the base64 alone is accepted."
    url = {"type": "string", "format": "data-url", "minLength": 1, "description": description}
    urls = {"type": "array", "items": url, "minItems": 1, "maxItems": max_images}
    in_json = {
        "oneOf": [
            {"type": "object", "properties": {name: shape}, "required": [name], "additionalProperties": False}
            for name, shape in (("image", url), ("images", urls))
        ]
    }
    return {
        "parameters": [parameter.to_openapi() for parameter in parameters],
        "requestBody": {
            "required": True,
            "description": f"An image as the body, or up to {max_images} in the form field {FIELD!r} or as data URLs.",
            "content": {
                "application/json": {"schema": in_json},
                "multipart/form-data": {"schema": form, "encoding": encoding},
                **{kind: {"schema": image} for kind in (*_IMAGE_TYPES, "application/octet-stream")},
            },
        },
    }


def complete_openapi(app: FastAPI, *, token: bool) -> None:
    """Add to an application's OpenAPI document the shape of problems, the example of /v1/predict and the token.

    Args:
        app: The application.
        token: Whether the server requires a token.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            components = document.setdefault("components", {})
            components.setdefault("schemas", {})["ProblemOut"] = ProblemOut.model_json_schema()
            predict = document["paths"]["/v1/predict"]["post"]["responses"]["200"]
            predict["content"]["application/json"]["example"] = PREDICTION_EXAMPLE  # FastAPI leaves out every null
            if token:
                components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                for path, methods in document["paths"].items():
                    for method in methods.values() if path.startswith(("/v1/", "/metrics")) else ():
                        method["security"] = [{"token": []}]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
