"""Read frames from a video file, a camera, a network stream or a folder of images."""

import math
import os
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from PIL import Image

from mien._errors import ImageError, SourceError, require_integer, require_kind, require_number, why_absent
from mien._face import Pixels
from mien._format import without_password
from mien._structure import check_structure
from mien.decode import FORMATS, check_image_file, decode
from mien.video.containers import import_av, open_container, reason_of, span_of, to_pixels, video_stream
from mien.video.prefetch import Prefetcher, run_in_thread
from mien.video.types import Frame, Sampling

OPEN_SECONDS, READ_SECONDS = 15.0, 10.0  # timeouts of a network stream: to open, and between two frames
_LAST_CAMERA = 9999  # the largest number of a camera
_PREFETCHED_FRAMES = 4  # evens out the decoding time of key frames; 11 MB at 1280x720
_MAX_FRAME_PIXELS = 40_000_000  # width x height; 8K has 33 million
_MIN_ASPECT = 0.25  # width / height of a stored pixel; a value outside 1/4..4 is an error of the file
_MIN_COMPLETE = 0.9  # share of the declared duration; a shorter video is reported as incomplete
_LONGEST_GROUP = 600  # packets from a key frame to the next that are held at once: 10 s of 60 frames a second
_DEFAULT_RATE = 25.0  # frames per second of a video without a rate
_MAX_RATE = 1000.0  # frames per second; some files store the ticks of their clock instead
# A time stamp this far behind the last one is ignored. After several in a row, the clock is taken to have restarted.
_MAX_BACKWARD_SECONDS = 1.0
_RESTART_FRAMES = 3
# Formats that FFmpeg opens as videos although they are text: subtitles and terminal art.
_NOT_VIDEOS = frozenset({"tty", "bin", "xbin", "adf", "idf", "ffmetadata", "lavfi"})

_TimedPixels = tuple[float, Pixels]


class FrameSource(ABC):
    """The frames of one source, which can be iterated once. A context manager that closes the source.

    A live source delivers its newest frame and drops the frames that were not fetched in time. Any other source
    delivers every frame. After the iteration, ``skipped`` is the number of broken frames, and ``note`` is a message
    such as that a file is truncated.

    Args:
        name: Name of the source in messages.
        count: Expected number of frames, if known.
        rate: Frames per second, if known.
    """

    live = False

    def __init__(self, name: str, *, count: int | None = None, rate: float | None = None) -> None:
        self.name, self.count, self.rate = name, count, rate
        self.skipped = 0
        self.note: str | None = None
        self.sampling = Sampling()
        self._prefetcher: Prefetcher[_TimedPixels] | None = None
        self._stopped = self._closed = False

    def sample(self, sampling: Sampling) -> None:
        """Deliver only some of the frames. Call it before the iteration.

        Args:
            sampling: Which ones.
        """
        self.sampling = sampling
        if self.count is not None and self.rate and not self.live:
            lasts = min(self.count / self.rate, math.inf if sampling.end is None else sampling.end) - sampling.start
            self.rate = min(self.rate, sampling.fps or math.inf)
            self.count = max(1, math.ceil(lasts * self.rate))

    @property
    def dropped(self) -> int:
        """Number of frames of a live source that were dropped for newer ones."""
        return 0 if self._prefetcher is None else self._prefetcher.dropped

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, once. Raises ``SourceError`` if the source breaks off or no frame can be read."""
        if self._prefetcher is not None or self._closed:
            raise SourceError(f"{self.name}: its frames were read already, or it was closed; open it again")
        capacity = 1 if self.live else _PREFETCHED_FRAMES
        self._prefetcher = Prefetcher(self._read_and_release(), capacity=capacity, newest=self.live)
        if self._stopped:
            self._prefetcher.stop()
        try:
            for index, (seconds, pixels) in enumerate(self._prefetcher):
                yield Frame(index, seconds, pixels)
        finally:
            self.close()

    def stop(self) -> None:
        """End the iteration after the current frame, or before the first one. A signal handler may call this."""
        self._stopped = True
        if self._prefetcher is not None:
            self._prefetcher.stop()

    def close(self) -> None:
        """Stop reading and close the file or camera. A second call does nothing."""
        if self._prefetcher is not None:
            self._prefetcher.close()
        else:
            self._release()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read_and_release(self) -> Iterator[_TimedPixels]:
        # The reading thread also closes: it may be inside a file or the driver of a camera.
        try:
            yield from self._read()
        finally:
            self._release()

    def _no_frame(self, until: float) -> SourceError:
        """The error of a source without a frame between start and end, which was read until a time."""
        start, end = self.sampling.start, self.sampling.end
        if until <= start:
            return SourceError(f"{self.name}: ends after {until:.1f} s, before the start; choose an earlier one")
        last = "its end" if end is None else f"{end:g} s"
        return SourceError(f"{self.name}: no frame between {start:g} s and {last}; choose other times")

    def _release(self) -> None:  # noqa: B027 (a folder has nothing to close)
        """Close the file or camera."""

    @abstractmethod
    def _read(self) -> Iterator[_TimedPixels]:
        """Yield the seconds, which never decrease, and the read-only pixels of each frame. Runs on the thread."""


def open_source(
    source: str | os.PathLike[str] | int,
    *,
    rate: float = 25.0,
    fps: float | None = None,
    start: float = 0.0,
    end: float | None = None,
) -> FrameSource:
    """Open a source of frames.

    Args:
        source: A number (0 is the first) or ``/dev/videoN`` is a camera. ``rtsp://``, ``http://`` and the like are
            streams: one with a known end is read like a file, any other is live. A folder holds the frames of a video
            as images. Anything else is a video file.
        rate: Frame rate of a folder, in frames per second.
        fps: Frames per second that are delivered at most; ``None``: every frame. Of MP4 and Matroska, only the packets
            that they need are decoded.
        start: Time of the first frame in seconds; frames before it are skipped, in MP4 and Matroska without decoding.
        end: Time in seconds at which to stop; ``None``: the end of the source.

    Returns:
        The source.

    Raises:
        MienError: If a number is out of range or ``source`` of another type.
        SourceError: If the source cannot be opened.
        TooLargeError: If it is an image whose structure exceeds a limit.
        MissingExtraError: If PyAV is not installed; a folder does not need it.

    Example:
        >>> import mien
        >>> with open_source(mien.example().parent) as frames:
        ...     for frame in frames:
        ...         print(frame.index, frame.seconds)
        0 0.0
    """
    require_number("rate", rate, lowest=1e-6, highest=1e6)
    sampling = Sampling(fps, start, end)  # its numbers are checked before anything is opened
    frames = _open(source, rate)
    frames.sample(sampling)
    return frames


def _open(source: str | os.PathLike[str] | int, rate: float) -> FrameSource:
    require_kind("source", source, (str, bytes, os.PathLike, int), "a path, an address or the number of a camera")
    if isinstance(source, int):
        require_integer("source", int(source), lowest=0, highest=_LAST_CAMERA)
    name = os.fsdecode(source) if not isinstance(source, int) else str(source)
    if not name:
        raise SourceError("the source has no name; name a video, a camera, an address or a folder of frames")
    if re.fullmatch(r"\d{1,4}", name) and not Path(name).exists():
        return _open_camera(int(name))
    if re.match(r"^/dev/video\d+$", name):
        return _open_camera(name)
    if re.match(r"^(rtsps?|https?|rtmps?|udp|tcp|srt)://", name, re.IGNORECASE):
        return _open_address(name)
    is_folder = os.path.isdir(name)  # noqa: PTH112 (Path.is_dir raises errors for names that cannot be looked at)
    return _ImageFolder(Path(name), rate=rate) if is_folder else _open_file(name)


def _open_camera(camera: int | str) -> FrameSource:
    """Open the camera with this number, or at a path such as ``/dev/video0``."""
    av = import_av()
    name = f"camera {camera}" if isinstance(camera, int) else camera
    cure = "check that it is connected, that no other program uses it, and that you may use it"
    missing = f"{name}: there is no such camera"
    if sys.platform == "darwin":
        address, settings = str(camera), {"format": "avfoundation", "options": {"framerate": "30"}}
    elif sys.platform == "win32":
        if isinstance(camera, int):
            devices = [str(device.description or device.name) for device in av.enumerate_input_devices("dshow")]
            if camera >= len(devices):
                raise SourceError(f"{missing}; connect one (here: {', '.join(devices) or 'none'})")
            camera = devices[camera]
        address, settings = f"video={camera}", {"format": "dshow"}
    else:
        address, settings = f"/dev/video{camera}" if isinstance(camera, int) else camera, {"format": "v4l2"}
        if not Path(address).exists():
            here = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
            raise SourceError(f"{missing}, {address} does not exist; connect one (here: {here})")
    return _LiveStream(open_container(address, name, cure, **settings), name)


def _open_address(address: str) -> FrameSource:
    name = without_password(address)
    rtsp = address.lower().startswith("rtsp")
    cure = "check the address and that it can be reached"
    settings = {"options": {"rtsp_transport": "tcp"} if rtsp else {}, "timeout": (OPEN_SECONDS, READ_SECONDS)}
    container = run_in_thread(lambda: open_container(address, name, cure, **settings))
    return _VideoFile(container, name) if container.duration and not rtsp else _LiveStream(container, name)


def _open_file(name: str) -> FrameSource:
    if not os.path.exists(name):  # noqa: PTH110
        raise SourceError(f"{name}: {why_absent(name, 'no such video; check the path')}")
    if not os.access(name, os.R_OK):
        raise SourceError(f"{name}: no permission to read it; change its access rights or run as its owner")
    cure = "name a video such as MP4, or get the file again"
    check_image_file(name)
    # Without "file:", FFmpeg takes a name such as "a:b.mp4" for an address. At a pipe it may wait for ever.
    given = (f"file:{name}", name, cure)
    is_file = Path(name).is_file()
    container = open_container(*given) if is_file else run_in_thread(lambda: open_container(*given))
    if container.format.name in _NOT_VIDEOS:
        container.close()
        raise SourceError(f"{name}: is not a video; {cure}")
    return _VideoFile(container, name, is_pipe=not is_file)


class _ContainerSource(FrameSource):
    """Frames of an open container of PyAV. Raises ``SourceError`` if there is no video in it."""

    def __init__(self, container: Any, name: str, *, threads: str) -> None:
        self._container = container
        self._stream = video_stream(container, name)
        context = self._stream.codec_context
        ratio = self._stream.sample_aspect_ratio
        self._aspect = float(ratio) if ratio and _MIN_ASPECT <= ratio <= 1 / _MIN_ASPECT else 1.0
        width = round(context.width * max(1.0, self._aspect))  # as it is shown
        if width * context.height > _MAX_FRAME_PIXELS:
            container.close()
            size = f"{width:,} x {context.height:,} pixels"
            raise SourceError(f"{name}: its frames have {size}, more than {_MAX_FRAME_PIXELS:,}; scale the video down")
        context.options = {"max_pixels": str(_MAX_FRAME_PIXELS)}  # a frame may be larger than the header says
        self._first_dts: int | None = None  # in ticks
        self._stream.thread_type = threads
        rates = (float(rate) for rate in (self._stream.average_rate, self._stream.guessed_rate) if rate)
        super().__init__(name, rate=next((rate for rate in rates if 0 < rate <= _MAX_RATE), None))

    def _release(self) -> None:
        self._container.close()

    def _packets(self) -> Iterator[Any]:
        """Yield the packets to decode."""
        yield from self._container.demux(self._stream)

    def _decode(self) -> Iterator[Any]:
        """Yield the decoded frames and count the broken ones. Raises the errors of FFmpeg about the whole file."""
        av = import_av()
        for packet in self._packets():
            if self._first_dts is None and packet.size:
                self._first_dts = packet.dts
            try:
                if self._stream.codec_context.name == "mjpeg":
                    check_structure(bytes(packet), "JPEG", "frame")
                frames = packet.decode()
                if not packet.size:
                    self._stream.codec_context.flush_buffers()  # further packets may follow
            except (av.FFmpegError, ValueError, ImageError):  # only this packet is broken
                self.skipped += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.skipped += 1
                else:
                    yield frame


class _VideoFile(_ContainerSource):
    """All frames of a file. A truncated file delivers the frames it has."""

    def __init__(self, container: Any, name: str, *, is_pipe: bool = False) -> None:
        super().__init__(container, name, threads="AUTO")
        self._is_pipe = is_pipe
        stream, span = self._stream, span_of(container, self._stream)
        self._span = span
        # The end of the whole file can be that of longer audio.
        self._end_is_known = bool(stream.duration or stream.metadata.get("DURATION") or not container.streams.audio)
        estimated = max(1, round((span.end - span.start) * self.rate)) if span.end and self.rate else None
        self.count = stream.frames or estimated
        self._step = 1 / (self.rate or _DEFAULT_RATE)  # seconds
        self._delay: int | None = None  # of the decoder, in ticks
        self._sampled: set[int] | None = None  # time stamps of the frames to deliver, if others are not decoded whole
        self._in_decoding_order = container.format.name == "avi"  # its time stamps are those of decoding

    def _read(self) -> Iterator[_TimedPixels]:
        given, taken, seconds, zero = 0, 0, 0.0, self._span.zero
        behind = 0  # consecutive frames
        step = self._step
        try:
            for frame in self._decode():
                time = self._decoding_time(frame) if self._in_decoding_order else frame.time
                if zero is None and time is not None:
                    self._span = span_of(self._container, self._stream, zero := time)
                if time is None or zero is None or not math.isfinite(time):
                    seconds += step * (given > 0)
                else:
                    behind = behind + 1 if time - zero < seconds - _MAX_BACKWARD_SECONDS else 0
                    if behind == _RESTART_FRAMES:  # such as between two joined recordings
                        zero = time - seconds - step
                    seconds = max(seconds, time - zero)
                given += 1
                if self.sampling.is_over(seconds):
                    if not taken:
                        raise self._no_frame(seconds)
                    return
                is_whole = self._sampled is None or frame.pts in self._sampled
                if is_whole and self.sampling.takes(seconds):
                    taken += 1
                    (self._sampled or set()).discard(frame.pts)
                    yield seconds, to_pixels(frame, aspect=self._aspect)
        except import_av().FFmpegError as error:
            self.note = f"the file breaks off after {seconds:.1f} s ({reason_of(error)})"
        except IndexError:  # raised by PyAV if a damaged file gains a stream
            self.note = f"the file breaks off after {seconds:.1f} s (it is damaged)"
        start, end = self._span.start, self._span.end
        # Where no packet was needed, the times were chosen so, or the file is shorter than it says.
        ends_early = end and self.sampling.end is None and self.sampling.start < _MIN_COMPLETE * (end - start)
        if given == 0 and (self._sampled != set() or ends_early):
            broken = f" ({self.skipped} are broken)" if self.skipped else ""
            raise SourceError(f"{self.name}: none of its frames can be decoded{broken}; get the file again")
        if not taken:
            raise self._no_frame(seconds if given else math.inf)
        step += 1 / (self.sampling.fps or math.inf)  # what is behind the last sample may not have been decoded
        is_complete = not end or seconds + step >= start + _MIN_COMPLETE * (end - start)
        if self.note is None and self._end_is_known and not is_complete:
            self.note = f"the file ends early, after {seconds:.1f} of {end:.1f} s"

    def _packets(self) -> Iterator[Any]:
        """Of MP4 and Matroska, begin at the last key frame before the start, and leave out what no sample needs."""
        sampling, zero, stream = self.sampling, self._span.zero, self._stream
        name = self._container.format.name
        if sampling.is_all or zero is None or not name.startswith(("mov", "matroska")):
            yield from super()._packets()
            return
        if sampling.start > 0 and not self._is_pipe:  # a pipe has only what comes next
            self._seek(int((sampling.start + zero) / stream.time_base))
        yield from super()._packets() if sampling.fps is None else self._needed_packets(super()._packets(), zero)

    def _seek(self, target: int) -> None:
        """Go to the last key frame before a time in ticks; frames between the two need the one before it."""
        self._container.seek(target, stream=self._stream, backward=True)
        first = next(super()._packets())
        if first.pts is not None and first.dts is not None and first.pts > target:
            with suppress(import_av().FFmpegError):
                self._container.seek(first.dts - 1, stream=self._stream, backward=True)
                return
        self._container.seek(target, stream=self._stream, backward=True)

    def _needed_packets(self, packets: Iterator[Any], zero: float) -> Iterator[Any]:
        """Yield the packets that the samples need, and an empty one where others are left out before a group."""
        sampling = self.sampling
        ahead = Sampling(sampling.fps, sampling.start, sampling.end)
        self._sampled = sampled = set[int]()
        more, is_gap = 0, sampling.start > 0  # packets that the last group needs; whether packets were left out
        for group, leading in _groups_of(packets):
            count, stamps, first = len(group), set[int](), group[0].pts
            if leading is None:
                self._sampled = None
            if self._sampled is not None:
                count, stamps = ahead.needed(group, leading or (), zero)
            needed = group[: max(count, more)]
            if needed and is_gap and not self._stream.codec_context.codec.intra_only:
                # Empty the decoder first: that of H.264 would wait for the frames that are left out.
                yield self._empty_packet()
                if sampled:  # one did not come out, because its key frame needs others: decode everything from here on
                    self._sampled, needed, count = None, group, len(group)
                needed = [packet for packet in needed if first is None or packet.pts is None or packet.pts >= first]
            sampled |= stamps
            yield from needed
            is_gap = max(count, more) < len(group)
            more = max(0, count - len(group) + 1)  # the next key frame and those behind it
        yield from packets
        yield self._empty_packet()

    def _empty_packet(self) -> Any:
        packet = import_av().Packet(0)
        packet.stream, packet.time_base = self._stream, self._stream.time_base
        return packet

    def _decoding_time(self, frame: Any) -> float | None:
        """The time of a frame by the packet that was decoded when it came out, less the delay of the decoder."""
        if frame.dts is None or self._first_dts is None:
            return None
        self._delay = frame.dts - self._first_dts if self._delay is None else self._delay
        return float((frame.dts - self._delay) * frame.time_base)


def _groups_of(packets: Iterator[Any]) -> Iterator[tuple[list[Any], list[Any] | None]]:
    """Yield the packets from each key frame to the next, and those behind that which are shown before it.

    ``None`` instead of these says that the packets cannot be divided: their times are unknown or a group is too long.
    The rest of ``packets`` is then left.
    """
    group, following = list[Any](), list[Any]()  # following: the next key frame, and those shown before it
    for packet in packets:
        if not packet.size:  # as at the end
            continue
        if packet.pts is None or len(group) + len(following) > _LONGEST_GROUP:
            yield [*group, *following, packet], None
            return
        if following and (packet.is_keyframe or packet.pts > following[0].pts):
            yield group, following[1:]
            group, following = following, []
        if following or (group and packet.is_keyframe):
            following.append(packet)
        else:
            group.append(packet)
    if group:
        yield group, following[1:]
    if following:
        yield following, []


class _LiveStream(_ContainerSource):
    """Frames of a camera or live stream, without an end: if it stops, that is a ``SourceError``.

    ``seconds`` are those of the local clock since the first frame, because the times of cameras are often wrong.
    """

    live = True

    def __init__(self, container: Any, name: str) -> None:
        super().__init__(container, name, threads="SLICE")  # threads over frames would delay by as many frames

    def _read(self) -> Iterator[_TimedPixels]:
        av = import_av()
        start = time.monotonic()
        first: float | None = None
        try:
            for frame in self._decode():
                now = time.monotonic()
                first = now if first is None else first
                if self.sampling.is_over(now - first):
                    return
                if self.sampling.takes(now - first):
                    yield now - first, to_pixels(frame)
            reason = "it sent no more images"
        except av.FFmpegError as error:
            timed_out = isinstance(error, av.error.ExitError | av.error.TimeoutError)
            reason = f"no image for {READ_SECONDS:.0f} s" if timed_out else reason_of(error)
        lasted = time.monotonic() - (start if first is None else first)
        raise SourceError(f"{self.name}: the camera or stream ended after {lasted:.1f} s ({reason}); connect it again")


class _ImageFolder(FrameSource):
    """The images in a folder, without its subfolders. Images that cannot be read are skipped; their time passes.

    Raises ``SourceError`` if the folder has no images or cannot be opened.
    """

    def __init__(self, path: Path, *, rate: float) -> None:
        suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
        try:
            visible = [file for file in path.iterdir() if not file.name.startswith(".")]
            found = [file for file in visible if file.suffix.lower() in suffixes and not file.is_fifo()]
        except OSError as error:
            reason = (error.strerror or "unknown reason").lower()
            raise SourceError(f"{path}: this folder cannot be opened ({reason}); change its access rights") from error
        # Annotated copies, whose names end in .mien, are not frames.
        files = [file for file in found if not file.stem.endswith(".mien")]
        if not files:
            raise SourceError(f"{path}: no images in this folder; name a folder of frames, or a video")
        super().__init__(str(path), count=len(files), rate=rate)
        self._files, self._rate = sorted(files, key=_natural_key), rate
        if left_out := len(visible) - len(files):
            self.note = f"left out: {left_out:,} other {'entry' if left_out == 1 else 'entries'} of the folder"

    def _read(self) -> Iterator[_TimedPixels]:
        first_error, taken = "", 0
        for index, path in enumerate(self._files):
            if self.sampling.is_over(index / self._rate):
                break
            if not self.sampling.takes(index / self._rate):
                continue
            taken += 1
            try:
                image = decode(path)
            except ImageError as error:
                self.skipped += 1
                first_error = first_error or str(error)
                continue
            yield index / self._rate, image.pixels
        if not taken:
            raise self._no_frame(len(self._files) / self._rate)
        if self.skipped == taken:
            raise SourceError(f"{self.name}: none of its {self.skipped} images can be read; the first: {first_error}")


def _natural_key(path: Path) -> list[tuple[int, str]]:
    """Sort key by which ``2.png`` comes before ``10.png``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]
