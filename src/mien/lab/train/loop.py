"""The training loop: epochs, steps, validation, checkpoints, the best epoch, and the fallback when training fails.

The training faces and their targets are tensors on the device. The random numbers of an epoch depend only on the seed
of the run and the number of the epoch. So a run that was killed and resumed ends with the same weights as an
uninterrupted run (on one CPU in fp32: to the bit).
"""

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from mien._errors import DataError, DivergedError, RecipeError
from mien._progress import Progress, no_progress
from mien.lab.data import FaceSet
from mien.lab.data.selection import training_rows, validation_name, validation_rows
from mien.lab.data.weighting import class_weights, epoch_length, row_weights, targets
from mien.lab.files import output_folder, save_checkpoint, save_json, save_state
from mien.lab.inference import predict_tta
from mien.lab.recipe import Recipe, TrainConfig, dump
from mien.lab.recipe.load import differences, toml_value
from mien.lab.train.batches import Batch, batches, device_part
from mien.lab.train.devices import Devices, average_buffers, ending_with_others, require_same, run_on_first, stop_all
from mien.lab.train.distillation import Teachers
from mien.lab.train.logging import EpochRecord, write_log
from mien.lab.train.optim import set_lr
from mien.lab.train.run import Run, State, checkpoint_state, final_state, is_finished, open_run
from mien.lab.train.schedule import all_configs, build_schedule, lr_factor, plateau, set_train_mode

OnEpoch = Callable[[EpochRecord], None]

# Seconds between two reports of progress within an epoch; each report waits for the device.
PROGRESS_EVERY = 0.5
# Seconds between two checkpoints. On a fast device an epoch takes less time than writing a checkpoint.
SAVE_EVERY = 30.0


def ignore_epoch(_: EpochRecord) -> None:
    """Ignore the record of an epoch: the default of ``on_epoch``."""


@dataclass(frozen=True)
class TrainingTask:
    """The part of a training that stays the same in all epochs. Every tensor is on the device.

    Attributes:
        recipe: The recipe.
        fabric: The Fabric of this process.
        training: N training faces.
        target: float ``[N, C]``: their targets, including cached teachers.
        row_weights: float ``[N]``: how often each face is drawn in an epoch.
        teachers: The teachers of the recipe.
        validation: The validation faces.
        progress: Called with the number of finished steps.
    """

    recipe: Recipe
    fabric: Fabric
    training: FaceSet
    target: Tensor
    row_weights: Tensor
    teachers: Teachers
    validation: FaceSet
    progress: Progress = no_progress

    def steps_per_epoch(self, config: TrainConfig) -> int:
        """Return the number of full batches in an epoch.

        Args:
            config: Has the batch size.

        Returns:
            The number of batches.
        """
        return epoch_length(self.row_weights) // config.batch_size


def fit(
    recipe: Recipe,
    faces: FaceSet,
    folder: Path,
    *,
    devices: Devices | None = None,
    time_limit: float = math.inf,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
    on_epoch: OnEpoch = ignore_epoch,
) -> bool:
    """Train a recipe, or resume its training from the last checkpoint in the folder.

    With several devices, every process calls this and gets the same result. Only the first process reports and writes.

    Args:
        recipe: The recipe.
        faces: All splits of the data set.
        folder: Where the run is written; it need not exist.
        devices: The devices that train; default: one, chosen automatically.
        time_limit: Seconds. Training stops cleanly before an epoch that would probably end later.
        provenance: Written into ``final.pt``, with the precision in which this machine trains.
        progress: Called with the number of finished steps, at most twice a second.
        on_epoch: Called with the record of every epoch. An exception that it raises ends the training.

    Returns:
        Whether the training is finished; then ``final.pt`` holds the net.

    Raises:
        RecipeError: The recipe does not fit the net or the devices.
        DataError: There are too few faces, or the folder holds another run.
        DeviceError: The devices cannot be used, or another process has ended or does not answer.
        DivergedError: The loss or the weights are not finite. The folder holds a checkpoint of the epoch before.
        OutputError: The folder cannot be written, or another process writes to it.

    Example:
        >>> from mien.lab import recipe
        >>> from mien.lab.data.datasets import load_set
        >>> conv4 = recipe.load("conv4", ["train.epochs=1"])
        >>> fit(conv4, load_set(None, conv4), Path("runs/conv4"))  # doctest: +SKIP
        True
    """
    started, longest_epoch = time.monotonic(), 0.0
    devices = devices or Devices()
    fabric = devices.launch(recipe.train.precision)
    if not fabric.is_global_zero:
        progress, on_epoch = no_progress, ignore_epoch
    with ending_with_others(several=fabric.world_size > 1), ExitStack() as stack:
        settings = differences(recipe, Recipe(name="any", about="any"))
        named = {key: toml_value(value) for key, value in settings.items()}
        require_same(fabric, named | {"SHA-256 of the faces": faces.sha256})
        run_on_first(fabric, lambda: stack.enter_context(output_folder(folder)))
        task = prepare_training(recipe, faces, fabric, progress=progress)
        run = open_run(
            recipe,
            folder,
            device=fabric.device,
            class_weights=class_weights(task.training, recipe.target),
            data_sha256=faces.sha256,
            sync_norms=fabric.world_size > 1 and fabric.device.type == "cuda",
        )
        if run.epoch != fabric.broadcast(run.epoch):
            raise DataError(f"{folder}: this machine does not see the run; use a folder that all machines see")
        # A copy of the text: torch.save writes an object of the recipe once, which a resumed run would write twice.
        precision = devices.precision(recipe.train.precision).encode().decode()
        source = {**(provenance or {}), "train_precision": precision}
        writer = stack.enter_context(CheckpointWriter(run, fabric, source))
        while not run.is_done:
            optimizer = run.start_segment()
            model, fabric_optimizer = fabric.setup(run.objective, optimizer)
            while not run.is_done and run.segment.first == run.optimizer_epoch:
                if fabric.broadcast(time.monotonic() - started + 1.2 * longest_epoch >= time_limit):
                    writer.save()
                    return False
                record = run_epoch(task, run, model, fabric_optimizer)
                longest_epoch = max(longest_epoch, record.seconds)
                writer.finish_epoch(optimizer)
                on_epoch(record)
    return True


def prepare_training(
    recipe: Recipe, faces: FaceSet, fabric: Fabric, *, progress: Progress = no_progress
) -> TrainingTask:
    """Select the faces of a recipe, compute their targets, and check that the recipe can be trained on them.

    Args:
        recipe: The recipe.
        faces: All splits of the data set.
        fabric: A launched Fabric.
        progress: Called with the number of finished steps.

    Returns:
        The task, on the device of ``fabric``.

    Raises:
        RecipeError: The batch cannot be divided among the devices.
        DataError: There are too few faces, or none to validate on where the recipe needs them.
    """
    training = training_rows(faces, recipe).to(fabric.device)
    teachers = Teachers(recipe, fabric, training.emotions, data=training.sha256)
    task = TrainingTask(
        recipe=recipe,
        fabric=fabric,
        training=training,
        target=teachers.add_cached(targets(training, recipe.target), training),
        row_weights=row_weights(training, recipe),
        teachers=teachers,
        validation=validation_rows(faces, recipe).to(fabric.device),
        progress=progress,
    )
    configs = all_configs(build_schedule(recipe))
    for config in configs:
        parts = fabric.world_size * config.accumulate_steps
        if config.batch_size % parts:
            raise RecipeError(
                f"train.batch_size ({config.batch_size}) must be a multiple of {parts}: devices x accumulate_steps"
            )
        if task.steps_per_epoch(config) == 0:
            length = epoch_length(task.row_weights)
            raise DataError(f"an epoch of {length} faces makes no batch of {config.batch_size}; lower train.batch_size")
    needs_validation = recipe.checkpoint == "best" or any(c.schedule == "plateau" for c in configs)
    if not len(task.validation) and needs_validation:
        raise DataError("no faces to validate on: set checkpoint = 'last', and a schedule other than 'plateau'")
    return task


def run_epoch(task: TrainingTask, run: Run, model: _FabricModule, optimizer: _FabricOptimizer) -> EpochRecord:
    """Train one epoch, validate it if the recipe says so, and update the state of the run.

    Args:
        task: Faces and targets.
        run: The state; it is changed.
        model: The run's objective, set up by Fabric.
        optimizer: The optimizer of the run's segment, set up by Fabric.

    Returns:
        The record of the epoch, also appended to the history of the run.

    Raises:
        DivergedError: The loss or the weights are not finite, and the recipe has no fallback.
    """
    started, config = time.monotonic(), run.segment.config
    record = train_epoch(task, run, model, optimizer)
    seconds = time.monotonic() - started
    run.ema.finish_epoch()
    average_buffers(task.fabric, (run.net, run.ema.net))
    if record.epoch % task.recipe.validate_every == 0 or record.epoch == run.schedule[-1].last:
        record = validate(task, run.ema.net, record)
    record = replace(
        record,
        seconds=time.monotonic() - started,
        images_per_second=task.steps_per_epoch(config) * config.batch_size / seconds,
    )
    return _finish_epoch(task, run, record)


def train_epoch(task: TrainingTask, run: Run, model: _FabricModule, optimizer: _FabricOptimizer) -> EpochRecord:
    """Take the steps of one epoch.

    The record holds the share of clipped steps. If plain SGD clips every step, its learning rate is lower in effect
    than the recipe says.

    Args:
        task: Faces and targets.
        run: The state; its weights and their average are changed.
        model: The run's objective, set up by Fabric.
        optimizer: The optimizer of the run's segment, set up by Fabric.

    Returns:
        The record without validation metrics and speed.
    """
    segment, losses = run.segment, run.losses
    config, steps = segment.config, task.steps_per_epoch(segment.config)
    # Batches are drawn alike on all devices; dropout differs between devices.
    seed = task.recipe.seed * 1_000_003 + run.epoch
    torch.manual_seed(seed + task.fabric.global_rank * 1_000_000_007)
    generator = Generator(task.fabric.device).manual_seed(seed)
    set_train_mode(run.net, segment.phase)
    metrics: list[Tensor] = []
    reported_at = -math.inf
    epoch_batches = batches(
        task.training,
        task.target,
        row_weights=task.row_weights,
        recipe=task.recipe,
        batch_size=config.batch_size,
        teachers=task.teachers,
        generator=generator,
        size=segment.size,
    )
    for step, batch in enumerate(epoch_batches):
        lr = config.lr * lr_factor(config, run.progress((step + 0.5) / steps), losses)
        set_lr(optimizer, lr)
        metrics.append(train_step(task.fabric, model, optimizer, batch, config))
        run.ema.update()
        if task.progress is not no_progress and time.monotonic() - reported_at >= PROGRESS_EVERY:
            task.progress(f"loss {float(metrics[-1][0]):.3f}", *_steps_done(task, run, step))
            reported_at = time.monotonic()
    means = task.fabric.all_reduce(torch.stack(metrics).mean(0))
    assert isinstance(means, Tensor)
    loss, accuracy, clipped = means.tolist()
    clipped = clipped if config.clip_grad > 0 else math.nan
    size = 0 if segment.size == task.recipe.data.size else segment.size
    return EpochRecord(epoch=run.epoch + 1, loss=loss, accuracy=accuracy, lr=lr, clipped=clipped, size=size)


def train_step(
    fabric: Fabric, model: _FabricModule, optimizer: _FabricOptimizer, batch: Batch, config: TrainConfig
) -> Tensor:
    """Take one optimizer step on a batch. Gradients are accumulated over ``config.accumulate_steps`` parts of it.

    Args:
        fabric: The Fabric of this process.
        model: An objective, set up by Fabric.
        optimizer: Its optimizer, set up by Fabric.
        batch: This device's part of the batch.
        config: The configuration of the segment.

    Returns:
        float32 ``[3]``: mean loss, accuracy, and 1 where the gradient was clipped.
    """
    optimizer.zero_grad()
    parts = list(zip(*(torch.chunk(column, config.accumulate_steps) for column in batch), strict=True))
    metrics = []
    for i, (x, target, face_region, view) in enumerate(parts):
        with fabric.no_backward_sync(model, enabled=i < len(parts) - 1):
            loss, logits = model(x, target, face_region, view)
            fabric.backward(loss / len(parts))
        accuracy = (logits.argmax(1) == target.argmax(1)).float().mean()
        metrics.append(torch.stack([loss.detach().float(), accuracy]))
    clipped = torch.zeros((), device=fabric.device)
    if config.clip_grad > 0:
        # A norm that is not finite is detected at the end of the epoch, where a fallback may take over.
        norm = fabric.clip_gradients(model, optimizer, max_norm=config.clip_grad, error_if_nonfinite=False)
        assert norm is not None  # that before clipping
        clipped = (norm > config.clip_grad).float()
    optimizer.step()
    return torch.cat([torch.stack(metrics).mean(0), clipped[None]])


def validate(task: TrainingTask, net: nn.Module, record: EpochRecord) -> EpochRecord:
    """Compute accuracy and log loss on the validation faces; each device predicts its own part.

    Args:
        task: Has the validation faces.
        net: The averaged net.
        record: The record of the epoch.

    Returns:
        The record with its validation metrics; unchanged where there are no validation faces.
    """
    faces, fabric = task.validation, task.fabric
    if len(faces) == 0:
        return record
    part = device_part(fabric.global_rank, fabric.world_size, len(faces))
    with fabric.autocast():
        logits = predict_tta(net, faces.images[part], task.recipe.data.size, task.recipe.tta)
    correct = (logits.argmax(1) == faces.labels[part]).float().sum()
    loss = F.cross_entropy(logits, faces.labels[part], reduction="sum")
    sums = fabric.all_reduce(torch.stack([correct, loss]), reduce_op="sum")
    accuracy, log_loss = (float(total) / len(faces) for total in sums)
    return replace(record, val_split=validation_name(task.recipe), val_accuracy=accuracy, val_log_loss=log_loss)


def _finish_epoch(task: TrainingTask, run: Run, record: EpochRecord) -> EpochRecord:
    """Append the record to the history, save the best epoch, and return to it where the recipe says so."""
    config = run.segment.config
    norms = torch.stack(torch._foreach_norm([parameter.detach() for parameter in run.net.parameters()]))
    is_finite = math.isfinite(record.loss) and bool(norms.isfinite().all())
    if not is_finite and not (config.fallback and run.best):
        cause = "the weights are not finite" if math.isfinite(record.loss) else f"the loss is {record.loss}"
        error = f"{cause} in epoch {record.epoch}; lower train.lr (the epochs before are saved)"
        stop_all(task.fabric, DivergedError(error))
    run.history.append(record)
    is_stuck = bool(config.fallback) and plateau(run.losses, config)[1]
    run.epoch += 1
    if is_finite:
        run.remember_best()
    if not is_finite or (is_stuck and not run.is_done):
        run.fall_back()
        record = run.history[-1] = replace(record, fallback=run.segment.config.optimizer)
    return record


def _steps_done(task: TrainingTask, run: Run, step: int) -> tuple[int, int]:
    """The number of finished steps of the whole training after ``step`` of the next epoch, and of all steps."""
    lengths = [(each.first, each.last, task.steps_per_epoch(each.config)) for each in run.schedule]
    before = sum(steps * (min(last, run.epoch) - first) for first, last, steps in lengths if first < run.epoch)
    return before + step + 1, sum(steps * (last - first) for first, last, steps in lengths)


class CheckpointWriter:
    """Writes the files of a run from the first process.

    A checkpoint is written every ``SAVE_EVERY`` seconds, at the end, and when the training diverges or is interrupted.
    An epoch that is not written at once is copied, because the next epoch changes the weights before an interruption
    can be handled.
    """

    def __init__(self, run: Run, fabric: Fabric, provenance: Mapping[str, Any]) -> None:
        """Write ``recipe.json``, so that a folder that cannot be written raises before the first epoch.

        Args:
            run: The state of the training.
            fabric: The Fabric of this process.
            provenance: Written into ``final.pt``.

        Raises:
            OutputError: The folder cannot be written.
        """
        self._run, self._fabric = run, fabric
        is_known = provenance in run.provenances or (run.is_done and run.provenances)  # which trains no more
        run.provenances = run.provenances if is_known else [*run.provenances, dict(provenance)]
        self._saved_at = time.monotonic()
        self._unsaved: State | None = None
        run_on_first(fabric, self._begin)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None and issubclass(kind, (KeyboardInterrupt, DivergedError)):
            self._write()

    def finish_epoch(self, optimizer: torch.optim.Optimizer) -> None:
        """Copy or write the state after an epoch. Every process calls this.

        Args:
            optimizer: The optimizer of the epoch.

        Raises:
            OutputError: The files cannot be written.
        """
        is_due = self._fabric.broadcast(self._run.is_done or time.monotonic() - self._saved_at >= SAVE_EVERY)
        if self._fabric.is_global_zero:
            self._unsaved = checkpoint_state(self._run, optimizer)
            if not is_due:
                best = self._unsaved.pop("best")  # never changed in place
                self._unsaved = {**copy.deepcopy(self._unsaved), "best": best}
        if is_due:
            self.save()

    def save(self) -> None:
        """Write the last epoch if it is not yet written. Every process calls this.

        Raises:
            OutputError: The files cannot be written.
        """
        run_on_first(self._fabric, self._write)

    def _begin(self) -> None:
        run = self._run
        save_json(run.folder / "recipe.json", dump(run.recipe))
        if run.is_done and not is_finished(run.folder, run.recipe, run.data_sha256):  # the file is lost or damaged
            save_state(run.folder / "final.pt", final_state(run))

    def _write(self) -> None:
        """Write the checkpoint last: if the process is killed before, the epochs since the last one are repeated."""
        run, state = self._run, self._unsaved
        if state is not None:
            write_log(run.folder, [EpochRecord.from_dict(values) for values in state["history"]])
            if run.is_done:
                save_state(run.folder / "final.pt", final_state(run))
            save_checkpoint(run.folder, state)
        self._saved_at, self._unsaved = time.monotonic(), None
