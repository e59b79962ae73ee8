"""The training loop: one run of one recipe, from device-resident faces to averaged weights, resumable after any kill.

Every epoch starts from a seed made of the run's seed and the epoch's number alone, so a run that was killed and
resumed from its last checkpoint ends with the same weights as one that never stopped (on one CPU in fp32: to the
bit).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from mien._errors import DataError, DivergedError, RecipeError
from mien.lab.data import FaceSet
from mien.lab.data.sampling import epoch_length, row_weights
from mien.lab.data.selection import training_rows, validation_name, validation_rows
from mien.lab.data.targets import class_weights, targets
from mien.lab.inference import predict_tta
from mien.lab.recipe import Recipe, TrainConfig
from mien.lab.train.batches import View, batches, share
from mien.lab.train.checkpoint import Saver
from mien.lab.train.devices import Devices, agree, end_all
from mien.lab.train.distillation import Teachers
from mien.lab.train.optim import set_rate
from mien.lab.train.run import Run, fall_back, open_run, remember_best, start_leg
from mien.lab.train.schedule import choices, plateau, rate_scale, set_mode, stages

__all__ = ["Devices", "Report", "fit"]


def take_step(fabric: Fabric, model: Any, optimiser: Any, view: View, choice: TrainConfig) -> Tensor:
    """Move ``model`` by one step on ``view``; returns mean loss, share of right answers, and if it was clipped."""
    optimiser.zero_grad()
    parts = [
        View(*part) for part in zip(*(torch.chunk(column, choice.accumulate_steps) for column in view), strict=True)
    ]
    figures = _gradients(fabric, model, parts)
    clipped = torch.zeros((), device=fabric.device)
    if choice.clip_grad > 0:
        # A norm that is not finite shows at the end of the epoch, where a fallback may catch it.
        norm = fabric.clip_gradients(model, optimiser, max_norm=choice.clip_grad, error_if_nonfinite=False)
        assert norm is not None  # of the gradients as they were
        clipped = (norm > choice.clip_grad).float()
    optimiser.step()
    return torch.cat([figures, clipped[None]])


def _gradients(fabric: Fabric, model: Any, parts: list[View]) -> Tensor:
    """Add the gradients of the mean loss over ``parts``; that loss and the share of right answers."""
    figures = []
    for i, part in enumerate(parts):
        with fabric.no_backward_sync(model, enabled=i < len(parts) - 1):
            loss, logits = model(*part)
            fabric.backward(loss / len(parts))
        right = (logits.argmax(1) == part.target.argmax(1)).float().mean()
        figures.append(torch.stack([loss.detach().float(), right]))
    return torch.stack(figures).mean(0)


Report = Callable[[dict[str, Any]], None]


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
    report: Report | None  # of the first process alone

    def steps(self, batch: int) -> int:
        """Steps an epoch; the last incomplete batch is left out."""
        return epoch_length(self.row_weights) // batch


def prepare(recipe: Recipe, faces: FaceSet, fabric: Fabric, report: Report | None) -> Task:
    """The task of ``recipe`` on ``faces``. Raises ``RecipeError`` and ``DataError`` for what cannot go well."""
    training = training_rows(faces, recipe).to(fabric.device)
    teachers = Teachers(recipe.target, fabric, training.emotions)
    task = Task(
        recipe=recipe,
        fabric=fabric,
        training=training,
        target=teachers.add_cached(targets(training, recipe.target), training),
        row_weights=row_weights(training, recipe),
        teachers=teachers,
        validation=validation_rows(faces, recipe).to(fabric.device),
        report=report,
    )
    _check(task)
    return task


def _check(task: Task) -> None:
    """What would otherwise show in the middle of a training."""
    course, world = choices(stages(task.recipe)), task.fabric.world_size
    for choice in course:
        if choice.batch_size % (world * choice.accumulate_steps):
            parts = f"{world * choice.accumulate_steps}: devices x accumulate"
            raise RecipeError(f"train.batch_size ({choice.batch_size}) must be a multiple of {parts}")
        if task.steps(choice.batch_size) == 0:
            length = epoch_length(task.row_weights)
            raise DataError(f"an epoch of {length} faces makes no batch of {choice.batch_size}; lower train.batch_size")
    if not len(task.validation) and (task.recipe.checkpoint == "best" or any(c.schedule == "plateau" for c in course)):
        raise DataError("there are no faces to validate on: set keep = 'last', and a schedule other than 'plateau'")


# Seconds between two reports of progress: each waits for the device.
REPORT_EVERY = 0.5


@dataclass
class _Clock:
    """Says when to stop: before an epoch that would end after ``limit`` seconds, going by the longest so far."""

    limit: float
    started: float = field(default_factory=time.monotonic)
    longest: float = 0.0

    def is_over(self) -> bool:
        return time.monotonic() - self.started + 1.2 * self.longest >= self.limit


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
    gets a record of every epoch and, within an epoch, of its progress; what it raises ends the run at once. Returns
    whether the run is finished; then ``final.pt`` holds the weights that are kept. Raises ``DivergedError`` when the
    loss is not finite; then, as when the user interrupts, a checkpoint of the last finished epoch stays.

    With several devices, every process calls this and gets the same answer; the first one alone reports and writes.
    """
    clock = _Clock(time_limit)
    fabric = (devices or Devices()).launch(recipe.train.precision)
    task = prepare(recipe, faces, fabric, report if fabric.is_global_zero else None)
    run = open_run(
        recipe,
        folder,
        fabric.device,
        class_weights(task.training, recipe.target),
        data=faces.sha256,
        sync_norms=fabric.world_size > 1 and fabric.device.type == "cuda",
    )
    _check_shared(fabric, run)
    with Saver(run, fabric, provenance or {}) as saver:
        while not run.done:
            if not _train_leg(task, run, saver, clock):
                return False
    return True


def _check_shared(fabric: Fabric, run: Run) -> None:
    first = fabric.broadcast(run.epoch)
    if run.epoch != first:
        raise DataError(f"{run.folder}: this machine does not see the run's files; name an --out that all machines see")


def _train_leg(task: Task, run: Run, saver: Saver, clock: _Clock) -> bool:
    """Train as long as one optimiser lives: a stage, or its fallback. Returns whether there was time enough."""
    optimiser = start_leg(run)
    leg = run.leg
    model, stepper = task.fabric.setup(run.objective, optimiser)
    while not run.done and run.leg == leg:
        if task.fabric.broadcast(clock.is_over()):
            saver.save()
            return False
        record = _epoch(task, run, model, stepper)
        clock.longest = max(clock.longest, record["seconds"])
        saver.epoch_is_over(optimiser)
        if task.report:
            task.report(record)
    return True


def _epoch(task: Task, run: Run, model: Any, optimiser: Any) -> dict[str, Any]:
    """Train and validate one epoch; returns its record, which is also the newest of the run's history."""
    begun, choice = time.monotonic(), run.choice
    figures = _train(task, run, model, optimiser)
    trained = time.monotonic() - begun
    run.average.settle()
    agree(task.fabric, (run.net, run.average.net))
    number = run.epoch + 1
    judged = number % task.recipe.validate_every == 0 or number == run.course[-1].last
    record = {"epoch": number, **figures, **(_validate(task, run.average.net) if judged else {})}
    record["seconds"] = time.monotonic() - begun
    record["images_per_second"] = task.steps(choice.batch_size) * choice.batch_size / trained
    _close_epoch(task, run, record)
    return record


def _close_epoch(task: Task, run: Run, record: dict[str, Any]) -> None:
    """Take the record into the run, and go back to the best epoch where the recipe says so."""
    choice = run.choice
    finite = math.isfinite(record["loss"]) and _is_finite(run.net)
    if not finite and not (choice.fallback and run.best):
        what = f"the loss is {record['loss']}" if not math.isfinite(record["loss"]) else "the weights are not finite"
        error = f"{what} in epoch {record['epoch']}; lower train.lr (the epochs before are kept)"
        end_all(task.fabric, DivergedError(error))
    run.history.append(record)
    over = bool(choice.fallback) and plateau(run.losses, choice)[1]
    run.epoch += 1
    if finite:
        remember_best(run)
    if not finite or (over and not run.done):
        fall_back(run)
        record["fallback"] = run.choice.optimizer


@torch.no_grad()
def _is_finite(net: nn.Module) -> bool:
    norms = torch.stack(torch._foreach_norm(list(net.parameters())))
    return bool(norms.isfinite().all())


def _train(task: Task, run: Run, model: Any, optimiser: Any) -> dict[str, float]:
    """One epoch of steps; its mean loss, its accuracy on the faces as they were shown, and its last rate.

    With clipping, the share of steps that were clipped, too: plain SGD that is clipped at every step learns at another
    rate than its recipe says, which Adam does not mind.
    """
    choice, losses = run.choice, run.losses
    steps = task.steps(choice.batch_size)
    generator = _seed(task, run.epoch)
    set_mode(run.net, run.stage.phase)
    kept: list[Tensor] = []
    told = -math.inf
    faces = (task.training, task.target, task.row_weights)
    views = batches(*faces, task.recipe, choice.batch_size, task.teachers, generator, size=run.stage.size)
    for step, view in enumerate(views):
        rate = choice.lr * rate_scale(choice, run.progress((step + 0.5) / steps), losses)
        set_rate(optimiser, rate)
        kept.append(take_step(task.fabric, model, optimiser, view, choice))
        run.average.update()
        if task.report and time.monotonic() - told >= REPORT_EVERY:
            task.report({**_progress(task, run, step), "loss": float(kept[-1][0])})
            told = time.monotonic()
    figures = task.fabric.all_reduce(torch.stack(kept).mean(0))
    assert isinstance(figures, Tensor)
    clipped = {"clipped": float(figures[2])} if choice.clip_grad > 0 else {}
    return {"loss": float(figures[0]), "accuracy": float(figures[1]), "rate": rate, **clipped}


def _seed(task: Task, epoch: int) -> Generator:
    """The generator of an epoch's views, one on all devices; dropout draws from the global one, different on each."""
    seed = task.recipe.seed * 1_000_003 + epoch
    torch.manual_seed(seed + task.fabric.global_rank * 1_000_000_007)
    return Generator(task.fabric.device).manual_seed(seed)


def _progress(task: Task, run: Run, step: int) -> dict[str, int]:
    """The steps of the whole training, and those that are taken."""
    lengths = [(stage.first, stage.last, task.steps(stage.train.batch_size)) for stage in run.course]
    before = sum(steps * (min(last, run.epoch) - first) for first, last, steps in lengths if first < run.epoch)
    return {"step": before + step + 1, "steps": sum(steps * (last - first) for first, last, steps in lengths)}


def _validate(task: Task, net: nn.Module) -> dict[str, float]:
    """Accuracy and log loss on the validation faces, each device computing its part."""
    faces, fabric = task.validation, task.fabric
    if len(faces) == 0:
        return {}
    part = share(fabric.global_rank, fabric.world_size, len(faces))
    with fabric.autocast():
        logits = predict_tta(net, faces.images[part], task.recipe.data.size, task.recipe.tta)
    right = (logits.argmax(1) == faces.labels[part]).float().sum()
    loss = F.cross_entropy(logits, faces.labels[part], reduction="sum")
    sums = fabric.all_reduce(torch.stack([right, loss]), reduce_op="sum")
    accuracy, log_loss = (float(total) / len(faces) for total in sums)
    name = validation_name(task.recipe)
    return {f"{name}_accuracy": accuracy, f"{name}_log_loss": log_loss}
