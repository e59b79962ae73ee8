"""mien reads facial expressions: calibrated probabilities over the emotions, and a map of where the model looked.

    from mien import Reader

    reader = Reader()
    for face in reader.read("photo.jpg").faces:
        print(face.emotion, face.confidence, face.box)

The path of the data, one module for each step:

    decode     path | bytes | stream | array -> image      EXIF applied, bytes and pixels limited
    detect     image -> detections                         box, key points, score
    extract    image, detections -> crops                  rotation removed, framed as the training faces are
    infer      crops -> probabilities, maps                the ONNX file holds everything that a reader must know
    reader     Reader: the calls above, for one image or many
    overlay    image, reading -> annotated image
    report     readings -> JSON lines | CSV | Parquet | HTML | annotated images
    video      frames -> results                           track: faces followed through videos and cameras
    commands   the command line, each command a thin call of the above

``mien.lab`` trains the networks and needs the extra ``mien[lab]``; nothing else imports it.
"""

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
from mien._face import Box, Face, KeyPoints, Reading

if TYPE_CHECKING:
    from mien.detect import open_detector
    from mien.overlay import annotate
    from mien.reader import Reader
    from mien.report import AnnotatedImages, Csv, Html, JsonLines, Parquet
    from mien.video import track

__version__ = "0.1.0"

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
    "open_detector",
    "track",
]


# ONNX Runtime and Pillow take longer to import than all of mien: these names are loaded when they are first used.
_LAZY = {
    "Reader": "mien.reader",
    "annotate": "mien.overlay",
    "open_detector": "mien.detect",
    "track": "mien.video",
    **dict.fromkeys(("AnnotatedImages", "Csv", "Html", "JsonLines", "Parquet"), "mien.report"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mien' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
