"""``mien compare``: many models in one table and report, with paired tests, or a family of recipes as a study."""

from pathlib import Path
from typing import Annotated

import typer

from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._extra import needs_lab
from mien.commands._progress import TerminalProgress


def compare_command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of results/ (their recorded predictions), run folders, embedded models, ONNX files or TOML "
            "adapters; none: everything under results/ and the default model."
        ),
    ] = None,
    data: _options.DataOption = None,
    split: Annotated[str, typer.Option(help="PublicTest, PrivateTest, Training or all.")] = "PublicTest",
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("reports/compare"),
    latency: Annotated[bool, typer.Option(help="Time every model on one thread.")] = True,
    grid: Annotated[str, typer.Option(help="A family of recipes to study instead: vgg-vs-resnet.")] = "",
    keep: Annotated[
        Path | None,
        typer.Option(help="Folder that also gets the metrics, as SPLIT.json, or FAMILY.json of a study."),
    ] = None,
) -> None:
    """Compare models: metrics with intervals, which differences are noise, cost, recall, disagreement."""
    from mien._errors import DataError

    with needs_lab():
        from mien.lab import compare as lab
        from mien.lab.data.datasets import read_part
        from mien.lab.files import find_input, require_writable
        from mien.lab.provenance import provenance

    part = read_part(split)
    if grid and runs:
        raise DataError("--grid finds its runs itself; leave RUN out, or leave --grid out")
    for folder in (out, *([keep] if keep else [])):
        require_writable(folder)
    found: lab.Comparison
    with TerminalProgress(lines=False) as progress:
        results = find_input("results")
        if grid:
            trained = Path("runs")
            found = lab.compare_family(
                grid, data, part, results=results, runs=trained, latency=latency, progress=progress
            )
        else:
            models = runs or [*lab.recorded_folders(results), DEFAULT_MODEL]
            found = lab.compare(models, data, part, latency=latency, progress=progress)
        lab.write_comparison(found, out, provenance(found.faces.sha256), metrics_folder=keep)
    for line in lab.summarize_comparison(found):
        typer.echo(line)
    for warning in found.warnings():
        typer.echo(f"note: {warning}", err=True)
    typer.echo(str(out / "report.html"))
