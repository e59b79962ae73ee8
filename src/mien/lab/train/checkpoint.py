"""What of a run is written, when, and by whom."""

import copy
import json
import math
import time
from types import TracebackType
from typing import Any

import torch
from lightning.fabric import Fabric

from mien._errors import DivergedError
from mien.lab.files import remove_partial_files, save_state, save_text
from mien.lab.recipe import dump
from mien.lab.train.devices import together
from mien.lab.train.run import Run, State, net_of

# Seconds between two checkpoints; an epoch on a fast device is shorter than writing one.
SAVE_EVERY = 30.0


class Saver:
    """Writes checkpoints: by the first process, every ``SAVE_EVERY`` seconds, at the end, and when training breaks off.

    An epoch that is not written is kept as a copy, for an interruption comes when the next one has changed the weights.
    """

    def __init__(self, run: Run, fabric: Fabric, provenance: dict[str, Any]) -> None:
        self.run, self.fabric, self.provenance = run, fabric, provenance
        self.saved_at = time.monotonic()
        self.unsaved: State | None = None
        together(fabric, self._begin)

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None and issubclass(kind, (KeyboardInterrupt, DivergedError)):
            self._write()

    def epoch_is_over(self, optimiser: torch.optim.Optimizer) -> None:
        """Keep the epoch, or write it where it is time. Every process calls this."""
        due = self.fabric.broadcast(self.run.done or time.monotonic() - self.saved_at >= SAVE_EVERY)
        if self.fabric.is_global_zero:
            state = state_of(self.run, optimiser)
            self.unsaved = state if due else _copied(state)
        if due:
            self.save()

    def save(self) -> None:
        """Write what is not yet written. Raises ``OutputError``; every process calls this."""
        together(self.fabric, self._write)

    def _begin(self) -> None:
        """For people; and a folder that cannot be written shows before the first epoch is lost."""
        run = self.run
        remove_partial_files(run.folder)
        save_text(run.folder / "recipe.json", json.dumps(dump(run.recipe), indent=1) + "\n")
        if run.done and not (run.folder / "final.pt").exists():  # somebody removed it
            save_final(run, self.provenance)

    def _write(self) -> None:
        if self.unsaved is not None:
            save_run(self.run, self.unsaved, self.provenance)
        self.saved_at, self.unsaved = time.monotonic(), None


def _copied(state: State) -> State:
    best = state["best"]  # never changed in place
    return {**copy.deepcopy({key: value for key, value in state.items() if key != "best"}), "best": best}


def state_of(run: Run, optimiser: torch.optim.Optimizer) -> State:
    """What a checkpoint holds: all that the next epoch needs. Its tensors are those of the run, not copies."""
    return {
        "recipe": dump(run.recipe),
        "data": run.data,
        "objective": run.objective.state_dict(),
        "average": run.average.net.state_dict(),
        "steps": run.average.steps,
        "optimiser": optimiser.state_dict(),
        "leg": list(run.optimiser_leg),
        "epoch": run.epoch,
        "history": run.history,
        "best": run.best,
        "fallen": run.fallen,
    }


def save_run(run: Run, state: State, provenance: State) -> None:
    """Write the log, ``final.pt`` when the run is done, and the checkpoint. Raises ``OutputError``.

    The checkpoint comes last: after a kill in between, the epochs since the one before are trained and written again.
    """
    save_text(run.folder / "log.jsonl", "".join(line_of(record) for record in state["history"]))
    if run.done:
        save_final(run, provenance)
    save_state(run.folder / "checkpoint.pt", state)


def save_final(run: Run, provenance: State) -> None:
    """Write ``final.pt`` of a run that is done: the net that its recipe keeps. Raises ``OutputError``."""
    best = run.recipe.checkpoint == "best" and run.best
    kept = net_of(run.best["objective"]) if best else run.average.net.state_dict()
    state = {
        "recipe": dump(run.recipe),
        "net": kept,
        "epoch": run.best["epoch"] if best else run.epoch,
        "history": run.history,
        "provenance": provenance,
    }
    save_state(run.folder / "final.pt", state)


def line_of(record: State) -> str:
    """A record as a line of strict JSON, which has no word for a loss that is not a number."""
    known = {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in record.items()}
    return json.dumps(known, allow_nan=False) + "\n"
