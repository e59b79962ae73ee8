"""What answers look like, for the OpenAPI alone: answers are made elsewhere, and not checked again at run time."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mien.bundled import DEFAULT_MODEL

PROBLEM: dict[str, Any] = {
    "type": "about:blank",
    "title": "Unsupported Media Type",
    "status": 415,
    "detail": "notes.txt: not an image that mien reads; convert it to JPEG or PNG",
}
FACE: dict[str, Any] = {
    "box": [186.2, 77.5, 267.1, 177.0],
    "score": 0.9312,
    "emotion": "happy",
    "confidence": 0.9127,
    "probs": {
        "angry": 0.0021,
        "disgust": 0.0008,
        "fear": 0.0042,
        "happy": 0.9127,
        "sad": 0.0061,
        "surprise": 0.0093,
        "neutral": 0.0648,
    },
}
READING: dict[str, Any] = {
    "source": "portrait.jpg",
    "faces": [FACE],
    "error": None,
    "size_wh": [640, 480],
    "timings_ms": {"wait": 0.1, "decode": 1.1, "detect": 8.4, "classify": 0.6},
}
UNREAD: dict[str, Any] = {
    "source": "notes.txt",
    "faces": [],
    "error": "notes.txt: not an image that mien reads; convert it to JPEG or PNG",
    "size_wh": [0, 0],
    "timings_ms": {},
}
PREDICTED: dict[str, Any] = {"model": DEFAULT_MODEL, "precision": "int8", "readings": [READING, UNREAD]}


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Maps(_Shape):
    """The maps of one face, one for each emotion."""

    emotions: list[str] = Field(description="In the order of the maps.")
    shape: list[int] = Field(description="[C, h, w]: emotions, rows, columns.", min_length=3, max_length=3)
    peaks: list[float] = Field(description="What 255 stands for in each map; 0 for a map without positive values.")
    data: str = Field(description="Base64 of C*h*w bytes, row by row, each map scaled to 0..255 of its own peak.")


class Face(_Shape):
    """A face that was read."""

    box: list[float] = Field(description="x1, y1, x2, y2 in pixels of the picture.", min_length=4, max_length=4)
    score: float = Field(description="How sure the detector is, 0..1.")
    emotion: str | None = Field(description="The most probable emotion; null when it is not sure enough.")
    confidence: float = Field(description="The highest probability, 0..1.")
    probs: dict[str, float] = Field(description="Calibrated probabilities; they sum to 1.")
    maps: Maps | None = Field(None, description="With maps=true.")
    to_image: list[list[float]] | None = Field(
        None, description="With maps=true: affine [2, 3] that takes crop pixels (x, y, 1) to the picture."
    )
    crop_size: int | None = Field(None, description="With maps=true: a map spans 0..crop_size of the crop.")


class ExplainedFace(Face):
    """A face with its map of one emotion laid over its crop."""

    explained: str = Field(description="The emotion of the overlay.")
    overlay_png: str = Field(description="Base64 of a PNG.")


class Reading(_Shape):
    """What was read in one picture, its faces from largest to smallest."""

    source: str = Field(description="The file name that was sent, or 'picture'.")
    faces: list[Face]
    error: str | None = Field(description="Why the picture could not be read.")
    size_wh: list[int] = Field(description="Width and height in pixels, upright.", min_length=2, max_length=2)
    timings_ms: dict[str, float] = Field(description="wait, decode, detect, classify.")
    note: str | None = Field(None, description="Such as: of an animation the first frame was read.")


class Explained(Reading):
    """A reading whose faces are explained."""

    faces: list[ExplainedFace]  # type: ignore[assignment]


class Predicted(_Shape):
    """The answer of /v1/predict: a reading for each picture, in their order."""

    model: str
    precision: str
    readings: list[Reading]


class Explanation(_Shape):
    """The answer of /v1/explain."""

    model: str
    precision: str
    reading: Explained


class Model(_Shape):
    """The model that reads."""

    name: str
    precision: str
    emotions: list[str] = Field(description="In the order of its answers.")
    size: int = Field(description="Side of a crop in pixels.")
    licence: str
    accuracy: Any = Field(description="The figures that the model's file states, with the split they were measured on.")


class Models(_Shape):
    """What is loaded, and what it accepts."""

    models: list[Model]
    detector: str
    version: str = Field(description="The version of mien.")
    limits: dict[str, float] = Field(description="max_bytes, max_pixels, max_images, timeout, queue, streams, idle.")


class Health(_Shape):
    """Whether the server lives, or is ready."""

    status: str


class Problem(_Shape):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": PROBLEM})
    type: str
    title: str
    status: int
    detail: str = Field(description="One line that names the cause and the cure.")
