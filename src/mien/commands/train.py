"""``mien train``: one recipe, trained from where its folder stands."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (mien-0) or the path of a .toml file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes: section.key=value, as in optimise.epochs=40.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="FER-2013 in any of its forms; default: $MIEN_DATA.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/RECIPE/seed-SEED.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes or GPUs on this machine.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Machines, each started by torchrun.", min=1)] = 1,
    time_limit: Annotated[float, typer.Option(help="Seconds after which to stop with a checkpoint; 0: no limit.")] = 0,
) -> None:
    """Train RECIPE, or go on from its last checkpoint. Stops cleanly at --time-limit; the same command resumes."""
    from mien._errors import MissingExtraError

    try:
        from mien.lab import recipe as recipes
        from mien.lab.data import find_fer2013, load_fer2013
        from mien.lab.fit import Devices, fit
        from mien.lab.provenance import provenance
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "lab") from error

    chosen = recipes.with_seed(recipes.load(recipe, overrides or ()), seed)
    folder = out or Path("runs") / chosen.name / f"seed-{seed}"
    faces = load_fer2013(find_fer2013(data))
    with _Bar(chosen.name) as bar:
        done = fit(
            chosen,
            faces,
            folder,
            devices=Devices(accelerator, devices, nodes),
            time_limit=time_limit or math.inf,
            provenance=provenance(faces.sha256),
            report=bar,
        )
    state = "finished" if done else "stopped at its time limit; the same command goes on"
    typer.echo(f"{chosen.name}: {state}. {folder}")


class _Bar:
    """A rich progress bar on standard error; outside of a terminal, one plain line an epoch."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.progress.add_task(name, total=None, figures="")

    def __enter__(self) -> "_Bar":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def __call__(self, record: dict[str, Any]) -> None:
        if "steps" in record:
            self.progress.update(self.task, completed=record["step"], total=record["steps"])
            return
        speed = f"{record['images_per_second']:.0f} images/s"
        public = f"PublicTest {record['public_accuracy']:.4f}" if "public_accuracy" in record else ""
        figures = f"epoch {record['epoch']}  loss {record['loss']:.3f}  {public}  {speed}"
        self.progress.update(self.task, figures=figures)
        if not self.console.is_terminal:
            self.console.print(figures, highlight=False)
