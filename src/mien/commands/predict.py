"""``mien predict``: images in; a table, JSON lines, CSV, annotated images or an HTML page out."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from mien._face import Reading
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._inputs import gather
from mien.commands._terminal import ErrorLines, FaceTable, TableConsole, Tally, with_progress

if TYPE_CHECKING:
    from mien.reader import Reader


class _Sink(Protocol):
    def add(self, reading: Reading) -> None: ...


def predict_command(
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
    detector: _options.DetectorOption = "blazeface",
    abstain: _options.AbstainOption = 0.0,
    threads: _options.ThreadsOption = 1,
    model: _options.ModelOption = DEFAULT_MODEL,
    precision: _options.PrecisionOption = "int8",
    batch: Annotated[int, typer.Option(min=1, help="Faces classified together.")] = 64,
) -> None:
    """Read the faces in pictures.

    Exit status: 0 all were read, 1 some were not, 2 none was or an argument is wrong, 130 stopped by Ctrl-C.
    """
    if json_lines and csv:
        raise typer.BadParameter("--json and --csv both write to standard output; choose one")
    from mien.reader import Reader

    reader = Reader(model, detector=detector, precision=precision, threads=threads, abstain=abstain)
    found, tally = gather(paths), Tally()
    count = len(found.failed) + len(found.sources)
    keep_pixels = save is not None or html is not None
    with ExitStack() as stack:
        readings = reader.read_many(found.sources, batch=batch, keep_pixels=keep_pixels)
        stack.callback(readings.close)
        sinks = [stack.enter_context(sink) for sink in _sinks(reader, json_lines, csv, save, html)]
        shown = with_progress(chain(found.failed, readings), count, bar=not (json_lines or csv))
        for reading in shown:
            for sink in (tally, *(() if json_lines or csv else (ErrorLines(),)), *sinks):
                sink.add(reading)
    if count > 1 and (tally.failed or sys.stderr.isatty()):
        skipped = f", {found.skipped} files of other kinds left out" if found.skipped else ""
        print(f"mien: {tally}{skipped}", file=sys.stderr)
    raise typer.Exit(tally.status)


def _sinks(
    reader: "Reader", json_lines: bool, csv: bool, save: Path | None, html: Path | None
) -> Iterator[AbstractContextManager[_Sink]]:
    """The sinks that the user asked for. What goes to standard output is the last: a table follows the other work."""
    if save is not None:
        from mien.report.images import AnnotatedImages

        yield AnnotatedImages(save)
    if html is not None:
        from mien.report import Html

        yield Html(html, title="What mien read", model=reader.describe())
    if json_lines:
        from mien.report import JsonLines

        yield JsonLines(sys.stdout)
    elif csv:
        from mien.report import Csv

        yield Csv(sys.stdout, reader.model.emotions)
    else:
        yield FaceTable(TableConsole(highlight=False))
