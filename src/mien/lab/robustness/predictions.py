"""Predictions of several models on the same corrupted faces, and which of them are correct.

Every corruption is computed once for all models. The reference model of the mean corruption error is predicted in the
same run, or its correct predictions are read from a robustness file.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError
from mien._progress import Progress, no_progress
from mien.lab.data import FaceSet, Split
from mien.lab.files import load_json
from mien.lab.models import Model
from mien.lab.predictions import Selection, resize_faces, select_rows
from mien.lab.robustness.corruptions import SEVERITIES, Corruption, corruption_generators

_Probs = NDArray[np.float32]
_Bools = NDArray[np.bool_]

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

    def correct(self, probs: _Probs) -> _Bools:
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
        raise DataError(f"{faces.source}: has no rows in {split}; it has {known}; choose one of these, or all")
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


@dataclass(frozen=True, eq=False)
class CorruptionReference:
    """Which predictions of a model are correct, face by face.

    Attributes:
        name: Name of the model.
        emotions: Its emotions.
        setting: What determines the corrupted pixels: ``data_sha256``, ``side`` and ``seed``.
        rows: Rows of the data set in ascending order, int64 ``[N]``.
        clean: Correct on the clean face, bool ``[N]``.
        corrupted: By corruption, correct at the severities 1 to 5, bool ``[5, N]``.
        amounts: By corruption, the amounts of the severities.
    """

    name: str
    emotions: tuple[str, ...]
    setting: Mapping[str, Any]
    rows: NDArray[np.int64]
    clean: _Bools
    corrupted: Mapping[str, _Bools]
    amounts: Mapping[str, Sequence[float]]

    def mismatch(self, other: "CorruptionReference") -> str:
        """Return why another model cannot be compared with this one.

        Args:
            other: The other model.

        Returns:
            The reason; empty where it can be compared.
        """
        if sorted(self.emotions) != sorted(other.emotions):
            return f"{self.name} has other emotions"
        return self.pixel_mismatch(other.setting, other.rows, other.amounts)

    def pixel_mismatch(
        self, setting: Mapping[str, Any], rows: NDArray[np.int64], amounts: Mapping[str, Sequence[float]]
    ) -> str:
        """Return why these predictions are of other pixels.

        Args:
            setting: ``data_sha256``, ``side`` and ``seed`` of the test.
            rows: Rows of the data set that are needed.
            amounts: By corruption, the amounts of the severities.

        Returns:
            The reason; empty where all pixels are the same.
        """
        for key, text in (("data_sha256", "other data"), ("side", "faces of another size"), ("seed", "another seed")):
            if self.setting[key] != setting[key]:
                return f"{self.name} was tested on {text}"
        if not np.isin(rows, self.rows).all():
            return f"{self.name} was tested on other faces"
        for name, wanted in amounts.items():
            if list(self.amounts.get(name, ())) != list(wanted):
                return f"{self.name} was tested with other amounts of {name}"
        return ""

    def at(self, rows: NDArray[np.int64]) -> "CorruptionReference":
        """Return the same for fewer rows.

        Args:
            rows: Rows of the data set; all of them are in ``self.rows``.

        Returns:
            The reference for ``rows``, in their order.
        """
        place = np.searchsorted(self.rows, rows)
        corrupted = {name: correct[:, place] for name, correct in self.corrupted.items()}
        return replace(self, rows=rows, clean=self.clean[place], corrupted=corrupted)


def reference_of(
    predictions: CorruptedPredictions, corruptions: Sequence[Corruption], setting: Mapping[str, Any]
) -> CorruptionReference:
    """Return which predictions of a model are correct.

    Args:
        predictions: The predictions of the model.
        corruptions: The corruptions that were applied.
        setting: ``data_sha256``, ``side`` and ``seed`` of the test.

    Returns:
        The model as a reference.
    """
    corrupted = {
        c.name: np.stack([predictions.correct(probs) for probs in predictions.corrupted[c.name]]) for c in corruptions
    }
    emotions = tuple(str(emotion) for emotion in predictions.model.emotions)
    clean, amounts = predictions.correct(predictions.clean), {c.name: c.amounts for c in corruptions}
    return CorruptionReference(predictions.name, emotions, setting, predictions.rows, clean, corrupted, amounts)


def pack_reference(reference: CorruptionReference) -> dict[str, Any]:
    """Encode rows and correct predictions as text for a JSON file, one bit per face.

    Args:
        reference: What to encode.

    Returns:
        ``rows`` as ranges, ``clean`` and every corruption in base64.
    """
    return {
        "rows": format_ranges(reference.rows.tolist()),
        "clean": _to_base64(reference.clean),
        **{name: [_to_base64(each) for each in correct] for name, correct in reference.corrupted.items()},
    }


def read_reference(path: Path) -> CorruptionReference:
    """Read the first model of a robustness file.

    Args:
        path: A ``stress.json``, or the file of one model.

    Returns:
        The model as a reference.

    Raises:
        DataError: The file is missing, damaged or of another kind.
    """
    try:
        result = load_json(path, "write it again with run_robustness")
        model, correct = result["models"][0], dict(result["models"][0]["correct"])
        rows = np.array(parse_ranges(correct.pop("rows")), np.int64)
        clean = _from_base64(correct.pop("clean"), len(rows))
        corrupted = {name: np.stack([_from_base64(text, len(rows)) for text in each]) for name, each in correct.items()}
        amounts = {each["name"]: each["amounts"] for each in result["corruptions"]}
        emotions = tuple(model["emotions"])
        return CorruptionReference(model["name"], emotions, result["setting"], rows, clean, corrupted, amounts)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise DataError(f"{path}: not a robustness file ({kind}); write one with run_robustness") from error


def format_ranges(rows: Sequence[int]) -> str:
    """Format ascending numbers as ranges.

    Args:
        rows: Numbers in ascending order.

    Returns:
        For example ``3-5,9``.

    Example:
        >>> format_ranges([3, 4, 5, 9])
        '3-5,9'
    """
    runs = np.split(np.asarray(rows), np.flatnonzero(np.diff(rows) != 1) + 1)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def parse_ranges(text: str) -> list[int]:
    """Parse the text of ``format_ranges``.

    Args:
        text: For example ``3-5,9``.

    Returns:
        The numbers.

    Raises:
        ValueError: The text has another form.
    """
    rows: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        rows += range(int(low), int(high or low) + 1)
    return rows


def _to_base64(correct: _Bools) -> str:
    return base64.b64encode(np.packbits(correct).tobytes()).decode("ascii")


def _from_base64(text: str, count: int) -> _Bools:
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text, validate=True), np.uint8))
    if not count <= len(bits) < count + 8:
        raise ValueError(f"{len(bits)} bits for {count} faces")
    return bits[:count].astype(np.bool_)
