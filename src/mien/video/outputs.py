"""Write the results of one source to all its files: annotated video, JSON lines, CSV, Parquet and HTML page."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from mien._face import Pixels
from mien._output import Draft, open_output
from mien.reader import Reader
from mien.video.sources import FrameSource
from mien.video.tables import FrameCsv, FrameJsonLines, FrameParquet
from mien.video.timeline import Timeline
from mien.video.types import FrameResult
from mien.video.video_writer import VideoWriter

_DEFAULT_RATE = 25.0  # frames per second of a source without a rate


class TrackOutputs:
    """Writes the results of one source to files, as a context manager.

    The files appear when the block ends. After an error, the tables and the page do not appear; the video contains the
    frames written so far. After the block, ``notes`` holds messages about the files, such as that audio was re-encoded.
    Set ``partial`` before the end of the block if the source was not read to its end: the page then shows it.

    Args:
        frames: The source.
        reader: The reader of the tracker.
        video: File of the annotated video, an MP4.
        jsonl: File or text stream of the JSON lines.
        csv: File or text stream of the CSV table.
        parquet: File of the Parquet table.
        html: File of the HTML page.

    Raises:
        OutputError: If a file cannot be written.
        MissingExtraError: If PyAV (``video``) or pyarrow (``parquet``) is not installed.

    Example:
        >>> import sys
        >>> from mien.video import Tracker, open_source
        >>> reader = Reader()
        >>> tracker = Tracker(reader)
        >>> with open_source("examples") as frames, TrackOutputs(frames, reader, jsonl=sys.stdout) as outputs:
        ...     for frame in frames:
        ...         outputs.add(tracker.step(frame.pixels, frame.seconds), frame.pixels)  # doctest: +ELLIPSIS
        {"frame": 0, "seconds": 0.0, "faces": [...]}
    """

    def __init__(
        self,
        frames: FrameSource,
        reader: Reader,
        *,
        video: Path | None = None,
        jsonl: Path | TextIO | None = None,
        csv: Path | TextIO | None = None,
        parquet: Path | None = None,
        html: Path | None = None,
    ) -> None:
        self.notes: list[str] = []
        self.partial = False
        self._frames, self._reader = frames, reader
        self._video, self._jsonl, self._csv, self._parquet, self._html = video, jsonl, csv, parquet, html
        self._stack = ExitStack()
        self._tables: list[FrameJsonLines | FrameCsv | FrameParquet] = []
        self._writer: VideoWriter | None = None
        self._timeline: Timeline | None = None

    def __enter__(self) -> Self:
        emotions = self._reader.model.emotions
        with self._stack:
            if self._jsonl is not None:
                self._tables.append(FrameJsonLines(self._open(self._jsonl)))
            if self._csv is not None:
                self._tables.append(FrameCsv(self._open(self._csv), emotions))
            if self._parquet is not None:
                self._tables.append(self._stack.enter_context(FrameParquet(self._parquet, emotions)))
            for path in (self._html, self._video):
                if path is not None:  # opened later; a path that cannot be written is reported now
                    Draft(path).drop()
            if self._html is not None:
                name = self._frames.name
                facts = {"source": name, **self._reader.describe()}
                self._timeline = Timeline(title=f"Faces in {Path(name).name or name}", facts=facts)
            self._stack = self._stack.pop_all()
        return self

    def add(self, result: FrameResult, pixels: Pixels) -> None:
        """Write one frame to each file.

        Args:
            result: Its faces.
            pixels: The frame, RGB uint8 ``[H, W, 3]``.

        Raises:
            OutputError: If a file cannot be written.
        """
        for table in self._tables:
            table.add(result)
        if self._timeline is not None:
            self._timeline.add(result, pixels)
        if self._video is not None:
            if self._writer is None:  # the size of the video is that of the first frame
                source, rate = Path(self._frames.name), self._frames.rate or _DEFAULT_RATE
                with_audio = source if not self._frames.live and source.is_file() else None
                writer = VideoWriter(self._video, source=with_audio, size_wh=result.size_wh, rate=rate)
                self._writer = self._stack.enter_context(writer)
            self._writer.write(pixels, result)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if self._writer is not None and self._writer.note:
            self.notes.append(self._writer.note)
        if self._timeline is not None and self._html is not None and kind is None:
            self._timeline.write(self._html, partial=self.partial)

    def _open(self, output: Path | TextIO) -> TextIO:
        return self._stack.enter_context(open_output(output)) if isinstance(output, Path) else output
