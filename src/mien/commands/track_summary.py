"""What ``mien track`` says at the end: how much was read, and what was seen of each person."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from mien._emotions import Emotion

if TYPE_CHECKING:
    from mien.stream import Frames, Moment

_LONGEST_STEP = 1.0  # seconds; a reading says nothing about more time than this
_ROWS = 20  # people in the table, those seen longest
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
    """Counts moments as they come."""

    def __init__(self) -> None:
        self.frames = 0
        self._people: dict[int, _Seen] = {}
        self._last: float | None = None
        self._start = time.perf_counter()

    def add(self, moment: "Moment") -> None:
        """Count one moment."""
        if self._last is None:  # opening the source took its time; speed is that of the frames
            self._start = time.perf_counter()
        step = 0.0 if self._last is None else min(moment.seconds - self._last, _LONGEST_STEP)
        self.frames, self._last = self.frames + 1, moment.seconds
        for face in moment.faces:
            seen = self._people.setdefault(face.id, _Seen(moment.seconds, moment.seconds))
            seen.last = moment.seconds
            seen.seconds[face.emotion] = seen.seconds.get(face.emotion, 0.0) + step

    def print(self, frames: "Frames", *, notes: Sequence[str], file: TextIO) -> None:
        """The table of people and the lines about the source."""
        from mien.commands.show import TableConsole, printable

        console = TableConsole(file=file, highlight=False)
        if self._people:
            console.print(self._table())
        for line in (self._line(frames, printable(frames.name)), frames.note, *notes):
            if line:
                console.print(Text(line), soft_wrap=True)

    def _line(self, frames: "Frames", name: str) -> str:
        took = time.perf_counter() - self._start
        speed = f", {(self.frames - 1) / took:.0f} frames/s" if self.frames > 1 and took > 0 else ""
        count = len(self._people)
        parts = [
            f"{self.frames:,} frame{'s' * (self.frames != 1)} ({self._last or 0.0:.1f} s) in {took:.1f} s{speed}",
            "no face found" if count == 0 else "1 person" if count == 1 else f"{count:,} people",
            f"{frames.skipped:,} broken frame{'s' * (frames.skipped != 1)} skipped" if frames.skipped else "",
            f"{frames.dropped:,} frames dropped" if frames.live else "",
        ]
        return f"{name}: " + "; ".join(part for part in parts if part)

    def _table(self) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for heading in ("person", "from", "to", "seen"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("mostly")
        longest = sorted(self._people, key=lambda i: -self._people[i].total)[:_ROWS]
        for i in sorted(longest):
            seen = self._people[i]
            times = (f"{value:.1f} s" for value in (seen.first, seen.last, seen.total))
            table.add_row(str(i), *times, _mostly(seen))
        if len(self._people) > _ROWS:
            table.add_row("...", "", "", "", Text(f"{len(self._people) - _ROWS} more, seen more briefly", style="dim"))
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
