"""``mien export``: a finished run as files that any reader opens."""

from pathlib import Path
from typing import Annotated

import typer

from mien.commands.lab import needs_lab


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, as `mien train` names it.")],
    out: Annotated[Path, typer.Option(help="Folder to write model.onnx, model-fp32.onnx, card and licence to.")],
    data: Annotated[Path | None, typer.Option(help="The set it was trained on; default: $MIEN_DATA.")] = None,
    final: Annotated[
        bool, typer.Option("--final", help="Judge PrivateTest, too: once, when everything is chosen.")
    ] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Store the fp32 file's weights in half precision: half the bytes.")
    ] = False,
    calibration: Annotated[str, typer.Option(help="vector or temperature; default: what the recipe says.")] = "",
) -> None:
    """Export RUN as fp32 and int8 ONNX, calibrated on PublicTest, with its card."""
    with needs_lab():
        from mien.lab.export.release import release
        from mien.lab.feed.sets import load_set
        from mien.lab.train.run import load_final, recalibrated

    trained = recalibrated(load_final(run), calibration)
    card = release(trained, load_set(data, trained.recipe), out, final=final, half=half)
    low, high = card["accuracy"]["interval"]
    split = "private" if final else "public"
    accuracy, clean = card["accuracy"][split], card["accuracy"][f"{split}_clean"]
    figures = f"{accuracy:.2%} ({low:.2%} to {high:.2%}), clean {clean:.2%}, ECE {card['ece']:.3f}"
    typer.echo(f"{card['name']}: {split.capitalize()}Test {figures}. {out}")
