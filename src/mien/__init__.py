"""mien reads facial expressions: calibrated probabilities of the emotions, and a saliency map for each.

    from mien import Reader

    reader = Reader()
    for face in reader.read("photo.jpg").faces:
        print(face.emotion, face.confidence, face.box)

The modules in the order in which data passes them:

    decode     path | bytes | stream | array -> image      applies EXIF, limits bytes and pixels
    detect     image -> detections                         box, key points, score
    extract    image, detections -> crops                  removes rotation, frames faces as in the training set
    infer      crops -> probabilities, maps                all settings of a model are in its ONNX file
    reader     Reader: the calls above, for one image or many
    overlay    image, reading -> annotated image
    report     readings -> JSON lines | CSV | Parquet | HTML | annotated images
    video      frames -> results                           track: the faces of videos and cameras over time
    cluster    distribute: many processes, on one machine or a Ray cluster
    commands   the command line: each command is a thin call of the above

``mien.lab`` trains the networks and needs the extra ``mien[lab]``. No other module imports it.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mien._emotions import Emotion
from mien._errors import (
    DataError,
    DeviceError,
    DivergedError,
    DownloadError,
    ImageError,
    MienError,
    MissingExtraError,
    ModelError,
    NotAnImageError,
    OutputError,
    RecipeError,
    SourceError,
    TooLargeError,
    TruncatedError,
    UnsupportedImageError,
)
from mien.bundled import example

if TYPE_CHECKING:
    from mien._face import Box, Face, KeyPoints, Reading
    from mien.cluster import distribute
    from mien.detect import open_detector
    from mien.overlay import annotate
    from mien.reader import Reader
    from mien.report import AnnotatedImages, Csv, Html, JsonLines, Parquet, to_pandas
    from mien.video import track

__version__ = "0.1.0"

# ONNX Runtime sends events to its maker, the first while it is imported, so its own function comes too late to stop it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "AnnotatedImages",
    "Box",
    "Csv",
    "DataError",
    "DeviceError",
    "DivergedError",
    "DownloadError",
    "Emotion",
    "Face",
    "Html",
    "ImageError",
    "JsonLines",
    "KeyPoints",
    "MienError",
    "MissingExtraError",
    "ModelError",
    "NotAnImageError",
    "OutputError",
    "Parquet",
    "Reader",
    "Reading",
    "RecipeError",
    "SourceError",
    "TooLargeError",
    "TruncatedError",
    "UnsupportedImageError",
    "__version__",
    "annotate",
    "distribute",
    "example",
    "open_detector",
    "to_pandas",
    "track",
]


# NumPy, ONNX Runtime and Pillow take longer to import than all of mien, so these names are loaded on first use. Until
# ``mien.__main__`` handles signals, Ctrl-C prints a traceback: the less is imported before, the better.
_LAZY = {
    "Reader": "mien.reader",
    "annotate": "mien.overlay",
    "distribute": "mien.cluster",
    "open_detector": "mien.detect",
    "track": "mien.video",
    **dict.fromkeys(("Box", "Face", "KeyPoints", "Reading"), "mien._face"),
    **dict.fromkeys(("AnnotatedImages", "Csv", "Html", "JsonLines", "Parquet", "to_pandas"), "mien.report"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mien' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
