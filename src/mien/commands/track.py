"""``mien track``: a video, camera or folder of frames in; annotated video, lines, tables, a page or a live view out."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Annotated, Protocol, Self, TextIO

import numpy as np
import typer
from numpy.typing import NDArray

from mien._errors import MienError, SourceError
from mien._output import Draft, open_output
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options

if TYPE_CHECKING:
    from mien.commands.track_display import Summary, Watch
    from mien.reader import Reader
    from mien.video import FrameResult, FrameSource, Tracker
    from mien.video.timeline import Timeline
    from mien.video.video_writer import VideoWriter

_USUAL_RATE = 25.0  # frames a second, where the source does not tell


class _Sink(Protocol):
    def add(self, result: "FrameResult") -> None: ...


class Outputs:
    """Takes results with their frames. Leaving the block closes the files; after an error, none of the tables appears.

    ``notes`` holds what is to be said of them at the end. Set ``partial`` where the source was not seen to its end.
    """

    def __init__(self, frames: "FrameSource", reader: "Reader", files: Mapping[str, Path | None]) -> None:
        """``files`` maps ``--video``, ``--jsonl``, ``--csv``, ``--parquet`` and ``--html`` to their paths."""
        self.notes: list[str] = []
        self.partial = False
        self._frames, self._reader, self._files = frames, reader, files
        self._stack = ExitStack()
        self._sinks: list[_Sink] = []
        self._video: VideoWriter | None = None
        self._timeline: Timeline | None = None

    def __enter__(self) -> Self:
        with self._stack:
            self._open_tables()
            self._open_page()
            if (video := self._files["--video"]) is not None:
                Draft(video).drop()  # says at once where a video cannot be written
            self._stack = self._stack.pop_all()
        return self

    def add(self, result: "FrameResult", pixels: NDArray[np.uint8]) -> None:
        """Write one frame everywhere."""
        for sink in self._sinks:
            sink.add(result)
        if self._timeline is not None:
            self._timeline.add(result, pixels)
        if self._files["--video"] is not None:
            self._video = self._video or self._open_video(self._files["--video"], result.size_wh)
            self._video.write(pixels, result)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if self._video is not None and self._video.note:
            self.notes.append(self._video.note)
        if self._timeline is not None and self._files["--html"] is not None and kind is None:
            self._timeline.write(self._files["--html"], partial=self.partial)

    def _open_tables(self) -> None:
        from mien.video.tables import FrameCsv, FrameJsonLines, FrameParquet

        emotions = self._reader.model.emotions
        if (jsonl := self._files["--jsonl"]) is not None:
            self._sinks.append(FrameJsonLines(self._text(jsonl)))
        if (csv := self._files["--csv"]) is not None:
            self._sinks.append(FrameCsv(self._text(csv), emotions))
        if (parquet := self._files["--parquet"]) is not None:
            self._sinks.append(self._stack.enter_context(FrameParquet(parquet, emotions)))

    def _text(self, path: Path) -> TextIO:
        return sys.stdout if str(path) == "-" else self._stack.enter_context(open_output(path))

    def _open_page(self) -> None:
        html = self._files["--html"]
        if html is None:
            return
        from mien.video.timeline import Timeline

        Draft(html).drop()  # a page is written last: whether it can be must be known first
        name = self._frames.name
        facts = {"source": name, **self._reader.describe()}
        self._timeline = Timeline(title=f"Faces in {Path(name).name or name}", facts=facts)

    def _open_video(self, path: Path, size_wh: tuple[int, int]) -> "VideoWriter":
        from mien.video.video_writer import VideoWriter

        source = Path(self._frames.name)
        with_sound = source if not self._frames.live and source.is_file() else None
        rate = self._frames.rate or _USUAL_RATE
        return self._stack.enter_context(VideoWriter(path, source=with_sound, size_wh=size_wh, rate=rate))


_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, a service manager, a terminal that is closed


class Stopped(KeyboardInterrupt):
    """The end that a signal asked for."""

    def __init__(self, number: int) -> None:
        """``number`` is the signal's."""
        super().__init__()
        self.status = 128 + number  # as shells count


class Stop:
    """Which signal asked for the end, if any did."""

    number: int | None = None

    def error(self) -> BaseException | None:
        """What to raise for it when all is written, with the exit status of the signal."""
        return None if self.number is None else Stopped(self.number)


@contextmanager
def stopped_by_user(stop: Callable[[], None]) -> Iterator[Stop]:
    """Within the block the first such signal calls ``stop`` and is noted; a second one interrupts as Ctrl-C does."""
    asked = Stop()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if asked.number is not None:
            signal.default_int_handler(number, frame)
        asked.number = number
        stop()

    if threading.current_thread() is not threading.main_thread():  # handlers belong to the main thread
        yield asked
        return
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    # What is ignored stays so: `nohup mien track ...` goes on when the terminal is closed.
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_STDOUT = "-"


_SUFFIXES = {"--video": ".mp4", "--jsonl": ".jsonl", "--csv": ".csv", "--parquet": ".parquet", "--html": ".html"}


def track(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A video, a camera (0, 1, /dev/video0), an RTSP or HTTP address, a folder of frames."
        ),
    ],
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the video with boxes and bars, MP4 with its sound.")
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a JSON object a frame, a line each; - for standard output."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one CSV row a face and frame; - for standard output.")
    ] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="The rows of --csv as Parquet.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the curves and shares of each track.")
    ] = None,
    live: Annotated[
        bool | None, typer.Option("--live/--no-live", help="Show the faces as they change; the default for cameras.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Search the whole frame on each n-th frame.")] = 3,
    smooth: Annotated[float, typer.Option(min=0, help="Time constant of the smoothing in seconds; 0 for none.")] = 0.5,
    forget: Annotated[float, typer.Option(min=0, help="Seconds until the track of a lost face ends.")] = 1.0,
    duration: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Stop after so many seconds of the source.")
    ] = None,
    fps: Annotated[float, typer.Option(min=0.001, help="Frames per second of a folder of frames.")] = 25.0,
    abstain: _options.AbstainOption = 0.0,
    detector: _options.DetectorOption = "blazeface",
    model: _options.ModelOption = DEFAULT_MODEL,
    precision: _options.PrecisionOption = "int8",
) -> None:
    """Track the faces in a video, a camera or a folder of frames.

    A table of the tracks is printed at the end. Ctrl-C ends the run like the end of the video: all results so far are
    written. Exit status: 0 done, 2 the source or an argument is wrong, or a camera went away, 130 stopped by Ctrl-C,
    143 by a service manager.
    """
    if jsonl is not None and csv is not None and str(jsonl) == str(csv) == _STDOUT:
        raise typer.BadParameter("--jsonl and --csv both write to standard output; name a file for one")
    files = {"--video": video, "--jsonl": jsonl, "--csv": csv, "--parquet": parquet, "--html": html}
    _check_outputs(source, {name: path for name, path in files.items() if path is not None})
    from mien.commands.track_display import Summary, open_watch
    from mien.reader import Reader
    from mien.video import Tracker, open_source

    tracker = Tracker(
        Reader(model, detector=detector, precision=precision, abstain=abstain),
        every=every,
        smooth=smooth,
        forget=forget,
    )
    summary = Summary()
    # Signals are heard until all files are closed: whoever is impatient at the end must not lose them.
    with open_source(source, fps=fps) as frames, stopped_by_user(frames.stop) as stop:
        ended: BaseException | None = None
        with ExitStack() as stack:
            outputs = stack.enter_context(Outputs(frames, tracker.reader, files))
            watch = stack.enter_context(open_watch(frames, live=frames.live if live is None else live))
            ended = _follow(frames, tracker, outputs, summary, watch, duration) or stop.error()
            outputs.partial = ended is not None
        on_stdout = _STDOUT not in (str(jsonl), str(csv))
        summary.print(frames, notes=outputs.notes, file=sys.stdout if on_stdout else sys.stderr)
    if ended is not None:
        raise ended


def _follow(
    frames: "FrameSource",
    tracker: "Tracker",
    outputs: "Outputs",
    summary: "Summary",
    watch: "Watch",
    duration: float | None,
) -> BaseException | None:
    """Every frame to every output; returns what ended it before its time, as a camera that went away."""
    try:
        for frame in frames:
            if duration is not None and frame.seconds >= duration:
                break
            result = tracker.step(frame.pixels, frame.seconds)
            outputs.add(result, frame.pixels)
            summary.add(result)
            watch.add(result)
    except SourceError as error:
        # A source without a single frame is wrong; of one that breaks off, all before is kept.
        if not summary.frames:
            raise
        return error
    return None


def _check_outputs(source: str, files: dict[str, Path]) -> None:
    """Refuse to write over the source, twice to one file, or under a wrong name, before anything is read."""
    taken = {os.path.realpath(source): "the source"} if Path(source).exists() else {}
    for name, path in files.items():
        if str(path) == _STDOUT and name in ("--jsonl", "--csv"):
            continue
        where = os.path.realpath(path)
        if where in taken:
            raise MienError(f"{name} {path}: is {taken[where]} as well; name another file")
        _check_name(name, path)
        taken[where] = f"the file of {name}"


def _check_name(option: str, path: Path) -> None:
    """Refuse a name that promises another kind of file: players and people go by it."""
    own, suffix = _SUFFIXES[option], path.suffix.lower()
    if str(path) == _STDOUT:
        raise MienError(f"{option} -: only --jsonl and --csv can go to standard output; name a file")
    if option == "--video" and suffix not in ("", own, ".m4v"):
        raise MienError(f"{option} {path}: the video is an MP4; name it {path.with_suffix(own)}")
    if suffix != own and suffix in _SUFFIXES.values():
        raise MienError(f"{option} {path}: is the name of another kind of file; name it {path.with_suffix(own)}")
