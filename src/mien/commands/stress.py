"""``mien stress``: robustness of models to noise, blur, bad light, shifted and partly covered faces."""

from pathlib import Path
from typing import Annotated

import typer

from mien.commands import _options
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import echo


def stress_command(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Names, ONNX files, run folders, or TOML of foreign models.")
    ],
    data: _options.DataOption = None,
    split: Annotated[str, typer.Option(help="Training, PublicTest, PrivateTest, or all.")] = "PublicTest",
    faces: Annotated[
        int | None,
        typer.Option(min=0, help="Number of faces, stratified by class; 0: all. Default: 1500; with --groups all."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A corruption or a kind (noisy, partial ...); repeatable.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="What the mean corruption error is relative to: a model or a stress.json; default: mien-0."),
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="Table with the column row or file, and one column for each grouping of faces.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html, stress.json and stress.csv.")] = Path(
        "reports/stress"
    ),
    keep: _options.KeepOption = None,
    label_map: _options.LabelMapOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample and of all noise.")] = 0,
    again: _options.AgainOption = "",
    ledger: _options.LedgerOption = None,
    skip_unreadable: _options.SkipUnreadableOption = False,
) -> None:
    """Corrupt faces at five severities and report the metrics of each MODEL.

    The same seed corrupts the same faces in the same way for every model. The report shows no face of the data set.
    """
    from mien.lab.data.datasets import read_map, read_part
    from mien.lab.files import output_folder, require_writable
    from mien.lab.robustness import RobustnessOptions, choose_corruptions, run_robustness
    from mien.lab.robustness.predictions import DEFAULT_FACES
    from mien.lab.robustness.report import describe_robustness, write_robustness

    looks = _options.open_ledger(ledger, again)
    count = faces if faces is not None else 0 if groups else DEFAULT_FACES
    chosen = choose_corruptions(only or [])
    options = RobustnessOptions(read_part(split), count, chosen, seed, looks, skip_unreadable)
    require_writable(keep)  # before the work
    labels = read_map(label_map or [])
    names = ("stress.json", "stress.csv", "report.html")
    with output_folder(out, names), TerminalProgress(overall=True) as progress:
        result = run_robustness(
            models, data, options=options, reference=reference, groups=groups, labels=labels, progress=progress
        )
        report = write_robustness(result, out, models_folder=keep)
    if result["note"]:
        echo(result["note"], err=True)
    for line in (*describe_robustness(result), report):
        echo(str(line))
