"""``mien evaluate``: the metrics of a model on labelled faces."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien._metrics import headline_metrics
from mien.commands import _options
from mien.commands._extra import needs_lab
from mien.commands._progress import TerminalProgress

if TYPE_CHECKING:
    from mien.lab.evaluate.evaluation import Evaluation


def evaluate_command(
    model: Annotated[
        str,
        typer.Argument(
            help="An embedded model, an ONNX file or its folder, a TOML file that describes a foreign ONNX file, "
            "a run, or a folder of results/. The folder of a recipe with several seeds evaluates all of them."
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(help=f"{_options.DATA_HELP} Several are compared."),
    ] = None,
    split: _options.SplitOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: reports/evaluate/MODEL-SPLIT.")] = None,
    label_map: _options.LabelMapOption = None,
    tta: _options.TtaOption = "none",
    precision: _options.PrecisionOption = "int8",
) -> None:
    """Evaluate MODEL on labelled faces and write metrics.json, predictions.npz and report.html."""
    with needs_lab():
        from mien.lab.data.datasets import read_map
        from mien.lab.evaluate.evaluate import EvaluateOptions
        from mien.lab.evaluate.evaluate import evaluate as run_evaluation

    options = EvaluateOptions(split, out, read_map(label_map or []), tta, precision)
    with TerminalProgress() as progress:
        folder, found = run_evaluation(model, data or [None], options=options, progress=progress)
    for name, evaluations in found.items():
        for evaluation in evaluations:
            typer.echo(_line(name, evaluation))
    warnings = (warning for evaluations in found.values() for each in evaluations for warning in each.warnings())
    for warning in dict.fromkeys(warnings):
        typer.echo(f"note: {warning}", err=True)
    typer.echo(str(folder / "report.html"))


def _line(name: str, evaluation: "Evaluation") -> str:
    """The headline metrics of an evaluation in a line."""
    metrics, selection = evaluation.metrics["all"], evaluation.selection
    seed = f", seed {evaluation.subject.seed}" if evaluation.subject.seed else ""
    tta = f", TTA {evaluation.tta}" if evaluation.tta != "none" else ""
    recorded = "" if evaluation.subject.model is not None else " (recorded predictions: no maps)"
    excluded = sum(selection.account.values())
    account = f"; {excluded:,} of {selection.total:,} rows not evaluated, see the report" if excluded else ""
    clean = evaluation.metrics.get("clean")
    title = f"{evaluation.subject.name}{seed}, {name} {selection.split}{tta}{recorded}"
    return f"{title}: {headline_metrics(metrics, clean)}{account}"
