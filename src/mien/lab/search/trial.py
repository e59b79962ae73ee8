"""One trial of a search: ask, train, tell."""

import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from mien._errors import DataError, DivergedError
from mien.lab.data import FaceSet
from mien.lab.feed.shelf import Shelf
from mien.lab.recipe import Recipe
from mien.lab.search.study import MADE, Event, Plan, Report, folder_of
from mien.lab.train.fit import Devices, fit
from mien.lab.train.history import kept_epoch, read_log
from mien.lab.train.run import validated


def make_trial(plan: Plan, study: Any, shelf: Shelf, report: Report, *, asking: Any = None) -> None:
    """One trial, from its question to its answer."""
    space = plan.space
    with asking or nullcontext():  # SQLite lets two workers take the same waiting trial
        trial = study.ask()
    values = space.suggest(trial)
    recipe, name = plan.chosen(values), folder_of(trial)
    trial.set_user_attr("folder", name)
    folder = plan.out / "trials" / name
    told = {"trial": trial.number, "params": values}
    started = time.monotonic()
    try:
        value = _train(plan, recipe, shelf(recipe), folder, trial, lambda event: report(told | event))
        study.tell(trial, value)
        state = "finished"
    except (optuna.TrialPruned, DivergedError) as error:
        study.tell(trial, state=TrialState.PRUNED)
        value, state = None, "diverged" if isinstance(error, DivergedError) else "pruned"
    except torch.OutOfMemoryError:
        study.tell(trial, state=TrialState.FAIL)
        value, state = None, "out of memory"
    for large in ("checkpoint.pt", "final.pt"):
        (folder / large).unlink(missing_ok=True)
    made = len(study.get_trials(states=MADE))
    report(told | {"state": state, "value": value, "seconds": time.monotonic() - started, "made": made})


def _train(plan: Plan, recipe: Recipe, faces: FaceSet, folder: Path, trial: Any, report: Report) -> float:
    """The figure of one training; raises ``TrialPruned`` as soon as it lags behind the others."""
    figure = plan.space.objective
    known: set[int] = set()
    if (folder / "checkpoint.pt").is_file():
        for record in read_log(folder):
            trial.report(validated(record, figure), record["epoch"])
            known.add(record["epoch"])
    else:
        shutil.rmtree(folder, ignore_errors=True)

    def take(record: Event) -> None:
        if "epoch" not in record:
            return
        value = validated(record, figure)
        if value != value:
            raise DataError(f"{faces.source}: no faces to validate on, so trials cannot be compared")
        report({"epoch": record["epoch"], "figure": value})
        if record["epoch"] not in known:
            trial.report(value, record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    fit(recipe, faces, folder, devices=Devices(plan.accelerator), report=take)
    return validated(kept_epoch(recipe, read_log(folder)), figure)
