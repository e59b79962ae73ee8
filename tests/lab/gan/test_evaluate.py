"""Evaluation of synthetic faces: kernel distance, copies, and real faces as the reference."""

import numpy as np
import onnx
import pytest
import torch

from mien._emotions import Emotion
from mien.lab.data import FaceSet, Split
from mien.lab.gan.evaluate import (
    REFERENCE_MODEL,
    FeatureExtractor,
    evaluate_faces,
    kernel_distance,
    nearest_faces,
    read_real_faces,
    share_below,
)
from support.synthetic_faces import cartoon_set


@pytest.fixture(scope="module")
def cartoons() -> FaceSet:
    return cartoon_set(per_split=(126, 56, 70))


def test_kernel_distance_is_unbiased_and_grows_with_the_difference() -> None:
    source = torch.Generator().manual_seed(0)

    def sample(count: int, shift: float = 0.0) -> torch.Tensor:
        return torch.randn(count, 8, generator=source) + shift

    values = torch.tensor([kernel_distance(sample(40), sample(60), halves=0).value for _ in range(100)])
    assert abs(values.mean()) < 3 * values.std() / 10
    assert (values < 0).any()  # an estimate that is never negative is biased
    near, far = kernel_distance(sample(200), sample(200, 0.3)), kernel_distance(sample(200), sample(200, 1.0))
    assert far.value > 5 * near.value > 0
    assert far.value > 10 * far.standard_error


def test_kernel_distance_is_that_of_the_definition() -> None:
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    xx = np.mean([k(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(6) for j in range(6) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y).value == pytest.approx(xx + yy - 2 * xy)
    with pytest.raises(ValueError, match="four"):
        kernel_distance(x[:3], y)


def test_the_standard_error_is_that_of_repeated_samples() -> None:
    source = torch.Generator().manual_seed(1)
    found = [
        kernel_distance(torch.randn(60, 4, generator=source), torch.randn(60, 4, generator=source) + 0.7)
        for _ in range(40)
    ]
    spread = float(torch.tensor([f.value for f in found]).std())
    stated = float(torch.tensor([f.standard_error for f in found]).median())
    assert 0.7 < stated / spread < 1.5


def test_copies_are_found_after_changes_of_brightness_and_mirroring(cartoons: FaceSet) -> None:
    training, new = cartoons.split(Split.TRAINING).images, cartoons.split(Split.PUBLIC_TEST).images
    copies = (training[:20].flip(2).float() * 0.6 + 40).round().to(torch.uint8)
    distance, row = nearest_faces(copies, training)
    assert torch.equal(row, torch.arange(20))
    real, _ = nearest_faces(new, training)
    assert share_below(distance, real, 0.01) == 1
    assert share_below(real, real, 0.01) <= 0.03


def test_the_features_are_the_input_of_the_maps(cartoons: FaceSet) -> None:
    readings = FeatureExtractor()(cartoons.split(Split.PUBLIC_TEST))
    weights = {  # large ones are stored in half precision
        w.name.removesuffix(".half"): torch.from_numpy(onnx.numpy_helper.to_array(w).copy()).float()
        for w in onnx.load(REFERENCE_MODEL).graph.initializer
    }
    logits = readings.features @ weights["maps.weight"].flatten(1).T + weights["maps.bias"]
    torch.testing.assert_close(logits.softmax(1), readings.probs, atol=1e-4, rtol=0)


def test_the_evaluation_separates_new_faces_from_copies_and_noise(cartoons: FaceSet) -> None:
    training, held_out, new = (cartoons.split(split) for split in Split)
    by = read_real_faces(FeatureExtractor(), training, held_out)
    disgust = [faces.images[faces.labels == 1] for faces in (training, new)]
    copied, _ = evaluate_faces(disgust[0], Emotion.DISGUST, by)
    fresh, pairs = evaluate_faces(disgust[1], Emotion.DISGUST, by)
    noise, _ = evaluate_faces(torch.randint(0, 256, (20, 48, 48), dtype=torch.uint8), Emotion.DISGUST, by)
    assert copied["memorised"]["by_appearance"] == copied["memorised"]["by_features"] == 1
    assert fresh["memorised"]["by_appearance"] <= 0.2
    assert len(pairs.row) == len(disgust[1])
    distance = fresh["kernel_distance"]
    assert distance["made"]["value"] < distance["noise"]["value"] / 10
    assert noise["kernel_distance"]["made"]["value"] > 10 * distance["made"]["value"]
    assert abs(distance["halves"]["value"]) < 3 * distance["halves"]["standard_deviation"]
    assert sum(fresh["read_as"].values()) == pytest.approx(1)
    one = disgust[1][:1].expand(20, -1, -1)
    assert evaluate_faces(one, Emotion.DISGUST, by)[0]["variety"]["made"] < 1e-2 < fresh["variety"]["made"]
    assert evaluate_faces(one[:1], Emotion.DISGUST, by)[0]["variety"] == {"made": None, "training": None}
