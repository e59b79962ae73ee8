"""``mien benchmark``: what mien costs on this machine."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import mien
from mien._measure import environment
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._terminal import TableConsole, new_table

if TYPE_CHECKING:
    from mien.commands._benchmark import Figure


def benchmark_command(
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture with one face; without it one is drawn.")
    ] = None,
    model: _options.ModelOption = DEFAULT_MODEL,
    detector: _options.DetectorOption = "blazeface",
    threads: Annotated[int, typer.Option(min=0, help="Cores for whole pictures (0: all); crops always use one.")] = 1,
    seconds: Annotated[
        float, typer.Option(min=0, help="Time for each measurement, at least five runs; 0: one run, to see it works.")
    ] = 1.0,
    as_json: _options.JsonOption = False,
) -> None:
    """Measure mien on this machine: start, crops, detector, whole pictures, memory."""
    from mien.commands._benchmark import measure

    figures = []
    for figure in measure(image, model=model, detector=detector, threads=threads, seconds=seconds):
        figures.append(figure)
        _say(figure.words)
    _say("")
    said = {"mien": mien.__version__, **environment("onnxruntime", "numpy", "pillow")}
    if as_json:
        values = {figure.key: round(figure.value, 4) for figure in figures}
        setting = {"model": model, "detector": detector, "threads": threads, "seconds": seconds}
        print(json.dumps({"machine": said, "setting": setting, "figures": values}, indent=2))
    else:
        _print_table(figures, said, f"model {model}; detector {detector}; threads for pictures {threads or 'all'}")


def _say(words: str) -> None:
    """What was measured last, on one line that is written over."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{words}", end="", file=sys.stderr, flush=True)


def _print_table(figures: "list[Figure]", said: dict[str, str], setting: str) -> None:
    console = TableConsole(highlight=False)
    table = new_table()
    table.add_column("what")
    table.add_column("median", justify="right", no_wrap=True)
    for figure in figures:
        digits = 3 if figure.value < 10 else 1 if figure.value < 1000 else 0
        table.add_row(figure.words, f"{figure.value:,.{digits}f} {figure.unit}")
    console.print(table)
    console.print("; ".join(f"{key} {value}" for key, value in said.items()), style="dim")
    console.print(setting, style="dim")
