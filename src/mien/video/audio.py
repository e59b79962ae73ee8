"""Copy the audio of a video into another video, packet by packet. Codecs that MP4 players lack become AAC."""

import errno
from collections.abc import Generator
from pathlib import Path
from typing import Any

from mien._errors import SourceError
from mien.video.containers import import_av, reason_of, span_of, video_stream

# Codecs that MP4 players support. MP4 can hold others such as PCM, but players are silent then.
_COPIED_CODECS = {"aac", "mp3", "opus", "flac", "alac", "ac3", "eac3"}
_MIN_MP3_RATE = 16_000  # hertz; MP4 does not hold MP3 below it
_AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)  # hertz
_AAC_LAYOUTS = {"mono", "stereo", "5.1", "7.1"}
_LEAD_SECONDS = 0.1  # of audio kept before the presentation begins, which a decoder needs to start
_MAX_BACKWARD_SECONDS = 1.0  # a packet further behind the last one has a restarted clock
_NEAR_END_SECONDS = 1.0  # before the end of the video, from which on it counts as complete
_DISK_ERRORS = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG, errno.EPIPE, errno.EROFS, errno.EACCES}


class AudioCopier:
    """Copies all audio streams of a video into an output container while its frames are written.

    Times are those of the presentation, as in the frames of the source. ``note`` says which audio could not be copied
    unchanged: streams that are re-encoded as AAC or cannot be decoded, broken packets, and audio that breaks off.

    Args:
        source: The video whose audio is copied.
        container: Output of PyAV. The streams are added here, before the first packet is written.
    """

    def __init__(self, source: Path, container: Any) -> None:
        av = import_av()
        self._damage = (av.FFmpegError, IndexError)  # PyAV raises IndexError if a damaged file gains a stream
        self.note: str | None = None
        self._container = container
        self._outputs: dict[int, _Copied | _Encoded] = {}  # by index of the stream in the source
        self._pending: Any = None  # a packet that was read, but is not due yet
        self._source: Any = None
        self._zero = 0.0  # time stamp at which the presentation of the source begins, in seconds
        self._end: float | None = None  # of the video, in seconds of presentation
        try:
            self._source = av.open(f"file:{source}")
            self._add_streams()
        except (av.FFmpegError, OSError, ValueError, SourceError) as error:
            self.note = f"the sound of {source} cannot be read ({reason_of(error)})"
        self._clocks: dict[int, tuple[int, int | None]] = {}  # by stream: added ticks, end of the last packet
        self._packets = self._read()

    def until(self, seconds: float) -> None:
        """Write the audio up to a time. A broken packet is left out.

        Args:
            seconds: The time of presentation.
        """
        while (packet := next(self._packets, None) if self._pending is None else self._pending) is not None:
            at = self._time(packet)
            self._pending = packet if at > seconds else None
            if self._pending is not None:
                return
            try:
                self._outputs[packet.stream.index].write(packet)
            except (import_av().FFmpegError, ValueError) as error:
                if getattr(error, "errno", None) in _DISK_ERRORS:
                    raise
                self._add_note(f"sound that is broken is left out, first at {max(0.0, at):.1f} s")

    def finish(self, seconds: float, *, whole: bool) -> None:
        """Write the remaining audio and close the source.

        Args:
            seconds: Time of the last written frame.
            whole: Whether the run ended without an error. Audio after the last frame of the source is then kept.
        """
        if self._source is None:
            return
        try:
            complete = self._end is None or seconds >= self._end - _NEAR_END_SECONDS
            self.until(float("inf") if whole and complete else seconds)
            for output in self._outputs.values():
                output.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Close the source. A second call does nothing."""
        self._packets.close()
        if self._source is not None:
            self._source.close()

    def _add_streams(self) -> None:
        av = import_av()
        video = video_stream(self._source, "")
        span = span_of(self._source, video)
        self._zero, self._end = span.zero or 0.0, span.end
        for stream in self._source.streams.audio:
            try:
                codec = stream.codec_context.codec.canonical_name
                is_copied = codec in _COPIED_CODECS and (codec != "mp3" or stream.rate >= _MIN_MP3_RATE)
                kind = _Copied if is_copied else _Encoded
                self._outputs[stream.index] = kind(stream, self._container, self._zero)
            except (av.FFmpegError, ValueError, AttributeError):  # PyAV has no context for an unknown codec
                self._add_note("sound that cannot be decoded is left out")
                continue
            if kind is _Encoded:
                self._add_note(f"the sound ({codec}) is re-encoded as AAC, which players of MP4 know")

    def _read(self) -> Generator[Any, None, None]:
        """Yield the packets of all copied streams, in the order of the file."""
        if not self._outputs:
            return
        streams = [stream for stream in self._source.streams.audio if stream.index in self._outputs]
        try:
            for packet in self._source.demux(streams):
                if packet.pts is not None:
                    self._correct_time(packet)
                    if self._time(packet) > -_LEAD_SECONDS:
                        yield packet
        except self._damage as error:
            self._add_note(f"the sound breaks off ({reason_of(error)})")

    def _correct_time(self, packet: Any) -> None:
        """Move a packet after the one before it if the clock restarted, such as between two joined recordings."""
        shift, end = self._clocks.get(packet.stream.index, (0, None))
        if end is not None and packet.pts + shift < end - _MAX_BACKWARD_SECONDS / packet.time_base:
            shift = end - packet.pts
        packet.pts += shift
        packet.dts = None if packet.dts is None else packet.dts + shift
        self._clocks[packet.stream.index] = shift, packet.pts + (packet.duration or 0)

    def _time(self, packet: Any) -> float:
        return float(packet.pts * packet.time_base) - self._zero

    def _add_note(self, note: str) -> None:
        self.note = self.note or note


class _Copied:
    """A stream whose packets are copied; only their times are shifted."""

    def __init__(self, stream: Any, container: Any, zero: float) -> None:
        self._container = container
        self._zero = round(zero / stream.time_base)
        self._stream = container.add_stream_from_template(stream)
        self._stream.metadata.update(stream.metadata)
        self._last: int | None = None

    def write(self, packet: Any) -> None:
        packet.pts -= self._zero
        packet.dts = packet.pts if packet.dts is None else packet.dts - self._zero
        if self._last is not None and packet.dts <= self._last:
            raise ValueError("times run backwards")
        self._last = packet.dts
        packet.stream = self._stream
        self._container.mux(packet)

    def flush(self) -> None:
        """Nothing is buffered."""


class _Encoded:
    """A stream that is decoded and encoded as AAC."""

    def __init__(self, stream: Any, container: Any, zero: float) -> None:
        self._container, self._zero = container, zero
        layout = stream.layout.name if stream.layout.name in _AAC_LAYOUTS else "stereo"
        rate = next((r for r in _AAC_RATES if r <= stream.rate), _AAC_RATES[-1])
        self._stream = container.add_stream("aac", rate, layout=layout)
        self._stream.metadata.update(stream.metadata)

    def write(self, packet: Any) -> None:
        for frame in packet.decode():
            if frame.pts is not None:  # a frame without a time follows the last one
                frame.pts -= round(self._zero / frame.time_base)
            self._container.mux(self._stream.encode(frame))

    def flush(self) -> None:
        self._container.mux(self._stream.encode())
