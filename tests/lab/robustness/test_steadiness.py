"""The steadiness of models whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mien._emotions import SEVEN
from mien._face import Box, Detection
from mien.extract import extract
from mien.lab.data import FaceSet, Split
from mien.lab.models import Model
from mien.lab.predictions import FACE_SIDES, confidence_for, measure_by_size, select_rows, shrink_faces
from mien.lab.robustness.metrics import Steadiness, measure_steadiness
from support.brightness_classifier import by_brightness


def measured(model: Model, faces: FaceSet, tmp_path_factory: pytest.TempPathFactory, **options: int) -> Steadiness:
    file = tmp_path_factory.mktemp("model") / "model.onnx"
    file.write_bytes(bytes(1000))
    part = faces.split(Split.PUBLIC_TEST)
    whole = select_rows(faces, model.emotions, Split.PUBLIC_TEST)
    return measure_steadiness(replace(model, path=file), whole, part.select(torch.arange(40)), part, **options)


def left_half(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], None]:
    """Happy where the pixel left of the middle is brighter than that on its right, without any doubt."""
    is_brighter = crops[:, 24, 23] > crops[:, 24, 24]
    return np.eye(7, dtype=np.float32)[np.where(is_brighter, 3, 6)], None


def test_a_model_that_sees_brightness_is_steadier_than_one_that_sees_pixels(
    faces: FaceSet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    soft = measured(by_brightness(), faces, tmp_path_factory, draws=3)
    hard = measured(Model("hard", SEVEN, 48, {}, by_brightness().path, left_half), faces, tmp_path_factory, draws=3)
    assert soft["total_variation"] < hard["total_variation"]
    assert hard["flip_rate"] == pytest.approx(hard["total_variation"])  # its probabilities are 0 and 1
    assert soft["step_change"] < 0.05
    assert (soft["bytes"], soft["moved"], soft["draws"]) == (1000, 40, 3)
    assert 0 <= (soft["agreement"] or -1) <= 1


def test_a_constant_model_never_changes(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> None:
    constant = Model("one", SEVEN, 48, {}, by_brightness().path, lambda x: (np.full((len(x), 7), 1 / 7, "f4"), None))
    found = measured(constant, faces, tmp_path_factory, draws=2)
    assert (found["flip_rate"], found["total_variation"], found["step_change"]) == (0, 0, 0)


def test_the_same_seed_moves_faces_alike(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> None:
    one, again, other = (
        measured(by_brightness(), faces, tmp_path_factory, draws=1, seed=seed)["total_variation"] for seed in (1, 1, 2)
    )
    assert one == again != other


def test_faces_are_enlarged_as_a_reader_enlarges_them(faces: FaceSet) -> None:
    few = faces.select(torch.arange(3))
    shrunk = shrink_faces(few, 24, 48)
    for image, expected in zip(few.images.numpy(), shrunk, strict=True):
        small = np.floor(image.reshape(24, 2, 24, 2).mean(axis=(1, 3)) + 0.5).astype(np.uint8)
        whole = Detection(Box(0, 0, 24, 24), 1.0, None)
        crops, _ = extract(np.repeat(small[..., None], 3, axis=2), [whole], size=48)
        assert np.abs(crops[0].astype(int) - expected).max() <= 1


def test_the_threshold_leaves_the_share_of_right_answers() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, 5000)
    labels = (generator.random(5000) > confidence).astype(np.int64)  # 0, the predicted class, is right as often
    probs = np.stack([confidence, 1 - confidence], axis=1)
    threshold = confidence_for(probs, labels, 0.9)
    answered = probs[:, 0] >= threshold
    assert (labels[answered] == 0).mean() == pytest.approx(0.9, abs=0.001)
    assert threshold == pytest.approx(0.8, abs=0.03)  # the mean of 0.8 to 1 is 0.9
    assert confidence_for(probs, labels, 0.5) == 0
    assert confidence_for(probs, np.ones(5000, np.int64), 0.9) == 1


@pytest.mark.parametrize("confidences", [[0.9, 0.9, 0.9, 0.6], [0.90004, 0.90003, 0.90001, 0.6]])
def test_a_threshold_takes_all_answers_of_its_confidence(confidences: list[float]) -> None:
    probs = np.stack([confidences, np.subtract(1, confidences)], axis=1)
    assert confidence_for(probs, np.array([0, 1, 1, 1])) == 1  # of the answers from 0.9 on a third is right
    assert confidence_for(probs, np.array([0, 1, 1, 1]), 0.3) == 0.9
    assert confidence_for(probs, np.array([1, 1, 0, 1]), 0.3) == 0.9  # in any order of the faces


def test_every_size_is_measured(faces: FaceSet) -> None:
    found = measure_by_size(by_brightness(), select_rows(faces, SEVEN, Split.PUBLIC_TEST))
    assert list(found) == [*map(str, FACE_SIDES), "48"]
    assert all(0 <= value <= 1 for each in found.values() for value in each.values())
