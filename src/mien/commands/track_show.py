"""What is seen in a terminal while ``mien track`` works: a bar for films, the faces themselves for cameras."""

import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mien.stream import Frames, Moment, TrackedFace

_REDRAWN = 8.0  # times a second
_BAR_CELLS = 14
_SPEED_OVER = 30  # frames whose time gives the speed
_MOST_FACES = 6  # shown; the others are counted


class Watch(Protocol):
    """Something to look at while moments come."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add(self, moment: "Moment") -> None:
        """Show one moment."""


def open_watch(frames: "Frames", *, live: bool) -> Watch:
    """The live view, or the bar; nothing moves where standard error is no terminal."""
    console = Console(stderr=True)
    return LiveView(frames, console) if live and console.is_terminal else Bar(frames, console)


class Bar:
    """How much of a film is done."""

    def __init__(self, frames: "Frames", console: Console) -> None:
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

    def add(self, moment: "Moment") -> None:
        """One frame more."""
        self._progress.update(self._task, completed=moment.index + 1)


class LiveView:
    """Bars of every face, as they change."""

    def __init__(self, frames: "Frames", console: Console) -> None:
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

    def add(self, moment: "Moment") -> None:
        """Draw one moment, where the last was drawn long enough ago."""
        now = time.monotonic()
        self._times.append(now)
        if now - self._drawn >= 1 / _REDRAWN:
            self._drawn = now
            self._live.update(self.view(moment), refresh=True)

    def view(self, moment: "Moment") -> Group:
        """What is drawn of a moment."""
        shown = sorted(moment.faces[:_MOST_FACES], key=lambda face: face.id)
        grid = Table.grid(padding=(0, 3))
        grid.add_row(*(_card(face) for face in shown))
        more = len(moment.faces) - len(shown)
        nobody = Text("no face in sight", style="dim")
        rest = [Text(f"and {more} more", style="dim")] if more else []
        return Group(self._status(moment), grid if shown else nobody, *rest)

    def _status(self, moment: "Moment") -> Text:
        lasted = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        speed = f"  {(len(self._times) - 1) / lasted:.0f} frames/s" if lasted > 0 else ""
        dropped = f"  {self._frames.dropped:,} dropped" if self._frames.live else ""
        broken = f"  {self._frames.skipped:,} broken" if self._frames.skipped else ""
        return Text(f"{moment.seconds:8.1f} s{speed}{dropped}{broken}  Ctrl-C ends", style="dim")


def _card(face: "TrackedFace") -> Table:
    """One face: its number and emotion, and a bar for each probability."""
    card = Table.grid(padding=(0, 1))
    name = face.emotion or "unsure"
    style = face.top.color if face.emotion else "dim"
    card.add_row(Text(f"person {face.id}", style="bold"), Text(f"{name} {face.confidence:.0%}", style=style))
    for emotion, probability in face.probs.items():
        filled = round(probability * _BAR_CELLS)
        bar = Text("\u2588" * filled, style=emotion.color).append("\u2500" * (_BAR_CELLS - filled), style="dim")
        card.add_row(Text(str(emotion), style="dim"), bar.append(f" {probability:4.0%}", style="default"))
    return card
