"""The figures of an evaluation, held to the libraries that have them too."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from scipy import stats  # noqa: E402
from sklearn import metrics as reference  # noqa: E402
from torchmetrics.classification import MulticlassCalibrationError  # noqa: E402

from mien._emotions import SEVEN  # noqa: E402
from mien.lab.evaluate.curves import abstention, precision_recall, reliability, selective, share_interval  # noqa: E402
from mien.lab.judge.ferplus import distances  # noqa: E402
from mien.lab.judge.metrics import bootstrap_interval, brier, expected_calibration_error  # noqa: E402


@pytest.fixture(scope="module")
def guesses() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (1500, 7))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([generator.choice(7, p=p) for p in probs])
    return probs, labels


def test_reliability_bins_add_up_to_the_calibration_error(guesses) -> None:
    probs, labels = guesses
    bins = [b for b in reliability(probs, labels) if b.n]
    error = sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / len(labels)
    theirs = MulticlassCalibrationError(7, n_bins=15, norm="l1")(torch.from_numpy(probs), torch.from_numpy(labels))
    assert error == pytest.approx(expected_calibration_error(probs, labels))
    assert error == pytest.approx(float(theirs), abs=1e-6)


def test_brier_is_that_of_scikit_learn(guesses) -> None:
    probs, labels = guesses
    theirs = reference.brier_score_loss(labels, probs, labels=list(range(7)), scale_by_half=False)
    assert brier(probs, labels).mean() == pytest.approx(theirs)


def test_bootstrap_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).gamma(2, size=400)
    ours = bootstrap_interval(values, np.mean, resamples=4000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", random_state=1)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), rel=0.01)


def test_risk_and_coverage_are_precision_and_recall_of_being_right(guesses) -> None:
    """Selective accuracy is the precision of "right" scored by confidence, which scikit-learn knows."""
    probs, labels = (value[:300] for value in guesses)
    rounded = np.round(probs, 2) / np.round(probs, 2).sum(1, keepdims=True)  # with ties
    for p in (probs, rounded):
        curve, right = selective(p, labels), p.argmax(1) == labels
        precision, _, thresholds = reference.precision_recall_curve(right, p.max(1), drop_intermediate=False)
        ours = dict(zip(curve.threshold.tolist(), (1 - curve.risk).tolist(), strict=True))
        theirs = dict(zip(thresholds.tolist(), precision[:-1].tolist(), strict=True))
        assert ours == pytest.approx(theirs)
        assert curve.coverage[-1] == 1
        assert curve.risk[-1] == pytest.approx(1 - right.mean())
    curve, right = selective(probs, labels), probs.argmax(1) == labels
    ordered = right[np.argsort(-probs.max(1))]
    assert curve.area == pytest.approx(np.mean(1 - np.cumsum(ordered) / np.arange(1, 301)))


def test_the_threshold_reaches_its_target_with_the_largest_coverage(guesses) -> None:
    probs, labels = guesses
    told, confidence, right = abstention(probs, labels), probs.max(1), probs.argmax(1) == labels
    answered = confidence >= told["threshold"]
    assert right[answered].mean() == pytest.approx(told["precision"])
    assert told["precision"] >= 0.9
    assert answered.mean() == pytest.approx(told["coverage"])
    for lower in confidence[confidence < told["threshold"]]:
        assert right[confidence >= lower].mean() < 0.9
    assert told["elsewhere"]["precision"] == pytest.approx(0.9, abs=0.05)


def test_a_target_out_of_reach_is_said() -> None:
    probs = np.tile([0.6, 0.4], (20, 1))
    told = abstention(probs, np.tile([0, 1], 10))
    assert told["threshold"] is None
    assert told["elsewhere"] is None
    assert told["aurc"] == pytest.approx(0.5)


def test_precision_recall_points_lie_on_the_curve(guesses) -> None:
    probs, labels = guesses
    for place, (precision, recall) in enumerate(precision_recall(probs, labels, SEVEN).values()):
        whole = reference.precision_recall_curve(labels == place, probs[:, place])
        known = set(zip(whole[0].tolist(), whole[1].tolist(), strict=True))
        assert {*zip(precision.tolist(), recall.tolist(), strict=True)} <= known
        assert {0.0, 1.0} <= set(recall.tolist())


def test_share_interval_is_wilsons() -> None:
    low, high = share_interval(8, 10) or (0, 0)
    z, p, n = 1.959964, 0.8, 10
    centre, half = (p + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n) * np.sqrt(p * 0.2 / n + z**2 / (4 * n**2))
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-5)
    assert share_interval(0, 0) is None


def test_distances_to_votes_are_those_of_scipy(guesses) -> None:
    probs = guesses[0][:50]
    votes = np.random.default_rng(1).dirichlet(np.ones(7), 50)
    votes[0] = np.eye(7)[2]
    found = distances(probs, votes)
    assert found["kl"] == pytest.approx(stats.entropy(votes, probs, axis=1))
    assert found["log_loss"] == pytest.approx(stats.entropy(votes, axis=1) + stats.entropy(votes, probs, axis=1))
    assert found["total_variation"] == pytest.approx(0.5 * np.abs(votes - probs).sum(1))
    assert found["log_loss"][0] == pytest.approx(-np.log(probs[0, 2]))
