"""What the user names -> frames: a video, a camera, an address, a folder."""

import math
import os
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._errors import ImageError, MienError, MissingExtraError, SourceError
from mien.decode import FORMATS, decode
from mien.video.prefetch import Prefetcher, run_in_thread
from mien.video.types import Frame

_AHEAD = 4  # frames decoded before they are asked for: evens out key frames, 11 MB at 1280x720


_TimedPixels = tuple[float, NDArray[np.uint8]]


class FrameSource(ABC):
    """The frames of one source, to be gone through once: ``with open_source(...) as frames: for frame in frames``.

    ``name`` is what messages call it. A ``live`` source gives its newest frame and drops those that nobody fetched in
    time; any other gives all of them. ``count`` is how many frames there will be and ``rate`` how many there are a
    second, where the source says so. ``skipped`` counts broken frames, ``note`` tells what else a reader should know.
    """

    live = False

    def __init__(self, name: str, *, count: int | None = None, rate: float | None = None) -> None:
        self.name = name
        self.count = count
        self.rate = rate
        self.skipped = 0
        self.note: str | None = None
        self._ahead: Prefetcher[_TimedPixels] | None = None
        self._stopped = False

    @property
    def dropped(self) -> int:
        """Frames of a live source that were dropped for newer ones."""
        return 0 if self._ahead is None else self._ahead.dropped

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once. Raises ``SourceError`` where the source breaks off or none of its frames can be read."""
        if self._ahead is not None:
            raise SourceError(f"{self.name}: its frames were read already; open it again")
        self._ahead = Prefetcher(self._read_whole(), capacity=1 if self.live else _AHEAD, newest=self.live)
        if self._stopped:
            self._ahead.stop()
        try:
            for index, (seconds, pixels) in enumerate(self._ahead):
                yield Frame(index, seconds, pixels)
        finally:
            self.close()

    def stop(self) -> None:
        """Let the iteration end with the frame that it is at, or before its first; a signal may call it."""
        self._stopped = True
        if self._ahead is not None:
            self._ahead.stop()

    def close(self) -> None:
        """End reading and let go of file or camera. Safe to call twice."""
        if self._ahead is not None:
            self._ahead.close()
        else:
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_whole(self) -> Iterator[_TimedPixels]:
        # The thread that reads is the one that closes: it may be in the middle of a file or of a camera's driver.
        try:
            yield from self._read()
        finally:
            self._let_go()

    def _let_go(self) -> None:  # noqa: B027 (a folder has nothing open)
        """Close file or camera."""

    @abstractmethod
    def _read(self) -> Iterator[_TimedPixels]:
        """Seconds, never falling, and read-only pixels of each frame. Runs on the thread."""


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
    """The video in a container; the cover of a song is none. Raises ``SourceError`` where there is none."""
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.__class__.attached_pic and stream.codec_context is not None:
            return stream
    container.close()
    raise SourceError(f"{name}: there is no video in it; name a video, a camera or a folder of frames")


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


_LEAST_SHARE = 0.9  # of the seconds that the file promises, below which it is said to end early


_USUAL_RATE = 25.0  # frames a second, where neither frames nor file tell


_NOT_BEHIND = 1.0  # seconds; a frame that lies further behind the last one has another clock,


_NEW_CLOCK = 3  # where so many in a row do: a single one has a wrong time


_LARGEST_RATE = 1000.0  # frames a second; some files state the ticks of their clock instead


class VideoFile(FrameSource):
    """The frames of an open container. Broken ones are skipped; a file that is cut off gives what there is."""

    def __init__(self, container: Any, name: str) -> None:
        """Raises ``SourceError`` where there is no video in it."""
        self._container = container
        self._stream = video_stream(container, name)
        self._stream.thread_type = "AUTO"
        rate, seconds = rate_of(self._stream), _seconds(container, self._stream)
        count = self._stream.frames or (max(1, round(seconds * rate)) if seconds and rate else None)
        super().__init__(name, count=count, rate=rate)
        self._promised, self._aspect = seconds, aspect_of(self._stream)

    def _let_go(self) -> None:
        self._container.close()

    def _read(self) -> Iterator[_TimedPixels]:
        given, seconds = 0, 0.0
        first: float | None = None
        behind = 0  # frames in a row
        step = 1 / (self.rate or _USUAL_RATE)
        try:
            for frame in decoded(self._container, self._stream, self._skip):
                time = frame.time
                if first is None:
                    first = self._start_of(time)
                told = time is not None and first is not None and math.isfinite(time)
                behind = behind + 1 if told and time - first < seconds - _NOT_BEHIND else 0
                if behind == _NEW_CLOCK:  # as where one recording stands behind another
                    first = time - seconds - step
                seconds = max(seconds, time - first if told else seconds + step * (given > 0))
                yield seconds, to_pixels(frame, aspect=self._aspect)
                given += 1
        except import_av().FFmpegError as error:
            self.note = f"the file breaks off after {seconds:.1f} s ({reason_of(error)})"
        except IndexError:  # PyAV's own: a damaged file grew another stream
            self.note = f"the file breaks off after {seconds:.1f} s (it is damaged)"
        if given == 0:
            broken = f" ({self.skipped} are broken)" if self.skipped else ""
            raise SourceError(f"{self.name}: none of its frames can be decoded{broken}; get the file again")
        if self.note is None and self._promised and seconds + step < _LEAST_SHARE * self._promised:
            self.note = f"the file ends early, after {seconds:.1f} of {self._promised:.1f} s"

    def _start_of(self, time: float | None) -> float | None:
        """Where time counts from: the first frame, also where it is broken, so that the sound stays in its place."""
        start = self._stream.start_time
        if not self.skipped or time is None or start is None:
            return time
        return min(time, float(start * self._stream.time_base))

    def _skip(self) -> None:
        self.skipped += 1


def rate_of(stream: Any) -> float | None:
    """Frames per second, as far as the stream says something that can be."""
    rates = (float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate)
    return next((rate for rate in rates if 0 < rate <= _LARGEST_RATE), None)


def _seconds(container: Any, stream: Any) -> float | None:
    """How long the video is, as far as the file says it of the video alone: sound may go on longer."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and not container.streams.audio:
        return float(container.duration) / 1e6
    return None


OPEN_SECONDS, READ_SECONDS = 15.0, 10.0  # so long may a stream take to open, and to send its next image


class LiveStream(FrameSource):
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

    def _read(self) -> Iterator[_TimedPixels]:
        start = time.monotonic()
        first: float | None = None
        try:
            for frame in decoded(self._container, self._stream, self._skip):
                now = time.monotonic()
                first = now if first is None else first
                yield now - first, to_pixels(frame)
            why = "it sent no more images"
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
        return f"no image for {READ_SECONDS:.0f} s"
    return reason_of(error)


def open_camera(camera: int | str) -> LiveStream:
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
    return LiveStream(open_container(address, name, cure, **settings), name)


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


class ImageFolder(FrameSource):
    """The images in one folder (not below it). Those that cannot be read are skipped; the time goes on."""

    def __init__(self, path: Path, *, rate: float) -> None:
        """``rate`` is frames a second. Raises ``SourceError`` where there is no image."""
        self._files = _image_files(path)
        if not self._files:
            raise SourceError(f"{path}: no images in this folder; name a folder of frames, or a video")
        super().__init__(str(path), count=len(self._files), rate=rate)
        self._rate = rate

    def _read(self) -> Iterator[_TimedPixels]:
        why = ""
        for index, path in enumerate(self._files):
            try:
                image = decode(path)
            except ImageError as error:
                self.skipped += 1
                why = why or str(error)
                continue
            yield index / self._rate, image.pixels
        if self.skipped == len(self._files):
            raise SourceError(f"{self.name}: none of its {self.skipped} images can be read; the first: {why}")


def _image_files(folder: Path) -> list[Path]:
    Image.init()  # names the suffixes of all formats
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes]
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise SourceError(f"{folder}: this folder cannot be opened ({reason}); change its access rights") from error
    # Annotated copies, as of `mien predict --save`, are no frames.
    kept = [path for path in found if not path.name.startswith(".") and not path.stem.endswith(".mien")]
    return sorted(kept, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Numbers in a name count as numbers, everything else by its letters."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


_ADDRESS = re.compile(r"^(rtsps?|https?|rtmps?|udp|tcp|srt)://", re.IGNORECASE)


_DEVICE = re.compile(r"^/dev/video\d+$")


# FFmpeg would play some texts as videos: subtitles, and the art of terminals.
_NOT_VIDEOS = frozenset({"tty", "bin", "xbin", "adf", "idf", "ffmetadata", "lavfi"})


def open_source(source: str | os.PathLike[str] | int, *, fps: float = 25.0) -> FrameSource:
    """Open what ``source`` names.

    A number is a camera (0 the first), as is ``/dev/videoN``. ``rtsp://``, ``http://`` and the like are streams: one
    that knows its end is read whole like a file, any other is live. A folder is the frames of a video at ``fps`` frames
    a second. Everything else is a video in a file.

    Raises ``SourceError`` that says what is wrong with it, ``MissingExtraError`` without PyAV (folders need none).
    """
    if not 0 < fps < 1e6:
        raise MienError(f"fps is frames a second above 0, not {fps}")
    name = os.fsdecode(source) if not isinstance(source, int) else str(source)
    if not name:
        raise SourceError("the source has no name; name a video, a camera, an address or a folder of frames")
    if name.isdecimal() and not Path(name).exists():
        return open_camera(int(name))
    if _DEVICE.match(name):
        return open_camera(name)
    if _ADDRESS.match(name):
        return _open_address(name)
    if Path(name).is_dir():
        return ImageFolder(Path(name), rate=fps)
    return _open_file(name)


def _open_file(name: str) -> FrameSource:
    path = Path(name)
    if not path.exists():
        raise SourceError(f"{name}: no such video; check the path")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{name}: no permission to read it; change its access rights or run as its owner")
    cure = "name a video such as MP4, or get the file again"
    # "file:" keeps FFmpeg from taking a name such as "a:b.mp4" for an address.
    container = open_container(f"file:{name}", name, cure)
    if container.format.name in _NOT_VIDEOS:
        container.close()
        raise SourceError(f"{name}: is not a video; {cure}")
    return VideoFile(container, name)


def _open_address(name: str) -> FrameSource:
    options = {"rtsp_transport": "tcp"} if name.lower().startswith("rtsp") else {}
    cure = "check the address and that it can be reached"
    timeout = (OPEN_SECONDS, READ_SECONDS)
    container = run_in_thread(
        lambda: open_container(name, _without_password(name), cure, options=options, timeout=timeout)
    )
    if container.duration and not name.lower().startswith("rtsp"):
        return VideoFile(container, _without_password(name))
    return LiveStream(container, _without_password(name))


def _without_password(address: str) -> str:
    """Messages and tables must not tell the password that stands in an address."""
    return re.sub(r"//[^/@]*@", "//", address)
