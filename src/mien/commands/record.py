"""``mien record``: the evidence of a finished run, as results/ keeps it."""

from pathlib import Path
from typing import Annotated

import typer

from mien.commands.lab import needs_lab


def record(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, as `mien train` names it.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: results/RECIPE/seed-SEED.")] = None,
    data: Annotated[Path | None, typer.Option(help="The set it was trained on; default: $MIEN_DATA.")] = None,
    final: Annotated[
        bool, typer.Option("--final", help="Judge PrivateTest, too: once, when everything is chosen.")
    ] = False,
    int8: Annotated[bool, typer.Option(help="Quantise, judge that, too, and keep the file where it is small.")] = True,
    calibration: Annotated[str, typer.Option(help="vector or temperature; default: what the recipe says.")] = "",
) -> None:
    """Judge RUN and write its figures, log, recipe, curves, confusion matrix and, where it is small, its int8 file."""
    with needs_lab():
        from mien.lab import record as evidence
        from mien.lab.feed.sets import load_set
        from mien.lab.train.run import load_final

    recipe = load_final(run).recipe
    folder = out or Path("results") / recipe.name / f"seed-{recipe.seed}"
    faces = load_set(data, recipe)
    metrics = evidence.record(run, faces, folder, final=final, calibration=calibration, int8=int8)
    for split, by_precision in metrics["judged"].items():
        figures = by_precision["fp32"]["all"]
        low, high = figures["interval"]
        clean = f"clean {by_precision['fp32']['clean']['accuracy']:.2%}, " if split != "leaky" else ""
        named = f"{split.capitalize()}Test" if split != "leaky" else "leaky part (copies of training faces)"
        typer.echo(
            f"{recipe.name}, {named}: {figures['accuracy']:.2%} ({low:.2%} to {high:.2%}), "
            f"{clean}balanced {figures['balanced_accuracy']:.2%}, macro F1 {figures['macro_f1']:.2%}, "
            f"log loss {figures['log_loss']:.3f}"
        )
    if "accuracy" in metrics["claim"]["figures"]:
        typer.echo(f"claimed by document {metrics['claim']['document']}: {metrics['claim']['figures']['accuracy']:.2%}")
    typer.echo(str(folder))
