"""Readings -> what goes back over the wire: plain JSON values and PNG."""

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
from mien.serve.engine import Read

_PNG_LEVEL = 3  # of 9: a third of the time of the usual 6, files a tenth larger


def json_response(value: dict[str, Any], status: int = 200) -> Response:
    """``value`` as a JSON answer."""
    return Response(json.dumps(value, ensure_ascii=False, separators=(",", ":")), status, media_type="application/json")


def reading_dict(read: Read, *, maps: bool) -> dict[str, Any]:
    """``Reading.to_dict()`` with size and timings, and with ``maps`` what is needed to draw every face's maps."""
    reading = read.reading
    plain = reading.to_dict()
    plain["size_wh"] = list(reading.size_wh)
    plain["timings_ms"] = {stage: round(1000 * seconds, 2) for stage, seconds in read.seconds.items()}
    if maps:
        for face, said in zip(reading.faces, plain["faces"], strict=True):
            said.update(maps_dict(face))
    return plain


def failed_dict(name: str, error: str) -> dict[str, Any]:
    """The reading of a picture that could not be read, among others that could."""
    return {**Reading((), name, (0, 0), error=error).to_dict(), "size_wh": [0, 0], "timings_ms": {}}


def maps_dict(face: Face) -> dict[str, Any]:
    """The maps of ``face`` in a few hundred bytes, and where they lie in the picture.

    ``data`` is base64 of bytes ``[C, h, w]``: each map 0..255 of its own ``peak``, negative values cut. ``to_image``
    takes crop pixels ``(x, y, 1)`` to the picture; a crop, and so each map, spans 0..``crop_size``.
    """
    positive = np.maximum(face.maps, 0)
    peaks = positive.max(axis=(1, 2))
    scaled = np.rint(positive * (255 / np.maximum(peaks, 1e-12))[:, None, None]).astype(np.uint8)
    return {
        "maps": {
            "emotions": [str(emotion) for emotion in face.probs],
            "shape": list(scaled.shape),
            "peaks": [round(float(peak), 4) for peak in peaks],
            "data": base64.b64encode(scaled.tobytes()).decode("ascii"),
        },
        "to_image": [[round(float(value), 4) for value in row] for row in face.to_image],
        "crop_size": face.crop.shape[0],
    }


def overlay_png(face: Face, emotion: Emotion, size: int) -> bytes:
    """The crop of ``face`` under its map of ``emotion``, a PNG of ``size`` x ``size`` pixels."""
    stream = io.BytesIO()
    Image.fromarray(map_over_crop(face, emotion, size=size)).save(stream, "PNG", compress_level=_PNG_LEVEL)
    return stream.getvalue()


def explained_dict(face: Face, emotion: Emotion, png: bytes) -> dict[str, Any]:
    """A face with its map of one emotion: as values, and as a PNG laid over its crop (base64)."""
    return {
        **face.to_dict(),
        **maps_dict(face),
        "explained": str(emotion),
        "overlay_png": base64.b64encode(png).decode("ascii"),
    }
