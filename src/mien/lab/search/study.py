"""Hyperparameter search: an Optuna study on disk, of one recipe, one search space and one data set.

``run_search`` runs trials in one process or in several. Trials of an interrupted search resume from their checkpoints.
``write_results`` writes the trials as plain values, the best one as a recipe file, and plots.
"""

import math
import os
import shutil
import signal
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from multiprocessing import get_context, parent_process
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mien._errors import DataError, DivergedError, MienError, MissingExtraError, OutputError, RecipeError
from mien._output import MARK
from mien.lab.data import FaceSet
from mien.lab.data.datasets import DatasetCache
from mien.lab.files import CHECKPOINT, PREVIOUS, file_set, has_checkpoint, output_folder, save_json, save_text
from mien.lab.provenance import provenance
from mien.lab.recipe import Recipe, dump, load
from mien.lab.recipe.load import as_toml
from mien.lab.search.space import SearchSpace, as_override, read_space
from mien.lab.train.curves import QUIET, TRAINING, VALIDATION, plain, save_figure
from mien.lab.train.devices import Devices
from mien.lab.train.logging import EpochRecord, epoch_of_result, read_log, silence_lightning
from mien.lab.train.loop import fit
from mien.lab.train.run import is_same_training
from mien.lab.train.schedule import build_schedule

try:
    import optuna
    from optuna.trial import TrialState
except ModuleNotFoundError as error:
    raise MissingExtraError("optuna", "lab") from error

# States of the trials that are counted.
COMPLETED = (TrialState.COMPLETE, TrialState.PRUNED)

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrialEvent:
    """An epoch of a trial, or its end.

    Attributes:
        trial: Number of the trial.
        params: Dotted key -> value.
        state: ``"running"``, ``"finished"``, ``"pruned"``, ``"diverged"``, ``"out of memory"``, or
            ``"invalid (REASON)"`` for values that do not fit each other, which count as pruned.
        value: The objective, if it is known.
        epoch: The epoch, if the trial is running.
        seconds: Duration of the trial, at its end.
        completed: Number of finished and pruned trials, at its end.
    """

    trial: int
    params: dict[str, Any]
    state: str = "running"
    value: float | None = None
    epoch: int = 0
    seconds: float = 0.0
    completed: int = 0


OnEvent = Callable[[TrialEvent], None]


@dataclass(frozen=True)
class SearchPlan:
    """The settings of a search.

    Attributes:
        recipe: Name or path of a recipe with a ``[search]`` section.
        out: Folder of the search.
        overrides: ``section.key=value`` for every trial.
        data: The data set; by default ``$MIEN_DATA``.
        trials: Number of trials, including those of earlier calls.
        workers: Number of processes that train at the same time.
        seed: Seed of the sampler and of every training.
        prune: Whether trials that are worse than the median of the others are stopped.
        accelerator: ``cpu``, ``cuda``, ``mps`` or ``auto``.
    """

    recipe: str
    out: Path
    overrides: tuple[str, ...] = ()
    data: Path | None = None
    trials: int = 20
    workers: int = 1
    seed: int = 0
    prune: bool = True
    accelerator: str = "auto"

    @cached_property
    def space(self) -> SearchSpace:
        """The search space. Raises ``RecipeError``."""
        return read_space(self.recipe, self.overrides)

    def recipe_with(self, values: dict[str, Any]) -> Recipe:
        """Return the recipe with other values.

        Args:
            values: Dotted key -> value.

        Returns:
            The recipe.
        """
        changes = [as_override(key, value) for key, value in values.items()]
        return replace(load(self.recipe, [*self.overrides, *changes]), seed=self.seed)


def run_search(plan: SearchPlan, on_event: OnEvent = lambda _: None) -> None:
    """Run trials until ``plan.trials`` of them are finished or pruned. The same call resumes an interrupted search.

    A trial that runs out of memory is not replaced in the same call, or the search might never end.

    Args:
        plan: The search.
        on_event: Called after every epoch and at the end of every trial.

    Raises:
        RecipeError: The search space is wrong.
        DataError: The folder holds another search, or one on other faces.
        OutputError: The folder cannot be written, or another process writes to it.
    """
    with output_folder(plan.out, ("search.json", "best.toml", "history.png", "importance.png")):
        _run_trials(plan, on_event)


def _run_trials(plan: SearchPlan, on_event: OnEvent) -> None:
    with open_study(plan) as study:
        _check_identity(plan, study, DatasetCache(plan.data)(plan.recipe_with({})).sha256)
        # Unfinished trials of an interrupted search are queued again, with the folders of their checkpoints.
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                study.enqueue_trial(trial.params, user_attrs={"folder": _folder_name(trial)})
        if not study.trials:
            study.enqueue_trial(plan.space.starting_point(plan.recipe_with({})))  # the recipe itself is the baseline
        missing = plan.trials - len(study.get_trials(states=COMPLETED))
    if plan.workers > 1 and missing > 0:
        _run_workers(plan, missing, on_event)
    elif missing > 0:
        cache = DatasetCache(plan.data)
        with open_study(plan) as study:
            for _ in range(missing):
                _run_trial(plan, study, cache, on_event)


@contextmanager
def open_study(plan: SearchPlan, *, worker: int = 0) -> Iterator[Any]:
    """Open or create the study in the folder of a search.

    Args:
        plan: The search.
        worker: Number of the process; each process draws other trials.

    Yields:
        The Optuna study.

    Raises:
        OutputError: The database cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = plan.out / "study.db"
    space = plan.space
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
        engine = {"connect_args": {"timeout": 60}}  # seconds of waiting while another worker writes
        storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}", engine_kwargs=engine)
    except Exception as error:  # of the operating system or the database
        raise OutputError(f"{path}: cannot be opened ({type(error).__name__}); choose another folder") from error
    pruner: Any = optuna.pruners.NopPruner()
    if plan.prune:
        epochs = build_schedule(plan.recipe_with({}))[-1].last
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 5))
    try:
        study = optuna.create_study(
            storage=storage, study_name="search", direction=space.direction, pruner=pruner, load_if_exists=True
        )
        # Every worker and every start needs another seed, or all would draw the same first trials.
        seed = plan.seed + 1_000 * worker + 100_000 * len(study.trials)
        study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32)  # NumPy takes no larger ones
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _check_identity(plan: SearchPlan, study: Any, data: str) -> None:
    """Raise ``DataError`` if the study has another recipe, space or faces; ``data`` is the SHA-256 of the faces."""
    recipe, space = plan.recipe_with({}), repr(plan.space)
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", {"recipe": dump(recipe), "space": space, "data": data})
    elif known["space"] != space or not is_same_training(known["recipe"], recipe):
        raise DataError(
            f"{plan.out}: holds a search of another recipe, seed or space; choose another folder, or remove it"
        )
    elif known["data"] != data:
        raise DataError(f"{plan.out}: holds a search on other faces; choose another folder, or remove it")


def _folder_name(trial: Any) -> str:
    """The folder of a trial's checkpoints; for a resumed trial, that of its first attempt."""
    return str(trial.user_attrs.get("folder", f"{trial.number:04d}"))


def _run_trial(plan: SearchPlan, study: Any, cache: DatasetCache, on_event: OnEvent, *, lock: Any = None) -> None:
    with lock or nullcontext():  # without it, SQLite lets two workers take the same waiting trial
        trial = study.ask()
    values = plan.space.suggest(trial)
    name = _folder_name(trial)
    trial.set_user_attr("folder", name)
    folder = plan.out / "trials" / name
    started = time.monotonic()

    def report(epoch: int, value: float) -> None:
        on_event(TrialEvent(trial.number, values, value=value, epoch=epoch))

    value, state = None, "finished"
    try:
        recipe = plan.recipe_with(values)  # alone, each of the values is valid
        value = _train(recipe, cache(recipe), folder, trial, report, plan=plan)
        study.tell(trial, value)
    except RecipeError as error:
        study.tell(trial, state=TrialState.PRUNED)  # of no value: the sampler avoids such values
        state = f"invalid ({error})"
    except (optuna.TrialPruned, DivergedError) as error:
        study.tell(trial, state=TrialState.PRUNED)
        state = "diverged" if isinstance(error, DivergedError) else "pruned"
    except torch.OutOfMemoryError:
        study.tell(trial, state=TrialState.FAIL)
        state = "out of memory"
    for large in (CHECKPOINT, PREVIOUS, "final.pt"):
        (folder / large).unlink(missing_ok=True)
    seconds, completed = time.monotonic() - started, len(study.get_trials(states=COMPLETED))
    on_event(TrialEvent(trial.number, values, state, value, seconds=seconds, completed=completed))


def _train(
    recipe: Recipe, faces: FaceSet, folder: Path, trial: Any, report: Callable[[int, float], None], *, plan: SearchPlan
) -> float:
    """Train a trial and return its objective; raises ``TrialPruned`` if it is worse than the median of the others."""
    objective = plan.space.objective
    known: set[int] = set()
    if has_checkpoint(folder):
        for record in read_log(folder):
            trial.report(_value(record, objective), record.epoch)
            known.add(record.epoch)
    else:
        shutil.rmtree(folder, ignore_errors=True)

    def on_epoch(record: EpochRecord) -> None:
        value = _value(record, objective)
        if math.isnan(value):
            raise DataError(f"{faces.source}: no faces to validate on, so trials cannot be compared")
        report(record.epoch, value)
        if record.epoch not in known:
            trial.report(value, record.epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    fit(recipe, faces, folder, devices=Devices(plan.accelerator), on_epoch=on_epoch)
    return _value(epoch_of_result(recipe, read_log(folder)), objective)


def _value(record: EpochRecord, objective: str) -> float:
    """The objective of an epoch; NaN without validation."""
    return record.val_accuracy if objective == "accuracy" else record.val_log_loss


def _run_workers(plan: SearchPlan, trials: int, on_event: OnEvent) -> None:
    """Run trials in several processes."""
    context = get_context("spawn")
    remaining, lock, events = context.Semaphore(trials), context.Lock(), context.Queue()
    workers = [
        context.Process(target=_run_worker, args=(plan, remaining, lock, events, number), daemon=True)
        for number in range(min(plan.workers, trials))
    ]
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            _forward_event(events, on_event)
        while _forward_event(events, on_event):
            pass
        if any(worker.exitcode for worker in workers):
            raise MienError("a worker of the search ended early; run the search again to resume its trial")
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()
                worker.join()


def _forward_event(events: Any, on_event: OnEvent) -> bool:
    """Report an event of a worker if one arrives soon, or raise its error; returns whether one arrived."""
    try:
        event = events.get(timeout=0.3)
    except Empty:
        return False
    if isinstance(event, MienError):
        raise event
    on_event(event)
    return True


def _run_worker(plan: SearchPlan, remaining: Any, lock: Any, events: Any, number: int) -> None:
    """Run trials in a worker process, with its share of the cores and GPUs. The main process handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence_lightning()
    torch.set_num_threads(max(1, torch.get_num_threads() // plan.workers))
    with suppress(RuntimeError):
        gpus = torch.cuda.device_count()
        if gpus > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(number % gpus)
    cache = DatasetCache(plan.data)

    def send(event: TrialEvent) -> None:
        parent = parent_process()
        if parent is not None and not parent.is_alive():
            raise SystemExit(1)  # the main process is gone
        events.put(event)

    try:
        with open_study(plan, worker=number) as study:
            while remaining.acquire(block=False):
                _run_trial(plan, study, cache, send, lock=lock)
    except MienError as error:
        events.put(MienError(str(error)))


def write_results(plan: SearchPlan) -> dict[str, Any]:
    """Write ``search.json``, ``best.toml``, ``history.png`` and ``importance.png`` into the folder of the plan.

    Without finished trials there is no ``best.toml``, with fewer than four no ``importance.png``.

    Args:
        plan: The search.

    Returns:
        The content of ``search.json``: the trials (the best first), the importance of each key, the provenance.

    Raises:
        OutputError: The folder cannot be written.
    """
    space = plan.space
    with open_study(plan) as study:
        rows = trial_rows(study, space)
        importance = _importance(study)
    base = plan.recipe_with({})
    found = {
        "recipe": base.name,
        "objective": space.objective,
        "seed": plan.seed,
        "overrides": list(plan.overrides),
        "counts": _counts(rows),
        "importance": importance,
        "trials": rows,
        **provenance(DatasetCache(plan.data)(base).sha256),
    }
    with file_set(plan.out) as draft:
        save_json(draft / "search.json", found)
        if rows and rows[0]["value"] is not None:
            save_text(draft / "best.toml", f"# {MARK}\n{as_toml(best_recipe(plan, rows))}")
            _draw_history(rows, space, draft / "history.png")
        if importance:
            _draw_importance(importance, draft / "importance.png")
    return found


def trial_rows(study: Any, space: SearchSpace) -> list[_Row]:
    """Return one row for each completed trial, the best first, pruned ones last.

    Args:
        study: The Optuna study.
        space: The search space of the study.

    Returns:
        The rows of ``search.json``.
    """
    sign = -1 if space.direction == "maximize" else 1
    rows: list[_Row] = []
    for trial in study.get_trials(states=COMPLETED):
        is_finished, steps = trial.state == TrialState.COMPLETE, trial.intermediate_values
        row = {
            "trial": trial.number,
            "state": "finished" if is_finished else "pruned",
            "value": trial.value if is_finished else None,
            "last": steps[max(steps)] if steps else None,
            "epochs": max(steps, default=0),
            "seconds": round((trial.datetime_complete - trial.datetime_start).total_seconds(), 1),
            "params": space.shown(trial.params),
        }
        rows.append(row)
    return sorted(rows, key=lambda row: (row["value"] is None, sign * (row["value"] or 0.0), row["trial"]))


def best_recipe(plan: SearchPlan, rows: Sequence[_Row]) -> Recipe:
    """Return the recipe of the best trial. Its ``about`` describes the search.

    Args:
        plan: The search.
        rows: Its trials, the best first.

    Returns:
        The recipe.
    """
    best, base = rows[0], plan.recipe_with({})
    counts = _counts(rows)
    own = next((row["value"] for row in rows if row["trial"] == 0), None)
    objective = plan.space.objective
    source = (
        f"Found by `mien search {plan.recipe}`: trial {best['trial']} of {len(rows)} ({counts['pruned']} pruned), seed "
        f"{plan.seed}, by the {objective.replace('_', ' ')} on the validation faces, "
        f"{format_value(objective, best['value'])}"
        + (f" where the first trial gave {format_value(objective, own)}" if own is not None and best["trial"] else "")
        + (f"; with {', '.join(plan.overrides)}" if plan.overrides else "")
        + ". These faces selected it, so the value is too good."
    )
    about = "\n".join([*textwrap.wrap(source, 118), "Searched recipe:", base.about.strip()])
    recipe = replace(plan.recipe_with(best["params"]), name=f"{base.name.replace('/', '-')}-best", about=about)
    claim = replace(recipe.claim, variant="tuned" if recipe.claim.document else "own", cost="")
    return replace(recipe, claim=claim)


def format_value(objective: str, value: float | None) -> str:
    """Format the objective of a trial.

    Args:
        objective: ``"accuracy"`` or ``"log_loss"``.
        value: Its value, or ``None``.

    Returns:
        A percentage for the accuracy, else four decimals; ``-`` for ``None``.
    """
    if value is None:
        return "-"
    return f"{value:.2%}" if objective == "accuracy" else f"{value:.4f}"


def _counts(rows: Sequence[_Row]) -> dict[str, int]:
    return {state: sum(row["state"] == state for row in rows) for state in ("finished", "pruned")}


def _importance(study: Any) -> dict[str, float]:
    """The share of each key in the variance of the objective (fANOVA; Hutter et al., ICML 2014)."""
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    if len(finished) < 4 or len({trial.value for trial in finished}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in shares.items() if math.isfinite(share)}


def _draw_history(rows: Sequence[_Row], space: SearchSpace, path: Path) -> None:
    """Plot the objective of every trial, and the best so far."""
    figure = Figure(figsize=(8, 4), dpi=110, layout="constrained")
    axis = figure.subplots()
    made = sorted(rows, key=lambda row: row["trial"])
    finished = [row for row in made if row["value"] is not None]
    pruned = [row for row in made if row["value"] is None and row["last"] is not None]
    if pruned:
        axis.plot([r["trial"] for r in pruned], [r["last"] for r in pruned], "x", color=QUIET, label="pruned")
    axis.plot([r["trial"] for r in finished], [r["value"] for r in finished], "o", color=VALIDATION, label="finished")
    so_far = list(accumulate((r["value"] for r in finished), max if space.direction == "maximize" else min))
    steps, so_far = [*(r["trial"] for r in finished), made[-1]["trial"]], [*so_far, so_far[-1]]  # to the last trial
    axis.step(steps, so_far, where="post", color=TRAINING, linewidth=1.8, label="best so far", zorder=1)
    if space.objective == "accuracy":
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set_title(f"{space.objective.replace('_', ' ')} on the validation faces", loc="left", fontsize=10)
    axis.set_xlabel("trial")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axis)
    axis.legend(frameon=False, fontsize=9)
    save_figure(figure, path)


def _draw_importance(importance: Mapping[str, float], path: Path) -> None:
    """Plot one bar for each key, the most important on top."""
    figure = Figure(figsize=(8, 0.8 + 0.45 * len(importance)), dpi=110, layout="constrained")
    axis = figure.subplots()
    keys = sorted(importance, key=lambda key: importance[key])
    bars = axis.barh(keys, [importance[key] for key in keys], color=VALIDATION, height=0.6)
    axis.bar_label(bars, labels=[f" {importance[key]:.0%}" for key in keys], fontsize=9)
    axis.set_title("share of each key in the variance of the objective (fANOVA)", loc="left", fontsize=10)
    axis.set_xlim(0, 1.1 * max(importance.values()))
    plain(axis)
    axis.grid(visible=False)
    axis.xaxis.set_visible(False)
    save_figure(figure, path)
