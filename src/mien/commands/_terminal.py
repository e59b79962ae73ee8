"""Output of commands: tables, JSON, readings as rows, and text without control characters."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mien._face import Face, Reading
from mien._format import counted, printable, probability_percent

_BAR_CELLS = 8
_MOST_ROWS = 2000  # of one table, which is held in memory
_LINE_SECONDS = 60.0  # between two lines of progress in a log
_HEADINGS = ("face", "emotion", "confidence", "next")
_COLUMN_GAP = 3  # cells between two columns
_MIN_NAME_WIDTH = 12  # cells of a file name that is shortened
_MIN_TEXT_WIDTH = 20  # cells of another column that is shortened or folded


class TableConsole(Console):
    """rich's console, for terminals of any width.

    A table that does not fit becomes lines: the first cell of each row, then the other cells with their headings.
    A closed pipe (``| head``) stays a ``BrokenPipeError`` as for every other output.
    """

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print objects as rich does, except tables that do not fit.

        Args:
            *objects: The objects.
            **settings: Settings of rich.
        """
        table = objects[0] if objects else None
        if not isinstance(table, Table) or _least_width(table) <= self.width:
            super().print(*objects, **settings)
            return
        headings = ["", *(f"{column.header}: " for column in table.columns[1:])]
        for cells in zip(*(column.cells for column in table.columns), strict=True):
            for heading, cell in zip(headings, cells, strict=True):
                if str(cell):
                    super().print(
                        Text.assemble(heading, cell if isinstance(cell, Text) else str(cell)), overflow="fold"
                    )

    def on_broken_pipe(self) -> None:
        """Raise the error again; rich calls this inside its ``except`` block."""
        raise


def _least_width(table: Table) -> int:
    """Cells that a table needs to show each name, and each number whole."""
    widest = [max(Text(str(cell)).cell_len for cell in (column.header, *column.cells)) for column in table.columns]
    needed = [
        width if column.no_wrap else min(width, _MIN_NAME_WIDTH)
        for width, column in zip(widest, table.columns, strict=True)
    ]
    return sum(needed) + _COLUMN_GAP * (len(needed) - 1)


def new_table() -> Table:
    """Return an empty table in the style of all commands."""
    return Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")


def print_table(
    heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, fold: Sequence[int] = (), priority: Sequence[int] = ()
) -> None:
    """Print a table in a terminal; anywhere else, lines of tab-separated values.

    Args:
        heads: Heads of the columns.
        rows: The rows, with one text for each column.
        fold: Columns whose text may continue on further lines. The last column always may, unless ``priority`` is set.
        priority: All columns, the most important first. If the terminal is too narrow, the least important columns
            are left out; the last of ``priority`` may be shortened. No text continues on further lines.
    """
    lines = [tuple(map(printable, line)) for line in (heads, *rows)]
    if not sys.stdout.isatty():
        for line in lines:
            print("\t".join(line))
        return
    console, table = TableConsole(highlight=False), new_table()
    if priority:
        lines = _fit_columns(lines, console.width, priority)
    for place, cells in enumerate(zip(*lines, strict=True)):
        may_fold = not priority and (place in fold or place == len(heads) - 1)
        min_width = min(_MIN_TEXT_WIDTH, max(map(len, cells))) if place in fold else None
        table.add_column(cells[0], overflow="fold", no_wrap=not may_fold, min_width=min_width)
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    console.print(table)


def _fit_columns(lines: list[tuple[str, ...]], width: int, priority: Sequence[int]) -> list[tuple[str, ...]]:
    """Leave out the columns that do not fit into ``width`` cells."""
    *others, last = priority
    widths = [_COLUMN_GAP + max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = list[int]()
    for place in others:
        if widths[place] <= width or not shown:
            shown.append(place)
            width -= widths[place]
    if len(shown) == len(others) and width >= min(widths[last], _COLUMN_GAP + _MIN_TEXT_WIDTH):
        shown.append(last)
    room = width - _COLUMN_GAP

    def cell(line: tuple[str, ...], place: int) -> str:
        text = line[place]
        return f"{text[: room - 1]}\u2026" if place == last and len(text) > room else text

    return [tuple(cell(line, place) for place in sorted(shown)) for line in lines]


def print_json(value: Any) -> None:
    """Print plain values as indented JSON.

    Args:
        value: The values.
    """
    for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"):
        echo(line)


def echo(text: object, *, err: bool = False) -> None:
    """Print a line. Characters that could control a terminal are escaped.

    Args:
        text: The text.
        err: Print to standard error.
    """
    print(printable(str(text)), file=sys.stderr if err else sys.stdout)


@dataclass
class Tally:
    """Counts readings, and prints the errors of images that could not be read.

    Attributes:
        print_errors: Whether to print each error as one line on standard error.
        images: Number of images.
        faces: Number of faces.
        failed: Number of images that could not be read.
    """

    print_errors: bool = True
    images: int = 0
    faces: int = 0
    failed: int = 0

    def add(self, reading: Reading) -> None:
        """Count one reading.

        Args:
            reading: The reading.
        """
        self.images += 1
        self.faces += len(reading.faces)
        self.failed += reading.error is not None
        if reading.error is not None and self.print_errors:
            echo(f"mien: {reading.error}", err=True)

    @property
    def status(self) -> int:
        """The exit status: 0 if all images were read, 1 if some were not, 2 if none was."""
        return 0 if self.failed == 0 else 1 if self.failed < self.images else 2

    def __str__(self) -> str:
        return f"{counted(self.images, 'image')}, {counted(self.faces, 'face')}, {self.failed:,} not read"


class FaceTable:
    """Prints one row for each face when the block ends, also after Ctrl-C."""

    def __init__(self, console: Console) -> None:
        """Start without rows.

        Args:
            console: Writes to standard output.
        """
        self._console = console
        self._rows: list[tuple[str, str | None, tuple[Text, ...]]] = []

    def __enter__(self) -> Self:
        return self

    def add(self, reading: Reading) -> None:
        """Add the rows of one image. An image that could not be read has none: ``Tally`` prints its error.

        Args:
            reading: The reading of the image.
        """
        if reading.error is not None:
            return
        no_face = (Text("no face found", style="dim"), Text(), Text(), Text())
        cells = [self._cells(face) for face in reading.faces] or [no_face]
        self._rows.append((printable(reading.source), reading.note, cells[0]))
        self._rows += [("", None, more) for more in cells[1:]]
        if len(self._rows) >= _MOST_ROWS:  # the rest of a large album is a table of its own
            self._print()

    def __exit__(self, *error: object) -> None:
        self._print()

    def _print(self) -> None:
        if not self._rows:
            return
        columns = zip(*(tuple(map(Text, _HEADINGS)), *(row[2] for row in self._rows)), strict=True)
        others = sum(_COLUMN_GAP + max(text.cell_len for text in column) for column in columns)
        width = self._console.width - others - 2
        if width < _MIN_NAME_WIDTH:  # printed as lines, which fold names
            width = max(len(row[0]) for row in self._rows)
        table = new_table()
        table.add_column("image", overflow="fold")
        for heading in _HEADINGS:
            table.add_column(heading, no_wrap=True)
        for source, note, cells in self._rows:
            # The end of a long path identifies an image better than its beginning.
            name = Text(source if len(source) <= width else "\u2026" + source[1 - width :])
            table.add_row(name.append(f"\n{note}", style="dim") if note else name, *cells)
        self._console.print(table)
        self._rows = []

    def _cells(self, face: Face) -> tuple[Text, Text, Text, Text]:
        box, probs = face.box, face.probs
        position = Text(f"{box.width:.0f}x{box.height:.0f} at {box.x1:.0f},{box.y1:.0f}", style="dim")
        emotion = Text("unsure", style="dim") if face.emotion is None else Text(face.emotion, style=face.emotion.color)
        filled = round(face.confidence * _BAR_CELLS)
        bar = Text(("\u2588" if self._console.encoding.startswith("utf") else "#") * filled, style=face.top.color)
        bar.append(" " * (_BAR_CELLS - filled) + f" {probability_percent(face.confidence)}", style="default")
        following = sorted((e for e in probs if e is not face.top), key=lambda e: -probs[e])[:1]
        others = Text(", ".join(f"{e} {probability_percent(probs[e])}" for e in following), style="dim")
        return position, emotion, bar, others


def with_progress(readings: Iterable[Reading], count: int, *, bar: bool = True) -> Iterator[Reading]:
    """Show a progress bar with the rate while readings are made; a line each minute where there is no terminal.

    Args:
        readings: The readings.
        count: Their number; for a single one no bar is shown.
        bar: Show the bar also if standard output is a terminal. Lines that are printed there would break it.

    Yields:
        The readings.
    """
    if count < 2 or not (bar or not sys.stdout.isatty()):
        yield from readings
        return
    if not sys.stderr.isatty():
        yield from _with_lines(readings, count)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    class Rate(ProgressColumn):
        """Images in a second."""

        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:,.1f}/s" if task.speed else "")

    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(readings, total=count)


def _with_lines(readings: Iterable[Reading], count: int) -> Iterator[Reading]:
    start = last = time.monotonic()
    for done, reading in enumerate(readings):
        now = time.monotonic()
        if now - last >= _LINE_SECONDS and done:
            last, rate = now, done / (now - start)
            left = timedelta(seconds=round((count - done) / rate))
            echo(f"mien: {done:,} of {count:,} images, {rate:,.1f}/s, {left} left", err=True)
        yield reading
