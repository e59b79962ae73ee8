"""A reader of faces as the lab's evidence needs it, whatever it was made with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import ModelError
from mien.lab.train.run import Trained

Crops = NDArray[np.uint8]
Probs = NDArray[np.float32]
Maps = NDArray[np.float32] | None

# Largest distance from 1 of the sum of a row of probabilities: rounding of float32 stays far below.
_SUM_ERROR = 1e-3


@dataclass(frozen=True, eq=False)
class Model:
    """A reader of faces.

    - ``name``; ``emotions``: its classes, in the order of its answers; ``size``: the side S of its crops in pixels
    - ``about``: what a report says of it (kind, precision, recipe, seed, commit, calibration, ...), term to text
    - ``path``: the file or folder it was opened from
    - ``answer``: crops uint8 ``[N, S, S]`` grey -> probabilities float32 ``[N, C]``, and maps float32 ``[N, C, h, w]``
      or ``None`` where the model gives none
    - ``trained``: the run with its torch net, where it was opened from one
    """

    name: str
    emotions: tuple[Emotion, ...]
    size: int
    about: Mapping[str, str]
    path: Path
    answer: Callable[[Crops], tuple[Probs, Maps]]
    trained: Trained | None = None

    def __call__(self, crops: Crops) -> tuple[Probs, Maps]:
        """Read ``crops``. Raises ``ModelError`` for another shape, and for answers that are no probabilities."""
        if crops.dtype != np.uint8 or crops.shape[1:] != (self.size, self.size):
            wanted, given = f"uint8 [N, {self.size}, {self.size}]", f"{crops.dtype} {list(crops.shape)}"
            raise ModelError(f"{self.name} reads crops of {wanted}, not {given}")
        probs, maps = self.answer(crops)
        _check(self.name, probs, (len(crops), len(self.emotions)))
        return probs, maps


def _check(name: str, probs: Probs, shape: tuple[int, int]) -> None:
    if probs.shape != shape:
        raise ModelError(f"{name} answers {list(probs.shape)}, not {list(shape)}: its labels do not match its output")
    if not np.isfinite(probs).all():
        raise ModelError(f"{name} answers values that are no numbers; check the scaling of its input")
    worst = float(np.abs(probs.sum(axis=1) - 1).max(initial=0))
    if worst > _SUM_ERROR or (probs < 0).any():
        raise ModelError(
            f"{name} answers no probabilities: a row is negative or its sum is off 1 by {worst:.3g}; "
            'for logits, say outputs = "logits" in its TOML'
        )
