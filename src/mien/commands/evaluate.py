"""``mien evaluate``: the metrics of a model on labelled faces."""

from itertools import chain
from typing import Annotated

import typer

from mien._metrics import headline_metrics, metric_name
from mien.commands import _options
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import echo, print_json


def evaluate_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An embedded model, an ONNX file or its folder, a TOML file that describes a foreign ONNX file, "
            "a run, or a folder of results/. The folder of a recipe with several seeds evaluates all of them.",
            autocompletion=_options.complete_model,
        ),
    ],
    data: _options.DatasOption = None,
    split: _options.SplitOption = None,
    out: _options.OutOption = None,
    as_json: _options.JsonOption = False,
    figures: _options.FiguresOption = None,
    label_map: _options.LabelMapOption = None,
    tta: _options.TtaOption = "none",
    precision: _options.PrecisionOption = "int8",
    skip_unreadable: _options.SkipUnreadableOption = False,
    again: _options.AgainOption = "",
    ledger: _options.LedgerOption = None,
    uncalibrated: Annotated[
        bool, typer.Option("--uncalibrated", help="Evaluate a run without its calibration.")
    ] = False,
    device: _options.DeviceOption = "cpu",
    threads: _options.LabThreadsOption = None,
) -> None:
    """Evaluate MODEL on labelled faces and write metrics.json, predictions.npz and report.html.

    Of a set without splits, all rows are evaluated; several sets (--data twice) are compared. The folder is
    reports/evaluate/MODEL-SPLIT, or that of --out.
    """
    from mien.lab.data.datasets import read_map
    from mien.lab.evaluate.evaluate import EvaluateOptions, evaluate
    from mien.lab.files import load_json, require_writable
    from mien.lab.html import plot_confusion, saving_figures

    looks = _options.open_ledger(ledger, again)
    labels = read_map(label_map or [])
    options = EvaluateOptions(split, out, labels, tta, precision, skip_unreadable, looks, uncalibrated)
    require_writable(figures)  # before the work
    with _options.lab_runtime(device, threads), saving_figures(figures), TerminalProgress() as progress:
        folder, evaluated = evaluate(model, data or [None], options=options, progress=progress)
        for name, found in evaluated.items() if figures else ():
            for each in found:  # the report has it as a table
                plot_confusion(each.metrics["all"], f"Confusion matrix, {each.subject.name}, {name}")
    if as_json:
        print_json(load_json(folder / "metrics.json"))
        return
    for name, evaluations in evaluated.items():
        for evaluation in evaluations:
            subject, selection = evaluation.subject, evaluation.selection
            seed = f", seed {subject.seed}" if subject.seed else ""
            tta_note = f", TTA {evaluation.tta}" if evaluation.tta != "none" else ""
            recorded = "" if subject.model is not None else " (recorded predictions: no maps)"
            headline = headline_metrics(evaluation.metrics["all"], evaluation.metrics.get("clean"))
            excluded = sum(selection.account.values())
            account = f"; {excluded:,} of {selection.total:,} rows not evaluated, see the report" if excluded else ""
            before = "".join(f", {metric_name(k)} {v:.3f}" for k, v in evaluation.uncalibrated.items())
            note = f"; before calibration{before.replace(',', ':', 1)}" if before else ""
            echo(f"{subject.name}{seed}, {name} {selection.split}{tta_note}{recorded}: {headline}{note}{account}")
    every = chain.from_iterable(evaluated.values())
    for warning in dict.fromkeys(chain.from_iterable(evaluation.warnings() for evaluation in every)):
        echo(f"note: {warning}", err=True)
    echo(str(folder / "report.html"))
