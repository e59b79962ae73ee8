"""Predictions of several models on the same corrupted faces. Every corruption is computed once for all models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError
from mien._progress import Progress, no_progress
from mien.lab.data import FaceSet, Split
from mien.lab.models import Model
from mien.lab.predictions import Selection, resize_faces, select_rows
from mien.lab.robustness.corruptions import SEVERITIES, Corruption, corruption_generators

_Probs = NDArray[np.float32]

DEFAULT_FACES = 1500  # with 95 corrupted versions of each: two minutes of mien-0 on one core
_BATCH = 256  # faces that are corrupted at once


@dataclass(frozen=True, eq=False)
class CorruptedPredictions:
    """The probabilities of one model on clean and corrupted faces.

    Attributes:
        model: The model.
        name: Its name in this test.
        selection: The faces that it was tested on.
        clean: Probabilities of the clean faces, float32 ``[N, C]``.
        corrupted: By name of the corruption, the probabilities at the severities 1 to 5, each float32 ``[N, C]``.
    """

    model: Model
    name: str
    selection: Selection
    clean: _Probs
    corrupted: Mapping[str, Sequence[_Probs]]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows of the data set, int64 ``[N]``."""
        return self.selection.faces.rows.numpy()

    @property
    def labels(self) -> NDArray[np.int64]:
        """The true classes, int64 ``[N]``, as indices into the model's emotions."""
        return self.selection.faces.labels.numpy()

    def correct(self, probs: _Probs) -> NDArray[np.bool_]:
        """Return which predictions are correct.

        Args:
            probs: Probabilities of the same faces, float32 ``[N, C]``.

        Returns:
            bool ``[N]``.
        """
        return np.asarray(probs.argmax(1) == self.labels)


def sample_faces(faces: FaceSet, split: Split | None, count: int, *, seed: int) -> FaceSet:
    """Draw faces of a split, stratified by class. The sample depends only on the data set and the seed.

    Args:
        faces: The whole data set.
        split: The split to draw from; ``None``: all rows.
        count: How many faces to draw; 0, or more than there are: all.
        seed: Seed of the sample. A smaller sample of the same seed is part of a larger one.

    Returns:
        The faces in the order of the set.

    Raises:
        DataError: The split is empty.
    """
    part = faces.split(split) if split else faces
    if not len(part):
        known = ", ".join(s for s in Split if len(faces.split(s)))
        raise DataError(f"{faces.source}: has no rows in {split}; it has {known}")
    if not 0 < count < len(part):
        return part
    generator = np.random.default_rng([seed, len(part)])
    labels = part.labels.numpy()
    # Each face gets a random quantile within its class. The faces with the lowest quantiles keep the proportions.
    quantile = np.empty(len(part))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        quantile[rows] = (generator.permutation(len(rows)) + 0.5) / len(rows)
    chosen = np.sort(np.argsort(quantile, kind="stable")[:count])
    return part.select(torch.from_numpy(chosen))


def select_sample(faces: FaceSet, sample: FaceSet, emotions: tuple[Emotion, ...], split: Split | None) -> Selection:
    """Select the faces of a sample that a model can be tested on.

    Args:
        faces: The whole data set.
        sample: The sample, from ``sample_faces``.
        emotions: The emotions of the model.
        split: The split of the sample; ``None``: all rows.

    Returns:
        The selection. Its ``account`` says how many rows were left out, and why.

    Raises:
        DataError: Fewer than two classes are left.
    """
    selection = select_rows(faces, emotions, split)
    in_sample = np.isin(selection.faces.rows.numpy(), sample.rows.numpy())
    chosen = selection.faces.select(torch.from_numpy(in_sample))
    if len(torch.unique(chosen.labels)) < 2:
        raise DataError(f"{faces.source}: a sample of {len(sample)} faces has fewer than two classes; draw more faces")
    left_out = {} if in_sample.all() else {"not in the sample": int((~in_sample).sum())}
    account = {**selection.account, **left_out}
    return replace(selection, faces=chosen, clean=selection.clean[in_sample], account=account)


def predict_corrupted(
    models: Mapping[str, Model],
    selections: Mapping[str, Selection],
    sample: FaceSet,
    corruptions: Sequence[Corruption],
    *,
    seed: int,
    progress: Progress = no_progress,
    batch_size: int = _BATCH,
) -> list[CorruptedPredictions]:
    """Predict the clean faces and all their corrupted versions with every model.

    A corrupted face depends only on its row and the seed, not on the batch, the other faces or the models.

    Args:
        models: The models by name.
        selections: By the same names, the faces of each model.
        sample: All sampled faces.
        corruptions: The corruptions to apply, at all severities.
        seed: Seed of all random corruptions.
        progress: Called with the number of faces done after every batch.
        batch_size: Faces that are corrupted and predicted at once.

    Returns:
        The predictions in the order of ``models``.
    """
    rows = {name: selection.faces.rows.numpy() for name, selection in selections.items()}
    clean: dict[str, _Probs] = {}
    corrupted: dict[str, dict[str, list[_Probs]]] = {name: {c.name: [] for c in corruptions} for name in models}
    done, total = 0, len(sample) * (1 + len(SEVERITIES) * len(corruptions))
    conditions: list[tuple[Corruption | None, int]] = [(None, 0), *product(corruptions, SEVERITIES)]
    for corruption, severity in conditions:
        batches: dict[str, list[_Probs]] = {name: [] for name in models}
        for start in range(0, len(sample), batch_size):
            faces = sample.select(torch.arange(start, min(start + batch_size, len(sample))))
            if corruption:
                generators = corruption_generators(seed, corruption.name, faces.rows.tolist())
                images = corruption(faces.images.numpy(), severity, generators)
                faces = replace(faces, images=torch.from_numpy(images))
            for name, model in models.items():
                own = np.isin(faces.rows.numpy(), rows[name])
                if own.any():
                    batches[name].append(model(resize_faces(faces.select(torch.from_numpy(own)), model.size))[0])
            done += len(faces)
            progress(corruption.name if corruption else "clean faces", done, total)
        for name, each in batches.items():
            if corruption:
                corrupted[name][corruption.name].append(np.concatenate(each))
            else:
                clean[name] = np.concatenate(each)
    return [
        CorruptedPredictions(model, name, selections[name], clean[name], corrupted[name])
        for name, model in models.items()
    ]
