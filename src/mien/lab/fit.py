"""The training loop: one run of one recipe, from device-resident faces to averaged weights, resumable after any kill.

Every epoch starts from a seed made of the run's seed and the epoch's number alone, so a run that was killed and resumed from
its last checkpoint ends with the same weights as one that never stopped (on one CPU in fp32: to the bit).
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from mien._emotions import CLASS_SETS, Emotion
from mien._errors import DataError, MienError
from mien.lab import checkpoint, nets
from mien.lab.augment import augment, mixup
from mien.lab.average import Average
from mien.lab.data import FaceSet, Split, leaked_into_tests, with_classes
from mien.lab.recipe import Optimise, Recipe, dump, parse
from mien.lab.target import class_weights, soft_cross_entropy, targets

# Mean and standard deviation of the FER-2013 Training pixels in 0..1; fixed, so that every net shares one normalisation.
MEAN, STD = 0.508, 0.255
# Seconds between two checkpoints; an epoch on a fast device is shorter than writing one.
SAVE_EVERY = 30.0


def normalise(images: Tensor, size: int) -> Tensor:
    """float ``[N, 1, S, S]`` in 0..1 -> ``[N, 1, size, size]`` of mean 0, variance 1. Stands inside every exported graph, too."""
    if images.shape[-1] != size:
        images = F.interpolate(images, size=size, mode="bicubic", align_corners=False)
    return ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)


class DivergedError(MienError):
    """The loss is no longer a number."""


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


def fit(
    recipe: Recipe,
    faces: FaceSet,
    folder: Path,
    *,
    accelerator: str = "auto",
    time_limit: float = math.inf,
    provenance: dict[str, Any] | None = None,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
) -> bool:
    """Train ``recipe`` on ``faces`` in ``folder``, from its last checkpoint where there is one.

    Stops cleanly before ``time_limit`` seconds are over. ``report`` gets a record of every epoch and, within an epoch,
    of its progress. Returns whether the run is finished; then ``final.pt`` holds the averaged weights.
    Raises ``DivergedError`` when the loss is not finite (the last good checkpoint stays).
    """
    started = time.monotonic()
    fabric = Fabric(accelerator=accelerator, devices=1, precision=recipe.optimise.precision)  # type: ignore[arg-type]
    fabric.launch()
    if fabric.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    faces = with_classes(faces, recipe.data.classes)
    training, public = _training_rows(faces, recipe).to(fabric.device), faces.split(Split.PUBLIC_TEST).to(fabric.device)
    run = _start(recipe, folder, fabric)
    model, optimiser = fabric.setup(run.net, run.optimiser)
    teachers = [load_final(Path(t), fabric.device) for t in recipe.target.teachers]
    task = _Task(recipe, training, targets(training, recipe.target), class_weights(training, recipe.target.weights), teachers)
    saved = time.monotonic()
    longest = 0.0
    while not run.done and time.monotonic() - started + 1.2 * longest < time_limit:
        begun = time.monotonic()
        loss = _train_epoch(fabric, model, optimiser, run, task, report)
        run.epoch += 1
        longest = max(longest, time.monotonic() - begun)
        record = {"epoch": run.epoch, "loss": loss, **_validate(fabric, run, public)}
        record |= {"seconds": time.monotonic() - begun, "images_per_second": len(training) / (time.monotonic() - begun)}
        run.history.append(record)
        report(record)
        if run.done or time.monotonic() - saved > SAVE_EVERY:
            _save(run, provenance or {})
            saved = time.monotonic()
    _save(run, provenance or {})
    return run.done


@dataclass(frozen=True)
class Trained:
    """A finished run: its averaged net in eval mode, its recipe, classes, epochs' records and provenance."""

    net: nn.Module
    recipe: Recipe
    emotions: tuple[Emotion, ...]
    history: list[dict[str, Any]]
    provenance: dict[str, Any]


def load_final(folder: Path, device: torch.device | str = "cpu") -> Trained:
    """The finished run in ``folder``, its net on ``device``. Raises ``DataError`` where there is none."""
    state = checkpoint.load(folder / "final.pt")
    recipe = parse(state["recipe"], where=str(folder))
    net = _build(recipe).eval().requires_grad_(False)
    net.load_state_dict(state["net"])  # also from half precision, as small files store it
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(net, recipe, CLASS_SETS[recipe.data.classes], state["history"], state["provenance"])


@torch.no_grad()
def predict(net: nn.Module, images: Tensor, size: int, *, batch: int = 512) -> Tensor:
    """Logits float32 ``[N, C]`` of uint8 ``images`` ``[N, S, S]`` seen at ``size`` pixels, on the images' device."""
    parts = [net(normalise(part.unsqueeze(1).float() / 255, size)) for part in images.split(batch)]
    return torch.cat(parts).float()


@dataclass(frozen=True)
class _Task:
    recipe: Recipe
    training: FaceSet
    target: Tensor
    weights: Tensor
    teachers: list["Trained"]


def _training_rows(faces: FaceSet, recipe: Recipe) -> FaceSet:
    training = faces.usage == list(Split).index(Split.TRAINING)
    if recipe.data.exclude_leaked:
        training &= ~leaked_into_tests(faces)
    if not training.any():
        raise DataError(f"{faces.source}: no Training rows of the classes {recipe.data.classes!r}; check the Usage column")
    return faces.select(training)


def _build(recipe: Recipe) -> nn.Module:
    classes = len(CLASS_SETS[recipe.data.classes])
    return nets.build(recipe.net.name, channels=1, classes=classes, **recipe.net.options)


def _start(recipe: Recipe, folder: Path, fabric: Fabric) -> Run:
    """A new run, or the one that ``folder`` holds. A folder of another recipe is refused."""
    torch.manual_seed(recipe.seed)
    net = _build(recipe).to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run(recipe, folder, net, Average(net, recipe.optimise.ema), _optimiser(net, recipe.optimise))
    path = folder / "checkpoint.pt"
    if path.exists():
        state = checkpoint.load(path)
        if state["recipe"] != dump(recipe):
            raise DataError(f"{folder}: holds a run of another recipe or other options; name another --out or remove the folder")
        net.load_state_dict(state["net"])
        run.average.net.load_state_dict(state["average"])
        run.average.steps = state["steps"]
        run.optimiser.load_state_dict(state["optimiser"])
        run.epoch, run.history = state["epoch"], state["history"]
    return run


def _save(run: Run, provenance: dict[str, Any]) -> None:
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
    checkpoint.save_text(run.folder / "log.jsonl", "".join(json.dumps(record) + "\n" for record in run.history))
    if run.done:
        final = {"recipe": dump(run.recipe), "net": run.average.net.state_dict(), "history": run.history}
        checkpoint.save(run.folder / "final.pt", final | {"provenance": provenance})


def _optimiser(net: nn.Module, choice: Optimise) -> torch.optim.Optimizer:
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": choice.decay}, {"params": plain, "weight_decay": 0.0}]
    if choice.name == "adamw":
        return torch.optim.AdamW(groups, lr=choice.rate)
    return torch.optim.SGD(groups, lr=choice.rate, momentum=choice.momentum, nesterov=True)


def _rate(choice: Optimise, progress: float) -> float:
    """The learning rate at ``progress`` 0..1: linear warm-up, then half a cosine to zero."""
    if progress < choice.warmup:
        return choice.rate * progress / choice.warmup
    return choice.rate * 0.5 * (1 + math.cos(math.pi * (progress - choice.warmup) / (1 - choice.warmup)))


def _train_epoch(
    fabric: Fabric,
    model: Any,
    optimiser: Any,
    run: Run,
    task: _Task,
    report: Callable[[dict[str, Any]], None],
) -> float:
    recipe, choice = run.recipe, run.recipe.optimise
    seed = recipe.seed * 1_000_003 + run.epoch
    torch.manual_seed(seed)  # dropout draws from the global generator
    generator = torch.Generator(fabric.device).manual_seed(seed)
    model.train()
    losses = []
    steps = len(task.training) // choice.batch
    for step, (x, target) in enumerate(_batches(task, generator, fabric)):
        rate = _rate(choice, (run.epoch + (step + 0.5) / steps) / choice.epochs)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = soft_cross_entropy(model(x), target, task.weights)
        optimiser.zero_grad()
        fabric.backward(loss)
        if choice.clip > 0:
            fabric.clip_gradients(model, optimiser, max_norm=choice.clip)
        optimiser.step()
        run.average.update(run.net)
        losses.append(loss.detach())
        if step % 20 == 0:
            report({"step": run.epoch * steps + step, "steps": steps * choice.epochs})
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise DivergedError(f"the loss is {mean} in epoch {run.epoch + 1}; lower optimise.rate (the last good checkpoint is kept)")
    return mean


def _batches(task: _Task, generator: torch.Generator, fabric: Fabric) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented, normalised batches and their targets; the last incomplete batch is left out."""
    recipe, size = task.recipe, task.recipe.optimise.batch
    order = torch.randperm(len(task.training), device=fabric.device, generator=generator)
    for rows in order[: len(order) // size * size].split(size):
        x = augment(task.training.images[rows], recipe.augment, generator)
        x, target = mixup(x, task.target[rows], recipe.augment.mixup, generator)
        if task.teachers:
            target = target * (1 - recipe.target.teach) + recipe.target.teach * _taught(task, x, fabric)
        yield normalise(x, recipe.data.size), target


@torch.no_grad()
def _taught(task: _Task, x: Tensor, fabric: Fabric) -> Tensor:
    """The teachers' mean probability on the very views that the student sees (Beyer et al., CVPR 2022)."""
    with fabric.autocast():
        logits = [t.net(normalise(x, t.recipe.data.size)).float() for t in task.teachers]
    answers = [F.softmax(each / task.recipe.target.temperature, dim=1) for each in logits]
    return torch.stack(answers).mean(0)


def _validate(fabric: Fabric, run: Run, public: FaceSet) -> dict[str, float]:
    if len(public) == 0:
        return {}
    with fabric.autocast():
        logits = predict(run.average.net, public.images, run.recipe.data.size)
    right = (logits.argmax(1) == public.labels).float().mean()
    return {"public_accuracy": float(right), "public_log_loss": float(F.cross_entropy(logits, public.labels))}
