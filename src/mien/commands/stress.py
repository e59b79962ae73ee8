"""``mien stress``: robustness of models to noise, blur, bad light, and shifted, small or partly covered faces."""

from pathlib import Path
from typing import Annotated

import typer

from mien.commands import _options
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import echo, print_table


def stress_command(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Names, ONNX files, run folders, or TOML of foreign models.")
    ],
    data: _options.DataOption = None,
    split: Annotated[str, typer.Option(help="Training, PublicTest, PrivateTest, or all.")] = "PublicTest",
    faces: Annotated[
        int | None,
        typer.Option(
            min=0, help="Faces, stratified by class; 0: all. Default: 1500; with --steady 800, with --groups all."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A corruption or a kind (noisy, partial ...); repeatable.")
    ] = None,
    steady: Annotated[
        bool, typer.Option("--steady", help="Also move the faces a little and shrink them. Implies --only noisy.")
    ] = False,
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
    --steady prints a table of how much the answers change when a crop moves a little, and how good they are on small
    faces; --only then chooses the corruptions of its mean corruption error.
    """
    from mien.lab.data.datasets import read_map, read_part
    from mien.lab.files import output_folder, require_writable
    from mien.lab.robustness import RobustnessOptions, choose_corruptions, run_robustness
    from mien.lab.robustness.predictions import DEFAULT_FACES
    from mien.lab.robustness.report import describe_robustness, write_robustness
    from mien.lab.robustness.steadiness import STEADY_FACES, steadiness_rows

    looks = _options.open_ledger(ledger, again)
    count = faces if faces is not None else 0 if groups else STEADY_FACES if steady else DEFAULT_FACES
    chosen = choose_corruptions(only or (["noisy"] if steady else []))
    options = RobustnessOptions(read_part(split), count, chosen, seed, looks, skip_unreadable, steady)
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
    for line in describe_robustness(result):
        echo(line)
    if steady:
        head, *rows = steadiness_rows(result["models"])
        print_table(head, rows)
    echo(str(report))
