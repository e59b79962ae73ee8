"""A linear classifier of pixels, and its evaluation."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")


from mien._emotions import SEVEN, Emotion
from mien.lab.data import FaceSet, Split
from mien.lab.evaluate.evaluation import evaluate_task, prepare_evaluation
from mien.lab.evaluate.subjects import Subject, TestSet
from mien.lab.models import Model
from support.synthetic_faces import cartoon_set


def reader(emotions: tuple[Emotion, ...] = SEVEN, *, seed: int = 0) -> Model:
    """A real linear classifier of pixels with random weights: its answers depend on every pixel."""
    size = 48
    middle = cartoon_set().images.float().mean(0).numpy().reshape(1, -1) / 255
    weights = np.random.default_rng(seed).normal(0, 0.2, (size * size, len(emotions))).astype(np.float32)

    def answer(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = crops.reshape(len(crops), -1).astype(np.float32) / 255 - middle
        odds = np.exp(pixels @ weights)
        places = (pixels[:, :, None] * weights).reshape(len(crops), size, size, -1)
        maps = places.reshape(len(crops), 6, size // 6, 6, size // 6, -1).sum((2, 4)).transpose(0, 3, 1, 2)
        return (odds / odds.sum(1, keepdims=True)).astype(np.float32), np.ascontiguousarray(maps)

    return Model("pixels", emotions, size, {"kind": "linear"}, Path("pixels"), answer)


def subject(model: Model) -> Subject:
    return Subject(model.name, model.emotions, model.size, model.path, model.about, "", model)


def evaluation(faces: FaceSet, model: Model, split: Split | str | None = None):
    return evaluate_task(prepare_evaluation(subject(model), TestSet(faces, "cartoons"), split))
