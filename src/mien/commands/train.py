"""``mien train``: train a recipe, or all members of a family, and resume what was interrupted."""

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.commands import _options
from mien.commands._extra import needs_lab

if TYPE_CHECKING:  # the lab is an extra
    from mien.lab.data import FaceSet
    from mien.lab.recipe import Recipe
    from mien.lab.train.devices import Devices
    from mien.lab.train.logging import EpochRecord, ExperimentLoggers


def train_command(
    recipe: Annotated[
        str,
        typer.Argument(help="A shipped recipe (`mien recipes`), FAMILY, FAMILY/MEMBER or the path of a .toml file."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes: section.key=value, as in train.epochs=40.")
    ] = None,
    data: _options.DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/RECIPE/seed-SEED.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order and augmentation; default: the recipe's, else 0.")
    ] = None,
    accelerator: _options.AcceleratorOption = "auto",
    devices: Annotated[int, typer.Option(help="Processes or GPUs on this machine.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Machines, each started by torchrun.", min=1)] = 1,
    time_limit: _options.TimeLimitOption = 0,
    log: Annotated[
        list[str] | None, typer.Option(help="Log to tensorboard or mlflow, too; may be given for both.")
    ] = None,
) -> None:
    """Train RECIPE, or resume it from its last checkpoint; of a family, train all members one after another.

    Stops cleanly at --time-limit and at Ctrl-C. The same command resumes; finished runs are skipped.
    """
    with needs_lab():
        from mien.lab import recipe as recipes
        from mien.lab.recipe_summary import is_family
        from mien.lab.train.devices import Devices
        from mien.lab.train.logging import silence_lightning
    silence_lightning()
    names = recipes.members(recipe) if is_family(recipe) else (recipe,)
    changes = [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])]
    chosen = [recipes.load(name, changes) for name in names]
    runs = [(each, run_folder(each, out, several=len(names) > 1)) for each in chosen]
    _train_all(runs, data, Devices(accelerator, devices, nodes), time_limit or math.inf, log or ())


def run_folder(recipe: "Recipe", out: Path | None, *, several: bool) -> Path:
    """The folder of a run: ``out``, or where there are several runs, a folder for each in ``out``."""
    if out is None:
        return Path("runs", recipe.name, f"seed-{recipe.seed}")
    return Path(out, recipe.name.rpartition("/")[2]) if several else out


def _train_all(
    runs: Sequence[tuple["Recipe", Path]], data: Path | None, devices: "Devices", time_limit: float, log: Sequence[str]
) -> None:
    """Train what is not finished; the time limit is that of all together."""
    import time

    from mien.lab.data.datasets import DatasetCache
    from mien.lab.train.logging import ExperimentLoggers
    from mien.lab.train.run import is_finished

    started = time.monotonic()
    # Made for all runs before the first one is trained, so that a missing package is noticed now.
    loggers = [ExperimentLoggers(log, recipe, folder) for recipe, folder in runs]
    datasets, noted = DatasetCache(data), ""
    for (recipe, folder), logger in zip(runs, loggers, strict=True):
        faces = datasets(recipe)
        if is_finished(folder, recipe, faces.sha256):
            _print(f"{recipe.name}: finished already. {folder}")
            continue
        if faces.note and faces.note != noted:
            noted = faces.note
            _print(noted, error=True)
        left = time_limit - (time.monotonic() - started)
        if not _train_one(recipe, folder, faces, devices, left, logger):
            _print(f"{recipe.name}: stopped at the time limit; the same command resumes it. {folder}")
            return


def _train_one(
    recipe: "Recipe",
    folder: Path,
    faces: "FaceSet",
    devices: "Devices",
    time_limit: float,
    logger: "ExperimentLoggers",
) -> bool:
    """Train one run until it is finished or the time is over, and draw its curves. Returns whether it is finished."""
    from mien._errors import DivergedError
    from mien.commands._progress import TrainingProgress
    from mien.lab.provenance import provenance
    from mien.lab.train.loop import fit

    try:
        with closing(logger), TrainingProgress(recipe.name) as progress:

            def on_epoch(record: "EpochRecord") -> None:
                progress.on_epoch(record)
                logger.on_epoch(record)

            logger.finished = fit(
                recipe,
                faces,
                folder,
                devices=devices,
                time_limit=time_limit,
                provenance=provenance(faces.sha256),
                progress=progress,
                on_epoch=on_epoch,
            )
    except KeyboardInterrupt:
        _print(f"{recipe.name}: stopped; the same command resumes after the last finished epoch. {folder}", error=True)
        _draw_curves(recipe, folder)
        raise typer.Exit(130) from None
    except DivergedError:
        _draw_curves(recipe, folder)
        raise
    _draw_curves(recipe, folder)
    if logger.finished:
        _print(f"{recipe.name}: finished{_validation(recipe, folder)}. {folder}")
    return logger.finished


def _draw_curves(recipe: "Recipe", folder: Path) -> None:
    from mien.lab.train.curves import draw_curves
    from mien.lab.train.devices import is_first_process
    from mien.lab.train.logging import read_log

    history = read_log(folder) if is_first_process() else []
    if history:
        draw_curves(recipe, history, folder / "curves.png")


def _validation(recipe: "Recipe", folder: Path) -> str:
    """The validation accuracy of the epoch that is the result."""
    from mien.lab.train.logging import epoch_of_result, read_log

    history = read_log(folder)
    record = epoch_of_result(recipe, history) if history else None
    if record is None or not record.val_split:
        return ""
    return f", {record.val_name} {record.val_accuracy:.2%} in epoch {record.epoch}"


def _print(line: str, *, error: bool = False) -> None:
    from mien.lab.train.devices import is_first_process

    if is_first_process():
        typer.echo(line, err=error)
