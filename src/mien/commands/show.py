"""A table of readings for people, as a sink."""

from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mien._face import Face, Reading
from mien.overlay import confidence_text

_BAR_CELLS = 8
_HEADINGS = ("face", "emotion", "confidence", "next")
_GAP = 3  # cells between two columns
_LEAST_NAME = 12  # cells


class TableConsole(Console):
    """rich's console, but a closed pipe (``| head``) stays a ``BrokenPipeError`` as for every other output."""

    def on_broken_pipe(self) -> None:
        """Called by rich inside the ``except`` block of that error."""
        raise


class FaceTable:
    """Collects readings, prints one row a face when the block ends, also when the user stopped the run."""

    def __init__(self, console: Console) -> None:
        """``console`` is rich's, on standard output."""
        self._console = console
        self._rows: list[tuple[str, str | None, tuple[Text, ...]]] = []

    def __enter__(self) -> Self:
        return self

    def add(self, reading: Reading) -> None:
        """Take the rows of one picture. A picture that could not be read has none: its error stands on its own line."""
        if reading.error is not None:
            return
        nobody = (Text("no face found", style="dim"), Text(), Text(), Text())
        cells = [self._cells(face) for face in reading.faces] or [nobody]
        self._rows.append((printable(reading.source), reading.note, cells[0]))
        self._rows += [("", None, more) for more in cells[1:]]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._rows:
            return
        columns = zip(*(tuple(map(Text, _HEADINGS)), *(row[2] for row in self._rows)), strict=True)
        others = sum(_GAP + max(text.cell_len for text in column) for column in columns)
        room = max(_LEAST_NAME, self._console.width - others - 2)
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        table.add_column("picture", overflow="fold")
        for heading in _HEADINGS:
            table.add_column(heading, no_wrap=True)
        for source, note, cells in self._rows:
            name = Text(_short(source, room))
            table.add_row(name.append(f"\n{note}", style="dim") if note else name, *cells)
        self._console.print(table)

    def _cells(self, face: Face) -> tuple[Text, Text, Text, Text]:
        box, probs = face.box, face.probs
        where = Text(f"{box.width:.0f}x{box.height:.0f} at {box.x1:.0f},{box.y1:.0f}", style="dim")
        emotion = Text("unsure", style="dim") if face.emotion is None else Text(face.emotion, style=face.emotion.color)
        filled = round(face.confidence * _BAR_CELLS)
        bar = Text(self._mark * filled, style=face.top.color)
        bar.append(" " * (_BAR_CELLS - filled) + f" {confidence_text(face.confidence)}", style="default")
        following = sorted((e for e in probs if e is not face.top), key=lambda e: -probs[e])[:1]
        others = Text(", ".join(f"{e} {confidence_text(probs[e])}" for e in following), style="dim")
        return where, emotion, bar, others

    @property
    def _mark(self) -> str:
        return "\u2588" if self._console.encoding.startswith("utf") else "#"


def _short(name: str, room: int) -> str:
    """The end of a long path: it tells pictures apart, its beginning seldom does."""
    return name if len(name) <= room else "\u2026" + name[1 - room :]


def printable(text: str) -> str:
    """``text`` with everything that could steer or break a terminal (a file name may hold any byte) replaced."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
