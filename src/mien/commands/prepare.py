"""``mien prepare``: a public data set -> a table that the other commands read."""

from pathlib import Path
from typing import Annotated

import typer

from mien.commands._terminal import echo


def prepare_command(
    name: Annotated[str, typer.Argument(metavar="SET", help="rafdb, affectnet, ckplus, jaffe, kdef or expw.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of the unpacked set; nothing in it changes.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write faces.csv (and crops/) to.")],
    crop: Annotated[
        bool, typer.Option("--crop", help="Detect the face in each image and crop it as FER-2013 does; expw always.")
    ] = False,
) -> None:
    """Write a table of the faces of a public data set, for --data of the other commands."""
    from mien.lab.data.public_sets import prepare_public_set
    from mien.lab.files import output_folder

    with output_folder(out):
        counts = prepare_public_set(name, folder, out, crop=crop)
    echo(", ".join(f"{label} {count:,}" for label, count in counts.items()))
    echo(str(out / "faces.csv"))
