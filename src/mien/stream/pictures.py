"""What film files, cameras and streams share: opening them with PyAV, and decoded frames -> upright RGB pictures."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._errors import MissingExtraError, SourceError

_NARROWEST = 0.25  # width of a stored pixel for its height; what is told beyond it is an error


def import_av() -> Any:
    """PyAV; raises ``MissingExtraError`` where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av (PyAV)", "video") from error
    return av


def open_container(address: str, name: str, cure: str, **settings: Any) -> Any:
    """PyAV's input container; raises ``SourceError`` about ``name`` that ends with the ``cure``."""
    av = import_av()
    start, (patience, _) = time.monotonic(), settings.get("timeout") or (math.inf, math.inf)
    try:
        return av.open(address, **settings)
    except (av.FFmpegError, OSError, ValueError) as error:
        # What FFmpeg says of a server that never answers depends on where it was interrupted.
        silent = time.monotonic() - start >= patience
        reason = f"no answer for {patience:g} s" if silent else reason_of(error)
        raise SourceError(f"{name}: cannot be opened ({reason}); {cure}") from error


def reason_of(error: BaseException) -> str:
    """The system's or FFmpeg's words for ``error``, in a few words."""
    if isinstance(error, import_av().error.ExitError):
        return "it sends nothing more"  # FFmpeg: immediate exit requested
    text = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return text.partition("\n")[0][:160].strip().lower().rstrip(".")


def video_stream(container: Any, name: str) -> Any:
    """The film in a container; the cover of a song is none. Raises ``SourceError`` where there is none."""
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.__class__.attached_pic and stream.codec_context is not None:
            return stream
    container.close()
    raise SourceError(f"{name}: there is no video in it; name a film, a camera or a folder of frames")


def decoded(container: Any, stream: Any, skip: Callable[[], None]) -> Iterator[Any]:
    """The frames of ``stream``. Calls ``skip`` for each broken one; raises what FFmpeg raises about the whole file."""
    av = import_av()
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError):  # of this packet alone: the next may be whole
            skip()
            continue
        for frame in frames:
            if frame.is_corrupt:
                skip()
            else:
                yield frame


def to_pixels(frame: Any, *, aspect: float = 1.0) -> NDArray[np.uint8]:
    """A decoded frame as people see it: upright, with square pixels, RGB uint8 ``[H, W, 3]``, read-only.

    ``aspect`` is how wide a stored pixel is for its height, not 1 in DVDs and some recordings.
    """
    width = max(1, round(frame.width * aspect))
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    turned = np.ascontiguousarray(_upright(pixels, frame.rotation))
    turned.flags.writeable = False
    return turned


def aspect_of(stream: Any) -> float:
    """How wide a stored pixel of ``stream`` is for its height; 1 where it says nothing that can be."""
    ratio = stream.sample_aspect_ratio
    return float(ratio) if ratio and _NARROWEST <= ratio <= 1 / _NARROWEST else 1.0


def _upright(pixels: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """``degrees`` counterclockwise, as FFmpeg's display matrix says it; phones turn by quarters."""
    return np.rot90(pixels, round(degrees / 90) % 4) if degrees else pixels
