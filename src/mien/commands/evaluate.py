"""``mien evaluate``: what a model is worth on labelled faces, as figures, answers and a page."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mien.commands import _options
from mien.commands._extra import needs_lab
from mien.commands._progress import TerminalProgress


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="An embedded model, an ONNX file or its folder, a TOML file that describes a foreign ONNX file, "
            "a run, or a folder of results/. The folder of a recipe with several seeds is all of them."
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(help=f"{_options.DATA_HELP} Several show what transfers."),
    ] = None,
    split: _options.Split = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: reports/evaluate/MODEL-SPLIT.")] = None,
    label_map: _options.LabelMap = None,
    tta: _options.Tta = "none",
    precision: _options.Precision = "int8",
) -> None:
    """Judge MODEL on labelled faces and write metrics.json, predictions.npz and report.html."""
    with needs_lab():
        from mien.lab.data.datasets import read_map
        from mien.lab.evaluate.evaluate import EvaluateOptions
        from mien.lab.evaluate.evaluate import evaluate as judge

    options = EvaluateOptions(split, out, read_map(label_map or []), tta, precision)
    paths: list[Path | None] = [*data] if data else [None]
    with TerminalProgress() as bar:
        folder, judged = judge(model, paths, options=options, report=bar)
    for name, evaluations in judged.items():
        for evaluation in evaluations:
            typer.echo(_line(name, evaluation))
    every = (warning for evaluations in judged.values() for each in evaluations for warning in each.warnings())
    for warning in dict.fromkeys(every):
        typer.echo(f"note: {warning}", err=True)
    typer.echo(str(folder / "report.html"))


def _line(name: str, evaluation: Any) -> str:
    """The figures of an evaluation in a line."""
    found, selection = evaluation.metrics["all"], evaluation.selection
    low, high = found["interval"]
    seed = f", seed {evaluation.subject.seed}" if evaluation.subject.seed else ""
    tta = f", TTA {evaluation.tta}" if evaluation.tta != "none" else ""
    clean = f"clean {evaluation.metrics['clean']['accuracy']:.2%}, " if "clean" in evaluation.metrics else ""
    kept = "" if evaluation.subject.model is not None else " (kept answers: no maps)"
    left = sum(selection.account.values())
    account = f"; {left:,} of {selection.total:,} rows not judged, see the report" if left else ""
    return (
        f"{evaluation.subject.name}{seed}, {name} {selection.split}{tta}{kept}: "
        f"{found['accuracy']:.2%} ({low:.2%} to {high:.2%}), {clean}balanced {found['balanced_accuracy']:.2%}, "
        f"macro F1 {found['macro_f1']:.2%}, log loss {found['log_loss']:.3f}, ECE {found['ece']:.3f}{account}"
    )
