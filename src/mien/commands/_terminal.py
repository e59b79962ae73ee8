"""What commands print to a terminal: tables, readings as rows, errors as lines, and text without control characters."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mien._face import Face, Reading
from mien._format import probability_percent

_BAR_CELLS = 8
_HEADINGS = ("face", "emotion", "confidence", "next")
_COLUMN_GAP = 3  # cells
_MIN_NAME_WIDTH = 12  # cells


class TableConsole(Console):
    """rich's console, but a closed pipe (``| head``) stays a ``BrokenPipeError`` as for every other output."""

    def on_broken_pipe(self) -> None:
        """Raise the error again; rich calls this inside its ``except`` block."""
        raise


def new_table() -> Table:
    """An empty table in the style that all commands share."""
    return Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")


def printable(text: str) -> str:
    """``text`` with everything replaced that could control a terminal: a file name may hold any byte."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


@dataclass
class Tally:
    """Counts readings."""

    images: int = 0
    faces: int = 0
    failed: int = 0

    def add(self, reading: Reading) -> None:
        """Count one reading."""
        self.images += 1
        self.faces += len(reading.faces)
        self.failed += reading.error is not None

    @property
    def status(self) -> int:
        """The exit status: 0 if all images were read, 1 if some were not, 2 if none was."""
        return 0 if self.failed == 0 else 1 if self.failed < self.images else 2

    def __str__(self) -> str:
        return f"{self.images} images, {self.faces} faces, {self.failed} not read"


class ErrorLines:
    """Prints one line on standard error for every image that could not be read."""

    def add(self, reading: Reading) -> None:
        """Print the error of one reading, if it has one."""
        if reading.error is not None:
            print(f"mien: {printable(reading.error)}", file=sys.stderr)


class FaceTable:
    """Prints one row for each face when the block ends, also after Ctrl-C."""

    def __init__(self, console: Console) -> None:
        """``console`` writes to standard output."""
        self._console = console
        self._rows: list[tuple[str, str | None, tuple[Text, ...]]] = []

    def __enter__(self) -> Self:
        return self

    def add(self, reading: Reading) -> None:
        """Add the rows of one image. An image that could not be read has none; ``ErrorLines`` prints its error."""
        if reading.error is not None:
            return
        no_face = (Text("no face found", style="dim"), Text(), Text(), Text())
        cells = [self._cells(face) for face in reading.faces] or [no_face]
        self._rows.append((printable(reading.source), reading.note, cells[0]))
        self._rows += [("", None, more) for more in cells[1:]]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._rows:
            return
        columns = zip(*(tuple(map(Text, _HEADINGS)), *(row[2] for row in self._rows)), strict=True)
        others = sum(_COLUMN_GAP + max(text.cell_len for text in column) for column in columns)
        width = max(_MIN_NAME_WIDTH, self._console.width - others - 2)
        table = new_table()
        table.add_column("image", overflow="fold")
        for heading in _HEADINGS:
            table.add_column(heading, no_wrap=True)
        for source, note, cells in self._rows:
            name = Text(_short(source, width))
            table.add_row(name.append(f"\n{note}", style="dim") if note else name, *cells)
        self._console.print(table)

    def _cells(self, face: Face) -> tuple[Text, Text, Text, Text]:
        box, probs = face.box, face.probs
        where = Text(f"{box.width:.0f}x{box.height:.0f} at {box.x1:.0f},{box.y1:.0f}", style="dim")
        emotion = Text("unsure", style="dim") if face.emotion is None else Text(face.emotion, style=face.emotion.color)
        filled = round(face.confidence * _BAR_CELLS)
        bar = Text(self._mark * filled, style=face.top.color)
        bar.append(" " * (_BAR_CELLS - filled) + f" {probability_percent(face.confidence)}", style="default")
        following = sorted((e for e in probs if e is not face.top), key=lambda e: -probs[e])[:1]
        others = Text(", ".join(f"{e} {probability_percent(probs[e])}" for e in following), style="dim")
        return where, emotion, bar, others

    @property
    def _mark(self) -> str:
        return "\u2588" if self._console.encoding.startswith("utf") else "#"


def _short(name: str, width: int) -> str:
    """The end of a long path, because images differ there more often than at its beginning."""
    return name if len(name) <= width else "\u2026" + name[1 - width :]


def with_progress(readings: Iterable[Reading], count: int, *, bar: bool = True) -> Iterator[Reading]:
    """Yield ``readings``; several of them show a bar on standard error while they come, if that is a terminal.

    Without ``bar`` it shows only if standard output is no terminal: lines printed there would break it.
    """
    if count < 2 or not sys.stderr.isatty() or not (bar or not sys.stdout.isatty()):
        yield from readings
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(readings, total=count)
