"""One way of looking at one model: probabilities of faces, and the map of a class for each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien._errors import MienError, ModelError
from mien.lab.explain.methods import LAYER, METHODS, STEPS, Maps, check_method, explain
from mien.lab.model import Model

Crops = NDArray[np.uint8]
Targets = NDArray[np.int64]
_CHUNK = 256  # faces read at once: the maps of all classes are held for no more


@dataclass(frozen=True, eq=False)
class Looker:
    """``model`` as ``method`` explains it; ``layer`` and ``steps`` as for ``explain``."""

    model: Model
    method: str = "map"
    layer: str = LAYER
    steps: int = STEPS

    def __post_init__(self) -> None:
        """Raises ``MienError`` for a method or layer that is unknown, or that this model does not allow."""
        if self.method not in METHODS:
            raise MienError(f"unknown method {self.method!r} (there are: {', '.join(METHODS)})")
        if self.model.trained is None and self.method != "map":
            raise ModelError(needs_run(self.method, self.model.name))
        if self.model.trained is None and self.layer != LAYER:
            raise MienError(f"{self.model.name} is an ONNX file, whose layers are hidden; name a run to choose --layer")
        if self.model.trained is not None:
            check_method(self.model.trained.net, self.method, self.layer)

    def read(self, crops: Crops, report: Callable[[int], None] = lambda _: None) -> NDArray[np.float32]:
        """Probabilities float32 ``[N, C]`` of ``crops`` uint8 ``[N, S, S]``."""
        parts = [np.zeros((0, len(self.model.emotions)), np.float32)]
        for start in range(0, len(crops), _CHUNK):
            parts.append(self.model(crops[start : start + _CHUNK])[0])
            report(min(start + _CHUNK, len(crops)))
        return np.concatenate(parts)

    def maps(self, crops: Crops, targets: Targets, report: Callable[[int], None] = lambda _: None) -> Maps:
        """Maps float32 ``[N, h, w]``, signed, of class ``targets`` ``[N]``. Raises ``ModelError`` where it has none."""
        if self.model.trained is not None:
            maps = explain(
                self.model.trained,
                crops,
                targets,
                method=self.method,
                layer=self.layer,
                steps=self.steps,
                report=report,
            )
        else:
            maps = self._of_file(crops, targets, report)
        if len(maps) and maps.shape[1] * maps.shape[2] < 4:
            height, width = maps.shape[1:]
            raise ModelError(
                f"{self.model.name}: its map has {height}x{width} places, which say nothing; "
                "choose a --layer before it, or integrated-gradients"
            )
        return maps

    def _of_file(self, crops: Crops, targets: Targets, report: Callable[[int], None]) -> Maps:
        parts = []
        for start in range(0, len(crops), _CHUNK):
            part = slice(start, start + _CHUNK)
            maps = self.model(crops[part])[1]
            if maps is None:
                raise ModelError(f"{self.model.name} gives no maps; a run or a file of mien's contract does")
            parts.append(maps[np.arange(len(maps)), targets[part]])
            report(min(start + _CHUNK, len(crops)))
        return np.concatenate(parts) if parts else np.zeros((0, 1, 1), np.float32)


def needs_run(method: str, name: str) -> str:
    """What is said where gradients are asked of an ONNX file."""
    return (
        f"{method} needs the gradients of a run's torch net, and {name} is an ONNX file; "
        "name a run (--model runs/NAME), or take --method map"
    )
