"""Cameras and live streams: the newest frame, timed by the clock, and a clear word when they go away."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mien._errors import SourceError
from mien.stream.film_file import rate_of
from mien.stream.frames import Frames, Timed
from mien.stream.pictures import decoded, import_av, open_container, reason_of, to_pixels, video_stream

OPEN_SECONDS, READ_SECONDS = 15.0, 10.0  # so long may a stream take to open, and to send its next picture


class Live(Frames):
    """The frames of an open camera or live stream. It has no end: when it stops, that is a ``SourceError``.

    ``seconds`` count on this machine's clock from the first frame: what cameras say of time is often a guess.
    """

    live = True

    def __init__(self, container: Any, name: str) -> None:
        """Raises ``SourceError`` where there is no video in it."""
        self._container = container
        self._stream = video_stream(container, name)
        self._stream.thread_type = "SLICE"  # threads over frames would hold back as many frames
        super().__init__(name, rate=rate_of(self._stream))

    def _read(self) -> Iterator[Timed]:
        start = time.monotonic()
        first: float | None = None
        try:
            for frame in decoded(self._container, self._stream, self._skip):
                now = time.monotonic()
                first = now if first is None else first
                yield now - first, to_pixels(frame)
            why = "it sent no more pictures"
        except import_av().FFmpegError as error:
            why = _why(error)
        lasted = time.monotonic() - (start if first is None else first)
        raise SourceError(f"{self.name}: the camera or stream ended after {lasted:.1f} s ({why}); connect it again")

    def _let_go(self) -> None:
        self._container.close()

    def _skip(self) -> None:
        self.skipped += 1


def _why(error: BaseException) -> str:
    av = import_av()
    if isinstance(error, av.error.ExitError | av.error.TimeoutError):
        return f"no picture for {READ_SECONDS:.0f} s"
    return reason_of(error)


def open_camera(camera: int | str) -> Live:
    """The camera of this number (0 is the first), or at a path such as ``/dev/video0``."""
    name = f"camera {camera}" if isinstance(camera, int) else camera
    cure = "check that it is connected, that no other program uses it, and that you may use it"
    if sys.platform == "darwin":
        address, settings = str(camera), {"format": "avfoundation", "options": {"framerate": "30"}}
    elif sys.platform == "win32":
        address, settings = f"video={_windows_name(camera, name)}", {"format": "dshow"}
    else:
        address, settings = f"/dev/video{camera}" if isinstance(camera, int) else camera, {"format": "v4l2"}
        _check_device(address, name)
    return Live(open_container(address, name, cure, **settings), name)


def _check_device(address: str, name: str) -> None:
    import_av()
    if not Path(address).exists():
        here = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise SourceError(f"{name}: there is no such camera, {address} does not exist; connect one (here: {here})")


def _windows_name(camera: int | str, name: str) -> str:
    if isinstance(camera, str):
        return camera
    av = import_av()
    cameras = [device.description or device.name for device in av.enumerate_input_devices("dshow")]
    if camera >= len(cameras):
        raise SourceError(f"{name}: there is no such camera; connect one (here: {', '.join(cameras) or 'none'})")
    return str(cameras[camera])
