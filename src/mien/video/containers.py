"""Containers of PyAV: opening them, their video stream, when it is shown, and frames as upright images."""

import math
import time
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mien._errors import MissingExtraError, SourceError
from mien._face import Pixels

_LONGEST_SECONDS = 1e9  # a longer duration, such as an infinite one, is an error of the file


def import_av() -> Any:
    """Import PyAV. Raises ``MissingExtraError`` if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av (PyAV)", "video") from error
    return av


def open_container(address: str, name: str, cure: str, **settings: Any) -> Any:
    """Open an input of PyAV.

    Args:
        address: What FFmpeg opens.
        name: Name of the source in messages.
        cure: What to do, in messages.
        **settings: Of ``av.open``.

    Returns:
        The container.

    Raises:
        SourceError: It cannot be opened.
    """
    av = import_av()
    start, (timeout, _) = time.monotonic(), settings.get("timeout") or (math.inf, math.inf)
    try:
        return av.open(address, **settings)
    except (av.FFmpegError, OSError, ValueError) as error:
        # The error of FFmpeg after a timeout depends on the call that was interrupted.
        timed_out = time.monotonic() - start >= timeout
        reason = f"no answer for {timeout:g} s" if timed_out else reason_of(error)
        raise SourceError(f"{name}: cannot be opened ({reason}); {cure}") from error


def reason_of(error: BaseException) -> str:
    """Return the message of the system or of FFmpeg as a short phrase.

    Args:
        error: The error.

    Returns:
        At most 160 characters, in lower case, without a full stop.
    """
    if isinstance(error, import_av().error.ExitError):
        return "it sends nothing more"  # FFmpeg: immediate exit requested
    text = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return text.partition("\n")[0][:160].strip().lower().rstrip(".")


def video_stream(container: Any, name: str) -> Any:
    """Return the first video stream of a container, leaving out cover images. Closes the container if there is none.

    Args:
        container: An input of PyAV.
        name: Name of the source in messages.

    Returns:
        The stream of PyAV.

    Raises:
        SourceError: If there is no video.
    """
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.__class__.attached_pic and stream.codec_context is not None:
            return stream
    container.close()
    raise SourceError(f"{name}: there is no video in it; name a video, a camera or a folder of frames")


def to_pixels(frame: Any, *, aspect: float = 1.0) -> Pixels:
    """Convert a decoded frame to an upright RGB image with square pixels.

    Args:
        frame: A video frame of PyAV.
        aspect: Width / height of a stored pixel. It is not 1 in DVDs and some recordings.

    Returns:
        The image, uint8 ``[H, W, 3]``, read-only.
    """
    width = max(1, round(frame.width * aspect))
    # By default, PyAV starts a thread a core for each frame, which last until the next garbage collection.
    pixels: Pixels = frame.reformat(width, frame.height, "rgb24", threads=1).to_ndarray()
    try:
        upright = _upright(pixels, frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:  # a kind of side data that PyAV does not know; it knows the rotation nevertheless
        upright = np.rot90(pixels, round(frame.rotation / 90) % 4)
    upright = np.ascontiguousarray(upright)
    upright.flags.writeable = False
    return upright


def _upright(pixels: Pixels, matrix: Any) -> Pixels:
    """Mirror and rotate an image by the display matrix of its frame.

    As ``ffmpeg`` does it: scaling and undefined matrices are ignored, and a shear counts as a rotation. The matrix
    ``a b . c d`` maps ``x`` to ``a x + c y``, and ``y`` to ``b x + d y``.
    """
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if not math.hypot(a, c) * math.hypot(b, d):
        return pixels
    clockwise = round(math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c))))
    if clockwise % 90:
        return np.asarray(Image.fromarray(pixels).rotate(-clockwise, Image.Resampling.BILINEAR))
    if clockwise % 180:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


class VideoSpan(NamedTuple):
    """When a video is shown, in seconds of presentation: a player begins with the first packet of any stream.

    Args:
        zero: Time stamp at which a player begins; ``None`` if the container has no time stamps.
        start: Time of the first frame.
        end: Time of the end; ``None`` if unknown.
    """

    zero: float | None
    start: float
    end: float | None


def span_of(container: Any, video: Any, zero: float | None = None) -> VideoSpan:
    """Return when a video is shown, by the headers of its container.

    Args:
        container: An input of PyAV.
        video: Its video stream.
        zero: Time stamp of the first frame in seconds, for a container that does not say when it begins.

    Returns:
        The span.
    """
    zero = zero if container.start_time is None else container.start_time / 1e6
    first = zero or 0.0 if video.start_time is None else float(video.start_time * video.time_base)
    start = max(0.0, first - (zero or 0.0))
    before, stated = first, (container.duration or 0) / 1e6
    if video.duration and video.time_base:
        # MP4 may begin with an empty edit. Without a start, FFmpeg takes the duration of the container.
        before = first if container.format.name.startswith("mov") or video.start_time is None else start
        stated = float(video.duration * video.time_base)
    elif len(parts := video.metadata.get("DURATION", "").split(":")) == 3:  # a tag of Matroska
        with suppress(ValueError):
            stated = sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
    # Some programs count the time before the first frame as part of the duration, others do not.
    lasts = stated - before if stated > before else stated
    return VideoSpan(zero, start, start + lasts if 0 < lasts <= _LONGEST_SECONDS else None)
