"""``mien stress``: robustness of models to noise, blur, bad light, and shifted, small or partly covered faces."""

from pathlib import Path
from typing import Annotated

import typer

from mien.commands import _options
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import echo, print_json, print_table


def stress_command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Names, ONNX files, run folders, or TOML of foreign models.",
            autocompletion=_options.complete_model,
        ),
    ],
    data: _options.DataOption = None,
    split: _options.SplitOption = None,
    faces: _options.FacesOption = None,
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
    out: _options.OutOption = Path("reports/stress"),
    as_json: _options.JsonOption = False,
    keep: _options.KeepOption = None,
    label_map: _options.LabelMapOption = None,
    seed: _options.SeedOption = None,
    again: _options.AgainOption = "",
    ledger: _options.LedgerOption = None,
    skip_unreadable: _options.SkipUnreadableOption = False,
    device: _options.DeviceOption = "cpu",
    threads: _options.LabThreadsOption = None,
) -> None:
    """Corrupt faces at five severities and report the metrics of each MODEL.

    The same seed corrupts the same faces in the same way for every model. Writes report.html, which shows no face of
    the data set, stress.json and stress.csv. Without --faces, 1500 faces are drawn; 800 with --steady, all with
    --groups. --steady prints a table of how much the answers change when a crop moves a little, and how good they are
    on small faces; --only then chooses the corruptions of its mean corruption error.
    """
    from mien.lab.data.datasets import read_map, read_part
    from mien.lab.files import load_json, output_folder, require_writable
    from mien.lab.robustness import RobustnessOptions, choose_corruptions, run_robustness
    from mien.lab.robustness.metrics import STEADY_FACES, steadiness_rows
    from mien.lab.robustness.predictions import DEFAULT_FACES
    from mien.lab.robustness.report import describe_robustness, write_robustness

    looks = _options.open_ledger(ledger, again)
    count = faces if faces is not None else 0 if groups else STEADY_FACES if steady else DEFAULT_FACES
    chosen = choose_corruptions(only or (["noisy"] if steady else []))
    part = read_part(split or "PublicTest")
    options = RobustnessOptions(part, count, chosen, seed or 0, looks, skip_unreadable, steady)
    require_writable(keep)  # before the work
    labels = read_map(label_map or [])
    names = ("stress.json", "stress.csv", "report.html")
    out = out or Path("reports/stress")
    with output_folder(out, names), _options.lab_runtime(device, threads), TerminalProgress(overall=True) as progress:
        result = run_robustness(
            models, data, options=options, reference=reference, groups=groups, labels=labels, progress=progress
        )
        report = write_robustness(result, out, models_folder=keep)
    if as_json:
        print_json(load_json(out / "stress.json"))
        return
    if result["note"]:
        echo(result["note"], err=True)
    for line in describe_robustness(result):
        echo(line)
    if steady:
        head, *rows = steadiness_rows(result["models"])
        print_table(head, rows)
    echo(str(report))
