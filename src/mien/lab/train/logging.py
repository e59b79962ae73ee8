"""A run's epochs in TensorBoard and MLflow, through Lightning's loggers.

Nothing is sent anywhere unless MLFLOW_TRACKING_URI names a server; without it MLflow writes `mlflow.db` in the
current folder, as MLflow itself does.
"""

import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mien._errors import MissingExtraError, RecipeError
from mien._suggest import suggest
from mien.lab.files import save_text
from mien.lab.recipe import Recipe, dump
from mien.lab.train.run import Record, read_log


class Logs:
    """The loggers of one run, as ``fit`` reports to them: epochs are logged, progress within one is not.

    They are opened at the first epoch. A run that is resumed goes on in the same logs; a log that is asked for later
    begins with the epochs that the run already has.
    """

    def __init__(self, names: Sequence[str], recipe: Recipe, folder: Path) -> None:
        """``names`` of ``LOGGERS``. Raises ``RecipeError`` for others, ``MissingExtraError`` for a missing package."""
        self._open = [_opener(name) for name in dict.fromkeys(names)]
        self._recipe, self._folder = recipe, folder
        self._loggers: list[Any] = []
        self.finished = False

    def __call__(self, record: Record) -> None:
        """Log the figures of an epoch."""
        if "epoch" not in record:
            return
        if not self._loggers:
            self._start(record["epoch"])
        for logger in self._loggers:
            logger.log_metrics(_figures(record), step=record["epoch"])

    def close(self) -> None:
        """Write what is left; MLflow shows a run as killed until ``finished`` is set."""
        for logger in self._loggers:
            logger.finalize("success" if self.finished else "KILLED")
        self._loggers = []

    def _start(self, epoch: int) -> None:
        earlier = [record for record in read_log(self._folder) if record["epoch"] < epoch]
        for opener in self._open:
            logger, fresh = opener(self._recipe, self._folder, epoch)
            if fresh:
                logger.log_hyperparams(_flat(dump(self._recipe)))
                for record in earlier:
                    logger.log_metrics(_figures(record), step=record["epoch"])
            self._loggers.append(logger)


def silence_lightning() -> None:
    """Keep what Lightning tells of itself (its precision, its processes) out of the output; its errors still come."""
    for name in ("lightning.fabric", "lightning.pytorch", "lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def _tensorboard(recipe: Recipe, folder: Path, epoch: int) -> tuple[Any, bool]:  # noqa: ARG001
    """A logger that writes below the run's folder, and whether it is new; epochs trained again replace their points."""
    from lightning.fabric.loggers.tensorboard import TensorBoardLogger

    fresh = not any((folder / "tensorboard").glob("events*"))
    logger = TensorBoardLogger(
        folder,
        name="tensorboard",
        version="",
        purge_step=None if fresh else epoch,
        filename_suffix=f".{epoch}",  # the name has whole seconds alone
    )
    return logger, fresh


def _mlflow(recipe: Recipe, folder: Path, epoch: int) -> tuple[Any, bool]:  # noqa: ARG001
    """A logger of the run whose id stands in the run's folder, or of a new one, and whether it is new."""
    from lightning.pytorch.loggers import MLFlowLogger

    import_module("mlflow.tracking")  # now, as it sets the level of its own messages
    for noisy in ("mlflow", "alembic"):  # how its database is laid out
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    kept = folder / "mlflow-run.txt"
    known = kept.read_text(encoding="utf-8").strip() if kept.is_file() else None
    logger = MLFlowLogger(
        experiment_name=recipe.name,
        run_name=f"{recipe.name}, seed {recipe.seed}",
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db",
        run_id=known,
    )
    if known is not None:
        logger.experiment.update_run(known, status="RUNNING")
    save_text(kept, f"{logger.run_id}\n")
    return logger, known is None


Opener = Callable[[Recipe, Path, int], tuple[Any, bool]]
# Name on the command line -> how it is opened, and the packages one of which it needs.
LOGGERS: Mapping[str, tuple[Opener, tuple[str, ...]]] = {
    "tensorboard": (_tensorboard, ("tensorboardX", "tensorboard")),
    "mlflow": (_mlflow, ("mlflow",)),
}


def _opener(name: str) -> Opener:
    if name not in LOGGERS:
        raise RecipeError(f"unknown logger {name!r}{suggest(name, list(LOGGERS))}; there are: {', '.join(LOGGERS)}")
    opener, packages = LOGGERS[name]
    if not any(find_spec(package) for package in packages):
        raise MissingExtraError(packages[0], "track")
    return opener


def _figures(record: Record) -> dict[str, float]:
    """The finite numbers of a record: neither logger draws others."""
    numbers = {key: float(value) for key, value in record.items() if isinstance(value, (int, float)) and key != "epoch"}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys with plain values."""
    parts: Iterable[dict[str, Any]] = (
        _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": _plain(value)}
        for key, value in table.items()
    )
    return {key: value for part in parts for key, value in part.items()}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
