"""``mien logits``: what teachers answer for the training faces, as a file that students learn from."""

from pathlib import Path
from typing import Annotated

import typer

from mien.commands.lab import needs_lab
from mien.commands.progress import Stages, silence_lightning


def logits(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs; several answer as their mean.")],
    out: Annotated[Path, typer.Option(help="File to write, ending in .npz; a recipe's target.teachers names it.")],
    data: Annotated[Path | None, typer.Option(help="What the student learns from; default: $MIEN_DATA.")] = None,
    views: Annotated[
        int, typer.Option(help="1: each face; 2: also mirrored; 6: also larger and smaller; 10: five crops, mirrored.")
    ] = 1,
    recipe: Annotated[
        str, typer.Option(help="The student's recipe, where it mixes in sets that the first teacher's does not.")
    ] = "",
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
) -> None:
    """Write the answers of RUNS for the Training faces to a file. No test face is answered."""
    from mien._errors import OutputError

    with needs_lab():
        from mien.lab import recipe as recipes
        from mien.lab.data import Split
        from mien.lab.feed.sets import load_set
        from mien.lab.train.answers import answer
        from mien.lab.train.devices import Devices
        from mien.lab.train.run import load_final

    if out.suffix != ".npz":
        raise OutputError(f"{out}: a file of cached logits ends in .npz; name it so")
    silence_lightning()
    device = Devices(accelerator).launch("32-true").device
    teachers = [load_final(run, device) for run in runs]
    student = recipes.load(recipe) if recipe else teachers[0].recipe
    faces = load_set(data, student).split(Split.TRAINING).to(device)
    with Stages(lines=False) as bar:
        answers = answer(teachers, faces, views, report=lambda done: bar("answering", done, len(faces)))
    answers.save(out)
    names = ", ".join(answers.teachers)
    typer.echo(f"{names}: {len(answers.rows):,} faces, {views} {'view' if views == 1 else 'views'} each. {out}")
