"""The database of a search: one study on disk, which is one recipe, one space and one set of faces."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien._errors import DataError, MissingExtraError, OutputError, RecipeError

try:
    import optuna
except ModuleNotFoundError as error:
    raise MissingExtraError("optuna", "lab") from error
from optuna.trial import TrialState

from mien.lab.recipe import Recipe, dump, load, parse, with_seed
from mien.lab.search.space import Space, as_override, read_space

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
    from mien.lab.train.course import stages

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
