"""track: a source -> its moments, in one call."""

import os
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from mien.pipeline import Reader
from mien.stream.frames import Frames
from mien.stream.records import Moment
from mien.stream.source import open_source
from mien.stream.tracker import Tracker


def track(
    source: str | os.PathLike[str] | int,
    *,
    reader: Reader | None = None,
    every: int = 3,
    smooth: float = 0.5,
    forget: float = 1.0,
    fps: float = 25.0,
    keep_pixels: bool = False,
) -> Generator[Moment, None, None]:
    """Follow the faces of ``source`` (a film, camera, address or folder, as ``open_source`` says) through its frames.

        for moment in mien.track("film.mp4"):
            for face in moment.faces:
                print(moment.seconds, face.id, face.emotion, face.confidence)

    ``reader`` reads the faces, by default ``Reader()``. ``every``, ``smooth`` and ``forget`` are those of ``Tracker``,
    ``fps`` is for folders. ``keep_pixels`` leaves the frame in its moment. Memory stays the same at any length. Closing
    the generator, as leaving a loop over it does in the end, ends the threads and closes the file.

    Raises ``SourceError`` for what cannot be opened (at once) or breaks off, ``MissingExtraError`` without PyAV.
    """
    tracker = Tracker(reader or Reader(), every=every, smooth=smooth, forget=forget)
    moments = _follow(open_source(source, fps=fps), tracker, keep_pixels)
    next(moments)  # into the block that closes the source, also where nobody asks for a moment
    return moments


def _follow(frames: Frames, tracker: Tracker, keep_pixels: bool) -> Generator[Any, None, None]:
    with frames:
        yield None
        for frame in frames:
            moment = tracker.step(frame.pixels, frame.seconds)
            yield replace(moment, pixels=frame.pixels) if keep_pixels else moment
