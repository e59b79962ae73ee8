"""``mien synthesize``: made faces of rare classes, as a data set that training can mix in, with their judgement."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.commands import _options
from mien.commands._extra import needs_lab


def synthesize(
    emotions: Annotated[
        list[str], typer.Argument(help="Classes to make faces of: disgust, or several.", metavar="EMOTION")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the made faces, their judgement and the training.")],
    count: Annotated[int, typer.Option("-n", "--count", help="Faces of each class.", min=1)] = 2000,
    data: _options.Data = None,
    classes: Annotated[str, typer.Option(help="Class set that is learned; eight adds contempt.")] = "seven",
    steps: Annotated[
        int, typer.Option(help="Steps of training, 32 faces each; those done are not done again.", min=1)
    ] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of weights, order, augmentation and noise.")] = 0,
    accelerator: _options.Accelerator = "auto",
    precision: Annotated[str, typer.Option(help="bf16-mixed, or 32-true where bf16 is slow.")] = "bf16-mixed",
    time_limit: _options.TimeLimit = 0,
    threads: Annotated[int, typer.Option(help="Cores that judge the faces.", min=1)] = 1,
) -> None:
    """Train a small conditional GAN (or go on, or reuse it) and make faces of EMOTIONs for `data.also` of a recipe.

    OUT/EMOTION/*.png are the faces. OUT/judgement.json says how far they are from real ones, OUT/contact.png shows
    them beside real ones: that picture is yours to keep, not to pass on.
    """
    with needs_lab():
        from mien.lab.data.datasets import load_set
        from mien.lab.gan.synthesize import Wish, choose_emotions, faces_of
        from mien.lab.gan.synthesize import synthesize as make
        from mien.lab.gan.train import Settings
        from mien.lab.provenance import provenance
        from mien.lab.train.devices import Devices
        from mien.lab.train.logging import silence_lightning

    silence_lightning()
    recipe = faces_of(classes)
    chosen = choose_emotions(emotions, recipe)
    faces = load_set(data, recipe)
    if faces.note:
        typer.echo(faces.note, err=True)
    wish = Wish(
        chosen,
        count,
        steps=steps,
        recipe=recipe,
        settings=Settings(seed=seed, precision=precision),
        time_limit=time_limit or math.inf,
        device=str(Devices(accelerator).launch("32-true").device),
        threads=threads,
    )
    with _Bar() as bar:
        judgement = make(wish, faces, out, provenance=provenance(faces.sha256), report=bar)
    if not judgement:
        typer.echo(f"stopped at its time limit; the same command goes on. {out}")
        return
    for emotion, figures in judgement["emotions"].items():
        typer.echo(f"{emotion}: {_summary(emotion, figures)}. {out / emotion}")


def _summary(emotion: str, figures: dict[str, Any]) -> str:
    """The judgement of one emotion in a line."""
    parts = [f"{figures['made']:,} faces", f"{figures['read_as'].get(emotion, 0):.0%} read as {emotion}"]
    if figures["held_out"]:
        parts[-1] += f" (real ones: {figures['real_read_as'].get(emotion, 0):.0%})"
    if distance := figures["kernel_distance"]:
        made, noise = distance["made"], distance["noise"]
        parts.append(
            f"kernel distance {made['value']:.3f} +- {made['standard_error']:.3f} (noise: {noise['value']:.2f})"
        )
    parts.append(f"{figures['memorised']['by_looks']:.1%} nearer to a training face than all but 1% of new real ones")
    return ", ".join(parts)


class _Bar:
    """A rich progress bar on standard error; outside of a terminal, a plain line every 500 steps."""

    def __init__(self) -> None:
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
        self.task = self.progress.add_task("gan", total=None, figures="")

    def __enter__(self) -> "_Bar":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def __call__(self, record: dict[str, Any]) -> None:
        if "doing" in record:
            self._say(record["doing"], always=True)
            return
        losses = f"losses {record['loss']:.2f} / {record['critic_loss']:.2f}"
        figures = f"step {record['step']}  {losses}  {record['images_per_second']:.0f} images/s"
        self.progress.update(self.task, completed=record["step"], total=record["steps"])
        self._say(figures, always=record["step"] % 500 == 0 or record["step"] == record["steps"])

    def _say(self, figures: str, *, always: bool) -> None:
        self.progress.update(self.task, figures=figures)
        if always and not self.console.is_terminal:
            self.console.print(figures, highlight=False)
