"""Image -> detections: the box, score and key points of each face.

To add a detector, write a module of this package with a class that has ``name``, ``__init__`` and ``__call__`` like
``BlazeFace``. Then add it to ``_MODULES`` and to the help of the detector option in ``mien/commands/_options.py``.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np

from mien._errors import MienError, ModelError, is_number, require_integer, shown
from mien._face import LARGEST_PLACE, Box, Detection, Pixels
from mien._suggest import suggest

__all__ = ["DETECTORS", "MAX_FACES", "THRESHOLD", "Detection", "Detector", "from_detections", "open_detector"]

# Module and class of each detector; a module is imported when its detector is opened.
_MODULES = {
    "blazeface": ("mien.detect.blazeface", "BlazeFace"),
    "yunet": ("mien.detect.yunet", "YuNet"),
    "none": ("mien.detect", "WholeImage"),
}
DETECTORS = tuple(_MODULES)
THRESHOLD = 0.65  # score from which a candidate is a face
MAX_FACES = 1000  # in an image; each small face takes about 20 ms


class Detector(Protocol):
    """An object that finds faces in an image. mien calls it from several threads at once.

    Attributes:
        name: A short name for messages.

    Example:
        >>> from mien import Box, Reader
        >>> from mien.detect import Detection
        >>> class Fixed:
        ...     name = "fixed"
        ...     def __call__(self, pixels):
        ...         return [Detection(Box(10, 10, 90, 90), score=1.0, points=None)]
        >>> reader = Reader(detector=Fixed())
    """

    name: str

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """Find the faces in an image.

        Args:
            pixels: The image, RGB uint8 ``[H, W, 3]``. It must not be changed.

        Returns:
            One ``Detection`` for each face, in pixels of the image, largest first.
        """
        ...


def from_detections(detections: Any) -> list[Detection]:
    """Return the faces of another detector in the form that ``Reader.read_at`` uses.

    Args:
        detections: A list of ``Detection``; boxes ``[N, 4]`` as ``x1, y1, x2, y2`` in pixels of the image, or
            ``[N, 5]`` with a score from 0 to 1 as the last column; or an object with such boxes in ``xyxy`` and perhaps
            scores in ``confidence``, such as ``supervision.Detections``.

    Returns:
        One detection for each face, in the same order. Boxes without scores have the score 1.

    Raises:
        MienError: The boxes have another form, or one of them is empty or not finite.

    Example:
        >>> from_detections([[10, 20, 50, 60]])[0].box
        Box(x1=10.0, y1=20.0, x2=50.0, y2=60.0)
    """
    given = None
    if isinstance(detections, list | tuple) and all(isinstance(each, Detection) for each in detections):
        given = list(detections)
        detections = [[*each.box, each.score] for each in given] or np.empty((0, 4))
    expected = "boxes are [N, 4] as x1, y1, x2, y2, or [N, 5] with a score"
    scores = getattr(detections, "confidence", None)
    try:
        boxes = np.asarray(getattr(detections, "xyxy", detections), np.float64)
        if boxes.ndim == 2 and boxes.shape[1] == 5 and scores is None:
            boxes, scores = boxes[:, :4], boxes[:, 4]
        scores = np.ones(len(boxes)) if scores is None else np.asarray(scores, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise MienError(f"{shown(detections)} are no boxes of faces; {expected}") from error
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise MienError(f"boxes {list(boxes.shape)} with scores {list(scores.shape)} are no faces; {expected}")
    wrong = ~(abs(boxes) <= LARGEST_PLACE).all(1) | (boxes[:, :2] >= boxes[:, 2:]).any(1)
    wrong |= ~((scores >= 0) & (scores <= 1))
    if wrong.any():
        at = int(wrong.argmax())
        raise MienError(f"face {at}: the box {boxes[at].tolist()} with score {scores[at]} is wrong; {expected}")
    if given is not None:
        return given
    return [Detection(Box(*box), score, None) for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)]


class WholeImage:
    """Returns the whole image as one face without key points. Use it for images that are tight crops of a face.

    Args:
        settings: The settings of ``open_detector``; none has an effect.
    """

    name = "none"

    def __init__(self, **settings: object) -> None:
        pass

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """Return one detection with score 1.

        Args:
            pixels: The image, RGB uint8 ``[H, W, 3]``.

        Returns:
            A list of one detection that covers the image.
        """
        height, width = pixels.shape[:2]
        return [Detection(Box(0.0, 0.0, float(width), float(height)), 1.0, None)]


def open_detector(
    name: str = "blazeface",
    *,
    threshold: float = THRESHOLD,
    min_face: float | None = None,
    max_faces: int = MAX_FACES,
    threads: int = 1,
    providers: Sequence[str] = ("cpu",),
) -> Detector:
    """Open a detector by its name. Its calls are thread-safe.

    Args:
        name: One of ``DETECTORS``: ``"blazeface"``; ``"yunet"``, which is downloaded when it is first opened, into the
            folder that ``mien._download`` documents; or ``"none"``, which returns the whole image as one face.
        threshold: Score from 0 to 1 from which a candidate is a face.
        min_face: Width in pixels of the smallest face to look for, 8 or more. Time and memory grow with the pixels of
            the image divided by the square of this width. The default is 24 pixels, but at least 1 % of the image's
            long side. In portraits and video calls (one face is wider than 8 % of that side, and there is no crowd) the
            default of BlazeFace leaves out faces less than a third as wide as the largest one.
        max_faces: Largest number of faces that are returned, the most certain ones. It bounds the time.
        threads: Threads of ONNX Runtime for one call; 0 uses all cores.
        providers: Execution providers of ONNX Runtime, first choice first, as of ``Reader``.

    Returns:
        The detector.

    Raises:
        ModelError: The name is unknown or a setting is out of range.
        DownloadError: The file of the detector cannot be downloaded.

    Example:
        >>> from mien import Reader, open_detector
        >>> reader = Reader(detector=open_detector("blazeface", min_face=24))
    """
    if not isinstance(name, str) or name not in DETECTORS:
        hint = suggest(shown(name), DETECTORS)
        raise ModelError(f"unknown detector {shown(name)}; mien knows {', '.join(DETECTORS)}{hint}")
    if not is_number(threshold) or not 0 < threshold < 1:
        raise ModelError(
            f"the detector's threshold is {shown(threshold)}; it must be between 0 and 1, such as {THRESHOLD}"
        )
    if min_face is not None and not (is_number(min_face) and min_face >= 8):
        raise ModelError(f"min_face is {shown(min_face)}; the smallest width of a face in pixels must be 8 or more")
    require_integer("max_faces", max_faces, lowest=1)
    module, kind = _MODULES[name]
    opener = getattr(import_module(module), kind)
    settings = {"threshold": threshold, "min_face": min_face, "max_faces": max_faces}
    return cast(Detector, opener(**settings, threads=threads, providers=providers))
