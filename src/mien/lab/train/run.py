"""The state of a training between two epochs, and finished runs.

The folder of a run holds ``checkpoint.pt`` (the state before the next epoch) and its predecessor, ``log.jsonl`` (one
record an epoch), ``recipe.json`` (the resolved recipe) and, after the last epoch, ``final.pt`` (the trained net).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mien._emotions import Emotion, class_set
from mien._errors import DataError, RecipeError, checked, first_line
from mien.lab import nets
from mien.lab.data.faceset import file_sha256
from mien.lab.files import FINAL_KINDS, check_kinds, find_input, has_checkpoint, load_checkpoint, load_state
from mien.lab.nets import to_meta
from mien.lab.pretrained import start
from mien.lab.recipe import Recipe, dump, parse
from mien.lab.train.logging import EpochRecord
from mien.lab.train.losses import Objective
from mien.lab.train.optim import ModelEma, build_optimizer
from mien.lab.train.schedule import Segment, all_configs, build_schedule, freeze, segment_at

State = dict[str, Any]

_NET = "net."  # the prefix of the net's tensors in the state of an Objective
_KINDS = {  # of the values in a checkpoint
    **dict.fromkeys(("recipe", "objective", "ema", "optimizer", "best"), dict),
    **dict.fromkeys(("steps", "optimizer_epoch", "epoch", "fallback_epoch"), int),
    "data_sha256": str,
    "history": list,
}
_LATER_KINDS = {"inputs": dict, "provenances": list}  # missing in checkpoints of older versions


@dataclass
class Run:
    """The state of a training.

    Attributes:
        recipe: The recipe.
        folder: The folder of the run.
        objective: The trained net with its loss.
        ema: The averaged net, which is validated and becomes the result.
        schedule: The phases of the recipe.
        epoch: Number of finished epochs.
        history: The records of the finished epochs.
        best: Accuracy, epoch and averaged weights of the best validated epoch, if the recipe needs them.
        fallback_epoch: The epoch at which a fallback took over in the current phase; -1: none.
        data_sha256: SHA-256 of the faces.
        optimizer_state: The optimizer of a checkpoint, until ``start_segment`` loads it.
        optimizer_epoch: First epoch of the segment that the optimizer was built for.
        inputs: Name -> SHA-256 of the files that the recipe names and every epoch reads.
        provenances: The provenances of the commands that trained it, the first one first.
    """

    recipe: Recipe
    folder: Path
    objective: Objective
    ema: ModelEma
    schedule: tuple[Segment, ...]
    epoch: int = 0
    history: list[EpochRecord] = field(default_factory=list)
    best: State = field(default_factory=dict)
    fallback_epoch: int = -1
    data_sha256: str = ""
    optimizer_state: State | None = None
    optimizer_epoch: int = -1
    inputs: dict[str, str] = field(default_factory=dict)
    provenances: list[State] = field(default_factory=list)

    @property
    def net(self) -> nn.Module:
        """The trained net, without averaging."""
        return self.objective.net

    @property
    def is_done(self) -> bool:
        """Whether the last epoch is finished."""
        return self.epoch >= self.schedule[-1].last

    @property
    def segment(self) -> Segment:
        """The segment of the next epoch."""
        segment = segment_at(self.schedule, self.epoch)
        has_fallen_back = segment.fallback is not None and self.fallback_epoch >= segment.first
        return segment.after_fallback(self.fallback_epoch) if has_fallen_back else segment

    @property
    def losses(self) -> list[float]:
        """Validation losses of the current segment so far."""
        return [record.val_log_loss for record in self.history[self.segment.first :]]

    def progress(self, fraction: float) -> float:
        """Return the finished share of the segment.

        Args:
            fraction: The finished share of the next epoch, from 0 to 1.

        Returns:
            From 0 to 1.
        """
        segment = self.segment
        return (self.epoch - segment.first + fraction) / (segment.last - segment.first)

    def start_segment(self) -> torch.optim.Optimizer:
        """Freeze the modules that the segment freezes, and build its optimizer or restore it from the checkpoint."""
        segment = self.segment
        freeze(self.net, segment.phase.freeze)
        self.ema.decay = segment.config.ema_decay
        optimizer = build_optimizer(self.objective, segment.config)
        self.optimizer_epoch = segment.first
        if self.optimizer_state is not None:
            _load_optimizer(optimizer, self.optimizer_state, self.folder)
            self.optimizer_state = None
        return optimizer

    def remember_best(self) -> None:
        """Save the averaged weights of the last epoch if it is the best one and the recipe may return to it."""
        is_needed = self.recipe.checkpoint == "best" or any(segment.fallback for segment in self.schedule)
        accuracy = self.history[-1].val_accuracy
        if is_needed and accuracy > self.best.get("accuracy", -math.inf):
            state = self.objective.state_dict()  # auxiliary layers have no average
            state |= {_NET + name: value for name, value in self.ema.net.state_dict().items()}
            weights = {name: value.clone() for name, value in state.items()}
            self.best = {"accuracy": accuracy, "epoch": self.epoch, "objective": weights}

    def fall_back(self) -> None:
        """Return to the weights of the best epoch. If the phase has epochs left, the fallback trains them."""
        self.objective.load_state_dict(self.best["objective"])
        self.ema.net.load_state_dict(net_state(self.best["objective"]))
        if segment_at(self.schedule, self.epoch).first < self.epoch:
            self.fallback_epoch = self.epoch


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        net: The result, in eval mode.
        recipe: The recipe of the training.
        emotions: The classes, in the order of the logits.
        history: The records of all epochs.
        provenance: Command, commit, machine and data of the training; of one that was resumed, each with those of all
            commands.
    """

    net: nn.Module
    recipe: Recipe
    emotions: tuple[Emotion, ...]
    history: list[EpochRecord]
    provenance: State


def open_run(
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device,
    class_weights: Tensor,
    data_sha256: str = "",
    sync_norms: bool = False,
) -> Run:
    """Start a run, or restore it from the checkpoint in its folder.

    Args:
        recipe: The recipe.
        folder: The folder of the run; it need not exist.
        device: The device of the nets.
        class_weights: float ``[C]``: the factor on the loss of each class.
        data_sha256: SHA-256 of the faces.
        sync_norms: Whether batch norms use the batch of all devices.

    Returns:
        The state before the next epoch.

    Raises:
        DataError: The folder holds a run of another recipe, other faces or other files that the recipe names.
        RecipeError: A phase names an unknown module of the net, faces are too small for the net, or its logits of a
            face depend on the other faces of the batch.
    """
    schedule = build_schedule(recipe)
    _check_sizes(recipe, schedule)
    torch.manual_seed(recipe.seed)
    net = build_net(recipe)
    inputs = _input_hashes(recipe)
    if net_hashes(recipe):  # a net of $MIEN_NETS; those of mien have tests
        nets.require_independence(net, recipe.data.size)
    if not has_checkpoint(folder):
        start(net, recipe, data=data_sha256)
    objective = Objective(net, recipe.loss, class_weights.cpu(), emotions=class_set(recipe.data.classes))
    objective = objective.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if sync_norms:
        objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)  # type: ignore[no-untyped-call]
    ema = ModelEma(objective.net, recipe.train.ema_decay)
    run = Run(recipe, folder, objective, ema, schedule, data_sha256=data_sha256, inputs=inputs)
    for segment in schedule:  # unknown modules of later phases raise now
        freeze(run.net, segment.phase.freeze)
        for config in all_configs([segment]):
            build_optimizer(objective, config)
    state = load_checkpoint(folder, partial(_check_state, run))
    if state is not None:
        _restore(run, state)
    return run


def build_net(recipe: Recipe) -> nets.Net:
    """Build the net of a recipe with random weights, for grey faces and the recipe's classes.

    If the net has the options ``size`` and ``emotions``, they default to those of the recipe's data.

    Args:
        recipe: Names the net and its options.

    Returns:
        The net, on torch's default device.

    Raises:
        RecipeError: The net or one of its options does not exist.
    """
    name, emotions = recipe.net.name, class_set(recipe.data.classes)
    defaults = {"size": recipe.data.size, "emotions": emotions}
    options = {key: value for key, value in defaults.items() if key in nets.options(name)} | dict(recipe.net.options)
    return nets.build(name, channels=1, classes=len(emotions), **options)


def net_hashes(recipe: Recipe) -> dict[str, str]:
    """Hash the files of ``$MIEN_NETS`` that the net of a recipe is made of.

    Args:
        recipe: The recipe.

    Returns:
        Name of a file -> its SHA-256; empty for nets of mien.

    Raises:
        RecipeError: A file cannot be read.
    """
    return nets.code_hashes(_net_names({"name": recipe.net.name, **recipe.net.options}))


def _net_names(net: Mapping[str, Any]) -> Iterator[str]:
    """The name of a net and, of an ensemble, those of its parts; wrong values are left to ``build``."""
    if isinstance(net, Mapping):
        yield str(net.get("name", ""))
        parts = net.get("parts")
        for part in parts if isinstance(parts, list | tuple) else ():
            yield from _net_names(part)


@checked
def load_final(folder: Path, device: torch.device | str = "cpu") -> Trained:
    """Load a finished run.

    Args:
        folder: The folder of the run.
        device: The device of the net.

    Returns:
        The run with its net.

    Raises:
        DataError: The folder holds no finished run, or its net is a file of ``$MIEN_NETS`` that has changed.
    """
    state = load_state(folder / "final.pt", FINAL_KINDS)
    recipe = parse(state["recipe"], where=str(folder))
    if changed := _changed_inputs(state, net_hashes(recipe)):
        names = ", ".join(changed)
        raise DataError(f"{folder}: was trained with another version of {names}; restore that version, or train again")
    with torch.device("meta"):  # a net of a size that the file does not have is never built
        expected = build_net(recipe).state_dict()
    if not _has_form(state["net"], expected):
        raise DataError(f"{folder / 'final.pt'}: damaged: its weights are not those of its recipe; train again")
    net = build_net(recipe).eval().requires_grad_(False)
    net.load_state_dict(state["net"])  # also from half precision, which small files have
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    history = _read_history(state, folder)
    return Trained(net, recipe, class_set(recipe.data.classes), history, state["provenance"])


def with_calibration(trained: Trained, calibration: str) -> Trained:
    """Return a run with another calibration in its recipe.

    Args:
        trained: The run.
        calibration: A calibration of recipes; empty: that of the run's recipe.

    Returns:
        The changed run.

    Raises:
        RecipeError: The calibration is unknown.
    """
    return replace(trained, recipe=replace(trained.recipe, calibration=calibration)) if calibration else trained


def is_finished(folder: Path, recipe: Recipe, data_sha256: str) -> bool:
    """Return whether a folder holds the finished run of a recipe on the same faces and files that it names.

    Args:
        folder: The folder; it need not exist.
        recipe: The recipe; its description, family, claim and calibration may differ.
        data_sha256: SHA-256 of the faces.

    Returns:
        Whether the run is finished.
    """
    try:
        final = load_state(folder / "final.pt", FINAL_KINDS)
    except DataError:  # missing, damaged, or of another version; the checkpoint decides
        return False
    same_data = final["provenance"].get("data_sha256", data_sha256) == data_sha256
    return same_data and is_same_training(final["recipe"], recipe) and not _changed_inputs(final, _input_hashes(recipe))


def _input_hashes(recipe: Recipe) -> dict[str, str]:
    """Name -> SHA-256 of the list of rows to exclude, teachers and nets; what is missing or of mien is left out."""
    teachers = recipe.target.teachers if recipe.target.distillation > 0 else ()
    paths = {name: find_input(name) for name in filter(None, (recipe.data.exclude, *teachers))}
    files = {name: path / "final.pt" if path.is_dir() else path for name, path in paths.items()}
    return {name: file_sha256(path) for name, path in files.items() if path.is_file()} | net_hashes(recipe)


def _changed_inputs(state: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """The files whose content is not that of a stored run; files of older versions do not say it."""
    stored = state.get("inputs", {})
    return [name for name, digest in inputs.items() if stored.get(name, digest) != digest]


def is_same_training(stored: Mapping[str, Any], recipe: Recipe) -> bool:
    """Return whether a stored recipe describes the same training as a recipe.

    Args:
        stored: A recipe as plain values.
        recipe: The recipe; its description, family, claim and calibration may differ.

    Returns:
        Whether both trainings are the same.
    """
    changed = {key: getattr(recipe, key) for key in ("about", "family", "claim", "calibration")}
    try:
        return parse({**stored, **changed}, where="stored recipe") == recipe
    except (RecipeError, TypeError, AttributeError):  # of a version with other keys, or damaged
        return False


def checkpoint_state(run: Run, optimizer: torch.optim.Optimizer) -> State:
    """Return the content of ``checkpoint.pt``. Its tensors are those of the run, not copies.

    Args:
        run: The run.
        optimizer: The optimizer of the current segment.

    Returns:
        The state that the next epoch needs.
    """
    return {
        "recipe": dump(run.recipe),
        "data_sha256": run.data_sha256,
        "objective": run.objective.state_dict(),
        "ema": run.ema.net.state_dict(),
        "steps": run.ema.steps,
        "optimizer": optimizer.state_dict(),
        "optimizer_epoch": run.optimizer_epoch,
        "epoch": run.epoch,
        "history": [asdict(record) for record in run.history],
        "best": run.best,
        "fallback_epoch": run.fallback_epoch,
        "inputs": run.inputs,
        "provenances": run.provenances,
    }


def final_state(run: Run) -> State:
    """Return the content of ``final.pt``: the net of the epoch that the recipe selects.

    Args:
        run: The finished run.

    Returns:
        The content of the file.
    """
    returned = bool(run.history and run.history[-1].fallback)  # to the best epoch, after the last one
    use_best = run.best and (returned or run.recipe.checkpoint == "best")
    return {
        "recipe": dump(run.recipe),
        "net": net_state(run.best["objective"]) if use_best else run.ema.net.state_dict(),
        "epoch": run.best["epoch"] if use_best else run.epoch,
        "history": [record.to_dict() for record in run.history],
        "provenance": joined_provenance(run.provenances),
        "inputs": run.inputs,
    }


def joined_provenance(provenances: Iterable[Mapping[str, Any]]) -> State:
    """Join the provenances of several commands.

    Args:
        provenances: The provenances, the first one first.

    Returns:
        One provenance; values that differ are joined, each once.
    """
    values: dict[str, list[Any]] = {}
    for each in provenances:
        for key, value in each.items():
            known = values.setdefault(key, [])
            known += [value] if value not in known else []
    return {key: each[0] if len(each) == 1 else "; ".join(map(str, each)) for key, each in values.items()}


def net_state(objective: State) -> State:
    """Return the state of the net of an objective.

    Args:
        objective: State dictionary of an ``Objective``.

    Returns:
        State dictionary of its net.
    """
    return {name.removeprefix(_NET): value for name, value in objective.items() if name.startswith(_NET)}


def _check_state(run: Run, state: State) -> None:
    """Raise ``DataError`` if a checkpoint cannot be one of this run. Those of other runs are left to ``_restore``."""
    check_kinds(state, _KINDS | {key: kind for key, kind in _LATER_KINDS.items() if key in state}, run.folder)
    if not is_same_training(state["recipe"], run.recipe):
        return
    epoch, best, own = state["epoch"], state["best"], run.objective.state_dict()
    history = _read_history(state, run.folder)
    is_sound = (
        0 <= epoch <= run.schedule[-1].last
        and [record.epoch for record in history] == list(range(1, epoch + 1))
        and -1 <= state["fallback_epoch"] <= epoch
        and state["optimizer_epoch"] >= -1
        and state["steps"] >= 0
        and _has_form(state["objective"], own)
        and _has_form(state["ema"], run.ema.net.state_dict())
        and (not best or (_has_form(best.get("objective"), own) and isinstance(best.get("accuracy"), float)))
        and (not best or best.get("epoch") in range(epoch + 1))
        and all(isinstance(digest, str) for digest in state.get("inputs", {}).values())
        and all(isinstance(each, Mapping) for each in state.get("provenances", []))
    )
    if not is_sound:
        raise DataError(f"{run.folder}: damaged: a checkpoint holds numbers that no training writes; remove it")


def _read_history(state: State, folder: Path) -> list[EpochRecord]:
    try:
        return [EpochRecord.from_dict(values) for values in state["history"]]
    except DataError as error:
        raise DataError(f"{folder}: damaged: {error}; remove it and train again") from error


def _has_form(state: Any, expected: State) -> bool:
    """Whether a state has the names and shapes that are expected."""
    if not isinstance(state, Mapping) or state.keys() != expected.keys():
        return False
    return all(isinstance(x, Tensor) and x.shape == expected[name].shape for name, x in state.items())


def _load_optimizer(optimizer: torch.optim.Optimizer, state: State, folder: Path) -> None:
    """Restore an optimizer; raise ``DataError`` if the state is that of another one."""
    groups = [{key: x for key, x in group.items() if key not in ("params", "lr")} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
        fits = all(
            not isinstance(x, Tensor) or x.ndim == 0 or x.shape == parameter.shape
            for parameter, values in optimizer.state.items()
            for x in values.values()
        )
        pairs = zip(groups, optimizer.param_groups, strict=True)
        fits = fits and all(new.get(key) == x for old, new in pairs for key, x in old.items())
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        fits = False
    if not fits:
        raise DataError(f"{folder}: damaged: a checkpoint holds the state of another optimizer; remove it")


def _restore(run: Run, state: State) -> None:
    cure = "name another folder, or remove this one to start again"
    if not is_same_training(state["recipe"], run.recipe):
        raise DataError(f"{run.folder}: holds a run of another recipe, seed or options; {cure}")
    if state["data_sha256"] != run.data_sha256:
        raise DataError(f"{run.folder}: holds a run on other faces (sha256 {state['data_sha256'][:12]}...); {cure}")
    if changed := _changed_inputs(state, run.inputs):
        raise DataError(f"{run.folder}: holds a run with another content of {', '.join(changed)}; {cure}")
    run.provenances = state.get("provenances", [])
    run.objective.load_state_dict(state["objective"])
    run.ema.net.load_state_dict(state["ema"])
    run.ema.steps = state["steps"]
    run.epoch, run.best, run.fallback_epoch = state["epoch"], state["best"], state["fallback_epoch"]
    run.history = _read_history(state, run.folder)
    if state["optimizer_epoch"] == run.segment.first:
        run.optimizer_state = state["optimizer"]


def _check_sizes(recipe: Recipe, schedule: tuple[Segment, ...]) -> None:
    """Raise ``RecipeError`` if the net cannot take faces of a size that the recipe uses; nothing is computed."""
    sizes = {segment.size: "a phase's size" for segment in schedule} | {recipe.data.size: "data.size"}
    with torch.device("meta"):
        net = to_meta(build_net(recipe)).eval()
        for size, key in sizes.items():
            try:
                net(torch.empty(1, 1, size, size))
            except (RuntimeError, ArithmeticError) as error:
                about = f"net {recipe.net.name!r} takes no faces of {key}={size}"
                raise RecipeError(f"{about}: {first_line(error)}") from error
