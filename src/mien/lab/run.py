"""A run on disk: what a training holds between two epochs, and the trained net it ends as.

``checkpoint.pt`` is all that the next epoch needs, ``log.jsonl`` one record an epoch, ``recipe.json`` the resolved
recipe, ``final.pt`` the averaged net
once the last epoch is trained.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien._emotions import CLASS_SETS, Emotion
from mien._errors import DataError
from mien.lab import checkpoint, nets
from mien.lab.average import Average
from mien.lab.recipe import Optimise, Recipe, dump, parse


@dataclass
class Run:
    """The moving parts of a training."""

    recipe: Recipe
    folder: Path
    net: nn.Module
    average: Average
    optimiser: torch.optim.Optimizer
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether the last epoch has been trained."""
        return self.epoch >= self.recipe.optimise.epochs


@dataclass(frozen=True)
class Trained:
    """A finished run: its averaged net in eval mode, its recipe, classes, epochs' records and provenance."""

    net: nn.Module
    recipe: Recipe
    emotions: tuple[Emotion, ...]
    history: list[dict[str, Any]]
    provenance: dict[str, Any]


def open_run(recipe: Recipe, folder: Path, device: torch.device) -> Run:
    """A new run of ``recipe``, or the one in ``folder``. Raises ``DataError`` for a folder of another recipe."""
    torch.manual_seed(recipe.seed)
    net = build(recipe).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run(recipe, folder, net, Average(net, recipe.optimise.ema), _optimiser(net, recipe.optimise))
    path = folder / "checkpoint.pt"
    if path.exists():
        state = checkpoint.load(path)
        if parse(state["recipe"] | {"about": recipe.about}, where=str(folder)) != recipe:
            cure = "name another --out, or remove the folder to start again"
            raise DataError(f"{folder}: holds a run of another recipe, seed or options; {cure}")
        net.load_state_dict(state["net"])
        run.average.net.load_state_dict(state["average"])
        run.average.steps = state["steps"]
        run.optimiser.load_state_dict(state["optimiser"])
        run.epoch, run.history = state["epoch"], state["history"]
    # The resolved recipe, for people; and a folder that cannot be written shows before the first epoch is lost.
    checkpoint.save_text(folder / "recipe.json", json.dumps(dump(recipe), indent=1) + "\n")
    return run


def save_run(run: Run, provenance: dict[str, Any]) -> None:
    """Write the checkpoint and the log, and ``final.pt`` when the run is done. Raises ``OutputError``."""
    state = {
        "recipe": dump(run.recipe),
        "net": run.net.state_dict(),
        "average": run.average.net.state_dict(),
        "steps": run.average.steps,
        "optimiser": run.optimiser.state_dict(),
        "epoch": run.epoch,
        "history": run.history,
    }
    checkpoint.save(run.folder / "checkpoint.pt", state)
    lines = "".join(json.dumps(record) + "\n" for record in run.history)
    checkpoint.save_text(run.folder / "log.jsonl", lines)
    if run.done:
        final = {"recipe": dump(run.recipe), "net": run.average.net.state_dict(), "history": run.history}
        final["provenance"] = provenance
        checkpoint.save(run.folder / "final.pt", final)


def load_final(folder: Path, device: torch.device | str = "cpu") -> Trained:
    """The finished run in ``folder``, its net on ``device``. Raises ``DataError`` where there is none."""
    state = checkpoint.load(folder / "final.pt")
    recipe = parse(state["recipe"], where=str(folder))
    net = build(recipe).eval().requires_grad_(False)
    net.load_state_dict(state["net"])  # also from half precision, as small files store it
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(net, recipe, CLASS_SETS[recipe.data.classes], state["history"], state["provenance"])


def build(recipe: Recipe) -> nn.Module:
    """The recipe's net for grey crops and its class set, with random weights."""
    classes = len(CLASS_SETS[recipe.data.classes])
    return nets.build(recipe.net.name, channels=1, classes=classes, **recipe.net.options)


def _optimiser(net: nn.Module, choice: Optimise) -> torch.optim.Optimizer:
    """Weight decay on convolution and linear weights alone: norms and biases are vectors."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": choice.decay}, {"params": plain, "weight_decay": 0.0}]
    if choice.name == "adamw":
        return torch.optim.AdamW(groups, lr=choice.rate)
    return torch.optim.SGD(groups, lr=choice.rate, momentum=choice.momentum, nesterov=True)
