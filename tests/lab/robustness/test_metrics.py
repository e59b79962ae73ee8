"""Metrics under corruption and the mean corruption error."""

import numpy as np
import pytest

from mien._emotions import SEVEN
from mien.lab.data import FaceSet
from mien.lab.metrics import compute_metrics
from mien.lab.robustness.corruptions import choose_corruptions
from mien.lab.robustness.metrics import (
    CORRUPTION_METRICS,
    bootstrap_weights,
    corruption_error,
    corruption_metrics,
    metric_values,
    weighted_metrics,
)
from support.brightness_classifier import by_brightness, corrupted_predictions, reference_with_errors


def test_metrics_and_intervals_equal_those_of_the_evaluation() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 7, 400)
    probs = generator.dirichlet(np.ones(7) * 0.4, 400)
    expected = compute_metrics(probs, labels, SEVEN, resamples=1000)
    assert metric_values(probs, labels) == pytest.approx([expected[name] for name in CORRUPTION_METRICS])
    draws = weighted_metrics(probs, labels, bootstrap_weights(400))
    low, high = np.percentile(draws[:, CORRUPTION_METRICS.index("log_loss")], [2.5, 97.5])
    assert expected["intervals"]["log_loss"] == pytest.approx([low, high])  # the same draws of the same seed


def test_corrupted_and_clean_faces_are_compared_in_pairs(faces: FaceSet) -> None:
    corruptions = choose_corruptions(["gaussian-noise", "cover-mouth"])
    result = corruption_metrics(corrupted_predictions(by_brightness(), faces), corruptions)
    clean, worst = result["clean"]["metrics"], result["corrupted"]["cover-mouth"][4]["metrics"]
    assert worst["accuracy"]["value"] < clean["accuracy"]["value"] - 0.2
    low, high = worst["accuracy"]["difference_interval"]
    assert low < worst["accuracy"]["difference"] < high < 0
    accuracies = [each["metrics"]["accuracy"]["value"] for each in result["corrupted"]["cover-mouth"]]
    mean = result["by_corruption"]["cover-mouth"]["metrics"]["accuracy"]["value"]
    assert mean == pytest.approx(np.mean(accuracies), abs=1e-5)
    rates = [each["flip_rate"] for each in result["corrupted"]["cover-mouth"]]
    assert rates[4] > rates[0]


def test_the_corruption_error_is_that_of_the_paper() -> None:
    one = reference_with_errors("one", {"jpeg": [20, 30, 40, 50, 60], "mask": [10, 20, 30, 40, 50]}, clean=20)
    two = reference_with_errors("two", {"jpeg": [20, 20, 20, 20, 20], "mask": [15, 15, 15, 15, 15]}, clean=10)
    result = corruption_error(one, two)
    assert result["by_corruption"]["jpeg"]["ce"]["value"] == pytest.approx(200 / 100)
    assert result["mce"]["value"] == pytest.approx((200 / 100 + 150 / 75) / 2)
    assert result["relative_mce"]["value"] == pytest.approx(((200 - 100) / (100 - 50) + (150 - 100) / (75 - 50)) / 2)
    low, high = result["mce"]["interval"]
    assert low < result["mce"]["value"] < high
    assert corruption_error(two, two)["mce"] == {"value": 1, "interval": [1, 1]}


def test_a_ratio_to_zero_is_excluded_and_named() -> None:
    two = reference_with_errors("two", {"jpeg": [0] * 5, "mask": [10] * 5}, clean=10)
    result = corruption_error(reference_with_errors("one", {"jpeg": [20] * 5, "mask": [20] * 5}), two)
    assert result["excluded"] == {"mce": ["jpeg"], "relative_mce": ["jpeg", "mask"]}
    assert result["by_corruption"]["jpeg"]["ce"] is None
    assert result["relative_mce"] is None
    assert result["mce"]["value"] == pytest.approx(2)
