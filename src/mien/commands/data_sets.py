"""``mien prepare`` and ``mien synthesize``: data sets for training, from public sets and from a generator."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.commands import _options
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import echo


def prepare_command(
    name: Annotated[str, typer.Argument(metavar="SET", help="rafdb, affectnet, ckplus, jaffe, kdef or expw.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of the unpacked set; nothing in it changes.")
    ],
    out: _options.RequiredOutOption,
    crop: Annotated[
        bool, typer.Option("--crop", help="Detect the face in each image and crop it as FER-2013 does; expw always.")
    ] = False,
) -> None:
    """Write a table of the faces of a public data set, for --data of the other commands.

    OUT/faces.csv is the table, OUT/crops the faces that were cropped.
    """
    from mien.lab.data.public_sets import prepare_public_set
    from mien.lab.files import output_folder

    with output_folder(out):
        counts = prepare_public_set(name, folder, out, crop=crop)
    echo(", ".join(f"{label} {count:,}" for label, count in counts.items()))
    echo(str(out / "faces.csv"))


def synthesize_command(
    emotions: Annotated[
        list[str], typer.Argument(help="Classes to generate faces of, as in disgust.", metavar="EMOTION")
    ],
    out: _options.RequiredOutOption,
    count: Annotated[int, typer.Option("-n", "--count", help="Faces of each class.", min=1)] = 2000,
    data: _options.DataOption = None,
    classes: Annotated[str, typer.Option(help="Class set that the GAN learns; eight adds contempt.")] = "seven",
    steps: Annotated[
        int, typer.Option(help="Training steps in all, 32 faces each; finished steps are not repeated.", min=1)
    ] = 20_000,
    seed: _options.SeedOption = None,
    device: _options.DeviceOption = "auto",
    train_precision: Annotated[
        str, typer.Option(help="bf16-mixed (fp32 on devices without bf16) or 32-true.")
    ] = "bf16-mixed",
    time_limit: _options.TimeLimitOption = 0,
    threads: _options.LabThreadsOption = None,
) -> None:
    """Train a small conditional GAN (or resume it) and generate faces of EMOTIONs for `data.extra` of a recipe.

    OUT/EMOTION/*.png are the faces. OUT/evaluation.json has their distance from real ones. OUT/contact.png shows them
    beside real faces of the data set: do not publish it.
    """
    from mien.lab.data.datasets import load_set
    from mien.lab.gan.synthesize import SynthesisOptions, choose_emotions, gan_recipe, synthesize
    from mien.lab.gan.train import GanConfig
    from mien.lab.provenance import provenance
    from mien.lab.train.devices import NO_BF16, Devices
    from mien.lab.train.logging import silence_lightning

    silence_lightning()
    recipe = gan_recipe(classes)
    chosen = choose_emotions(emotions, recipe)
    faces = load_set(data, recipe)
    if faces.note:
        echo(faces.note, err=True)
    precision = Devices(device).precision(train_precision)
    if precision != train_precision:
        echo(NO_BF16, err=True)
    options = SynthesisOptions(
        chosen,
        count,
        steps=steps,
        recipe=recipe,
        config=GanConfig(seed=seed or 0, precision=train_precision),
        time_limit=time_limit or math.inf,
        device=str(Devices(device).launch("32-true").device),
        threads=threads if threads is not None else 1,
    )
    with _options.lab_runtime(device, threads), TerminalProgress() as progress:
        origin = {**provenance(faces.sha256, faces.note), "train_precision": precision}
        evaluation = synthesize(options, faces, out, provenance=origin, progress=progress)
    if not evaluation:
        echo(f"stopped at the time limit; the same command resumes. {out}")
        return
    for emotion, metrics in evaluation["emotions"].items():
        echo(f"{emotion}: {_summary(emotion, metrics)}. {out / emotion}")


def _summary(emotion: str, metrics: dict[str, Any]) -> str:
    """The evaluation of one emotion in a line."""
    parts = [f"{metrics['made']:,} faces", f"{metrics['read_as'].get(emotion, 0):.0%} read as {emotion}"]
    if metrics["held_out"]:
        parts[-1] += f" (real ones: {metrics['real_read_as'].get(emotion, 0):.0%})"
    if distance := metrics["kernel_distance"]:
        made, noise = distance["made"], distance["noise"]
        parts.append(
            f"kernel distance {made['value']:.3f} +- {made['standard_error']:.3f} (noise: {noise['value']:.2f})"
        )
    parts.append(f"{metrics['memorised']['by_appearance']:.1%} nearer to a training face than 99% of new real ones")
    return ", ".join(parts)
