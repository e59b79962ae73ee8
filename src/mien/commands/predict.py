"""``mien predict``: images in; tables, JSON, annotated images or an HTML page out."""

import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien._errors import MienError
from mien._inputs import Inputs, expand_inputs
from mien._output import OutputGroup
from mien._signals import GracefulStop
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._terminal import FaceTable, TableConsole, Tally, echo, with_progress
from mien.detect import MAX_FACES

if TYPE_CHECKING:
    from mien.reader import Reader

_MANY = 128  # images from which on other processes start; with fewer, their start takes longer than they save


def predict_command(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Files, folders, quoted globs, or - for bytes on standard input."),
    ],
    out: _options.OutsOption = None,
    format: _options.FormatOption = None,
    as_json: _options.JsonOption = False,
    resume: _options.ResumeOption = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="In CSV: names unchanged, also if a spreadsheet takes them for formulas.")
    ] = False,
    detector: _options.DetectorOption = "blazeface",
    max_faces: _options.MaxFacesOption = MAX_FACES,
    abstain: _options.AbstainOption = None,
    min_quality: _options.MinQualityOption = 0.0,
    device: _options.DeviceOption = "cpu",
    threads: _options.ThreadsOption = 1,
    model: _options.ModelOption = DEFAULT_MODEL,
    beside: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A second model, beside the first in the HTML page."),
    ] = None,
    precision: _options.PrecisionOption = "int8",
    batch: Annotated[int, typer.Option(min=1, help="Number of faces that are classified together.")] = 64,
) -> None:
    """Read the faces in images, and print a table of them.

    --out FILE writes rows (.csv, .parquet), objects (.jsonl, .json) or a page with images, faces and maps (.html).
    --out FOLDER gets annotated copies, <name>.mien.<jpg|png>. --json (a line for each image) and --format csv print.
    --out FILE.parquet --resume continues after Ctrl-C and kill -9, and leaves out images whose rows the file has.
    Exit status: 0 all images were read, 1 some were not, 2 none was or an argument is wrong, 130 stopped by Ctrl-C,
    143 by SIGTERM. What was read until then is written.
    """
    outputs = _options.read_outputs(out, format, as_json, ("csv", "jsonl", "json", "parquet", "html"))
    prints = any(path == _options.STDOUT for _, path in outputs)
    if raw and "csv" not in dict(outputs):
        raise typer.BadParameter("--raw changes the names of CSV; add --format csv or --out FILE.csv")
    if beside is not None and "html" not in dict(outputs):
        raise typer.BadParameter("--beside is shown in the HTML page; add --out FILE.html")
    if resume and [name for name, _ in outputs] != ["parquet"]:
        raise MienError("--resume continues one Parquet file; name it as the only output: --out FILE.parquet")
    open_with = partial(
        _options.open_reader, precision=precision, device=device, abstain=abstain, threads=threads, max_faces=max_faces
    )
    reader = open_with(model, detector=detector, min_quality=min_quality)
    other = open_with(beside, detector="none", min_quality=0.0) if beside is not None else None
    inputs, tally = expand_inputs(paths), Tally(print_errors=not prints)
    left_out = inputs.note()
    facts = reader.describe() | ({"left out": left_out} if left_out else {})
    keep_pixels = any(name in ("", "html") for name, _ in outputs)
    opened = [_open(name, path, reader, other, facts, inputs, raw=raw, resume=resume) for name, path in outputs]
    if all(name in ("", "html") for name, _ in outputs):
        opened.append(FaceTable(TableConsole(highlight=False)))
    with GracefulStop() as signals, ExitStack() as stack:
        group = stack.enter_context(OutputGroup(opened))
        if resume:
            _leave_out(inputs, opened[0].done)
        count = len(inputs.failed) + len(inputs.sources)
        workers = threads if count >= _MANY and device == "cpu" else 1
        sources = signals.until_stopped(inputs.sources)
        readings = reader.read_many(sources, batch=batch, keep_pixels=keep_pixels, workers=workers)
        stack.callback(readings.close)
        for reading in with_progress(chain(inputs.failed, readings), count, bar=not prints):
            tally.add(reading)
            group.add(reading)
        if signals.error is not None:
            raise signals.error  # inside of the block: the page then says that it is partial
    if left_out or (count > 1 and (tally.failed or sys.stderr.isatty())):
        echo(f"mien: {tally}" + (f"; left out: {left_out}" if left_out else ""), err=True)
    raise typer.Exit(tally.status)


def _leave_out(inputs: Inputs, done: AbstractSet[str]) -> None:
    """Remove the sources whose rows are there already."""
    from mien.decode import name_of
    from mien.report.tables import escaped

    every = len(inputs.sources) + len(inputs.failed)
    inputs.sources[:] = [source for source in inputs.sources if escaped(name_of(source)) not in done]
    inputs.failed[:] = [reading for reading in inputs.failed if escaped(reading.source) not in done]
    left = len(inputs.sources) + len(inputs.failed)
    echo(f"mien: {every - left:,} of {every:,} images are done; {left:,} are left", err=True)


def _open(
    name: str,
    path: Path,
    reader: "Reader",
    beside: "Reader | None",
    facts: Mapping[str, str],
    inputs: Inputs,
    *,
    raw: bool,
    resume: bool,
) -> Any:
    """One output of a format: a file, standard output, or a folder of annotated copies."""
    from mien import report  # takes time that a table does not need

    file = sys.stdout if path == _options.STDOUT else path
    if name == "csv":
        return report.Csv(file, reader.model.emotions, raw=raw)
    if name in ("jsonl", "json"):
        return report.JsonLines(file, array=name == "json")
    if name == "parquet":
        limits = {name: str(getattr(reader, name)) for name in ("abstain", "min_quality", "max_faces")}
        settings = reader.describe() | limits
        return report.Parquet(path, emotions=reader.model.emotions, resume=resume, settings=settings)
    if name == "html":
        return report.Html(path, title="What mien read", model=facts, beside=beside)
    return report.AnnotatedImages(path, roots=inputs.roots)
