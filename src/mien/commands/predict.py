"""``mien predict``: pictures in, readings out as a table, JSON lines, CSV, annotated pictures or a page."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self

import typer
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mien._face import Face, Reading
from mien.bundled import DEFAULT_MODEL
from mien.overlay import annotate, confidence_text
from mien.report.output import Draft, output_errors

if TYPE_CHECKING:
    from mien.reader import Reader

_JPEG_SUFFIXES = (".jpg", ".jpeg")


_JPEG_QUALITY = 92  # of 100: lines stay sharp, the file about as large as a camera's


class AnnotatedCopies:
    """Writes ``<name>.mien.<jpg|png>`` for every picture that was read: boxes, labels and maps over the faces.

    JPEG stays JPEG, every other format becomes PNG. The ``.mien`` keeps originals safe that have the same name;
    pictures of one run that share a name are numbered. Readings must hold their pixels. Raises ``OutputError`` when the
    folder cannot be made or written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """``folder`` is made when it is not there."""
        self._folder = Path(folder)
        self._taken: set[str] = set()

    def __enter__(self) -> Self:
        with output_errors(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, reading: Reading) -> None:
        """Write the annotated copy of one picture; a reading without pixels (an error) has none."""
        if reading.pixels is None:
            return
        path = self._folder / self._free_name(reading.source)
        image = Image.fromarray(annotate(reading.pixels, reading, maps=True))
        draft = Draft(path)
        try:
            with output_errors(draft.name):
                if path.suffix == ".png":
                    image.save(draft.file, "PNG", compress_level=3)
                else:
                    image.save(draft.file, "JPEG", quality=_JPEG_QUALITY)
        except BaseException:
            draft.drop()
            raise
        draft.keep()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _free_name(self, source: str) -> str:
        path = Path(source)
        stem = path.stem.strip("<>") or "picture"
        suffix = path.suffix.lower() if path.suffix.lower() in _JPEG_SUFFIXES else ".png"
        name, number = f"{stem}.mien{suffix}", 1
        while name.lower() in self._taken:  # some file systems do not tell A.jpg from a.jpg
            number += 1
            name = f"{stem}-{number}.mien{suffix}"
        self._taken.add(name.lower())
        return name


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


class Sink(Protocol):
    """Where readings go."""

    def add(self, reading: Reading) -> None:
        """Take one reading."""


@dataclass
class Tally:
    """Counts what was read; also a sink."""

    pictures: int = 0
    faces: int = 0
    failed: int = 0

    def add(self, reading: Reading) -> None:
        """Count one reading."""
        self.pictures += 1
        self.faces += len(reading.faces)
        self.failed += reading.error is not None

    @property
    def status(self) -> int:
        """The exit status: 0 all pictures were read, 1 some were not, 2 none was."""
        return 0 if self.failed == 0 else 1 if self.failed < self.pictures else 2

    def __str__(self) -> str:
        return f"{self.pictures} pictures, {self.faces} faces, {self.failed} not read"


class ErrorLines:
    """A sink that says on standard error, a line each, which pictures could not be read."""

    def add(self, reading: Reading) -> None:
        """Print the error of one reading, if it has one."""

        if reading.error is not None:
            print(f"mien: {printable(reading.error)}", file=sys.stderr)


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Files, folders, quoted globs, or - for bytes on standard input."),
    ],
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a picture, a line each.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="One CSV row a face.")] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write annotated copies, <name>.mien.<jpg|png>, into this folder."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the pictures, their faces and maps.")
    ] = None,
    detector: Annotated[
        str, typer.Option(help="blazeface, yunet (fetched once), or none: each picture is one tight crop of a face.")
    ] = "blazeface",
    abstain: Annotated[float, typer.Option(min=0, max=1, help="Below this probability the answer is 'unsure'.")] = 0.0,
    threads: Annotated[int, typer.Option(min=0, help="Cores to use; 0 takes all.")] = 1,
    model: Annotated[
        str, typer.Option(help="An embedded model (`mien models` lists them) or the path of an ONNX file.")
    ] = DEFAULT_MODEL,
    precision: Annotated[str, typer.Option(help="The embedded model's file: int8 (small, fast) or fp32.")] = "int8",
    batch: Annotated[int, typer.Option(min=1, help="Faces classified together.")] = 64,
) -> None:
    """Read the faces in pictures.

    Exit status: 0 all were read, 1 some were not, 2 none was or an argument is wrong, 130 stopped by Ctrl-C.
    """
    if json_lines and csv:
        raise typer.BadParameter("--json and --csv both write to standard output; choose one")
    from mien.commands._inputs import gather
    from mien.reader import Reader

    reader = Reader(model, detector=detector, precision=precision, threads=threads, abstain=abstain)
    found, tally = gather(paths), Tally()
    count = len(found.failed) + len(found.sources)
    keep_pixels = save is not None or html is not None
    with ExitStack() as stack:
        readings = reader.read_many(found.sources, batch=batch, keep_pixels=keep_pixels)
        stack.callback(readings.close)
        sinks = [stack.enter_context(sink) for sink in _sinks(reader, json_lines, csv, save, html)]
        shown = _with_progress(chain(found.failed, readings), count, bar=not (json_lines or csv))
        for reading in shown:
            for sink in (tally, *(() if json_lines or csv else (ErrorLines(),)), *sinks):
                sink.add(reading)
    if count > 1 and (tally.failed or sys.stderr.isatty()):
        skipped = f", {found.skipped} files of other kinds left out" if found.skipped else ""
        print(f"mien: {tally}{skipped}", file=sys.stderr)
    raise typer.Exit(tally.status)


def _sinks(
    reader: "Reader", json_lines: bool, csv: bool, save: Path | None, html: Path | None
) -> Iterator[AbstractContextManager[Sink]]:
    """The sinks that the user asked for. What goes to standard output is the last: a table follows the other work."""
    if save is not None:
        yield AnnotatedCopies(save)
    if html is not None:
        from mien.report import Html

        yield Html(html, title="What mien read", model=model_facts(reader))
    if json_lines:
        from mien.report import JsonLines

        yield JsonLines(sys.stdout)
    elif csv:
        from mien.report import Csv

        yield Csv(sys.stdout, reader.model.emotions)
    else:
        yield FaceTable(TableConsole(highlight=False))


def _with_progress(readings: Iterable[Reading], count: int, *, bar: bool) -> Iterator[Reading]:
    """``readings``, with a bar on standard error while they come, where a person waits for several pictures."""
    if count < 2 or not sys.stderr.isatty() or not (bar or not sys.stdout.isatty()):
        yield from readings
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(readings, total=count)


def model_facts(reader: "Reader") -> dict[str, str]:
    """What a page says of the model that read it: term to text, from the metadata of its file."""
    said = reader.model.metadata
    facts = {
        "model": f"{said['name']} ({said['precision']})",
        "emotions": ", ".join(reader.model.emotions),
        **_figures(said["accuracy"]),
        "detector": getattr(reader.detector, "name", type(reader.detector).__name__),
        "recipe": said["recipe"],
        "commit": said["commit"][:12],
        "licence": said["licence"],
    }
    return {term: text for term, text in facts.items() if text}


# What the metadata calls a figure, what a page calls it, and how it is written.
_FIGURES = {
    "accuracy": ("accuracy", "{:.1%}"),
    "balanced_accuracy": ("balanced accuracy", "{:.1%}"),
    "macro_f1": ("macro F1", "{:.1%}"),
    "log_loss": ("log loss", "{:.3f}"),
    "ece": ("expected calibration error", "{:.3f}"),
}


def _figures(text: str) -> dict[str, str]:
    """The figures of a model file's metadata, term to text; none where the text is no JSON object of numbers."""
    try:
        said: Any = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(said, dict):
        return {}
    numbers = {key: said[key] for key in _FIGURES if isinstance(said.get(key), int | float)}
    shown = {_FIGURES[key][0]: _FIGURES[key][1].format(value) for key, value in numbers.items()}
    return {"measured on": str(said.get("split", "an unnamed split")), **shown} if shown else {}
