"""Write frame results as JSON lines, CSV or Parquet, as they come: memory does not grow with the length."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from mien._emotions import Emotion
from mien.report.tables import RowGroups, write
from mien.video.types import FrameResult


class FrameJsonLines:
    """Writes one JSON object per frame, ``FrameResult.to_dict()``. Each line is flushed.

    Args:
        stream: Text stream such as ``sys.stdout``. It is not closed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def add(self, result: FrameResult) -> None:
        """Write one frame. Raises ``OutputError`` if the stream cannot be written."""
        write(self._stream, json.dumps(result.to_dict()) + "\n")


class FrameCsv:
    """Writes one CSV row per face and frame, with the columns of ``columns``.

    ``emotion`` is empty where the reader is unsure. A frame without a face has one row without a track.

    Args:
        stream: Text stream; the header is written at once. It is not closed.
        emotions: The emotions of the model, in its order.
    """

    def __init__(self, stream: TextIO, emotions: Sequence[Emotion]) -> None:
        self._stream, self._emotions = stream, tuple(emotions)
        self._rows = csv.writer(_Lines(stream), lineterminator="\n")
        self._rows.writerow(columns(self._emotions))

    def add(self, result: FrameResult) -> None:
        """Write the rows of one frame. Raises ``OutputError`` if the stream cannot be written."""
        for row in rows(result, self._emotions):
            self._rows.writerow(row.values())


class FrameParquet:
    """Writes the rows of ``FrameCsv`` as a Parquet file, as a context manager. Empty cells are nulls.

    The file appears when the block ends without an exception.

    Args:
        path: The file to write.
        emotions: The emotions of the model, in its order.

    Raises:
        MissingExtraError: If pyarrow is not installed.
        OutputError: If ``path`` cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], emotions: Sequence[Emotion]) -> None:
        self._emotions = tuple(emotions)
        text = dict.fromkeys(("emotion", "raw_emotion"), "string")
        kinds = {"frame": "int64", "seconds": "float64", "track_id": "int32", "detected": "bool_"} | text
        self._rows = RowGroups(path, {name: kinds.get(name, "float32") for name in columns(self._emotions)})

    def __enter__(self) -> Self:
        self._rows.__enter__()
        return self

    def add(self, result: FrameResult) -> None:
        """Add the rows of one frame; they are written in row groups."""
        self._rows.add(rows(result, self._emotions))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.__exit__(kind, error, trace)


def columns(emotions: Sequence[Emotion]) -> list[str]:
    """Return the names of the columns: frame, track, box in pixels, smoothed reading, raw reading."""
    return [
        *(
            "frame",
            "seconds",
            "track_id",
            "detected",
            "x1",
            "y1",
            "x2",
            "y2",
            "emotion",
            "confidence",
            *map(str, emotions),
        ),
        *("score", "raw_emotion", "raw_confidence", *(f"raw_{emotion}" for emotion in emotions)),
    ]


def rows(result: FrameResult, emotions: Sequence[Emotion]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one frame: a value or ``None`` for each of ``columns``."""
    empty: dict[str, Any] = dict.fromkeys(columns(emotions))
    plain = result.to_dict()
    when = {"frame": plain["frame"], "seconds": plain["seconds"]}
    for face in plain["faces"]:
        raw = face["raw"]
        smoothed = {
            "track_id": face["track_id"],
            **{name: face[name] for name in ("detected", "emotion", "confidence")},
        }
        corners = dict(zip(("x1", "y1", "x2", "y2"), face["box"], strict=True))
        single = {"score": raw["score"], "raw_emotion": raw["emotion"], "raw_confidence": raw["confidence"]}
        probs = {str(e): face["probs"].get(str(e)) for e in emotions}
        raw_probs = {f"raw_{e}": raw["probs"].get(str(e)) for e in emotions}
        yield empty | when | smoothed | corners | single | probs | raw_probs
    if not plain["faces"]:
        yield empty | when


class _Lines:
    """Stream for ``csv`` whose system errors become ``OutputError``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        write(self._stream, text)
