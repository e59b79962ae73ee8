"""A run on disk: what a training holds between two epochs, and the trained net it ends as.

``checkpoint.pt`` is all that the next epoch needs, ``log.jsonl`` one record an epoch, ``recipe.json`` the resolved
recipe, ``final.pt`` the net that is kept once the last epoch is trained.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien._emotions import Emotion, class_set
from mien._errors import DataError, RecipeError
from mien.lab import nets
from mien.lab.files import load_state
from mien.lab.pretrained import start
from mien.lab.recipe import Recipe, TrainConfig, parse
from mien.lab.train.losses import Objective
from mien.lab.train.optim import Average, build_optimiser
from mien.lab.train.schedule import Stage, freeze, stage_at, stages

State = dict[str, Any]


_NET = "net."  # what the names of the net's tensors begin with in an objective


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
    data: str = ""  # sha256 of the faces
    optimiser_state: State | None = None  # of a checkpoint, until ``start_leg`` takes it over
    optimiser_leg: tuple[int, int] = (0, -1)  # that the optimiser was built for; not ``leg`` once that leg is over

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
    def choice(self) -> TrainConfig:
        """The optimisation of this leg."""
        stage = self.stage
        return stage.train if self.leg[1] < 0 or stage.fallback is None else stage.fallback

    def progress(self, within: float) -> float:
        """How much of this leg is over, 0..1, at the share ``within`` of the next epoch."""
        first = max(self.leg)
        return (self.epoch - first + within) / (self.stage.last - first)

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
    names = (f"public_{figure}", f"fold_{figure}", f"leaky_{figure}")  # as rows.validation_name has them
    return float(next((record[name] for name in names if name in record), math.nan))


def open_run(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    weights: torch.Tensor,
    *,
    data: str = "",
    sync_norms: bool = False,
) -> Run:
    """A new run of ``recipe``, or the one in ``folder``.

    ``weights`` ``[C]`` are those of the classes, ``data`` the sha256 of the faces; ``sync_norms`` lets batch norms
    see the batch of all devices. Raises ``DataError`` for a folder of another recipe or other faces, ``RecipeError``
    for a stage that names modules which the net does not have, and for faces too small for the net.
    """
    course = stages(recipe)
    _check_sizes(recipe, course)
    torch.manual_seed(recipe.seed)
    emotions = class_set(recipe.data.classes)
    net, path = build(recipe), folder / "checkpoint.pt"
    if not path.exists():
        start(net, recipe, data=data)
    objective = Objective(net, recipe.loss, weights.cpu(), emotions=emotions)
    objective = objective.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if sync_norms:
        objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)  # type: ignore[no-untyped-call]
    run = Run(recipe, folder, objective, Average(objective.net, recipe.train.ema_decay), course, data=data)
    _check_course(run)
    if path.exists():
        _restore(run, load_state(path))
    return run


def start_leg(run: Run) -> torch.optim.Optimizer:
    """Freeze what the stage freezes and build its optimiser, with the state of the checkpoint where it is of this leg.

    Raises ``RecipeError`` for modules that the net does not have.
    """
    freeze(run.net, run.stage.phase.freeze)
    run.average.decay = run.choice.ema_decay
    optimiser = build_optimiser(run.objective, run.choice)
    run.optimiser_leg = run.leg
    if run.optimiser_state is not None:
        optimiser.load_state_dict(run.optimiser_state)
        run.optimiser_state = None
    return optimiser


def fall_back(run: Run) -> None:
    """Go back to the best epoch's weights; where the stage goes on, its fallback takes over."""
    run.objective.load_state_dict(run.best["objective"])
    run.average.net.load_state_dict(net_of(run.best["objective"]))
    if run.stage.first < run.epoch:  # else a new stage begins, with an optimisation of its own
        run.fallen = run.epoch


def remember_best(run: Run) -> None:
    """Keep the averaged weights of the last epoch when it is the best so far and somebody will ask for them."""
    asked = run.recipe.checkpoint == "best" or any(stage.fallback for stage in run.course)
    accuracy = validated(run.history[-1], "accuracy")
    if asked and accuracy > run.best.get("accuracy", -math.inf):
        state = run.objective.state_dict()  # what is learned beside the net has no average
        state |= {_NET + name: value for name, value in run.average.net.state_dict().items()}
        kept = {name: value.clone() for name, value in state.items()}
        run.best = {"accuracy": accuracy, "epoch": run.epoch, "objective": kept}


def load_final(folder: Path, device: torch.device | str = "cpu") -> Trained:
    """The finished run in ``folder``, its net on ``device``. Raises ``DataError`` where there is none."""
    state = load_state(folder / "final.pt")
    recipe = parse(state["recipe"], where=str(folder))
    net = build(recipe).eval().requires_grad_(False)
    net.load_state_dict(state["net"])  # also from half precision, as small files store it
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(net, recipe, class_set(recipe.data.classes), state["history"], state["provenance"])


def recalibrated(trained: Trained, calibration: str) -> Trained:
    """The run as if its recipe asked for this ``calibration``; "" leaves it.

    Raises ``RecipeError`` for an unknown one.
    """
    return replace(trained, recipe=replace(trained.recipe, calibration=calibration)) if calibration else trained


def build(recipe: Recipe) -> nets.Net:
    """The recipe's net for grey crops and its class set, with random weights.

    The options ``size`` and ``emotions`` of nets that have them follow the recipe's data, unless the recipe sets them.
    """
    name, emotions = recipe.net.name, class_set(recipe.data.classes)
    follow = {"size": recipe.data.size, "emotions": emotions}
    options = {key: value for key, value in follow.items() if key in nets.options(name)} | dict(recipe.net.options)
    return nets.build(name, channels=1, classes=len(emotions), **options)


def _check_sizes(recipe: Recipe, course: Sequence[Stage]) -> None:
    """Raises ``RecipeError`` where the net takes no faces of a size it is shown, found by a twin without storage."""
    with torch.device("meta"):
        net, sides = build(recipe).eval(), {recipe.data.size: "data.size"}
        for side, what in ({stage.size: "a phase's size" for stage in course} | sides).items():
            try:
                net(torch.empty(1, 1, side, side))
            except (RuntimeError, ArithmeticError) as error:
                cause = str(error).splitlines()[0]
                raise RecipeError(f"net {recipe.net.name!r} takes no faces of {what}={side}: {cause}") from error


def _check_course(run: Run) -> None:
    """What every stage names is there: else it would show after the epochs before it."""
    for stage in run.course:
        freeze(run.net, stage.phase.freeze)
        for choice in (stage.train, stage.fallback):
            if choice is not None:
                build_optimiser(run.objective, choice)


def _restore(run: Run, state: State) -> None:
    recipe, cure = run.recipe, "name another --out, or remove the folder to start again"
    if "objective" not in state:
        raise DataError(f"{run.folder}: holds a checkpoint of an older version of mien; {cure}")
    if not same_training(state["recipe"], recipe):
        raise DataError(f"{run.folder}: holds a run of another recipe, seed or options; {cure}")
    if state.get("data", run.data) != run.data:
        raise DataError(f"{run.folder}: holds a run on other faces (sha256 {state['data'][:12]}...); {cure}")
    run.objective.load_state_dict(state["objective"])
    run.average.net.load_state_dict(state["average"])
    run.average.steps = state["steps"]
    run.epoch, run.history = state["epoch"], state["history"]
    run.best, run.fallen = state["best"], state["fallen"]
    if state["leg"] == list(run.leg):
        run.optimiser_state = state["optimiser"]


def same_training(stored: State, recipe: Recipe) -> bool:
    """Whether a stored recipe trains as this one; what is said of it or done with the result may have changed."""
    changed = {"about": recipe.about, "claim": recipe.claim, "calibration": recipe.calibration}
    try:
        return parse(stored | changed, where="stored recipe") == recipe
    except RecipeError:  # of a version with other keys
        return False


def net_of(objective: State) -> State:
    """The net's part of an objective's state."""
    return {name.removeprefix(_NET): value for name, value in objective.items() if name.startswith(_NET)}


Record = dict[str, Any]


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of ``log.jsonl``, none where there is no log; NaN for what was not finite.

    Raises ``DataError`` where it is damaged.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        return []
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); remove it and run the same command again") from error
    return [{key: math.nan if value is None else value for key, value in record.items()} for record in records]


def kept_epoch(recipe: Recipe, history: Sequence[Record]) -> Record:
    """The record of the epoch whose weights are the result, as ``recipe.checkpoint`` says."""
    judged = [(validated(record, "accuracy"), record) for record in history]
    known = [pair for pair in judged if not math.isnan(pair[0])]
    if recipe.checkpoint == "best" and known:
        return max(known, key=lambda pair: pair[0])[1]  # the first of equals, as the run keeps it
    return history[-1]


def is_finished(folder: Path, recipe: Recipe, data: str) -> bool:
    """Whether ``folder`` holds the finished run of this very recipe.

    What does not concern the training may have changed since (``same_training``). ``data`` is the sha256 of the faces:
    a run on others is not this one.
    """
    path = folder / "recipe.json"
    if not (path.is_file() and (folder / "final.pt").is_file()):
        return False
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        final = torch.load(folder / "final.pt", map_location="cpu", weights_only=True, mmap=True)  # reads no weight
        same = final["provenance"].get("data_sha256", data) == data
        return same and same_training(stored, recipe)
    except Exception:  # damaged, or of another version: the checkpoint decides
        return False
