"""Write the results of one source to all its files: annotated video, JSON lines, CSV, Parquet and HTML page.

Tables have a row for each face and frame, or the means of each track over equal times. Memory stays bounded.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TextIO

from mien._emotions import Emotion
from mien._errors import require_number
from mien._face import QUALITY_COLUMNS, Pixels, quality_cells
from mien._output import Draft, OutputGroup
from mien.reader import Reader
from mien.report.tables import JsonOutput, RowGroups, TextOutput, write_csv
from mien.video.sources import FrameSource
from mien.video.timeline import Timeline
from mien.video.types import FrameResult, TrackedFace
from mien.video.video_writer import VideoWriter

_DEFAULT_RATE = 25.0  # frames per second of a source without a rate

_Add = Callable[[FrameResult, Pixels], None]


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

    def _finish(self) -> None:
        for plain in self._means.finish() if self._means else ():
            self.write_value(plain)
        super()._finish()


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

    def _finish(self) -> None:
        write_csv(self._stream, (row.values() for row in self._rows.finish()))


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
            self._pending += self._rows.finish()
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
        self._sums: dict[int, _Sums] = {}  # by track
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
            self._sums.setdefault(face.track_id, _Sums()).add(face)
        return rows

    def finish(self) -> list[dict[str, Any]]:
        """Return the rows of the last time."""
        start, rows = self._number * self._seconds, []
        for track, sums in sorted(self._sums.items()):
            probs = {e: p / sums.frames for e, p in sums.probs.items()}
            top = max(probs, key=probs.__getitem__)
            row = {"start": round(start, 4), "end": round(start + self._seconds, 4), "track_id": track}
            row |= {"frames": sums.frames, "detected": sums.detected}
            reading = {"emotion": str(top) if sums.is_sure else None, "confidence": round(probs[top], 4)}
            rows.append(row | reading | {str(e): round(p, 4) for e, p in probs.items()})
        self._sums = {}
        return rows


@dataclass
class _Sums:
    """One track over one time. The faces are not kept: their crops would fill the memory."""

    frames: int = 0
    detected: int = 0
    is_sure: bool = False
    probs: defaultdict[Emotion, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, face: TrackedFace) -> None:
        self.frames += 1
        self.detected += face.detected
        self.is_sure = self.is_sure or face.emotion is not None
        for emotion, probability in face.probs.items():
            self.probs[emotion] += probability


def _rows_of(emotions: Sequence[Emotion], aggregate: float) -> FrameRows | TrackMeans:
    return TrackMeans(emotions, aggregate) if aggregate else FrameRows(emotions)


class TrackOutputs:
    """Writes the results of one source to files, as a context manager.

    The files appear when the block ends. After an error, the tables and the page do not appear; the video contains the
    frames written so far. If a file cannot be written, the others are completed all the same. After the block,
    ``notes`` holds messages about the files, such as that audio was re-encoded.
    Set ``partial`` before the end of the block if the source was not read to its end: the page then shows it.

    Args:
        frames: The source.
        reader: The reader of the tracker.
        mp4: File of the annotated video.
        jsonl: File or text stream of the JSON lines.
        json: File or text stream of the same objects as one JSON array.
        csv: File or text stream of the CSV table.
        parquet: File of the Parquet table.
        html: File of the HTML page.
        aggregate: Seconds over which the tables average each track; 0: every frame.

    Raises:
        OutputError: If a file cannot be written.
        MissingExtraError: If PyAV (``mp4``) or pyarrow (``parquet``) is not installed.

    Example:
        >>> import sys
        >>> import mien
        >>> from mien.video import Tracker, open_source
        >>> reader = Reader()
        >>> tracker = Tracker(reader)
        >>> folder = mien.example().parent
        >>> with open_source(folder) as frames, TrackOutputs(frames, reader, jsonl=sys.stdout) as outputs:
        ...     for frame in frames:
        ...         outputs.add(tracker.step(frame.pixels, frame.seconds), frame.pixels)  # doctest: +ELLIPSIS
        {"frame": 0, "seconds": 0.0, "faces": [...]}
    """

    def __init__(
        self,
        frames: FrameSource,
        reader: Reader,
        *,
        mp4: Path | None = None,
        jsonl: Path | TextIO | None = None,
        json: Path | TextIO | None = None,
        csv: Path | TextIO | None = None,
        parquet: Path | None = None,
        html: Path | None = None,
        aggregate: float = 0,
    ) -> None:
        self.notes: list[str] = []
        self.partial = False
        self._frames, self._reader = frames, reader
        files: tuple[tuple[Callable[[ExitStack, Any], _Add], Path | TextIO | None], ...] = (
            (_table(lambda file: FrameJsonLines(file, aggregate=aggregate)), jsonl),
            (_table(lambda file: FrameJsonLines(file, array=True, aggregate=aggregate)), json),
            (_table(lambda file: FrameCsv(file, reader.model.emotions, aggregate=aggregate)), csv),
            (_table(lambda file: FrameParquet(file, reader.model.emotions, aggregate=aggregate)), parquet),
            (self._open_page, html),
            (self._open_video, mp4),
        )
        self._group = OutputGroup(_Output(opened, file) for opened, file in files if file is not None)
        self._writer: VideoWriter | None = None

    def __enter__(self) -> Self:
        self._group.__enter__()
        return self

    def add(self, result: FrameResult, pixels: Pixels) -> None:
        """Write one frame to each file that can be written.

        Args:
            result: Its faces.
            pixels: The frame, RGB uint8 ``[H, W, 3]``.

        Raises:
            OutputError: If none of the files can be written.
        """
        self._group.add(result, pixels)

    def __exit__(self, *error: Any) -> None:
        self._group.__exit__(*error)
        if self._writer is not None and self._writer.note:
            self.notes.append(self._writer.note)

    def _open_page(self, stack: ExitStack, path: Path) -> _Add:
        Draft(path).drop()  # a path that cannot be written is reported now
        name = self._frames.name
        facts = {"source": name, **self._reader.describe()}
        timeline = Timeline(title=f"Faces in {Path(name).name or name}", facts=facts)

        def close(kind: type[BaseException] | None, *_: object) -> None:
            if kind is None:
                timeline.write(path, partial=self.partial)

        stack.push(close)
        return timeline.add

    def _open_video(self, stack: ExitStack, path: Path) -> _Add:
        Draft(path).drop()

        def add(result: FrameResult, pixels: Pixels) -> None:
            if self._writer is None:  # the size of the video is that of the first frame
                source, rate = Path(self._frames.name), self._frames.rate or _DEFAULT_RATE
                is_whole = self._frames.sampling.is_all and not self._frames.live
                with_audio = source if is_whole and source.is_file() else None
                writer = VideoWriter(path, source=with_audio, size_wh=result.size_wh, rate=rate)
                self._writer = stack.enter_context(writer)
            self._writer.write(pixels, result)

        return add


class _Output:
    """One of the files: ``opened`` returns its function ``add``, and pushes on the stack what closes it."""

    def __init__(self, opened: Callable[[ExitStack, Any], _Add], file: Path | TextIO) -> None:
        self._opened, self._file, self._stack = opened, file, ExitStack()

    def __enter__(self) -> None:
        with ExitStack() as stack:
            stack.push(self._stack)
            self.add = self._opened(self._stack, self._file)
            stack.pop_all()

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def _table(table: Callable[[Any], FrameJsonLines | FrameCsv | FrameParquet]) -> Callable[[ExitStack, Any], _Add]:
    def opened(stack: ExitStack, file: Any) -> _Add:
        writer = table(file)
        stack.enter_context(writer)
        return lambda result, _: writer.add(result)

    return opened
