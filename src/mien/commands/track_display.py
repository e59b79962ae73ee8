"""What is seen in a terminal while ``mien track`` works: a bar for videos, the faces themselves for cameras."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mien._emotions import Emotion

if TYPE_CHECKING:
    from mien.video import FrameResult, FrameSource, TrackedFace

_LONGEST_STEP = 1.0  # seconds; a reading says nothing about more time than this


_ROWS = 20  # tracks in the table, those seen longest


_NAMED = 3  # emotions of each


@dataclass
class _Seen:
    first: float
    last: float
    seconds: dict[Emotion | None, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class Summary:
    """Counts results as they come."""

    def __init__(self) -> None:
        self.frames = 0
        self._tracks: dict[int, _Seen] = {}
        self._last: float | None = None
        self._start = time.perf_counter()

    def add(self, result: "FrameResult") -> None:
        """Count one result."""
        if self._last is None:  # opening the source took its time; speed is that of the frames
            self._start = time.perf_counter()
        step = 0.0 if self._last is None else min(result.seconds - self._last, _LONGEST_STEP)
        self.frames, self._last = self.frames + 1, result.seconds
        for face in result.faces:
            seen = self._tracks.setdefault(face.track_id, _Seen(result.seconds, result.seconds))
            seen.last = result.seconds
            seen.seconds[face.emotion] = seen.seconds.get(face.emotion, 0.0) + step

    def print(self, frames: "FrameSource", *, notes: Sequence[str], file: TextIO) -> None:
        """The table of tracks and the lines about the source."""
        from mien.commands._terminal import TableConsole, printable

        console = TableConsole(file=file, highlight=False)
        if self._tracks:
            console.print(self._table())
        for line in (self._line(frames, printable(frames.name)), frames.note, *notes):
            if line:
                console.print(Text(line), soft_wrap=True)

    def _line(self, frames: "FrameSource", name: str) -> str:
        took = time.perf_counter() - self._start
        speed = f", {(self.frames - 1) / took:.0f} frames/s" if self.frames > 1 and took > 0 else ""
        count = len(self._tracks)
        parts = [
            f"{self.frames:,} frame{'s' * (self.frames != 1)} ({self._last or 0.0:.1f} s) in {took:.1f} s{speed}",
            "no face found" if count == 0 else "1 track" if count == 1 else f"{count:,} tracks",
            f"{frames.skipped:,} broken frame{'s' * (frames.skipped != 1)} skipped" if frames.skipped else "",
            f"{frames.dropped:,} frames dropped" if frames.live else "",
        ]
        return f"{name}: " + "; ".join(part for part in parts if part)

    def _table(self) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for heading in ("track", "from", "to", "seen"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("mostly")
        longest = sorted(self._tracks, key=lambda i: -self._tracks[i].total)[:_ROWS]
        for i in sorted(longest):
            seen = self._tracks[i]
            times = (f"{value:.1f} s" for value in (seen.first, seen.last, seen.total))
            table.add_row(str(i), *times, _mostly(seen))
        if len(self._tracks) > _ROWS:
            table.add_row("...", "", "", "", Text(f"{len(self._tracks) - _ROWS} more, seen more briefly", style="dim"))
        return table


def _mostly(seen: _Seen) -> Text:
    """The emotions that showed longest, with their shares of the time."""
    whole = seen.total
    longest = sorted(seen.seconds.items(), key=lambda item: -item[1])[:_NAMED]
    text = Text()
    for emotion, seconds in longest:
        share = f" {seconds / whole:.0%}" if whole > 0 else ""
        text.append(", " if text else "")
        text.append(str(emotion or "unsure"), style=emotion.color if emotion else "dim")
        text.append(share)
    return text


_REDRAWN = 8.0  # times a second


_BAR_CELLS = 14


_SPEED_OVER = 30  # frames whose time gives the speed


_MOST_FACES = 6  # shown; the others are counted


class Watch(Protocol):
    """Something to look at while results come."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add(self, result: "FrameResult") -> None:
        """Show one result."""


def open_watch(frames: "FrameSource", *, live: bool) -> Watch:
    """The live view, or the bar; nothing moves where standard error is no terminal."""
    console = Console(stderr=True)
    return LiveView(frames, console) if live and console.is_terminal else Bar(frames, console)


class Bar:
    """How much of a video is done."""

    def __init__(self, frames: "FrameSource", console: Console) -> None:
        """Shows nothing where ``console`` is no terminal."""
        columns = (TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=frames.count)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def add(self, result: "FrameResult") -> None:
        """One frame more."""
        self._progress.update(self._task, completed=result.index + 1)


class LiveView:
    """Bars of every face, as they change."""

    def __init__(self, frames: "FrameSource", console: Console) -> None:
        """``console`` is rich's, on a terminal."""
        self._frames = frames
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._times: deque[float] = deque(maxlen=_SPEED_OVER)
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def add(self, result: "FrameResult") -> None:
        """Draw one result, where the last was drawn long enough ago."""
        now = time.monotonic()
        self._times.append(now)
        if now - self._drawn >= 1 / _REDRAWN:
            self._drawn = now
            self._live.update(self.view(result), refresh=True)

    def view(self, result: "FrameResult") -> Group:
        """What is drawn of a result."""
        shown = sorted(result.faces[:_MOST_FACES], key=lambda face: face.track_id)
        grid = Table.grid(padding=(0, 3))
        grid.add_row(*(_card(face) for face in shown))
        more = len(result.faces) - len(shown)
        nobody = Text("no face in sight", style="dim")
        rest = [Text(f"and {more} more", style="dim")] if more else []
        return Group(self._status(result), grid if shown else nobody, *rest)

    def _status(self, result: "FrameResult") -> Text:
        lasted = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        speed = f"  {(len(self._times) - 1) / lasted:.0f} frames/s" if lasted > 0 else ""
        dropped = f"  {self._frames.dropped:,} dropped" if self._frames.live else ""
        broken = f"  {self._frames.skipped:,} broken" if self._frames.skipped else ""
        return Text(f"{result.seconds:8.1f} s{speed}{dropped}{broken}  Ctrl-C ends", style="dim")


def _card(face: "TrackedFace") -> Table:
    """One face: its number and emotion, and a bar for each probability."""
    card = Table.grid(padding=(0, 1))
    name = face.emotion or "unsure"
    style = face.top.color if face.emotion else "dim"
    card.add_row(Text(f"track {face.track_id}", style="bold"), Text(f"{name} {face.confidence:.0%}", style=style))
    for emotion, probability in face.probs.items():
        filled = round(probability * _BAR_CELLS)
        bar = Text("\u2588" * filled, style=emotion.color).append("\u2500" * (_BAR_CELLS - filled), style="dim")
        card.add_row(Text(str(emotion), style="dim"), bar.append(f" {probability:4.0%}", style="default"))
    return card
