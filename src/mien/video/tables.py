"""Moments as lines and tables for programs: JSON lines, CSV and Parquet, a row for each face in each frame.

All of them write as the moments come, so that memory stays the same at any length.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from mien._emotions import Emotion
from mien.report.tables import RowGroups, write
from mien.video.types import Moment


class MomentLines:
    """One JSON object a frame, exactly ``Moment.to_dict()``, a line each and flushed, so that a pipe sees it at once.

    Raises ``OutputError`` when the stream cannot be written. The stream stays open: who opened it closes it.
    """

    def __init__(self, stream: TextIO) -> None:
        """``stream`` takes text, for example ``sys.stdout``."""
        self._stream = stream

    def add(self, moment: Moment) -> None:
        """Write one line."""
        write(self._stream, json.dumps(moment.to_dict()) + "\n")


class MomentCsv:
    """One row a face and frame, with the columns that ``columns`` names.

    ``emotion`` is empty where the reader is unsure. A frame without a face has one row without a face number. Raises
    ``OutputError`` when the stream cannot be written.
    """

    def __init__(self, stream: TextIO, emotions: Sequence[Emotion]) -> None:
        """``emotions`` are the model's, in its order. Writes the header."""
        self._stream, self._emotions = stream, tuple(emotions)
        self._rows = csv.writer(_Lines(stream), lineterminator="\n")
        self._rows.writerow(columns(self._emotions))

    def add(self, moment: Moment) -> None:
        """Write the rows of one frame."""
        for row in rows(moment, self._emotions):
            self._rows.writerow(row.values())


class MomentParquet:
    """The rows of ``MomentCsv`` as a Parquet file, written in row groups; the file appears when the block ends well.

    Empty cells are nulls. Raises ``MissingExtraError`` without pyarrow, ``OutputError`` where ``path`` is not writable.
    """

    def __init__(self, path: str | os.PathLike[str], emotions: Sequence[Emotion]) -> None:
        """``emotions`` are the model's, in its order."""
        self._emotions = tuple(emotions)
        text = dict.fromkeys(("emotion", "raw_emotion"), "string")
        kinds = {"frame": "int64", "seconds": "float64", "face": "int32", "seen": "bool_"} | text
        self._rows = RowGroups(path, {name: kinds.get(name, "float32") for name in columns(self._emotions)})

    def __enter__(self) -> Self:
        self._rows.__enter__()
        return self

    def add(self, moment: Moment) -> None:
        """Take the rows of one frame; they are written when a row group is full."""
        self._rows.add(rows(moment, self._emotions))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.__exit__(kind, error, trace)


def columns(emotions: Sequence[Emotion]) -> list[str]:
    """The columns: frame and seconds, face (its id) and seen, the box in pixels, the smoothed reading, the raw one."""
    return [
        *("frame", "seconds", "face", "seen", "x1", "y1", "x2", "y2", "emotion", "confidence", *map(str, emotions)),
        *("score", "raw_emotion", "raw_confidence", *(f"raw_{emotion}" for emotion in emotions)),
    ]


def rows(moment: Moment, emotions: Sequence[Emotion]) -> Iterator[dict[str, Any]]:
    """The rows of one frame, a value or ``None`` for each of the ``columns``, rounded as in ``Moment.to_dict``."""
    empty: dict[str, Any] = dict.fromkeys(columns(emotions))
    plain = moment.to_dict()
    when = {"frame": plain["frame"], "seconds": plain["seconds"]}
    for face in plain["faces"]:
        raw = face["raw"]
        smoothed = {"face": face["id"], **{name: face[name] for name in ("seen", "emotion", "confidence")}}
        corners = dict(zip(("x1", "y1", "x2", "y2"), face["box"], strict=True))
        single = {"score": raw["score"], "raw_emotion": raw["emotion"], "raw_confidence": raw["confidence"]}
        probs = {str(e): face["probs"].get(str(e)) for e in emotions}
        raw_probs = {f"raw_{e}": raw["probs"].get(str(e)) for e in emotions}
        yield empty | when | smoothed | corners | single | probs | raw_probs
    if not plain["faces"]:
        yield empty | when


class _Lines:
    """What ``csv`` writes to: refusals of the system become lines for people."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        write(self._stream, text)
