"""Write frame results as JSON lines, CSV or Parquet, or their means over equal times. Memory stays bounded."""

import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from mien._emotions import Emotion
from mien._errors import require_number
from mien._face import QUALITY_COLUMNS, quality_cells
from mien.report.tables import JsonOutput, RowGroups, TextOutput, write_csv
from mien.video.types import FrameResult, TrackedFace


class FrameJsonLines(JsonOutput):
    """Writes one JSON object a frame, as ``FrameResult.to_dict`` returns it. Each line is flushed.

    Args:
        file: The path of the file, or a text stream such as ``sys.stdout``, which is not closed.
        array: Whether to write one JSON array instead of lines.
        aggregate: Seconds over which each track is averaged; a line is then one row of ``FrameCsv``. 0: every frame.

    Example:
        >>> import sys
        >>> FrameJsonLines(sys.stdout).add(FrameResult(0, 0.0, (640, 480), ()))
        {"frame": 0, "seconds": 0.0, "faces": []}
    """

    def __init__(self, file: str | os.PathLike[str] | TextIO, *, array: bool = False, aggregate: float = 0) -> None:
        super().__init__(file, array=array)
        self._means = TrackMeans((), aggregate) if aggregate else None

    def add(self, result: FrameResult) -> None:
        """Write one frame.

        Args:
            result: The frame.

        Raises:
            OutputError: If the file cannot be written.
        """
        for plain in self._means.add(result) if self._means else (result.to_dict(),):
            self.write_value(plain)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._means:
            for plain in self._means.finish():
                self.write_value(plain)
        super().__exit__(kind, error, trace)


class FrameCsv(TextOutput):
    """Writes one CSV row a face and frame: track, box in pixels, smoothed reading; quality and reading of the frame.

    ``emotion`` is empty if the reader is unsure. A frame without a face has one row without a track. The header is
    written at the start of the ``with`` block.

    Args:
        file: The path of the file, or a text stream such as ``sys.stdout``, which is not closed.
        emotions: The emotions of the model, in its order.
        aggregate: Seconds over which each track is averaged; a row is then a track and a time. 0: every frame.

    Raises:
        OutputError: If the file cannot be written.

    Example:
        >>> import sys
        >>> with FrameCsv(sys.stdout, (Emotion.HAPPY,)) as table:  # doctest: +ELLIPSIS
        ...     table.add(FrameResult(0, 0.0, (640, 480), ()))
        frame,seconds,track_id,...,confidence,happy,score,quality,size,sharpness,turn,raw_emotion,raw_confidence,raw_happy
        0,0.0,,,,,,,,,,,,,,,,,
    """

    def __init__(
        self, file: str | os.PathLike[str] | TextIO, emotions: Sequence[Emotion], *, aggregate: float = 0
    ) -> None:
        super().__init__(file)
        self._rows = _rows_of(emotions, aggregate)

    def __enter__(self) -> Self:
        super().__enter__()
        write_csv(self._stream, [self._rows.kinds])
        return self

    def add(self, result: FrameResult) -> None:
        """Write the rows of one frame.

        Args:
            result: The frame.

        Raises:
            OutputError: If the file cannot be written.
        """
        write_csv(self._stream, (row.values() for row in self._rows.add(result)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            write_csv(self._stream, (row.values() for row in self._rows.finish()))
        super().__exit__(kind, error, trace)


class FrameParquet(RowGroups):
    """Writes the rows of ``FrameCsv`` as a Parquet file, as a context manager. Empty cells are nulls.

    The file appears when the block ends without an exception.

    Args:
        path: The file.
        emotions: The emotions of the model, in its order.
        aggregate: Seconds over which each track is averaged; a row is then a track and a time. 0: every frame.

    Raises:
        MissingExtraError: If pyarrow is not installed.
        OutputError: If the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], emotions: Sequence[Emotion], *, aggregate: float = 0) -> None:
        self._rows = _rows_of(emotions, aggregate)
        super().__init__(path, self._rows.kinds)

    def add(self, result: FrameResult) -> None:
        """Add the rows of one frame. They are written when a row group is full.

        Args:
            result: The frame.

        Raises:
            OutputError: If the file cannot be written.
        """
        self.add_rows(self._rows.add(result))

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.add_rows(self._rows.finish())
        super().__exit__(kind, *error)


class FrameRows:
    """Turns frame results into rows: one a face, or one without a track for a frame without a face.

    Args:
        emotions: The emotions of the model, in its order.

    Attributes:
        kinds: The columns in their order, each with the name of its pyarrow type.
    """

    def __init__(self, emotions: Sequence[Emotion]) -> None:
        self._names = [str(emotion) for emotion in emotions]
        smoothed = ["frame", "seconds", "track_id", "detected", "x1", "y1", "x2", "y2", "emotion", "confidence"]
        raw = ["score", *QUALITY_COLUMNS, "raw_emotion", "raw_confidence", *(f"raw_{name}" for name in self._names)]
        text = dict.fromkeys(("emotion", "raw_emotion"), "string")
        kinds = {"frame": "int64", "seconds": "float64", "track_id": "int32", "detected": "bool_"} | text
        self.kinds = {name: kinds.get(name, "float32") for name in (*smoothed, *self._names, *raw)}

    def add(self, result: FrameResult) -> Iterator[dict[str, Any]]:
        """Yield the rows of a frame: a value or ``None`` for each column.

        Args:
            result: The frame.
        """
        plain = result.to_dict()
        empty: dict[str, Any] = dict.fromkeys(self.kinds)
        empty |= {"frame": plain["frame"], "seconds": plain["seconds"]}
        for face in plain["faces"]:
            raw = face["raw"]
            smoothed = {name: face[name] for name in ("track_id", "detected", "emotion", "confidence")}
            corners = dict(zip(("x1", "y1", "x2", "y2"), face["box"], strict=True))
            single = {"score": raw["score"], "raw_emotion": raw["emotion"], "raw_confidence": raw["confidence"]}
            probs = {name: face["probs"].get(name) for name in self._names}
            raw_probs = {f"raw_{name}": raw["probs"].get(name) for name in self._names}
            yield empty | smoothed | corners | quality_cells(raw) | single | probs | raw_probs
        if not plain["faces"]:
            yield empty

    def finish(self) -> Iterator[dict[str, Any]]:
        """Yield the rows that are left at the end: none."""
        return iter(())


class TrackMeans:
    """Averages each track over equal times: a row for each track and time in which it was seen.

    A row has ``start`` and ``end`` of the time in seconds, ``track_id``, the number of ``frames`` and of those in which
    the face was ``detected``, the ``emotion`` of the highest mean probability, its ``confidence``, and the mean of each
    smoothed probability. Times without a face have no row.

    Args:
        emotions: The emotions of the model; only the first frames decide where it is empty.
        seconds: Length of a time, from 0.001 s.

    Attributes:
        kinds: The columns in their order, each with the name of its pyarrow type.

    Raises:
        MienError: If ``seconds`` is out of range.
    """

    def __init__(self, emotions: Sequence[Emotion], seconds: float) -> None:
        require_number("aggregate (seconds)", seconds, lowest=0.001, highest=1e9)
        self._seconds, self._number = seconds, 0
        self._faces: dict[int, list[TrackedFace]] = {}
        kinds = {"start": "float64", "end": "float64", "track_id": "int32", "frames": "int32", "detected": "int32"}
        kinds |= {"emotion": "string", "confidence": "float32"}
        self.kinds: Mapping[str, str] = kinds | {str(emotion): "float32" for emotion in emotions}

    def add(self, result: FrameResult) -> list[dict[str, Any]]:
        """Add a frame, and return the rows of the times that ended before it.

        Args:
            result: The frame.

        Returns:
            Rows with a value for each column.
        """
        number = int(result.seconds / self._seconds + 1e-9)
        rows = self.finish() if number != self._number else []
        self._number = number
        for face in result.faces:
            self._faces.setdefault(face.track_id, []).append(face)
        return rows

    def finish(self) -> list[dict[str, Any]]:
        """Return the rows of the last time."""
        start, rows = self._number * self._seconds, []
        for track, faces in sorted(self._faces.items()):
            probs = {e: sum(face.probs[e] for face in faces) / len(faces) for e in faces[0].probs}
            top = max(probs, key=probs.__getitem__)
            row = {"start": round(start, 4), "end": round(start + self._seconds, 4), "track_id": track}
            row |= {"frames": len(faces), "detected": sum(face.detected for face in faces)}
            is_sure = any(face.emotion is not None for face in faces)
            reading = {"emotion": str(top) if is_sure else None, "confidence": round(probs[top], 4)}
            rows.append(row | reading | {str(e): round(p, 4) for e, p in probs.items()})
        self._faces = {}
        return rows


def _rows_of(emotions: Sequence[Emotion], aggregate: float) -> FrameRows | TrackMeans:
    return TrackMeans(emotions, aggregate) if aggregate else FrameRows(emotions)
