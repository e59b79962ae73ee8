"""``mien track``: track the faces of a video, camera or folder; write a video, tables, a page, or show them live."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien._errors import MienError, SourceError
from mien._signals import GracefulStop
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._inputs import expand_inputs

if TYPE_CHECKING:
    from mien.commands.track_display import Summary, Watch
    from mien.video import FrameSource, Tracker
    from mien.video.outputs import TrackOutputs

_STDOUT = Path("-")
_SUFFIXES = {"--video": ".mp4", "--jsonl": ".jsonl", "--csv": ".csv", "--parquet": ".parquet", "--html": ".html"}


def _file(text: str) -> Any:
    return typer.Option(metavar="FILE", help=text)


def track_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A video, a camera (0, 1, /dev/video0), an RTSP or HTTP address, a folder of frames."
        ),
    ],
    video: Annotated[Path | None, _file("Write the video with boxes and bars, MP4 with its sound.")] = None,
    jsonl: Annotated[Path | None, _file("Write a JSON object a frame, a line each; - for standard output.")] = None,
    csv: Annotated[Path | None, _file("Write one CSV row a face and frame; - for standard output.")] = None,
    parquet: Annotated[Path | None, _file("The rows of --csv as Parquet.")] = None,
    html: Annotated[Path | None, _file("Write a page with the curves and shares of each track.")] = None,
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
    abstain: _options.AbstainOption = None,
    min_quality: _options.MinQualityOption = 0.0,
    detector: _options.DetectorOption = "blazeface",
    model: _options.ModelOption = DEFAULT_MODEL,
    precision: _options.PrecisionOption = "int8",
) -> None:
    """Track the faces in a video, a camera or a folder of frames.

    A table of the tracks is printed at the end. Ctrl-C ends the run like the end of the video: all results so far are
    written. Exit status: 0 done, 2 the source or an argument is wrong, or a camera was disconnected, 130 stopped by
    Ctrl-C, 143 by SIGTERM.
    """
    _check_files({"--video": video, "--jsonl": jsonl, "--csv": csv, "--parquet": parquet, "--html": html})
    from mien.commands.track_display import Summary, open_watch
    from mien.reader import Reader
    from mien.video import Tracker, open_source
    from mien.video.outputs import TrackOutputs

    if Path(source).is_dir():
        expand_inputs([source])  # protects the frames
    threshold = "card" if abstain is None else abstain
    reader = Reader(model, detector=detector, precision=precision, abstain=threshold, min_quality=min_quality)
    tracker = Tracker(reader, every=every, smooth=smooth, forget=forget)
    summary = Summary()
    lines, table = (sys.stdout if path == _STDOUT else path for path in (jsonl, csv))
    # The handler stays until all files are closed, so that Ctrl-C meanwhile cannot truncate them.
    with open_source(source, fps=fps) as frames, GracefulStop(frames.stop) as signals:
        outputs = TrackOutputs(frames, reader, video=video, jsonl=lines, csv=table, parquet=parquet, html=html)
        with outputs, open_watch(frames, live=frames.live if live is None else live) as watch:
            ended = _run(frames, tracker, outputs, summary, watch, duration) or signals.error
            if ended is not None and not summary.statistics.frames:
                raise ended  # older files remain
            outputs.partial = ended is not None
        summary.print(frames, notes=outputs.notes, file=sys.stderr if _STDOUT in (jsonl, csv) else sys.stdout)
    if ended is not None:
        raise ended


def _run(
    frames: "FrameSource",
    tracker: "Tracker",
    outputs: "TrackOutputs",
    summary: "Summary",
    watch: "Watch",
    duration: float | None,
) -> BaseException | None:
    """Pass each frame to each output; return the error that ended the run early, such as a lost camera."""
    try:
        for frame in frames:
            if duration is not None and frame.seconds >= duration:
                break
            result = tracker.step(frame.pixels, frame.seconds)
            outputs.add(result, frame.pixels)
            summary.add(result)
            watch.add(result)
    except (SourceError, BrokenPipeError) as error:
        return error  # the results so far are written
    return None


def _check_files(files: Mapping[str, Path | None]) -> None:
    """Refuse to write a file twice, and names of other file types, before reading starts."""
    if files["--jsonl"] == files["--csv"] == _STDOUT:
        raise typer.BadParameter("--jsonl and --csv both write to standard output; name a file for one")
    taken: dict[str, str] = {}
    for option, path in files.items():
        if path is None or (path == _STDOUT and option in ("--jsonl", "--csv")):
            continue
        where = os.path.realpath(path)
        if where in taken:
            raise MienError(f"{option} {path}: is {taken[where]} as well; name another file")
        taken[where] = f"the file of {option}"
        own, suffix = _SUFFIXES[option], path.suffix.lower()
        if path == _STDOUT:
            raise MienError(f"{option} -: only --jsonl and --csv can go to standard output; name a file")
        if option == "--video" and suffix not in ("", own, ".m4v"):
            raise MienError(f"{option} {path}: the video is an MP4; name it {path.with_suffix(own)}")
        if suffix != own and suffix in _SUFFIXES.values():
            raise MienError(f"{option} {path}: is the name of another kind of file; name it {path.with_suffix(own)}")
