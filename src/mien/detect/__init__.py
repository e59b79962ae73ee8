"""Picture -> faces: where they are, how sure, and their key points."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mien._errors import ModelError
from mien._face import Box, Detection
from mien.detect.tiles import Pixels

__all__ = ["DETECTORS", "THRESHOLD", "Detector", "open_detector"]


class Whole:
    """Answers the whole picture as one face without key points: for sets of pictures that are crops already."""

    name = "none"

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """One detection that covers the RGB uint8 ``[H, W, 3]`` picture, with score 1."""
        height, width = pixels.shape[:2]
        return [Detection(Box(0.0, 0.0, float(width), float(height)), 1.0, None)]


DETECTORS = ("blazeface", "yunet", "none")


THRESHOLD = 0.65  # score from which a candidate is a face


class Detector(Protocol):
    """Anything that finds faces in a picture. mien calls it from several threads at once."""

    name: str

    def __call__(self, pixels: NDArray[np.uint8]) -> list[Detection]:
        """The faces of an RGB uint8 ``[H, W, 3]`` picture in its pixels, largest first."""
        ...


def open_detector(
    name: str = "blazeface",
    *,
    threshold: float = THRESHOLD,
    min_face: float | None = None,
    threads: int = 1,
    providers: Sequence[str] = ("cpu",),
) -> Detector:
    """Open a detector by its name in ``DETECTORS``; its calls are thread-safe.

    ``threshold`` (0..1) is the score from which a candidate is a face.

    ``min_face`` is the width in pixels of the smallest face to look for; the time grows with the pixels of the picture
    over its square. By default it is 24 pixels, but not less than 1 % of the picture's long side. In portraits and
    video calls (one face is wider than 8 % of that side, and no crowd shows behind it) BlazeFace leaves out who is less
    than a third as wide as that face. Name a number, such as 24, to look for all.

    ``threads`` and ``providers`` are those of ONNX Runtime. "yunet" is downloaded when it is first opened, into the
    folder that ``mien._download`` documents; "none" answers the whole picture as one face.

    Raises ``ModelError`` for an unknown name or a setting out of range, ``DownloadError`` when a file cannot be had.
    """
    _check(name, threshold, min_face)
    if name == "none":
        return Whole()
    if name == "yunet":
        from mien.detect.yunet import YuNet

        return YuNet(threshold=threshold, min_face=min_face, threads=threads, providers=providers)
    from mien.detect.blazeface import BlazeFace

    return BlazeFace(threshold=threshold, min_face=min_face, threads=threads, providers=providers)


def _check(name: str, threshold: float, min_face: float | None) -> None:
    if name not in DETECTORS:
        raise ModelError(f"unknown detector {name!r}; mien knows {', '.join(DETECTORS)}")
    if not 0 < threshold < 1:
        raise ModelError(f"the detector's threshold is {threshold}; it must lie between 0 and 1, such as {THRESHOLD}")
    if min_face is not None and not min_face >= 8:
        raise ModelError(f"min_face is {min_face}; the smallest width of a face in pixels must be 8 or more")
