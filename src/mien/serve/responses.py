"""Responses: readings and saliency maps as JSON and PNG."""

import base64
import io
import json
from typing import Any

import numpy as np
from PIL import Image
from starlette.responses import Response

from mien._emotions import Emotion
from mien._face import Face, Reading
from mien.overlay import map_over_crop
from mien.serve.engine import TimedReading

_PNG_LEVEL = 3  # of 9: takes a third of the time of the default 6, files are a tenth larger


def json_response(value: dict[str, Any], status: int = 200) -> Response:
    """Return a JSON response.

    Args:
        value: JSON values.
        status: HTTP status.

    Returns:
        The response.
    """
    return Response(json.dumps(value, ensure_ascii=False, separators=(",", ":")), status, media_type="application/json")


def reading_dict(timed: TimedReading, *, maps: bool) -> dict[str, Any]:
    """Convert a reading to JSON values.

    Args:
        timed: The reading and its durations.
        maps: Add the saliency maps of every face (see ``maps_dict``).

    Returns:
        ``Reading.to_dict()`` with ``timings_ms``.
    """
    reading = timed.reading
    values = reading.to_dict()
    values["timings_ms"] = {stage: round(1000 * seconds, 2) for stage, seconds in timed.seconds.items()}
    if maps:
        for face, face_values in zip(reading.faces, values["faces"], strict=True):
            face_values.update(maps_dict(face))
    return values


def failed_dict(name: str, error: str) -> dict[str, Any]:
    """Convert the error of one image among several to the JSON values of a reading.

    Args:
        name: Name of the image.
        error: Why it could not be read.

    Returns:
        A reading without faces.
    """
    return {**Reading((), name, (0, 0), error=error).to_dict(), "timings_ms": {}}


def maps_dict(face: Face) -> dict[str, Any]:
    """Convert the saliency maps of a face to a few hundred bytes.

    Args:
        face: The face; its maps are ``[C, h, w]``.

    Returns:
        ``maps``, ``to_image`` (affine ``[2, 3]`` from crop pixels ``(x, y, 1)`` to the image) and ``crop_size`` (a map
        spans 0..``crop_size`` of the crop). ``maps["data"]`` is base64 of bytes ``[C, h, w]``: each map is scaled to
        0..255 of its own peak, negative values are 0.
    """
    positive = np.maximum(face.maps, 0)
    peaks = positive.max(axis=(1, 2))
    scaled = np.rint(positive * (255 / np.maximum(peaks, 1e-12))[:, None, None]).astype(np.uint8)
    return {
        "maps": {
            "emotions": [str(emotion) for emotion in face.probs],
            "shape": list(scaled.shape),
            "peaks": [round(float(peak), 4) for peak in peaks],
            "data": _base64(scaled.tobytes()),
        },
        "to_image": [[round(float(value), 4) for value in row] for row in face.to_image],
        "crop_size": face.crop.shape[0],
    }


def overlay_png(face: Face, emotion: Emotion, *, size: int) -> bytes:
    """Draw the saliency map of an emotion over the crop of a face.

    Args:
        face: The face.
        emotion: The emotion of the map.
        size: Side of the square image in pixels.

    Returns:
        A PNG file.
    """
    stream = io.BytesIO()
    Image.fromarray(map_over_crop(face, emotion, size=size)).save(stream, "PNG", compress_level=_PNG_LEVEL)
    return stream.getvalue()


def explained_dict(face: Face, emotion: Emotion, png: bytes) -> dict[str, Any]:
    """Convert a face with the saliency map of one emotion to JSON values.

    Args:
        face: The face.
        emotion: The emotion of the overlay.
        png: The overlay, a PNG file.

    Returns:
        ``Face.to_dict()`` with the maps, the emotion and the overlay in base64.
    """
    return {**face.to_dict(), **maps_dict(face), "explained": str(emotion), "overlay_png": _base64(png)}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
