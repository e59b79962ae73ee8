"""``mien track``: a film, camera or folder of frames in; annotated film, lines, tables, a page or a live view out."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien._errors import MienError, SourceError
from mien.bundled import DEFAULT_MODEL

if TYPE_CHECKING:
    from mien.commands.track_outputs import Outputs
    from mien.commands.track_show import Watch
    from mien.commands.track_summary import Summary
    from mien.stream import Frames, Tracker

_STDOUT = "-"
_SUFFIXES = {"--video": ".mp4", "--jsonl": ".jsonl", "--csv": ".csv", "--parquet": ".parquet", "--html": ".html"}


def track(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A film, a camera (0, 1, /dev/video0), an RTSP or HTTP address, a folder of frames."
        ),
    ],
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the film with boxes and bars, MP4 with its sound.")
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
        Path | None, typer.Option(metavar="FILE", help="Write a page with the curves and shares of each person.")
    ] = None,
    live: Annotated[
        bool | None, typer.Option("--live/--no-live", help="Show the faces as they change; the default for cameras.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Search the whole picture on each n-th frame.")] = 3,
    smooth: Annotated[float, typer.Option(min=0, help="Time constant of the smoothing in seconds; 0 for none.")] = 0.5,
    forget: Annotated[float, typer.Option(min=0, help="Seconds until a lost face is given up.")] = 1.0,
    duration: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Stop after so many seconds of the source.")
    ] = None,
    fps: Annotated[float, typer.Option(min=0.001, help="Frames a second of a folder of frames.")] = 25.0,
    abstain: Annotated[float, typer.Option(min=0, max=1, help="Below this probability the answer is 'unsure'.")] = 0.0,
    detector: Annotated[
        str, typer.Option(help="blazeface, yunet (fetched once), or none: each frame is one tight crop of a face.")
    ] = "blazeface",
    model: Annotated[
        str, typer.Option(help="An embedded model (`mien models` lists them) or the path of an ONNX file.")
    ] = DEFAULT_MODEL,
    precision: Annotated[str, typer.Option(help="The embedded model's file: int8 (small, fast) or fp32.")] = "int8",
) -> None:
    """Follow the faces in a film, a camera or a folder of frames.

    What was seen of each person is printed at the end. Ctrl-C ends it like the end of the film: all until then is
    written. Exit status: 0 done, 2 the source or an argument is wrong, or a camera went away, 130 stopped by Ctrl-C,
    143 by a service manager.
    """
    if jsonl is not None and csv is not None and str(jsonl) == str(csv) == _STDOUT:
        raise typer.BadParameter("--jsonl and --csv both write to standard output; name a file for one")
    files = {"--video": video, "--jsonl": jsonl, "--csv": csv, "--parquet": parquet, "--html": html}
    _check_outputs(source, {name: path for name, path in files.items() if path is not None})
    from mien.commands.track_outputs import Outputs
    from mien.commands.track_show import open_watch
    from mien.commands.track_stop import stopped_by_user
    from mien.commands.track_summary import Summary
    from mien.pipeline import Reader
    from mien.stream import Tracker, open_source

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
    frames: "Frames",
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
            moment = tracker.step(frame.pixels, frame.seconds)
            outputs.add(moment, frame.pixels)
            summary.add(moment)
            watch.add(moment)
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
        raise MienError(f"{option} {path}: the film is an MP4; name it {path.with_suffix(own)}")
    if suffix != own and suffix in _SUFFIXES.values():
        raise MienError(f"{option} {path}: is the name of another kind of file; name it {path.with_suffix(own)}")
