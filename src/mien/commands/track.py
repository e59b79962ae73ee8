"""``mien track``: track the faces of a video, camera or folder; write a video, tables, a page, or show them live."""

import sys
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

_FORMATS = ("csv", "jsonl", "json", "parquet", "html", "mp4")


def track_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A video, a camera (0, 1, /dev/video0), an RTSP or HTTP address, a folder of frames."
        ),
    ],
    out: _options.OutsOption = None,
    format: _options.FormatOption = None,
    as_json: _options.JsonOption = False,
    live: Annotated[
        bool | None, typer.Option("--live/--no-live", help="Show the faces as they change; the default for cameras.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Search the whole frame on each n-th frame.")] = 3,
    smooth: Annotated[float, typer.Option(min=0, help="Time constant of the smoothing in seconds; 0 for none.")] = 0.5,
    forget: Annotated[float, typer.Option(min=0, help="Seconds until the track of a lost face ends.")] = 1.0,
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
    """Track the faces in a video, a camera or a folder of frames.

    --out FILE writes a row for each face and frame (.csv, .parquet), an object for each frame (.jsonl, .json), a page
    with the curves and shares of each track (.html), or the video with boxes, bars and its sound (.mp4). --json (a line
    for each frame) and --format csv print.
    A table of the tracks is printed at the end. Ctrl-C ends the run like the end of the video: all results so far are
    written. Exit status: 0 done, 2 the source or an argument is wrong, or a camera was disconnected, 130 stopped by
    Ctrl-C, 143 by SIGTERM.
    """
    outputs = _options.read_outputs(out, format, as_json, _FORMATS)
    files: dict[str, Any] = {name: sys.stdout if path == _options.STDOUT else path for name, path in outputs}
    if "" in files or len(files) < len(outputs):
        raise MienError("--out: name one file for each format")
    from mien.commands.track_display import Summary, open_watch
    from mien.reader import Reader
    from mien.video import Tracker, open_source
    from mien.video.outputs import TrackOutputs

    if Path(source).is_dir():
        expand_inputs([source])  # protects the frames
    providers = _options.providers_of(device)
    reader = Reader(
        model,
        detector=detector,
        precision=precision,
        abstain="card" if abstain is None else abstain,
        min_quality=min_quality,
        threads=threads,
        providers=providers,
    )
    tracker = Tracker(reader, every=every, smooth=smooth, forget=forget)
    summary = Summary()
    # The handler stays until all files are closed, so that Ctrl-C meanwhile cannot truncate them.
    with open_source(source, rate=rate) as frames, GracefulStop(frames.stop) as signals:
        written = TrackOutputs(frames, reader, **files)
        with written, open_watch(frames, live=frames.live if live is None else live) as watch:
            ended = _run(frames, tracker, written, summary, watch, end) or signals.error
            if ended is not None and not summary.statistics.frames:
                raise ended  # older files remain
            written.partial = ended is not None
        summary.print(frames, notes=written.notes, file=sys.stderr if sys.stdout in files.values() else sys.stdout)
    if ended is not None:
        raise ended


def _run(
    frames: "FrameSource",
    tracker: "Tracker",
    outputs: "TrackOutputs",
    summary: "Summary",
    watch: "Watch",
    end: float | None,
) -> BaseException | None:
    """Pass each frame to each output; return the error that ended the run early, such as a lost camera."""
    try:
        for frame in frames:
            if end is not None and frame.seconds >= end:
                break
            result = tracker.step(frame.pixels, frame.seconds)
            outputs.add(result, frame.pixels)
            summary.add(result)
            watch.add(result)
    except (SourceError, BrokenPipeError) as error:
        return error  # the results so far are written
    return None
