"""mien reads facial expressions: calibrated probabilities over the emotions, and a map of where the model looked.

    from mien import Reader

    reader = Reader()
    for face in reader.read("photo.jpg").faces:
        print(face.emotion, face.confidence, face.box)

The path of the data, a module for each step:

    decode     path | bytes | stream | array -> picture    EXIF applied, bytes and pixels limited
    detect     picture -> detections                       box, key points, score
    extract    picture, detections -> crops                rotation removed, framed as the training faces are
    infer      crops -> probabilities, maps                the ONNX file says everything about itself
    pipeline   Reader: the calls above, for one picture or a stream of them
    overlay    picture, reading -> annotated picture
    report     readings -> JSON lines | CSV | Parquet | HTML
    stream     frames -> moments                           track: faces followed through films and cameras
    commands   the command line, each command a thin call of the above

``mien.lab`` trains the networks and needs the extra ``mien[lab]``; nothing else imports it.
"""

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
)
from mien._face import Box, Face, KeyPoints, Reading

if TYPE_CHECKING:
    from mien.reader import Reader
    from mien.video import track

__version__ = "0.1.0"

__all__ = [
    "Box",
    "DataError",
    "DeviceError",
    "DivergedError",
    "DownloadError",
    "Emotion",
    "Face",
    "ImageError",
    "KeyPoints",
    "MienError",
    "MissingExtraError",
    "ModelError",
    "NotAnImageError",
    "OutputError",
    "Reader",
    "Reading",
    "RecipeError",
    "SourceError",
    "TooLargeError",
    "TruncatedError",
    "__version__",
    "track",
]


def __getattr__(name: str) -> Any:
    # ONNX Runtime and Pillow take longer to import than all of mien: they are loaded with the first use of a Reader.
    if name == "Reader":
        from mien.reader import Reader

        return Reader
    if name == "track":
        from mien.video import track

        return track
    raise AttributeError(f"module 'mien' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
