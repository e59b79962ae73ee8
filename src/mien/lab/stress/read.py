"""Models read the same spoilt faces: every spoiling is done once, whoever looks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mien.lab.data import FaceSet
from mien.lab.judge.examine import Selection
from mien.lab.judge.judge import crops_of
from mien.lab.model import Model
from mien.lab.stress.draw import Images, generators
from mien.lab.stress.spoilings import STRENGTHS, Spoiling

Probs = NDArray[np.float32]
Report = Callable[[int, int, str], None]  # faces read, of how many, what is being read

PIECE = 256  # faces at once


@dataclass(frozen=True, eq=False)
class Read:
    """What ``model`` says of the faces of ``selection``: float32 ``[N, C]`` clean, and a list of five by spoiling."""

    model: Model
    name: str
    selection: Selection
    clean: Probs
    spoilt: Mapping[str, Sequence[Probs]]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows of the data set that were read."""
        return self.selection.faces.rows.numpy()

    @property
    def labels(self) -> NDArray[np.int64]:
        """The truth, an index into the model's emotions."""
        return self.selection.faces.labels.numpy()

    def right(self, probs: Probs) -> NDArray[np.bool_]:
        """Which faces are read rightly."""
        return np.asarray(probs.argmax(1) == self.labels)


def read_spoilt(
    models: Mapping[str, Model],
    selections: Mapping[str, Selection],
    drawn: FaceSet,
    spoilings: Sequence[Spoiling],
    *,
    seed: int,
    report: Report | None = None,
    piece: int = PIECE,
) -> list[Read]:
    """The answers of every one of ``models`` for its ``selections`` of ``drawn``, clean and under all ``spoilings``.

    Models are given by name. A face is spoilt by its row and ``seed`` alone: neither ``piece``, how many are handled at
    once, nor the other faces or models matter. ``report`` hears of progress.
    """
    reader = _Reader(models, selections, drawn, seed, piece, report, total=len(drawn) * (1 + 5 * len(spoilings)))
    clean = reader.read("clean faces", None, 0)
    spoilt: dict[str, dict[str, list[Probs]]] = {name: {} for name in models}
    for spoiling in spoilings:
        for strength in STRENGTHS:
            answers = reader.read(spoiling.name, spoiling, strength)
            for name, probs in answers.items():
                spoilt[name].setdefault(spoiling.name, []).append(probs)
    return [Read(model, name, selections[name], clean[name], spoilt[name]) for name, model in models.items()]


@dataclass(eq=False)
class _Reader:
    models: Mapping[str, Model]
    selections: Mapping[str, Selection]
    drawn: FaceSet
    seed: int
    piece: int
    report: Report | None
    total: int
    done: int = 0

    def read(self, doing: str, spoiling: Spoiling | None, strength: int) -> dict[str, Probs]:
        """What every model says of its faces, spoilt so."""
        parts: dict[str, list[Probs]] = {name: [] for name in self.models}
        for start in range(0, len(self.drawn), self.piece):
            faces = self.drawn.select(torch.arange(start, min(start + self.piece, len(self.drawn))))
            if spoiling:
                faces = replace(faces, images=torch.from_numpy(self._spoil(faces, spoiling, strength)))
            for name, model in self.models.items():
                known = np.isin(faces.rows.numpy(), self.selections[name].faces.rows.numpy())
                if known.any():
                    parts[name].append(model(crops_of(faces.select(torch.from_numpy(known)), model.size))[0])
            self.done += len(faces)
            if self.report:
                self.report(self.done, self.total, doing)
        return {name: np.concatenate(answers) for name, answers in parts.items()}

    def _spoil(self, faces: FaceSet, spoiling: Spoiling, strength: int) -> Images:
        rows = faces.rows.tolist()
        return spoiling(faces.images.numpy(), strength, generators(self.seed, spoiling.name, rows))
