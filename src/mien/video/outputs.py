"""Write the results of one source to all its files: annotated video, JSON lines, CSV, Parquet and HTML page."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from mien._face import Pixels
from mien._output import Draft, OutputGroup
from mien.reader import Reader
from mien.video.sources import FrameSource
from mien.video.tables import FrameCsv, FrameJsonLines, FrameParquet
from mien.video.timeline import Timeline
from mien.video.types import FrameResult
from mien.video.video_writer import VideoWriter

_DEFAULT_RATE = 25.0  # frames per second of a source without a rate

_Add = Callable[[FrameResult, Pixels], None]


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.__exit__(kind, error, trace)
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _table(table: Callable[[Any], FrameJsonLines | FrameCsv | FrameParquet]) -> Callable[[ExitStack, Any], _Add]:
    def opened(stack: ExitStack, file: Any) -> _Add:
        writer = table(file)
        stack.enter_context(writer)
        return lambda result, _: writer.add(result)

    return opened
