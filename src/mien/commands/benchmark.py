"""``mien benchmark``: time and memory that mien takes on this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

import mien
from mien._measure import environment
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._terminal import TableConsole, new_table, print_json


def benchmark_command(
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Image with one face; default: a drawn one.")
    ] = None,
    model: _options.ModelOption = DEFAULT_MODEL,
    detector: _options.DetectorOption = "blazeface",
    threads: Annotated[int, typer.Option(min=0, help="Cores for whole images (0: all); crops always use one.")] = 1,
    seconds: Annotated[
        float,
        typer.Option(min=0, help="Time for each measurement, which has at least five runs; 0: one run, as a check."),
    ] = 1.0,
    as_json: _options.JsonOption = False,
) -> None:
    """Measure mien on this machine: start, crops, detector, whole images, memory."""
    from mien.commands._benchmark import measure

    measurements = []
    for measurement in measure(image, model=model, detector=detector, threads=threads, seconds=seconds):
        measurements.append(measurement)
        _show_progress(measurement.name)
    _show_progress("")
    machine = {"mien": mien.__version__, **environment("onnxruntime", "numpy", "pillow")}
    if as_json:
        setting = {"model": model, "detector": detector, "threads": threads, "seconds": seconds}
        values = {each.key: round(each.value, 4) for each in measurements}
        print_json({"machine": machine, "setting": setting, "figures": values})
        return
    table, console = new_table(), TableConsole(highlight=False)
    table.add_column("what")
    table.add_column("median", justify="right", no_wrap=True)
    for each in measurements:
        digits = 3 if each.value < 10 else 1 if each.value < 1000 else 0
        table.add_row(each.name, f"{each.value:,.{digits}f} {each.unit}")
    console.print(table)
    console.print("; ".join(f"{key} {value}" for key, value in machine.items()), style="dim")
    console.print(f"model {model}; detector {detector}; threads for images {threads or 'all'}", style="dim")


def _show_progress(name: str) -> None:
    """Replace the line that shows the last measurement."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{name}", end="", file=sys.stderr, flush=True)
