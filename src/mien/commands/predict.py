"""``mien predict``: images in; a table, JSON lines, CSV, annotated images or an HTML page out."""

import sys
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from mien._output import Output, OutputGroup
from mien._signals import GracefulStop
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._inputs import expand_inputs
from mien.commands._terminal import FaceTable, TableConsole, Tally, echo, with_progress
from mien.detect import MAX_FACES


def predict_command(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Files, folders, quoted globs, or - for bytes on standard input."),
    ],
    json_lines: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each image.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print a row of CSV for each face.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="With --csv: names unchanged, also if a spreadsheet takes them for formulas.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write annotated copies, <name>.mien.<jpg|png>, into this folder."),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with images, faces and maps.")] = None,
    detector: _options.DetectorOption = "blazeface",
    max_faces: _options.MaxFacesOption = MAX_FACES,
    abstain: _options.AbstainOption = None,
    min_quality: _options.MinQualityOption = 0.0,
    threads: _options.ThreadsOption = 1,
    model: _options.ModelOption = DEFAULT_MODEL,
    precision: _options.PrecisionOption = "int8",
    batch: Annotated[int, typer.Option(min=1, help="Number of faces that are classified together.")] = 64,
) -> None:
    """Read the faces in images.

    Exit status: 0 all images were read, 1 some were not, 2 none was or an argument is wrong, 130 stopped by Ctrl-C,
    143 by SIGTERM. What was read until then is written.
    """
    if json_lines and csv:
        raise typer.BadParameter("--json and --csv both write to standard output; choose one")
    if raw and not csv:
        raise typer.BadParameter("--raw changes the names of --csv; add --csv")
    from mien.reader import Reader

    reader = Reader(
        model,
        detector=detector,
        precision=precision,
        threads=threads,
        abstain="card" if abstain is None else abstain,
        min_quality=min_quality,
        max_faces=max_faces,
    )
    inputs, tally = expand_inputs(paths), Tally(print_errors=not (json_lines or csv))
    left_out = inputs.note()
    facts = reader.describe() | ({"left out": left_out} if left_out else {})
    count = len(inputs.failed) + len(inputs.sources)
    keep_pixels = save is not None or html is not None
    outputs: list[Output] = []
    if json_lines or csv or keep_pixels:
        from mien import report  # takes time that a table does not need

        if save is not None:
            outputs.append(report.AnnotatedImages(save, roots=inputs.roots))
        if html is not None:
            outputs.append(report.Html(html, title="What mien read", model=facts))
        if json_lines:
            outputs.append(report.JsonLines(sys.stdout))
        if csv:
            outputs.append(report.Csv(sys.stdout, reader.model.emotions, raw=raw))
    if not (json_lines or csv):
        outputs.append(FaceTable(TableConsole(highlight=False)))
    with GracefulStop() as signals, ExitStack() as stack:
        readings = reader.read_many(signals.until_stopped(inputs.sources), batch=batch, keep_pixels=keep_pixels)
        stack.callback(readings.close)
        group = stack.enter_context(OutputGroup(outputs))
        for reading in with_progress(chain(inputs.failed, readings), count, bar=not (json_lines or csv)):
            tally.add(reading)
            group.add(reading)
        if signals.error is not None:
            raise signals.error  # inside of the block: the page then says that it is partial
    if left_out or (count > 1 and (tally.failed or sys.stderr.isatty())):
        echo(f"mien: {tally}" + (f"; left out: {left_out}" if left_out else ""), err=True)
    raise typer.Exit(tally.status)
