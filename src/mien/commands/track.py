"""``mien track``: track the faces of videos, a camera or a folder; write videos, tables, pages, or show them live."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien._errors import ImageError, MienError, SourceError
from mien._inputs import expand_videos, names_of
from mien._output import is_device, require_replaceable
from mien._signals import GracefulStop
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._terminal import echo

if TYPE_CHECKING:
    from mien.commands.track_display import Summary, Watch
    from mien.reader import Reader
    from mien.video import FrameSource, Tracker
    from mien.video.outputs import TrackOutputs
    from mien.video.statistics import VideoStatistics

_FORMATS = ("csv", "jsonl", "json", "parquet", "html", "mp4")


def track_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Videos, folders of videos or frames, a camera (0, 1, /dev/video0), an RTSP or HTTP address.",
        ),
    ],
    out: _options.OutsOption = None,
    format: _options.FormatOption = None,
    as_json: _options.JsonOption = False,
    resume: _options.ResumeOption = False,
    aggregate: Annotated[
        str, typer.Option(metavar="TIME", help="Average each track over this time in tables, as 1s, 500ms or 2min.")
    ] = "",
    live: Annotated[
        bool | None, typer.Option("--live/--no-live", help="Show the faces as they change; the default for cameras.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Search the whole frame on each n-th frame.")] = 3,
    smooth: Annotated[float, typer.Option(min=0, help="Time constant of the smoothing in seconds; 0 for none.")] = 0.5,
    forget: Annotated[float, typer.Option(min=0, help="Seconds until the track of a lost face ends.")] = 1.0,
    fps: _options.FpsOption = None,
    start: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Begin at this time of the source.")] = 0.0,
    end: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Stop at this time of the source.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.001, help="Frames per second of a folder of frames.")] = 25.0,
    abstain: _options.AbstainOption = None,
    min_quality: _options.MinQualityOption = 0.0,
    detector: _options.DetectorOption = "blazeface",
    model: _options.ModelOption = DEFAULT_MODEL,
    precision: _options.PrecisionOption = "int8",
    device: _options.DeviceOption = "cpu",
    threads: _options.ThreadsOption = 1,
) -> None:
    """Track the faces in videos, a camera or a folder of frames, and print a table of the tracks.

    --out FILE writes a row for each face and frame (.csv, .parquet), an object for each frame (.jsonl, .json), a page
    with the curves and shares of each track (.html), or the video with boxes, bars and its sound (.mp4). --json (a line
    for each frame) and --format csv print. Of several videos, --out FOLDER gets NAME.mien.FORMAT of each --format
    (default: csv) and summary.csv, a row for each video; --resume leaves out the videos in it. Ctrl-C ends the run like
    the end of the video: all results so far are written. Exit status: 0 done, 1 some videos cannot be read, 2 none can,
    an argument is wrong, or a camera was disconnected, 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    videos, several = expand_videos(sources)
    paths = [path for path in out or () if path != _options.STDOUT and not is_device(path)]
    folder = next((path for path in paths if not path.suffix or path.is_dir()), None)
    several = several or folder is not None
    outputs = _options.read_outputs(out, format, as_json, _FORMATS, folders=several)
    if several and any(path != folder for _, path in outputs):
        raise MienError("several videos have one place: --out FOLDER --format csv (or another format)")
    files: dict[str, Any] = {name: sys.stdout if path == _options.STDOUT else path for name, path in outputs}
    if len(files) < len(outputs):
        raise MienError("--out: name one file for each format")
    if aggregate and not {"csv", "jsonl", "json", "parquet"} & files.keys():
        raise MienError("--aggregate averages in tables; add --format csv or --out FILE.csv")
    if resume and folder is None:
        raise MienError("--resume leaves out videos that are in a folder already; name it: --out FOLDER")
    reader = _options.open_reader(
        model,
        detector=detector,
        precision=precision,
        device=device,
        abstain=abstain,
        min_quality=min_quality,
        threads=threads,
    )
    job = _Job(
        reader,
        {"every": every, "smooth": smooth, "forget": forget},
        {"rate": rate, "fps": fps, "start": start, "end": end},
        _options.read_time(aggregate),
        live,
    )
    if not several:
        job.track(videos[0], files)
        return
    raise typer.Exit(_track_several(videos, folder, list(files), job, resume=resume))


@dataclass
class _Job:
    """How to track each of the videos."""

    reader: "Reader"
    tracking: dict[str, Any]
    sampling: dict[str, Any]
    aggregate: float
    live: bool | None

    def track(self, source: str, files: Mapping[str, Any]) -> "VideoStatistics":
        """Track one source into its files. Raises the error that ended it early, after the files are written."""
        from mien.commands.track_display import Summary, open_watch
        from mien.video import Tracker, open_source
        from mien.video.outputs import TrackOutputs

        tracker, summary = Tracker(self.reader, **self.tracking), Summary()
        # The handler stays until all files are closed, so that Ctrl-C meanwhile cannot truncate them.
        with open_source(source, **self.sampling) as frames, GracefulStop(frames.stop) as signals:
            written = TrackOutputs(frames, self.reader, **files, aggregate=self.aggregate)
            with written, open_watch(frames, live=frames.live if self.live is None else self.live) as watch:
                ended = _run(frames, tracker, written, summary, watch) or signals.error
                if ended is not None and not summary.statistics.frames:
                    raise ended  # older files remain
                written.partial = ended is not None
            to = sys.stderr if sys.stdout in files.values() else sys.stdout
            summary.print(frames, notes=written.notes, file=to)
        if ended is not None:
            raise ended
        return summary.statistics

    def describe(self) -> str:
        """The settings, which the summary of several videos keeps."""
        facts = self.reader.describe()
        reader = {name: getattr(self.reader, name) for name in ("abstain", "min_quality")}
        settings = self.tracking | self.sampling | {"aggregate": self.aggregate} | reader
        return "; ".join([facts["model"], facts["detector"], *(f"{key} {value}" for key, value in settings.items())])


def _run(
    frames: "FrameSource", tracker: "Tracker", outputs: "TrackOutputs", summary: "Summary", watch: "Watch"
) -> BaseException | None:
    """Pass each frame to each output; return the error that ended the run early, such as a lost camera."""
    try:
        for frame in frames:
            result = tracker.step(frame.pixels, frame.seconds)
            outputs.add(result, frame.pixels)
            summary.add(result)
            watch.add(result)
    except (SourceError, BrokenPipeError) as error:
        return error  # the results so far are written
    return None


def _track_several(
    videos: Sequence[str], folder: Path | None, formats: Sequence[str], job: _Job, *, resume: bool
) -> int:
    """Track videos one after another, each into its own files; return the exit status."""
    from mien.commands.track_display import VideoTable

    names = names_of(videos)
    table = VideoTable(folder and folder / "summary.csv", job.reader.model.emotions, job.describe(), resume=resume)
    failed = 0
    for number, (video, name) in enumerate(zip(videos, names, strict=True), start=1):
        files = {each: folder / f"{name}.mien.{each}" for each in formats} if folder else {}
        if table.has(video) and all(path.is_file() for path in files.values()):
            continue
        echo(f"mien: {number} of {len(videos)}: {video}", err=True)
        try:
            for path in files.values():
                require_replaceable(path)
                path.parent.mkdir(parents=True, exist_ok=True)
            table.add(video, job.track(video, files))
        except (SourceError, ImageError) as error:
            failed += 1
            echo(f"mien: {error}", err=True)
    table.print()
    return 0 if not failed else 1 if failed < len(videos) else 2
