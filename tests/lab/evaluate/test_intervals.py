"""How often the 95 % intervals hold the true value, simulated with a known truth."""

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import SEVEN
from mien.lab.metrics import (
    BINS,
    calibration_gaps,
    calibration_interval,
    class_intervals,
    count_intervals,
    expected_calibration_error,
)

# Shares of the classes as in FER-2013, and recalls of four classifiers: two ordinary ones, one that hardly finds two
# classes, and one with few mistakes.
PRIOR = np.array([491, 55, 528, 879, 594, 416, 626]) / 3589
RECALLS = {
    "good": (0.6, 0.55, 0.5, 0.9, 0.6, 0.8, 0.7),
    "fair": (0.4, 0.3, 0.3, 0.8, 0.5, 0.6, 0.5),
    "blind": (0.2, 0.02, 0.15, 0.85, 0.6, 0.7, 0.5),
    "excellent": (0.97, 0.9, 0.95, 0.99, 0.96, 0.98, 0.97),
}
# Confidence -> true accuracy at that confidence.
SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "calibrated": lambda c: c,
    "over-confident": lambda c: c - 0.1,
    "slightly over-confident": lambda c: c - 0.01,
    "steep": lambda c: c**1.5,
    "in waves": lambda c: np.clip(c + 0.05 * np.sin(12 * c), 0, 1),
}


def drawn(shape: str, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences, probabilities of two classes and labels of ``n`` faces."""
    confidence = 0.5 + 0.5 * generator.beta(1.6, 0.9, n)
    labels = np.where(generator.random(n) < SHAPES[shape](confidence), 0, 1)
    return confidence, np.stack([confidence, 1 - confidence], 1), labels


def calibration_coverage(shape: str, n: int, repetitions: int) -> tuple[float, float, float]:
    """Coverage of the interval, mean debiased error and mean plug-in error, each less the truth."""
    many, _, _ = drawn(shape, 500_000, np.random.default_rng(0))
    index = np.minimum((many * BINS).astype(int), BINS - 1)
    truth = np.abs(np.bincount(index, SHAPES[shape](many) - many)).sum() / len(many)
    generator, found = np.random.default_rng(1), []
    for _ in range(repetitions):
        _, probs, labels = drawn(shape, n, generator)
        low, high = calibration_interval(probs, labels)
        error = expected_calibration_error(probs, labels)
        assert low <= error <= high
        found.append((low <= truth <= high, error - truth, np.abs(calibration_gaps(probs, labels)[0]).sum() - truth))
    covered, debiased, plug_in = np.mean(found, axis=0)
    return float(covered), float(debiased), float(plug_in)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [200, 3589])
def test_the_interval_of_the_calibration_error_covers(shape: str, n: int) -> None:
    covered, debiased, plug_in = calibration_coverage(shape, n, 80)
    assert covered >= 0.9
    assert abs(debiased) < max(abs(plug_in), 0.005)


@pytest.mark.release
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [50, 200, 1000, 3589, 20_000])
def test_the_interval_of_the_calibration_error_covers_in_long(shape: str, n: int) -> None:
    covered, debiased, plug_in = calibration_coverage(shape, n, 1000)
    assert covered >= 0.94
    assert abs(debiased) < max(abs(plug_in), 0.002)


@pytest.mark.parametrize("n", [5, 10, 50])
@pytest.mark.parametrize(("accuracy", "confidence"), [(0.9, 0.99), (0.98, 0.999), (0.8, 0.9)])
def test_the_interval_of_the_calibration_error_covers_with_few_faces(
    n: int, accuracy: float, confidence: float
) -> None:
    generator, covered = np.random.default_rng(1), 0
    probs = np.tile([confidence, 1 - confidence], (n, 1))
    for _ in range(300):
        low, high = calibration_interval(probs, (generator.random(n) >= accuracy).astype(np.int64))
        covered += low - 1e-9 <= confidence - accuracy <= high + 1e-9
    assert covered >= 0.9 * 300


def test_the_bias_of_a_calibrated_classifier_is_halved() -> None:
    _, debiased, plug_in = calibration_coverage("calibrated", 1000, 100)
    assert 0 < debiased < 0.65 * plug_in


def all_intervals(table: np.ndarray) -> dict[str, list[float]]:
    """The intervals of all metrics of a confusion matrix, those of a class as "recall of sad"."""
    classes = class_intervals(table, SEVEN)
    return count_intervals(table) | {f"{part} of {e}": edges for part in classes for e, edges in classes[part].items()}


def count_coverage(name: str, n: int, repetitions: int) -> dict[str, float]:
    """Coverage of the intervals that follow from the confusion matrix."""
    generator = np.random.default_rng(2)
    mistakes = [np.insert(generator.dirichlet(np.full(6, 2.0)), at, 0) for at in range(7)]
    recall = np.array(RECALLS[name])
    chance = PRIOR[:, None] * (np.diag(recall) + (1 - recall)[:, None] * np.stack(mistakes))
    true, claimed = chance.sum(1), chance.sum(0)
    f1, precision = 2 * chance.diagonal() / (true + claimed), chance.diagonal() / claimed
    truth = {"accuracy": chance.trace(), "balanced_accuracy": recall.mean(), "macro_f1": f1.mean()}
    truth |= {"weighted_f1": PRIOR @ f1, "macro_precision": precision.mean(), "weighted_precision": PRIOR @ precision}
    for part, values in (("recall", recall), ("precision", precision), ("f1", f1)):
        truth |= {f"{part} of {emotion}": value for emotion, value in zip(SEVEN, values, strict=True)}
    hits: dict[str, list[bool]] = {}
    for table in generator.multinomial(n, chance.ravel(), repetitions).reshape(-1, 7, 7):
        for key, (low, high) in all_intervals(table).items():
            hits.setdefault(key, []).append(low <= truth[key] <= high)
    return {key: float(np.mean(each)) for key, each in hits.items()}


@pytest.mark.parametrize("name", RECALLS)
def test_intervals_of_the_confusion_matrix_cover(name: str) -> None:
    coverage = count_coverage(name, 3589, 150)
    assert min(coverage.values()) >= 0.89, coverage


@pytest.mark.release
@pytest.mark.parametrize("name", RECALLS)
@pytest.mark.parametrize("n", [300, 1000, 3589])
def test_intervals_of_the_confusion_matrix_cover_in_long(name: str, n: int) -> None:
    coverage = count_coverage(name, n, 2000)
    assert min(coverage.values()) >= 0.9, coverage


@pytest.mark.parametrize("table", [[[9, 0], [1, 0]], [[0, 9], [0, 1]], [[40, 0, 0], [1, 0, 0], [0, 0, 3]]])
def test_intervals_of_shares_stay_within_0_and_1(table: list[list[int]]) -> None:
    edges = np.array(list(count_intervals(np.array(table)).values()))
    assert ((edges >= 0) & (edges <= 1)).all(), edges


@pytest.mark.parametrize("table", [np.eye(7, dtype=int) * 5, np.roll(np.eye(7, dtype=int), 1, axis=1)])
def test_a_perfect_classifier_and_one_that_is_always_wrong_have_intervals(table: np.ndarray) -> None:
    share = table.trace() / table.sum()
    for low, high in all_intervals(table).values():
        assert 0 <= low <= share <= high <= 1
        assert high > low
