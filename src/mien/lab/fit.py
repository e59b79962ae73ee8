"""The training loop: one run of one recipe, from device-resident faces to averaged weights, resumable after any kill.

Every epoch starts from a seed made of the run's seed and the epoch's number alone, so a run that was killed and
resumed from its last checkpoint ends with the same weights as one that never stopped (on one CPU in fp32: to the
bit).
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from mien._errors import DivergedError, RecipeError
from mien.lab import checkpoint
from mien.lab.course import plateau, rate_scale, set_mode
from mien.lab.data import FaceSet
from mien.lab.normalise import normalise
from mien.lab.optimiser import set_rate
from mien.lab.recipe import Recipe, dump
from mien.lab.rows import training_rows, validation_rows
from mien.lab.run import Run, fall_back, open_run, remember_best, save_run, start_leg
from mien.lab.sampling import epoch_length, row_weights
from mien.lab.target import class_weights, targets
from mien.lab.teachers import Teachers
from mien.lab.views import View, batches

# Seconds between two checkpoints; an epoch on a fast device is shorter than writing one.
SAVE_EVERY = 30.0
# Steps between two reports of progress.
REPORT_EVERY = 20

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Devices:
    """What trains: ``accelerator`` "cpu", "cuda", "mps" or "auto"; ``devices`` on each of ``nodes`` machines."""

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1

    def launch(self, precision: str) -> Fabric:
        """The Fabric of these devices, its other processes started."""
        several = self.devices * self.nodes > 1
        fabric = Fabric(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.nodes,
            strategy="ddp" if several else "auto",
            precision=precision,  # type: ignore[arg-type]
        )
        fabric.launch()
        if fabric.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        return fabric


@dataclass(frozen=True)
class Task:
    """What stays the same over all epochs; everything on one device."""

    recipe: Recipe
    fabric: Fabric
    training: FaceSet
    target: Tensor
    row_weights: Tensor
    teachers: Teachers
    validation: FaceSet
    report: Report

    def steps(self, batch: int) -> int:
        """Steps an epoch; the last incomplete batch is left out."""
        return epoch_length(self.row_weights) // batch


def fit(
    recipe: Recipe,
    faces: FaceSet,
    folder: Path,
    *,
    devices: Devices | None = None,
    time_limit: float = math.inf,
    provenance: dict[str, Any] | None = None,
    report: Report = lambda _: None,
) -> bool:
    """Train ``recipe`` on ``faces`` in ``folder``, from its last checkpoint where there is one.

    Stops cleanly before an epoch that would end after ``time_limit`` seconds, going by the longest so far. ``report``
    gets a record of every epoch and, within an epoch, of its progress. Returns whether the run is finished; then
    ``final.pt`` holds the weights that are kept. Raises ``DivergedError`` when the loss is not finite (the last good
    checkpoint stays).
    """
    started, longest = time.monotonic(), 0.0
    fabric = (devices or Devices()).launch(recipe.optimise.precision)
    task = _prepare(recipe, faces, fabric, report)
    run = open_run(recipe, folder, fabric.device, class_weights(task.training, recipe.target))
    saver = _Saver(run, fabric, provenance or {})
    while not run.done:
        leg, optimiser = run.leg, start_leg(run)
        model, stepper = fabric.setup(run.objective, optimiser)
        while not run.done and run.leg == leg:
            if fabric.broadcast(time.monotonic() - started + 1.2 * longest >= time_limit):
                saver.save(optimiser)
                return False
            record = _epoch(task, run, model, stepper)
            longest = max(longest, record["seconds"])
            report(record)
            saver.epoch_is_over(optimiser)
    return True


@torch.no_grad()
def predict(net: nn.Module, images: Tensor, size: int, *, batch: int = 512) -> Tensor:
    """Logits float32 ``[N, C]`` of uint8 ``images`` ``[N, S, S]`` seen at ``size`` pixels, on the images' device."""
    parts = [net(normalise(part.unsqueeze(1).float() / 255, size)) for part in torch.split(images, batch)]
    return torch.cat(parts).float()


class _Saver:
    """Writes checkpoints: by the first process, every ``SAVE_EVERY`` seconds and at the end."""

    def __init__(self, run: Run, fabric: Fabric, provenance: dict[str, Any]) -> None:
        self.run, self.fabric, self.provenance = run, fabric, provenance
        self.saved_at, self.unsaved = time.monotonic(), False
        if fabric.is_global_zero:
            # For people; and a folder that cannot be written shows before the first epoch is lost.
            checkpoint.save_text(run.folder / "recipe.json", json.dumps(dump(run.recipe), indent=1) + "\n")

    def epoch_is_over(self, optimiser: torch.optim.Optimizer) -> None:
        self.unsaved = True
        if self.run.done or time.monotonic() - self.saved_at > SAVE_EVERY:
            self.save(optimiser)

    def save(self, optimiser: torch.optim.Optimizer) -> None:
        if self.unsaved and self.fabric.is_global_zero:
            save_run(self.run, optimiser, self.provenance)
        self.saved_at, self.unsaved = time.monotonic(), False


def _prepare(recipe: Recipe, faces: FaceSet, fabric: Fabric, report: Report) -> Task:
    training = training_rows(faces, recipe).to(fabric.device)
    parts = fabric.world_size * recipe.optimise.accumulate
    if recipe.optimise.batch % parts:
        raise RecipeError(
            f"optimise.batch ({recipe.optimise.batch}) must be a multiple of {parts}: devices x accumulate"
        )
    return Task(
        recipe=recipe,
        fabric=fabric,
        training=training,
        target=targets(training, recipe.target),
        row_weights=row_weights(training, recipe),
        teachers=Teachers(recipe.target, fabric),
        validation=validation_rows(faces, recipe).to(fabric.device),
        report=report,
    )


def _epoch(task: Task, run: Run, model: Any, optimiser: Any) -> dict[str, Any]:
    """Train and validate one epoch; returns its record, which is also the newest of the run's history."""
    begun, choice = time.monotonic(), run.choice
    figures = _train(task, run, model, optimiser)
    trained = time.monotonic() - begun
    record = {"epoch": run.epoch + 1, **figures, **task.fabric.broadcast(_validate(task, run.average.net))}
    record["seconds"] = time.monotonic() - begun
    record["images_per_second"] = task.steps(choice.batch) * choice.batch / trained
    finite = math.isfinite(figures["loss"])
    waiting = bool(choice.fallback)
    if not finite and not (waiting and run.best):
        raise DivergedError(
            f"the loss is {figures['loss']} in epoch {run.epoch + 1}; lower optimise.rate (the last good checkpoint is "
            "kept)"
        )
    run.history.append(record)
    losses = run.losses
    run.epoch += 1
    if finite:
        remember_best(run)
    if waiting and not run.done and (not finite or plateau(losses, choice)[1]):
        fall_back(run)
        record["fallback"] = choice.fallback.get("name", choice.name)
    return record


def _train(task: Task, run: Run, model: Any, optimiser: Any) -> dict[str, float]:
    """One epoch of steps; its mean loss, its accuracy on the faces as they were shown, and its last rate."""
    choice, stage, losses = run.choice, run.stage, run.losses
    seed = task.recipe.seed * 1_000_003 + run.epoch
    torch.manual_seed(seed)  # dropout draws from the global generator
    generator = torch.Generator(task.fabric.device).manual_seed(seed)
    set_mode(run.net, stage.phase)
    steps = task.steps(choice.batch)
    kept: list[Tensor] = []
    views = batches(task.training, task.target, task.row_weights, task.recipe, choice.batch, task.teachers, generator)
    for step, view in enumerate(views):
        progress = (run.epoch - stage.first + (step + 0.5) / steps) / choice.epochs
        rate = choice.rate * rate_scale(choice, progress, losses)
        set_rate(optimiser, rate)
        kept.append(_step(task, model, optimiser, view, choice.accumulate, choice.clip))
        run.average.update(run.net)
        if step % REPORT_EVERY == 0:
            total = run.course[-1].last * steps
            task.report({"step": run.epoch * steps + step, "steps": total, "loss": float(kept[-1][0])})
    figures = task.fabric.all_reduce(torch.stack(kept).mean(0))
    assert isinstance(figures, Tensor)
    return {"loss": float(figures[0]), "accuracy": float(figures[1]), "rate": rate}


def _step(task: Task, model: Any, optimiser: Any, view: View, parts: int, clip: float) -> Tensor:
    """One step of the optimiser, its batch computed in ``parts``; the mean loss and the share of right answers."""
    optimiser.zero_grad()
    figures = []
    for i, part in enumerate(zip(*(torch.chunk(column, parts) for column in view), strict=True)):
        with task.fabric.no_backward_sync(model, enabled=i < parts - 1):
            loss, logits = model(*part)
            task.fabric.backward(loss / parts)
        right = (logits.argmax(1) == part[1].argmax(1)).float().mean()
        figures.append(torch.stack([loss.detach().float(), right]))
    if clip > 0:
        task.fabric.clip_gradients(model, optimiser, max_norm=clip)
    optimiser.step()
    return torch.stack(figures).mean(0)


def _validate(task: Task, net: nn.Module) -> dict[str, float]:
    if len(task.validation) == 0:
        return {}
    with task.fabric.autocast():
        logits = predict(net, task.validation.images, task.recipe.data.size)
    right = (logits.argmax(1) == task.validation.labels).float().mean()
    name = "fold" if task.recipe.data.folds else "public"
    loss = F.cross_entropy(logits, task.validation.labels)
    return {f"{name}_accuracy": float(right), f"{name}_log_loss": float(loss)}
