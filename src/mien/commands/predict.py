"""``mien predict``: pictures in, readings out as a table, JSON lines, CSV, annotated pictures or a page."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from mien._face import Reading
from mien.bundled import DEFAULT_MODEL

if TYPE_CHECKING:
    from mien.pipeline import Reader


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
        from mien.commands.show import printable

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
    from mien.commands.gather import gather
    from mien.pipeline import Reader

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
        from mien.commands.save import Annotated as AnnotatedCopies

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
        from mien.commands.show import FaceTable, TableConsole

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
