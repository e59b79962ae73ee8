"""``mien train``: train a recipe, or all members of a family, and resume what was interrupted."""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien._errors import DivergedError
from mien._signals import exit_status
from mien.commands import _options
from mien.commands._progress import TrainingProgress
from mien.commands._terminal import echo

if TYPE_CHECKING:  # the lab is an extra
    from mien.lab.data import FaceSet
    from mien.lab.recipe import Recipe
    from mien.lab.train.devices import Devices
    from mien.lab.train.logging import EpochRecord, ExperimentLoggers


def train_command(
    recipe: _options.RecipeArgument,
    overrides: _options.OverridesArgument = None,
    data: _options.DataOption = None,
    out: _options.OutOption = None,
    seed: _options.SeedOption = None,
    device: _options.DeviceOption = "auto",
    threads: _options.LabThreadsOption = None,
    processes: Annotated[int, typer.Option(help="Processes on this machine; with cuda a GPU each.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Machines, each started by torchrun.", min=1)] = 1,
    time_limit: _options.TimeLimitOption = 0,
    skip_unreadable: _options.SkipUnreadableOption = False,
    folds: Annotated[
        int, typer.Option(help="Cross-validation: this many nets, each of which leaves out one part.", min=0)
    ] = 0,
    logger: Annotated[list[str] | None, typer.Option(help="Also log to tensorboard or mlflow; repeatable.")] = None,
) -> None:
    """Train RECIPE, or resume it from its last checkpoint; of a family, train all members one after another.

    Stops cleanly at --time-limit and at Ctrl-C. The same command resumes; finished runs are skipped. The folder of a
    run is runs/RECIPE/seed-SEED, or that of --out.
    """
    from mien.lab import recipe as recipes
    from mien.lab.recipe_summary import is_family
    from mien.lab.train.devices import Devices
    from mien.lab.train.logging import silence_lightning

    silence_lightning()
    names = recipes.members(recipe) if is_family(recipe) else (recipe,)
    changes = [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])]
    changes += ["data.skip_unreadable=true"] if skip_unreadable else []
    runs = []
    for each in (recipes.load(name, changes) for name in names):
        folder = out or Path("runs", each.name, f"{'folds-' if folds else ''}seed-{each.seed}")
        folder = folder / each.name.rpartition("/")[2] if out and len(names) > 1 else folder
        parts = recipes.fold_recipes(each, folds, public=True) if folds else []
        runs += [(part, folder / f"fold-{part.data.fold}") for part in parts] or [(each, folder)]
    with _options.lab_runtime(device, threads):
        _train_all(runs, data, Devices(device, processes, nodes), time_limit or math.inf, logger or ())


def _train_all(
    runs: Sequence[tuple["Recipe", Path]], data: Path | None, devices: "Devices", time_limit: float, log: Sequence[str]
) -> None:
    """Train the runs that are not finished; together they have ``time_limit`` seconds."""
    from mien.lab.data.datasets import DatasetCache
    from mien.lab.train.devices import NO_BF16
    from mien.lab.train.logging import ExperimentLoggers
    from mien.lab.train.run import is_finished

    started = time.monotonic()
    # Made for all runs before the first one is trained, so that a missing package is noticed now.
    loggers = [ExperimentLoggers(log, recipe, folder) for recipe, folder in runs]
    datasets, said = DatasetCache(data), set[str]()
    for (recipe, folder), logger in zip(runs, loggers, strict=True):
        faces = datasets(recipe)
        if is_finished(folder, recipe, faces.sha256):
            _print(f"{recipe.name}: finished already. {folder}")
            continue
        is_changed = devices.precision(recipe.train.precision) != recipe.train.precision
        for note in (faces.note, NO_BF16 if is_changed else ""):
            if note and note not in said:
                said.add(note)
                _print(note, error=True)
        remaining = time_limit - (time.monotonic() - started)
        if not _train_one(recipe, folder, faces, devices, remaining, logger):
            _print(f"{recipe.name}: stopped at the time limit; the same command resumes it. {folder}")
            return


def _train_one(
    recipe: "Recipe", folder: Path, faces: "FaceSet", devices: "Devices", time_limit: float, logger: "ExperimentLoggers"
) -> bool:
    """Train one run until it is finished or the time is over, and draw its curves. Returns whether it is finished."""
    from mien.lab.provenance import provenance
    from mien.lab.train.logging import epoch_of_result
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
                provenance=provenance(faces.sha256, faces.note),
                progress=progress,
                on_epoch=on_epoch,
            )
    except KeyboardInterrupt as stop:
        _print(f"{recipe.name}: stopped; the same command resumes after the last finished epoch. {folder}", error=True)
        _draw_curves(recipe, folder)
        raise typer.Exit(exit_status(stop)) from None
    except DivergedError:
        _draw_curves(recipe, folder)
        raise
    history = _draw_curves(recipe, folder)
    if logger.finished:
        result = epoch_of_result(recipe, history) if history else None
        validation = ""
        if result is not None and result.val_split:
            validation = f", {result.val_name} {result.val_accuracy:.2%} in epoch {result.epoch}"
        _print(f"{recipe.name}: finished{validation}. {folder}")
    return logger.finished


def _draw_curves(recipe: "Recipe", folder: Path) -> "list[EpochRecord]":
    """Draw the curves of a run, in the first process only. Returns its records."""
    from mien.lab.train.curves import draw_curves
    from mien.lab.train.devices import is_first_process
    from mien.lab.train.logging import read_log

    history = read_log(folder)
    if history and is_first_process():
        draw_curves(recipe, history, folder / "curves.png")
    return history


def _print(line: str, *, error: bool = False) -> None:
    from mien.lab.train.devices import is_first_process

    if is_first_process():
        echo(line, err=error)
