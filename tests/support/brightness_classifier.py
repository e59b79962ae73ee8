"""A model that classifies by brightness alone, for the tests of robustness."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien._emotions import SEVEN
from mien.lab.data import FaceSet, Split
from mien.lab.models import Model
from mien.lab.robustness.corruptions import CORRUPTIONS, choose_corruptions
from mien.lab.robustness.predictions import (
    CorruptedPredictions,
    CorruptionReference,
    predict_corrupted,
    sample_faces,
    select_sample,
)

BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}
SETTING = {"data_sha256": "0" * 64, "side": 48, "seed": 0}  # of ``reference_with_errors``


def by_brightness(name: str = "light", emotions: tuple = SEVEN, dark: float = 0.0) -> Model:
    """A model that classifies by the mean grey of the mouth; wrong on faces darker than ``dark``."""

    def answer(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], None]:
        mouth = crops[:, 28:43, 13:36].mean(axis=(1, 2), dtype=np.float64)
        logits = -(((mouth[:, None] - 45) / 12 - np.arange(len(emotions))) ** 2)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        if dark:
            low = crops[:, :4].mean(axis=(1, 2)) < dark
            odds[low] = np.roll(odds[low], 1, axis=1)
        return odds.astype(np.float32), None

    return Model(name, tuple(emotions), 48, {"kind": "test"}, Path(), answer)


def corrupted_predictions(
    model: Model, faces: FaceSet, names: tuple[str, ...] = ("gaussian-noise", "cover-mouth"), **options: int
) -> CorruptedPredictions:
    sample = sample_faces(faces, Split.PUBLIC_TEST, 0, seed=0)
    selection = select_sample(faces, sample, model.emotions, Split.PUBLIC_TEST)
    return predict_corrupted(
        {model.name: model}, {model.name: selection}, sample, choose_corruptions(names), seed=0, **options
    )[0]


def reference_with_errors(
    name: str, wrong: dict[str, list[int]], clean: int = 10, count: int = 100
) -> CorruptionReference:
    """A model with this number of errors at each severity; the first faces are the wrong ones."""
    rows = np.arange(count)
    corrupted = {key: np.stack([rows >= number for number in five]) for key, five in wrong.items()}
    amounts = {key: BY_NAME[key].amounts for key in wrong}
    return CorruptionReference(name, tuple(map(str, SEVEN)), SETTING, rows, rows >= clean, corrupted, amounts)
