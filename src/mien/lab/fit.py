"""The training loop: one run of one recipe, from device-resident faces to averaged weights, resumable after any kill.

Every epoch starts from a seed made of the run's seed and the epoch's number alone, so a run that was killed and
resumed from its last checkpoint ends with the same weights as one that never stopped (on one CPU in fp32: to the
bit).
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from mien._errors import DataError, DivergedError
from mien.lab.augment import augment, mixup
from mien.lab.data import FaceSet, Split, leaked_into_tests, with_classes
from mien.lab.normalise import normalise
from mien.lab.recipe import Optimise, Recipe
from mien.lab.run import Run, Trained, load_final, open_run, save_run
from mien.lab.target import class_weights, soft_cross_entropy, targets

# Seconds between two checkpoints; an epoch on a fast device is shorter than writing one.
SAVE_EVERY = 30.0
# Steps between two reports of progress.
REPORT_EVERY = 20

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """What stays the same over all epochs; everything on one device."""

    recipe: Recipe
    fabric: Fabric
    training: FaceSet
    target: Tensor
    weights: Tensor
    teachers: list[Trained]
    public: FaceSet
    report: Report

    @property
    def steps(self) -> int:
        """Steps an epoch; the last incomplete batch is left out."""
        return len(self.training) // self.recipe.optimise.batch


def fit(
    recipe: Recipe,
    faces: FaceSet,
    folder: Path,
    *,
    accelerator: str = "auto",
    time_limit: float = math.inf,
    provenance: dict[str, Any] | None = None,
    report: Report = lambda _: None,
) -> bool:
    """Train ``recipe`` on ``faces`` in ``folder``, from its last checkpoint where there is one.

    Stops cleanly before an epoch that would end after ``time_limit`` seconds, going by the longest so far. ``report``
    gets a record of every epoch and, within an epoch, of its progress. Returns whether the run is finished; then
    ``final.pt`` holds the averaged weights. Raises ``DivergedError`` when the loss is not finite (the last good
    checkpoint stays).
    """
    started, saved, longest = time.monotonic(), time.monotonic(), 0.0
    task = _prepare(recipe, faces, accelerator, report)
    run = open_run(recipe, folder, task.fabric.device)
    model, optimiser = task.fabric.setup(run.net, run.optimiser)
    unsaved = False
    while not run.done and time.monotonic() - started + 1.2 * longest < time_limit:
        record = _epoch(task, run, model, optimiser)
        longest = max(longest, record["seconds"])
        report(record)
        unsaved = True
        if not run.done and time.monotonic() - saved > SAVE_EVERY:
            save_run(run, provenance or {})
            saved, unsaved = time.monotonic(), False
    if unsaved:
        save_run(run, provenance or {})
    return run.done


@torch.no_grad()
def predict(net: nn.Module, images: Tensor, size: int, *, batch: int = 512) -> Tensor:
    """Logits float32 ``[N, C]`` of uint8 ``images`` ``[N, S, S]`` seen at ``size`` pixels, on the images' device."""
    parts = [net(normalise(part.unsqueeze(1).float() / 255, size)) for part in torch.split(images, batch)]
    return torch.cat(parts).float()


def training_rows(faces: FaceSet, recipe: Recipe) -> FaceSet:
    """The Training rows that the recipe learns from, in its classes. Raises ``DataError`` when they make no batch."""
    chosen = faces.usage == list(Split).index(Split.TRAINING)
    if recipe.data.exclude_leaked:  # judged on the full set: a copy may hide behind a label outside of the class set
        chosen &= ~leaked_into_tests(faces)
    training = with_classes(faces.select(chosen), recipe.data.classes)
    if len(training) < recipe.optimise.batch:
        cure = "lower optimise.batch or check the Usage column"
        raise DataError(
            f"{faces.source}: {len(training)} Training rows make no batch of {recipe.optimise.batch}; {cure}"
        )
    return training


def _prepare(recipe: Recipe, faces: FaceSet, accelerator: str, report: Report) -> Task:
    fabric = Fabric(accelerator=accelerator, devices=1, precision=recipe.optimise.precision)  # type: ignore[arg-type]
    fabric.launch()
    if fabric.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    training = training_rows(faces, recipe).to(fabric.device)
    return Task(
        recipe=recipe,
        fabric=fabric,
        training=training,
        target=targets(training, recipe.target),
        weights=class_weights(training, recipe.target.weights),
        teachers=[load_final(Path(teacher), fabric.device) for teacher in recipe.target.teachers],
        public=with_classes(faces.split(Split.PUBLIC_TEST), recipe.data.classes).to(fabric.device),
        report=report,
    )


def _epoch(task: Task, run: Run, model: Any, optimiser: Any) -> dict[str, Any]:
    """Train and validate one epoch; returns its record, which is also the newest of the run's history."""
    begun = time.monotonic()
    loss = _train(task, run, model, optimiser)
    trained = time.monotonic() - begun
    run.epoch += 1
    record = {"epoch": run.epoch, "loss": loss, **_validate(task, run.average.net)}
    record["seconds"] = time.monotonic() - begun
    record["images_per_second"] = task.steps * task.recipe.optimise.batch / trained
    run.history.append(record)
    return record


def _train(task: Task, run: Run, model: Any, optimiser: Any) -> float:
    choice = task.recipe.optimise
    seed = task.recipe.seed * 1_000_003 + run.epoch
    torch.manual_seed(seed)  # dropout draws from the global generator
    generator = torch.Generator(task.fabric.device).manual_seed(seed)
    model.train()
    losses = []
    for step, (x, target) in enumerate(_batches(task, generator)):
        rate = learning_rate(choice, (run.epoch + (step + 0.5) / task.steps) / choice.epochs)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = soft_cross_entropy(model(x), target, task.weights)
        optimiser.zero_grad()
        task.fabric.backward(loss)
        if choice.clip > 0:
            task.fabric.clip_gradients(model, optimiser, max_norm=choice.clip)
        optimiser.step()
        run.average.update(run.net)
        losses.append(loss.detach())
        if step % REPORT_EVERY == 0:
            task.report({"step": run.epoch * task.steps + step, "steps": task.steps * choice.epochs})
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise DivergedError(
            f"the loss is {mean} in epoch {run.epoch + 1}; lower optimise.rate (the last good checkpoint is kept)"
        )
    return mean


def learning_rate(choice: Optimise, progress: float) -> float:
    """The learning rate at ``progress`` 0..1 of all steps: linear warm-up, then half a cosine to zero."""
    if progress < choice.warmup:
        return choice.rate * progress / choice.warmup
    return choice.rate * 0.5 * (1 + math.cos(math.pi * (progress - choice.warmup) / (1 - choice.warmup)))


def _batches(task: Task, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented, normalised batches and their targets, in an order drawn anew each epoch."""
    recipe, size = task.recipe, task.recipe.optimise.batch
    order = torch.randperm(len(task.training), device=task.fabric.device, generator=generator)
    for rows in torch.split(order[: task.steps * size], size):
        x = augment(task.training.images[rows], recipe.augment, generator)
        x, target = mixup(x, task.target[rows], recipe.augment.mixup, generator)
        if task.teachers:
            target = target * (1 - recipe.target.teach) + recipe.target.teach * _taught(task, x)
        yield normalise(x, recipe.data.size), target


@torch.no_grad()
def _taught(task: Task, x: Tensor) -> Tensor:
    """The teachers' mean probability on the very views that the student sees (Beyer et al., CVPR 2022)."""
    with task.fabric.autocast():
        logits = [t.net(normalise(x, t.recipe.data.size)).float() for t in task.teachers]
    answers = [F.softmax(each / task.recipe.target.temperature, dim=1) for each in logits]
    return torch.stack(answers).mean(0)


def _validate(task: Task, net: nn.Module) -> dict[str, float]:
    if len(task.public) == 0:
        return {}
    with task.fabric.autocast():
        logits = predict(net, task.public.images, task.recipe.data.size)
    right = (logits.argmax(1) == task.public.labels).float().mean()
    return {"public_accuracy": float(right), "public_log_loss": float(F.cross_entropy(logits, task.public.labels))}
