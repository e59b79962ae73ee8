"""A run on disk: what a training holds between two epochs, and the trained net it ends as.

``checkpoint.pt`` is all that the next epoch needs, ``log.jsonl`` one record an epoch, ``recipe.json`` the resolved
recipe, ``final.pt`` the net that is kept once the last epoch is trained.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien._emotions import CLASS_SETS, Emotion
from mien._errors import DataError
from mien.lab import checkpoint, nets
from mien.lab.average import Average
from mien.lab.course import Stage, changed, freeze, stage_at, stages
from mien.lab.objective import Objective
from mien.lab.optimiser import build_optimiser
from mien.lab.recipe import Optimise, Recipe, dump, parse

State = dict[str, Any]


@dataclass
class Run:
    """The moving parts of a training. ``objective.net`` is the net that learns, ``average.net`` the one that counts."""

    recipe: Recipe
    folder: Path
    objective: Objective
    average: Average
    course: tuple[Stage, ...]
    epoch: int = 0
    history: list[State] = field(default_factory=list)
    best: State = field(default_factory=dict)  # of the epoch with the highest validation accuracy, where it is needed
    fallen: int = -1  # the epoch at which a fallback took over, in the stage that this epoch belongs to
    optimiser_state: State | None = None  # of a checkpoint, until ``start_leg`` takes it over

    @property
    def net(self) -> nn.Module:
        """The net that learns."""
        return self.objective.net

    @property
    def done(self) -> bool:
        """Whether the last epoch has been trained."""
        return self.epoch >= self.course[-1].last

    @property
    def stage(self) -> Stage:
        """The stage of the next epoch."""
        return stage_at(self.course, self.epoch)

    @property
    def leg(self) -> tuple[int, int]:
        """What the optimiser lives for: the stage, and whether its fallback has taken over."""
        return self.stage.first, self.fallen if self.fallen >= self.stage.first else -1

    @property
    def choice(self) -> Optimise:
        """The optimisation of this leg."""
        stage = self.stage
        if self.leg[1] < 0:
            return stage.optimise
        return changed(self.recipe, stage.optimise, {**stage.optimise.fallback, "fallback": {}}, "fallback")

    @property
    def losses(self) -> list[float]:
        """Validation losses of the epochs of this leg so far."""
        records = self.history[max(self.leg) :]
        return [validated(record, "log_loss") for record in records]


@dataclass(frozen=True)
class Trained:
    """A finished run: the net it kept in eval mode, its recipe, classes, epochs' records and provenance."""

    net: nn.Module
    recipe: Recipe
    emotions: tuple[Emotion, ...]
    history: list[State]
    provenance: State


def validated(record: State, figure: str) -> float:
    """The ``accuracy`` or ``log_loss`` of an epoch on the faces that select, NaN where there were none."""
    return float(next((record[key] for key in (f"public_{figure}", f"fold_{figure}") if key in record), math.nan))


def open_run(recipe: Recipe, folder: Path, device: torch.device, weights: torch.Tensor) -> Run:
    """A new run of ``recipe``, or the one in ``folder``; ``weights`` ``[C]`` are those of the classes.

    Raises ``DataError`` for a folder of another recipe.
    """
    torch.manual_seed(recipe.seed)
    objective = Objective(build(recipe), recipe.loss, weights.cpu())
    objective = objective.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run(recipe, folder, objective, Average(objective.net, recipe.optimise.ema), stages(recipe))
    path = folder / "checkpoint.pt"
    if path.exists():
        _restore(run, checkpoint.load(path))
    return run


def start_leg(run: Run) -> torch.optim.Optimizer:
    """Freeze what the stage freezes and build its optimiser, with the state of the checkpoint where it is of this leg.

    Raises ``RecipeError`` for modules that the net does not have.
    """
    freeze(run.net, run.stage.phase.freeze)
    run.average.decay = run.choice.ema
    optimiser = build_optimiser(run.objective, run.choice)
    if run.optimiser_state is not None:
        optimiser.load_state_dict(run.optimiser_state)
        run.optimiser_state = None
    return optimiser


def fall_back(run: Run) -> None:
    """Go back to the best epoch's weights; the fallback of the stage takes over from there."""
    run.net.load_state_dict(run.best["net"])
    run.average.net.load_state_dict(run.best["net"])
    run.fallen = run.epoch


def remember_best(run: Run) -> None:
    """Keep the averaged weights of the last epoch when it is the best so far and somebody will ask for them."""
    asked = run.recipe.keep == "best" or any(stage.optimise.fallback for stage in run.course)
    accuracy = validated(run.history[-1], "accuracy")
    if asked and accuracy > run.best.get("accuracy", -math.inf):
        state = {key: value.clone() for key, value in run.average.net.state_dict().items()}
        run.best = {"accuracy": accuracy, "epoch": run.epoch, "net": state}


def save_run(run: Run, optimiser: torch.optim.Optimizer, provenance: State) -> None:
    """Write the checkpoint and the log, and ``final.pt`` when the run is done. Raises ``OutputError``."""
    state = {
        "recipe": dump(run.recipe),
        "objective": run.objective.state_dict(),
        "average": run.average.net.state_dict(),
        "steps": run.average.steps,
        "optimiser": optimiser.state_dict(),
        "leg": list(run.leg),
        "epoch": run.epoch,
        "history": run.history,
        "best": run.best,
        "fallen": run.fallen,
    }
    checkpoint.save(run.folder / "checkpoint.pt", state)
    lines = "".join(json.dumps(record) + "\n" for record in run.history)
    checkpoint.save_text(run.folder / "log.jsonl", lines)
    if run.done:
        kept = run.best["net"] if run.recipe.keep == "best" and run.best else run.average.net.state_dict()
        final = {"recipe": dump(run.recipe), "net": kept, "history": run.history, "provenance": provenance}
        checkpoint.save(run.folder / "final.pt", final)


def load_final(folder: Path, device: torch.device | str = "cpu") -> Trained:
    """The finished run in ``folder``, its net on ``device``. Raises ``DataError`` where there is none."""
    state = checkpoint.load(folder / "final.pt")
    recipe = parse(state["recipe"], where=str(folder))
    net = build(recipe).eval().requires_grad_(False)
    net.load_state_dict(state["net"])  # also from half precision, as small files store it
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(net, recipe, CLASS_SETS[recipe.data.classes], state["history"], state["provenance"])


def build(recipe: Recipe) -> nets.Net:
    """The recipe's net for grey crops and its class set, with random weights."""
    classes = len(CLASS_SETS[recipe.data.classes])
    return nets.build(recipe.net.name, channels=1, classes=classes, **recipe.net.options)


def _restore(run: Run, state: State) -> None:
    recipe, cure = run.recipe, "name another --out, or remove the folder to start again"
    if "objective" not in state:
        raise DataError(f"{run.folder}: holds a checkpoint of an older version of mien; {cure}")
    if parse(state["recipe"] | {"about": recipe.about}, where=str(run.folder)) != recipe:
        raise DataError(f"{run.folder}: holds a run of another recipe, seed or options; {cure}")
    run.objective.load_state_dict(state["objective"])
    run.average.net.load_state_dict(state["average"])
    run.average.steps = state["steps"]
    run.epoch, run.history = state["epoch"], state["history"]
    run.best, run.fallen = state["best"], state["fallen"]
    if state["leg"] == list(run.leg):
        run.optimiser_state = state["optimiser"]
