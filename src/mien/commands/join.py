"""``mien join``: several finished runs as one, whose answer is the mean of theirs."""

from pathlib import Path
from typing import Annotated

import typer

from mien.commands.lab import needs_lab


def join(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, two or more.")],
    out: Annotated[Path, typer.Option(help="Folder of the joined run.")],
    name: Annotated[str, typer.Option(help="What it is called; default: the name of the folder.")] = "",
    about: Annotated[str, typer.Option(help="What its card says of it; default: which nets it is made of.")] = "",
) -> None:
    """Put the nets of RUNS side by side: one net that answers the mean of their logits, without further training.

    The result is a finished run as `mien train` leaves it: evaluate it, record it, export it.
    """
    with needs_lab():
        from mien.lab.count import macs, parameters
        from mien.lab.join import join as write
        from mien.lab.train.run import load_final

    recipe = write(runs, out, name=name or out.resolve().name, about=about)
    net = load_final(out).net
    cost = f"{parameters(net):,} parameters, {macs(net, recipe.data.size) / 1e6:.0f} MMAC a face"
    typer.echo(f"{recipe.name}: {len(runs)} nets side by side, {cost}. {out}")
