"""Write frame results as JSON lines, CSV or Parquet. Each frame is written when it is added: memory stays bounded."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from mien._emotions import Emotion
from mien._face import QUALITY_COLUMNS, quality_cells
from mien.report.tables import RowGroups, write, write_csv
from mien.video.types import FrameResult


class FrameJsonLines:
    """Writes one JSON object a frame, as ``FrameResult.to_dict`` returns it. Each line is flushed.

    Args:
        stream: A text stream such as ``sys.stdout``. It is not closed.

    Example:
        >>> import sys
        >>> FrameJsonLines(sys.stdout).add(FrameResult(0, 0.0, (640, 480), ()))
        {"frame": 0, "seconds": 0.0, "faces": []}
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def add(self, result: FrameResult) -> None:
        """Write one frame.

        Args:
            result: The frame.

        Raises:
            OutputError: If the stream cannot be written.
        """
        write(self._stream, json.dumps(result.to_dict()) + "\n")


class FrameCsv:
    """Writes one CSV row a face and frame: track, box in pixels, smoothed reading; quality and reading of the frame.

    ``emotion`` is empty if the reader is unsure. A frame without a face has one row without a track.

    Args:
        stream: A text stream; the header is written at once. It is not closed.
        emotions: The emotions of the model, in its order.

    Raises:
        OutputError: If the stream cannot be written.

    Example:
        >>> import sys
        >>> table = FrameCsv(sys.stdout, (Emotion.HAPPY,))  # doctest: +ELLIPSIS
        frame,seconds,track_id,...,confidence,happy,score,quality,size,sharpness,turn,raw_emotion,raw_confidence,raw_happy
        >>> table.add(FrameResult(0, 0.0, (640, 480), ()))
        0,0.0,,,,,,,,,,,,,,,,,
    """

    def __init__(self, stream: TextIO, emotions: Sequence[Emotion]) -> None:
        self._stream, self._emotions = stream, tuple(emotions)
        write_csv(stream, [_columns(self._emotions)])

    def add(self, result: FrameResult) -> None:
        """Write the rows of one frame.

        Args:
            result: The frame.

        Raises:
            OutputError: If the stream cannot be written.
        """
        write_csv(self._stream, (row.values() for row in _rows(result, self._emotions)))


class FrameParquet(RowGroups):
    """Writes the rows of ``FrameCsv`` as a Parquet file, as a context manager. Empty cells are nulls.

    The file appears when the block ends without an exception.

    Args:
        path: The file.
        emotions: The emotions of the model, in its order.

    Raises:
        MissingExtraError: If pyarrow is not installed.
        OutputError: If the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], emotions: Sequence[Emotion]) -> None:
        self._emotions = tuple(emotions)
        text = dict.fromkeys(("emotion", "raw_emotion"), "string")
        kinds = {"frame": "int64", "seconds": "float64", "track_id": "int32", "detected": "bool_"} | text
        super().__init__(path, {name: kinds.get(name, "float32") for name in _columns(self._emotions)})

    def add(self, result: FrameResult) -> None:
        """Add the rows of one frame. They are written when a row group is full.

        Args:
            result: The frame.

        Raises:
            OutputError: If the file cannot be written.
        """
        self.add_rows(_rows(result, self._emotions))


def _columns(emotions: Sequence[Emotion]) -> list[str]:
    names = [str(emotion) for emotion in emotions]
    smoothed = ["frame", "seconds", "track_id", "detected", "x1", "y1", "x2", "y2", "emotion", "confidence", *names]
    return [*smoothed, "score", *QUALITY_COLUMNS, "raw_emotion", "raw_confidence", *(f"raw_{name}" for name in names)]


def _rows(result: FrameResult, emotions: Sequence[Emotion]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one frame: a value or ``None`` for each column."""
    plain = result.to_dict()
    empty: dict[str, Any] = dict.fromkeys(_columns(emotions))
    empty |= {"frame": plain["frame"], "seconds": plain["seconds"]}
    for face in plain["faces"]:
        raw = face["raw"]
        smoothed = {name: face[name] for name in ("track_id", "detected", "emotion", "confidence")}
        corners = dict(zip(("x1", "y1", "x2", "y2"), face["box"], strict=True))
        single = {"score": raw["score"], "raw_emotion": raw["emotion"], "raw_confidence": raw["confidence"]}
        probs = {str(e): face["probs"].get(str(e)) for e in emotions}
        raw_probs = {f"raw_{e}": raw["probs"].get(str(e)) for e in emotions}
        yield empty | smoothed | corners | quality_cells(raw) | single | probs | raw_probs
    if not plain["faces"]:
        yield empty
