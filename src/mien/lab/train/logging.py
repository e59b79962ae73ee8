"""The log of a training: one record an epoch in ``log.jsonl``, and on request in TensorBoard and MLflow.

Records are sent to a server only if ``MLFLOW_TRACKING_URI`` names one. Without it MLflow writes ``mlflow.db`` in the
current folder, which is its default.
"""

import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mien._checksum import BLANK, KEY
from mien._errors import DataError, MissingExtraError, RecipeError
from mien._suggest import require_known
from mien.lab.files import load_bytes, save_text
from mien.lab.recipe import Recipe, dump
from mien.lab.recipe.load import dotted

_CURE = "remove it and run the same command again"
# Validation faces of a recipe -> their name in output.
_VAL_NAMES = {"public": "PublicTest", "fold": "fold", "leaky": "leaky (copies of training faces)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """The metrics of one epoch: a line of ``log.jsonl``.

    Attributes:
        epoch: Number of the epoch, from 1.
        loss: Mean training loss; NaN or infinite if training diverged.
        accuracy: Accuracy on the training faces as they were augmented, 0..1.
        lr: Learning rate of the last step. It and ``accuracy`` are NaN if they are missing in an old log.
        seconds: Duration, including validation.
        images_per_second: Training speed.
        val_split: The validation faces: ``"public"`` (PublicTest), ``"fold"`` or ``"leaky"``; empty if the epoch was
            not validated.
        val_accuracy: Accuracy of the averaged weights on them, 0..1; NaN without validation.
        val_log_loss: Log loss of the averaged weights on them; NaN without validation.
        clipped: Share of steps whose gradient was clipped; NaN without clipping.
        size: Side of the training faces in pixels, in a phase with another size than the recipe's, which the validation
            faces have; else 0.
        fallback: Optimizer of the fallback that takes over after this epoch; empty: none.
        net: Name of a member of an ensemble, in its first epoch; else empty.
    """

    epoch: int
    loss: float
    accuracy: float = math.nan
    lr: float = math.nan
    seconds: float = 0.0
    images_per_second: float = 0.0
    val_split: str = ""
    val_accuracy: float = math.nan
    val_log_loss: float = math.nan
    clipped: float = math.nan
    size: int = 0
    fallback: str = ""
    net: str = ""

    @property
    def val_name(self) -> str:
        """The name of the validation faces in output, such as ``PublicTest``."""
        return _VAL_NAMES.get(self.val_split, self.val_split)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values without empty ones. Numbers that are not finite become ``None``."""
        absent = set() if self.val_split else {"val_accuracy", "val_log_loss"}
        absent |= {"clipped"} if math.isnan(self.clipped) else set()
        absent |= set() if self.size else {"size"}
        values = {key: x for key, x in asdict(self).items() if x != "" and key not in absent}
        return {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EpochRecord":
        """Return the record of a result of ``to_dict``. ``None`` becomes NaN.

        Args:
            values: Keys and values of a record; unknown keys are ignored.

        Returns:
            The record.

        Raises:
            DataError: A key is missing, or a value of a wrong type.
        """
        kinds: dict[str, Any] = {field.name: field.type for field in fields(cls)}
        try:
            known: dict[str, Any] = {
                key: math.nan if x is None else kinds[key](x) for key, x in values.items() if key in kinds
            }
            return cls(**known)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"not a record of an epoch ({error})") from error


def write_log(folder: Path, history: Sequence[EpochRecord]) -> None:
    """Write ``log.jsonl`` into the folder of a run, atomically. Its last line holds the checksum of the file.

    Args:
        folder: The folder of the run.
        history: The records of all epochs.

    Raises:
        OutputError: The file cannot be written.
    """
    records = [record.to_dict() for record in history]
    for last in records[-1:]:
        last[KEY] = BLANK
    lines = [json.dumps(record, allow_nan=False) + "\n" for record in records]
    save_text(folder / "log.jsonl", "".join(lines))


def read_log(folder: Path) -> list[EpochRecord]:
    """Read ``log.jsonl`` of a run.

    Args:
        folder: The folder of the run.

    Returns:
        The records in order; none where there is no log.

    Raises:
        DataError: The log is damaged.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        return []
    content = load_bytes(path, _CURE)
    try:
        return [EpochRecord.from_dict(json.loads(line)) for line in content.splitlines()]
    except (ValueError, DataError) as error:
        raise DataError(f"{path}: damaged ({error}); {_CURE}") from error


def epoch_of_result(recipe: Recipe, history: Sequence[EpochRecord]) -> EpochRecord:
    """Return the record of the epoch whose weights are the result of a run.

    Args:
        recipe: Its ``checkpoint`` selects the last epoch or the one with the best validation accuracy.
        history: The records of the run, at least one.

    Returns:
        The record of that epoch.
    """
    validated = [record for record in history if math.isfinite(record.val_log_loss)]  # else its net is not finite
    returned = bool(history[-1].fallback)  # no epoch is left for it: the run ended with the best one
    if (recipe.checkpoint == "best" or returned) and validated:
        return max(validated, key=lambda record: record.val_accuracy)  # the first of equals, as in the training
    return history[-1]


class ExperimentLoggers:
    """TensorBoard and MLflow loggers of one run.

    They are opened at the first epoch. A resumed run continues its logs. A log that is requested later starts with the
    epochs that the run already has.

    Attributes:
        finished: Set it before ``close`` if the run is finished. MLflow shows other runs as killed.
    """

    def __init__(self, names: Sequence[str], recipe: Recipe, folder: Path) -> None:
        """Check the names without opening anything.

        Args:
            names: Keys of ``LOGGERS``.
            recipe: The recipe of the run; its keys are logged as hyperparameters.
            folder: The folder of the run.

        Raises:
            RecipeError: A name is unknown.
            MissingExtraError: The package of a logger is not installed.
        """
        self._openers = []
        for name in dict.fromkeys(names):
            require_known("logger", name, LOGGERS, RecipeError)
            opener, packages = LOGGERS[name]
            if not any(find_spec(package) for package in packages):
                raise MissingExtraError(packages[0], "track")
            self._openers.append(opener)
        self._recipe, self._folder = recipe, folder
        self._loggers: list[Any] = []
        self.finished = False

    def on_epoch(self, record: EpochRecord) -> None:
        """Log the metrics of an epoch.

        Args:
            record: The record of the epoch.
        """
        if not self._loggers and self._openers:
            earlier = [each for each in read_log(self._folder) if each.epoch < record.epoch]
            for opener in self._openers:
                logger, is_new = opener(self._recipe, self._folder, record.epoch)
                self._loggers.append(logger)
                if is_new:
                    logger.log_hyperparams(_flat(dump(self._recipe)))
                    for each in earlier:
                        logger.log_metrics(_metrics(each), step=each.epoch)
        for logger in self._loggers:
            logger.log_metrics(_metrics(record), step=record.epoch)

    def close(self) -> None:
        """Write the remaining records."""
        for logger in self._loggers:
            logger.finalize("success" if self.finished else "KILLED")
        self._loggers = []


def silence_lightning() -> None:
    """Hide messages of Lightning about its precision and processes. Its errors are still shown."""
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning_fabric\..*")


def _tensorboard(recipe: Recipe, folder: Path, epoch: int) -> tuple[Any, bool]:  # noqa: ARG001
    """A logger that writes into the run's folder, and whether it is new. Repeated epochs replace their points."""
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    is_new = not any((folder / "tensorboard").glob("events*"))
    logger = TensorBoardLogger(
        folder,
        name="tensorboard",
        version="",
        purge_step=None if is_new else epoch,
        filename_suffix=f".{epoch}",  # TensorBoard's own names have a resolution of one second
    )
    return logger, is_new


class _MlflowLogger:
    """One run of MLflow, with the methods of the loggers of Fabric."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        # MLflow refuses values of more than 500 characters, and more than 100 parameters at once.
        entities = [Param(key, str(value)[:500]) for key, value in params.items()]
        for first in range(0, len(entities), 100):
            self._client.log_batch(self._run_id, params=entities[first : first + 100])

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])

    def finalize(self, status: str) -> None:
        self._client.set_terminated(self._run_id, "FINISHED" if status == "success" else status)


def _mlflow(recipe: Recipe, folder: Path, epoch: int) -> tuple[Any, bool]:  # noqa: ARG001
    """A logger of the MLflow run whose id is in the run's folder, or of a new one, and whether it is new.

    The database of another working directory does not have the run: there it begins a new one.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reports its use to its makers
    tracking = import_module("mlflow.tracking")
    for name in ("mlflow", "alembic"):  # they report the layout of their database
        logging.getLogger(name).setLevel(logging.WARNING)
    client = tracking.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
    path = folder / "mlflow-run.txt"
    if path.is_file():
        run_id = path.read_text(encoding="utf-8").strip()
        try:
            client.update_run(run_id, status="RUNNING")
            return _MlflowLogger(client, run_id), False
        except import_module("mlflow.exceptions").MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    experiment = client.get_experiment_by_name(recipe.name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(recipe.name)
    run_id = client.create_run(experiment_id, run_name=f"{recipe.name}, seed {recipe.seed}").info.run_id
    save_text(path, f"{run_id}\n")
    return _MlflowLogger(client, run_id), True


Opener = Callable[[Recipe, Path, int], tuple[Any, bool]]
# Name -> the function that opens the logger, and the packages of which it needs one.
LOGGERS: Mapping[str, tuple[Opener, tuple[str, ...]]] = {
    "tensorboard": (_tensorboard, ("tensorboardX", "tensorboard")),
    "mlflow": (_mlflow, ("mlflow",)),
}


def _metrics(record: EpochRecord) -> dict[str, float]:
    """The finite numbers of a record; the loggers cannot plot others."""
    values = record.to_dict()
    return {key: float(x) for key, x in values.items() if isinstance(x, (int, float)) and key != "epoch"}


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables as dotted keys with plain values, without empty tables."""
    values = {key: value for key, value in dotted(table).items() if value != {}}
    return {key: x if isinstance(x, (bool, int, float, str)) else json.dumps(x) for key, x in values.items()}
