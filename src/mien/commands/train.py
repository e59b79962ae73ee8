"""``mien train``: one recipe, or all members of a family, each trained from where its folder stands."""

import math
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.commands import _options
from mien.commands._extra import needs_lab


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="A shipped recipe (`mien recipes`), FAMILY, FAMILY/MEMBER or the path of a .toml file."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes: section.key=value, as in train.epochs=40.")
    ] = None,
    data: _options.Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/RECIPE/seed-SEED.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order and augmentation; default: the recipe's, else 0.")
    ] = None,
    accelerator: _options.Accelerator = "auto",
    devices: Annotated[int, typer.Option(help="Processes or GPUs on this machine.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Machines, each started by torchrun.", min=1)] = 1,
    time_limit: _options.TimeLimit = 0,
    log: Annotated[
        list[str] | None, typer.Option(help="Log to tensorboard or mlflow, too; may be given for both.")
    ] = None,
) -> None:
    """Train RECIPE, or go on from its last checkpoint; of a family, all members one after another.

    Stops cleanly at --time-limit and at Ctrl-C; the same command resumes, and leaves alone what is finished.
    """
    with needs_lab():
        from mien.lab import recipe as recipes
        from mien.lab.recipe_summary import is_family
        from mien.lab.train.logging import silence_lightning
        from mien.lab.train.loop import Devices
    silence_lightning()
    names = recipes.members(recipe) if is_family(recipe) else (recipe,)
    changes = [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])]
    chosen = [recipes.load(name, changes) for name in names]
    runs = [(one, folder_of(one, out, several=len(names) > 1)) for one in chosen]
    _train_all(runs, data, Devices(accelerator, devices, nodes), time_limit or math.inf, log or ())


def folder_of(recipe: Any, out: Path | None, *, several: bool) -> Path:
    """Where a run lies: below ``out`` a folder a member, where there are several."""
    if out is None:
        return Path("runs", recipe.name, f"seed-{recipe.seed}")
    return Path(out, recipe.name.rpartition("/")[2]) if several else out


def _train_all(
    runs: Sequence[tuple[Any, Path]], data: Path | None, devices: Any, time_limit: float, log: Sequence[str]
) -> None:
    """Train what is not finished. The time limit is that of all together."""
    import time

    from mien.lab.data.datasets import DatasetCache
    from mien.lab.train.logging import Logs
    from mien.lab.train.run import is_finished

    started = time.monotonic()
    loggers = [Logs(log, recipe, folder) for recipe, folder in runs]  # a missing package shows before the first run
    cache, noted = DatasetCache(data), ""
    for (recipe, folder), logs in zip(runs, loggers, strict=True):
        faces = cache(recipe)
        if is_finished(folder, recipe, faces.sha256):
            _say(f"{recipe.name}: finished already. {folder}")
            continue
        if faces.note and faces.note != noted:
            noted = faces.note
            _say(noted, error=True)
        left = time_limit - (time.monotonic() - started)
        if not _train_one(recipe, folder, faces, devices, left, logs):  # `fit` lets all processes agree on the time
            _say(f"{recipe.name}: stopped at the time limit; the same command goes on. {folder}")
            return


def _train_one(recipe: Any, folder: Path, faces: Any, devices: Any, time_limit: float, logs: Any) -> bool:
    """One run, to its end or to the limit; its curves are drawn either way. Returns whether it is finished."""
    from mien._errors import DivergedError
    from mien.commands._progress import TrainingProgress
    from mien.lab.provenance import provenance
    from mien.lab.train.loop import fit

    origin, done = provenance(faces.sha256), False
    try:
        with closing(logs), TrainingProgress(recipe.name) as watch:
            report = partial(_tell_all, (watch, logs))
            done = fit(recipe, faces, folder, devices=devices, time_limit=time_limit, provenance=origin, report=report)
            logs.finished = done
    except KeyboardInterrupt:
        _say(f"{recipe.name}: stopped; the same command goes on after the last finished epoch. {folder}", error=True)
        _draw(recipe, folder)
        raise typer.Exit(130) from None
    except DivergedError:
        _draw(recipe, folder)
        raise
    _draw(recipe, folder)
    if done:
        _say(f"{recipe.name}: finished{_judged(recipe, folder)}. {folder}")
    return done


def _tell_all(listeners: Sequence[Any], record: dict[str, Any]) -> None:
    for listener in listeners:
        listener(record)


def _draw(recipe: Any, folder: Path) -> None:
    from mien.lab.train.curves import draw_curves
    from mien.lab.train.devices import is_first
    from mien.lab.train.run import read_log

    history = read_log(folder) if is_first() else []
    if history:
        draw_curves(recipe, history, folder / "curves.png")


def _judged(recipe: Any, folder: Path) -> str:
    """The validation accuracy of the epoch that was kept."""
    from mien.lab.train.run import kept_epoch, read_log, validated

    history = read_log(folder)
    if not history:
        return ""
    epoch = kept_epoch(recipe, history)
    accuracy = validated(epoch, "accuracy")
    split = next((name for name in ("fold", "leaky") if f"{name}_accuracy" in epoch), "PublicTest")
    return "" if math.isnan(accuracy) else f", {split} {accuracy:.2%} in epoch {epoch['epoch']}"


def _say(line: str, *, error: bool = False) -> None:
    from mien.lab.train.devices import is_first

    if is_first():
        typer.echo(line, err=error)
