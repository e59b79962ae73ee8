"""A film in a file, or at an address that knows its end: every frame at its presentation time, the right way up."""

import math
from collections.abc import Iterator
from typing import Any

from mien._errors import SourceError
from mien.stream.frames import Frames, Timed
from mien.stream.pictures import aspect_of, decoded, import_av, reason_of, to_pixels, video_stream

_LEAST_SHARE = 0.9  # of the seconds that the file promises, below which it is said to end early
_USUAL_RATE = 25.0  # frames a second, where neither frames nor file tell
_NOT_BEHIND = 1.0  # seconds; a frame that lies further behind the last one has another clock,
_NEW_CLOCK = 3  # where so many in a row do: a single one has a wrong time
_LARGEST_RATE = 1000.0  # frames a second; some files state the ticks of their clock instead


class FilmFile(Frames):
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

    def _read(self) -> Iterator[Timed]:
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
    """Frames a second, as far as the stream says something that can be."""
    rates = (float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate)
    return next((rate for rate in rates if 0 < rate <= _LARGEST_RATE), None)


def _seconds(container: Any, stream: Any) -> float | None:
    """How long the film is, as far as the file says it of the film alone: sound may go on longer."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and not container.streams.audio:
        return float(container.duration) / 1e6
    return None
