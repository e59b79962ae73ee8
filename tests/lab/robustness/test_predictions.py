"""Samples of faces, and predictions on corrupted faces."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import SEVEN
from mien.lab.data import FaceSet, Split
from mien.lab.models import Model, open_model
from mien.lab.robustness.corruptions import choose_corruptions
from mien.lab.robustness.predictions import predict_corrupted, sample_faces, select_sample
from support.brightness_classifier import by_brightness, corrupted_predictions
from support.synthetic_faces import cartoon_set


def test_a_sample_is_stratified_and_part_of_a_larger_sample() -> None:
    faces = cartoon_set()
    few, more = (sample_faces(faces, Split.PUBLIC_TEST, count, seed=0) for count in (14, 35))
    assert torch.bincount(few.labels).tolist() == [2] * 7
    assert set(few.rows.tolist()) < set(more.rows.tolist())
    assert len(sample_faces(faces, Split.PUBLIC_TEST, 0, seed=0)) == 70
    assert few.rows.tolist() != sample_faces(faces, Split.PUBLIC_TEST, 14, seed=1).rows.tolist()


def test_predictions_do_not_depend_on_the_batch_size(faces: FaceSet) -> None:
    model = open_model("mien-0")
    few = faces.select(torch.arange(60, 90))
    one, many = (corrupted_predictions(model, few, ("shot-noise", "rotation"), batch_size=size) for size in (1, 64))
    assert np.array_equal(one.clean, many.clean)
    for name in one.corrupted:
        assert np.array_equal(np.stack(one.corrupted[name]), np.stack(many.corrupted[name]))


def test_models_of_other_classes_see_the_same_pixels(faces: FaceSet) -> None:
    seen: dict[str, list[NDArray[np.uint8]]] = {"a": [], "b": []}

    def watching(name: str, emotions: tuple) -> Model:
        plain = by_brightness(name, emotions)
        return replace(plain, predict=lambda crops: (seen[name].append(crops), plain.predict(crops))[1])

    models = {"a": watching("a", SEVEN), "b": watching("b", SEVEN[:3])}
    sample = sample_faces(faces, Split.PUBLIC_TEST, 70, seed=0)
    selections = {n: select_sample(faces, sample, m.emotions, Split.PUBLIC_TEST) for n, m in models.items()}
    predict_corrupted(models, selections, sample, choose_corruptions(["gaussian-noise"]), seed=0)
    known = np.isin(selections["a"].faces.rows, selections["b"].faces.rows)
    assert 0 < known.sum() < 70
    for all_seven, three in zip(seen["a"], seen["b"], strict=True):
        assert np.array_equal(all_seven[known], three)
    assert selections["b"].account["not in the sample"] == 60
    assert sum(selections["b"].account.values()) + len(selections["b"].faces) == 210
