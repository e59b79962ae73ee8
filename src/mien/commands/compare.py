"""``mien compare``: many models in one table and report, with paired tests, or a family of recipes as a study."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mien._errors import DataError
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import echo, print_json


def compare_command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Folders of results/ (their recorded predictions), run folders, embedded models, ONNX files or TOML "
            "adapters; none: everything under results/ and the default model.",
            autocompletion=_options.complete_model,
        ),
    ] = None,
    data: _options.DataOption = None,
    split: _options.SplitOption = None,
    out: _options.OutOption = Path("reports/compare"),
    as_json: _options.JsonOption = False,
    latency: Annotated[bool, typer.Option(help="Time every model on one thread.")] = True,
    own_calibration: Annotated[
        bool,
        typer.Option(
            "--own-calibration",
            help="Keep each model's own calibration, instead of vector scaling for all if they differ.",
        ),
    ] = False,
    grid: Annotated[str, typer.Option(help="A family of recipes to study instead: vgg-vs-resnet.")] = "",
    keep: _options.KeepOption = None,
    figures: _options.FiguresOption = None,
    again: _options.AgainOption = "",
    ledger: _options.LedgerOption = None,
    skip_unreadable: _options.SkipUnreadableOption = False,
    device: _options.DeviceOption = "cpu",
    threads: _options.LabThreadsOption = None,
) -> None:
    """Compare models: metrics with intervals, which differences are noise, cost, recall, disagreement.

    Writes comparison.json, table.csv and report.html.
    """
    from mien.lab import compare as lab
    from mien.lab.data.datasets import read_part
    from mien.lab.files import find_input, load_json, output_folder, require_writable
    from mien.lab.html import saving_figures
    from mien.lab.provenance import provenance

    part, out = read_part(split or "PublicTest"), out or Path("reports/compare")
    if grid and runs:
        raise DataError("--grid finds its runs itself; leave RUN out, or leave --grid out")
    require_writable(keep)  # before the work
    require_writable(figures)
    results, looks = find_input("results"), _options.open_ledger(ledger, again)
    compared: lab.Comparison
    names = ("comparison.json", "table.csv", "report.html")
    with output_folder(out, names), _options.lab_runtime(device, threads), TerminalProgress() as progress:
        settings: Any = {"latency": latency, "own_calibration": own_calibration, "skip_unreadable": skip_unreadable}
        settings |= {"ledger": looks, "progress": progress}
        if grid:
            compared = lab.compare_family(grid, data, part, results=results, runs=Path("runs"), **settings)
        else:
            models = runs or [*lab.recorded_folders(results), DEFAULT_MODEL]
            compared = lab.compare(models, data, part, **settings)
        origin = provenance(compared.faces.sha256, compared.faces.note)
        with saving_figures(figures):
            lab.write_comparison(compared, out, origin, metrics_folder=keep)
    if as_json:
        print_json(load_json(out / "comparison.json"))
        return
    for line in lab.summarize_comparison(compared):
        echo(line)
    for warning in compared.warnings():
        echo(f"note: {warning}", err=True)
    echo(str(out / "report.html"))
