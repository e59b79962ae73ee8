"""Checkpoints of a training: what is written, when, and by which process."""

import copy
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch
from lightning_fabric import Fabric

from mien._errors import DivergedError
from mien.lab.files import save_checkpoint, save_json, save_state
from mien.lab.recipe import dump
from mien.lab.train.devices import run_on_first
from mien.lab.train.logging import EpochRecord, write_log
from mien.lab.train.run import Run, State, checkpoint_state, final_state, is_finished

# Seconds between two checkpoints. On a fast device an epoch takes less time than writing a checkpoint.
SAVE_EVERY = 30.0


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
        self._run, self._fabric, self._provenance = run, fabric, provenance
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
            save_state(run.folder / "final.pt", final_state(run, self._provenance))

    def _write(self) -> None:
        """Write the checkpoint last: if the process is killed before, the epochs since the last one are repeated."""
        run, state = self._run, self._unsaved
        if state is not None:
            write_log(run.folder, [EpochRecord.from_dict(values) for values in state["history"]])
            if run.is_done:
                save_state(run.folder / "final.pt", final_state(run, self._provenance))
            save_checkpoint(run.folder, state)
        self._saved_at, self._unsaved = time.monotonic(), None
