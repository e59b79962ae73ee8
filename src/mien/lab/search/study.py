"""The database of a search: one study on disk, which is one recipe, one space and one set of faces."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from queue import Empty
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from mien._errors import DataError, DivergedError, MienError, MissingExtraError, OutputError, RecipeError
from mien.lab.data import FaceSet
from mien.lab.data.datasets import Shelf
from mien.lab.recipe import Recipe, dump, load, parse, with_seed
from mien.lab.search.space import Space, as_override, read_space
from mien.lab.train.logging import silence_lightning
from mien.lab.train.loop import Devices, fit
from mien.lab.train.run import kept_epoch, read_log, validated

try:
    import optuna
except ModuleNotFoundError as error:
    raise MissingExtraError("optuna", "lab") from error


Event = dict[str, Any]


Report = Callable[[Event], None]


# What counts as a trial that has been made.
MADE = (TrialState.COMPLETE, TrialState.PRUNED)


# Seconds that a worker waits for another one's writing.
_PATIENCE = 60


@dataclass(frozen=True)
class Plan:
    """A search: what is searched, on which faces, how often. ``trials`` counts those of earlier runs of it as well."""

    recipe: str
    out: Path
    overrides: tuple[str, ...] = ()
    data: Path | None = None
    trials: int = 20
    workers: int = 1
    seed: int = 0
    prune: bool = True
    accelerator: str = "auto"

    @property
    def space(self) -> Space:
        """What varies. Raises ``RecipeError``."""
        return read_space(self.recipe, self.overrides)

    def chosen(self, values: dict[str, Any]) -> Recipe:
        """The recipe with ``values`` for some of its keys."""
        changes = [as_override(key, value) for key, value in values.items()]
        return with_seed(load(self.recipe, [*self.overrides, *changes]), self.seed)


@contextmanager
def open_study(plan: Plan, *, worker: int = 0) -> Iterator[Any]:
    """The study in the plan's folder, or a new one. Raises ``OutputError`` where it cannot be written."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = plan.out / "study.db"
    space = plan.space
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
        engine = {"connect_args": {"timeout": _PATIENCE}}
        storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}", engine_kwargs=engine)
    except Exception as error:  # of the operating system, or any of the database's own
        raise OutputError(f"{path}: cannot be opened ({type(error).__name__}); name another --out") from error
    try:
        study = optuna.create_study(
            storage=storage, study_name="search", direction=space.direction, pruner=_pruner(plan), load_if_exists=True
        )
        # Another seed for every worker and every start, or all would draw the same first trials.
        study.sampler = optuna.samplers.TPESampler(seed=plan.seed + 1_000 * worker + 100_000 * len(study.trials))
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _pruner(plan: Plan) -> Any:
    if not plan.prune:
        return optuna.pruners.NopPruner()
    from mien.lab.train.schedule import stages

    epochs = stages(plan.chosen({}))[-1].last
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 5))


def check_same(plan: Plan, study: Any, data: str) -> None:
    """One database is one search: same recipe, same space, same faces (``data`` is their sha256).

    Raises ``DataError`` otherwise.
    """
    recipe, space = plan.chosen({}), repr(plan.space)
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", {"recipe": dump(recipe), "space": space, "data": data})
    elif known["space"] != space or not _is(known["recipe"], recipe):
        raise DataError(
            f"{plan.out}: holds a search of another recipe, seed or space; name another --out, or remove it"
        )
    elif known["data"] != data:
        raise DataError(f"{plan.out}: holds a search on other faces; name another --out, or remove it")


def _is(stored: Any, recipe: Recipe) -> bool:
    """Whether a stored recipe is this one; keys that a later version has added stand at their defaults."""
    try:
        return parse(stored | {"about": recipe.about, "claim": recipe.claim}, where="search") == recipe
    except (RecipeError, TypeError):  # of a version with other keys
        return False


def take_up(study: Any) -> None:
    """Trials that a killed search left behind are asked for again, in the folders that hold their checkpoints."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params, user_attrs={"folder": folder_of(trial)})


def folder_of(trial: Any) -> str:
    """The name of the folder that holds a trial's checkpoints: of a trial taken up again, that of its first attempt."""
    kept: str = trial.user_attrs.get("folder", f"{trial.number:04d}")
    return kept


def make_trial(plan: Plan, study: Any, shelf: Shelf, report: Report, *, asking: Any = None) -> None:
    """One trial, from its question to its answer."""
    space = plan.space
    with asking or nullcontext():  # SQLite lets two workers take the same waiting trial
        trial = study.ask()
    values = space.suggest(trial)
    recipe, name = plan.chosen(values), folder_of(trial)
    trial.set_user_attr("folder", name)
    folder = plan.out / "trials" / name
    told = {"trial": trial.number, "params": values}
    started = time.monotonic()
    try:
        value = _train(plan, recipe, shelf(recipe), folder, trial, lambda event: report(told | event))
        study.tell(trial, value)
        state = "finished"
    except (optuna.TrialPruned, DivergedError) as error:
        study.tell(trial, state=TrialState.PRUNED)
        value, state = None, "diverged" if isinstance(error, DivergedError) else "pruned"
    except torch.OutOfMemoryError:
        study.tell(trial, state=TrialState.FAIL)
        value, state = None, "out of memory"
    for large in ("checkpoint.pt", "final.pt"):
        (folder / large).unlink(missing_ok=True)
    made = len(study.get_trials(states=MADE))
    report(told | {"state": state, "value": value, "seconds": time.monotonic() - started, "made": made})


def _train(plan: Plan, recipe: Recipe, faces: FaceSet, folder: Path, trial: Any, report: Report) -> float:
    """The figure of one training; raises ``TrialPruned`` as soon as it lags behind the others."""
    figure = plan.space.objective
    known: set[int] = set()
    if (folder / "checkpoint.pt").is_file():
        for record in read_log(folder):
            trial.report(validated(record, figure), record["epoch"])
            known.add(record["epoch"])
    else:
        shutil.rmtree(folder, ignore_errors=True)

    def take(record: Event) -> None:
        if "epoch" not in record:
            return
        value = validated(record, figure)
        if value != value:
            raise DataError(f"{faces.source}: no faces to validate on, so trials cannot be compared")
        report({"epoch": record["epoch"], "figure": value})
        if record["epoch"] not in known:
            trial.report(value, record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    fit(recipe, faces, folder, devices=Devices(plan.accelerator), report=take)
    return validated(kept_epoch(recipe, read_log(folder)), figure)


def work_alone(plan: Plan, trials: int, report: Report) -> None:
    """Make ``trials`` trials in this process."""
    shelf = Shelf(plan.data)
    with open_study(plan) as study:
        for _ in range(trials):
            make_trial(plan, study, shelf, report)


def work_together(plan: Plan, trials: int, report: Report) -> None:
    """Several processes, each making trials as long as there are tickets."""
    context = get_context("spawn")
    tickets, events = context.Value("i", trials), context.Queue()
    workers = [
        context.Process(target=_work, args=(plan, tickets, events, number), daemon=True)
        for number in range(min(plan.workers, trials))
    ]
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            _listen(events, report)
        while _listen(events, report):
            pass
        if any(worker.exitcode for worker in workers):
            raise MienError("a worker of the search ended early; its trial goes on when the same command is run again")
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()
                worker.join()


def _listen(events: Any, report: Report) -> bool:
    """Pass on one event, if one comes soon. Raises the error that a worker met."""
    try:
        event = events.get(timeout=0.3)
    except Empty:
        return False
    if isinstance(event, MienError):
        raise event
    report(event)
    return True


def _work(plan: Plan, tickets: Any, events: Any, number: int) -> None:
    """The life of one worker process. Ctrl-C is the business of the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence_lightning()
    _share_machine(plan.workers, number)
    shelf = Shelf(plan.data)

    def report(event: Event) -> None:
        parent = parent_process()
        if parent is not None and not parent.is_alive():
            raise SystemExit(1)  # nobody is left to end this process
        events.put(event)

    try:
        with open_study(plan, worker=number) as study:
            while _take(tickets):
                make_trial(plan, study, shelf, report, asking=tickets.get_lock())
    except MienError as error:
        events.put(MienError(str(error)))


def _take(tickets: Any) -> bool:
    with tickets.get_lock():
        tickets.value -= 1
        return bool(tickets.value >= 0)


def _share_machine(workers: int, number: int) -> None:
    """A worker's part of the cores, and one GPU after another where there are several."""
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    with suppress(RuntimeError):
        gpus = torch.cuda.device_count()
        if gpus > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(number % gpus)


def search(plan: Plan, report: Report = lambda _: None) -> None:
    """Make trials until ``plan.trials`` of them are finished or pruned; an interrupted one goes on where it stood.

    ``report`` gets an event for every epoch and every end of a trial. Raises ``RecipeError`` for a wrong space,
    ``DataError`` for a folder of another search, or of one on other faces; ``KeyboardInterrupt`` passes, and the same
    call goes on later.
    """
    with open_study(plan) as study:
        check_same(plan, study, Shelf(plan.data)(plan.chosen({})).sha256)
        take_up(study)
        if not study.trials:
            study.enqueue_trial(plan.space.starting_point(plan.chosen({})))  # what is to be beaten
        missing = plan.trials - len(study.get_trials(states=MADE))
    if missing > 0:
        work_alone(plan, missing, report) if plan.workers == 1 else work_together(plan, missing, report)
