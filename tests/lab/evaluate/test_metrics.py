"""Metrics against reference libraries, and temperature scaling with a known temperature."""

import math
from collections import defaultdict

import numpy as np
import pytest
from sklearn import metrics as reference

torch = pytest.importorskip("torch", reason="the lab is not installed")

from scipy import stats

from mien._emotions import SEVEN
from mien._errors import DataError
from mien.lab.data.weighting import class_weights, targets
from mien.lab.evaluate.plots import abstention, precision_recall, reliability, selective
from mien.lab.export.calibrate import fit_temperature, fit_vector
from mien.lab.metrics import bootstrap_interval, brier, calibration_gaps, class_intervals, compute_metrics
from mien.lab.predictions import vote_distances
from mien.lab.recipe import LossConfig, TargetConfig
from mien.lab.significance import wilson_interval
from mien.lab.train.losses import class_loss
from support.synthetic_faces import cartoon_set


@pytest.fixture(scope="module")
def guesses() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (2000, 7))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([generator.choice(7, p=p) for p in probs])
    return probs.astype(np.float32), labels


def test_calibration_error_is_the_mean_gap_of_fifteen_bins(guesses) -> None:
    probs, labels = guesses
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for row, label in zip(probs, labels, strict=True):
        bins[min(14, math.ceil(float(row.max()) * 15) - 1)].append((float(row.max()), int(row.argmax()) == label))
    gaps = [abs(sum(confidence - right for confidence, right in rows)) for rows in bins.values()]
    assert np.abs(calibration_gaps(probs, labels)[0]).sum() == pytest.approx(sum(gaps) / len(labels), abs=1e-6)


def test_metrics_agree_with_counting(guesses) -> None:
    probs, labels = guesses
    f = compute_metrics(probs, labels, SEVEN, resamples=200)
    guess = probs.argmax(1)
    assert f["accuracy"] == pytest.approx((guess == labels).mean())
    assert f["recall"]["fear"] == pytest.approx((guess[labels == 2] == 2).mean())
    assert f["precision"]["fear"] == pytest.approx((labels[guess == 2] == 2).mean())
    assert np.array(f["confusion"]).sum() == f["n"] == 2000
    assert f["log_loss"] == pytest.approx(-np.log(probs[np.arange(2000), labels]).mean(), rel=1e-4)
    low, high = f["interval"]
    assert low < f["accuracy"] < high


def test_metrics_equal_those_of_scikit_learn(guesses) -> None:
    probs, labels = guesses
    f, guess = compute_metrics(probs, labels, SEVEN, resamples=50), probs.argmax(1)
    one_hot = np.eye(7)[labels]
    assert f["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, guess))
    assert f["macro_f1"] == pytest.approx(reference.f1_score(labels, guess, average="macro"))
    assert f["weighted_f1"] == pytest.approx(reference.f1_score(labels, guess, average="weighted"))
    assert f["top2"] == pytest.approx(reference.top_k_accuracy_score(labels, probs, k=2))
    assert f["brier"] == pytest.approx(((probs - one_hot) ** 2).sum(1).mean(), rel=1e-5)
    assert f["macro_precision"] == pytest.approx(reference.precision_score(labels, guess, average="macro"))
    for key, (low, high) in f["intervals"].items():
        assert low < f[key] < high
    for part, by_emotion in class_intervals(f["confusion"], SEVEN).items():
        assert all(low < f[part][emotion] < high for emotion, (low, high) in by_emotion.items())
    assert f["interval"] == f["intervals"]["accuracy"]


@pytest.mark.parametrize("wrong", [1, 5])
def test_wrong_answers_of_probability_1_have_the_largest_calibration_error(wrong: int) -> None:
    f = compute_metrics(np.eye(7)[[0] * wrong], np.ones(wrong, np.int64), SEVEN, resamples=20)  # warnings are errors
    assert f["ece"] == f["intervals"]["ece"][1] == 1


def test_a_class_without_faces_is_named_and_does_not_count(guesses) -> None:
    probs, labels = guesses
    rows = labels != 1
    f = compute_metrics(probs[rows], labels[rows], SEVEN, resamples=20)
    assert f["absent"] == ["disgust"]
    present = reference.recall_score(labels[rows], probs[rows].argmax(1), labels=[0, 2, 3, 4, 5, 6], average="macro")
    assert f["balanced_accuracy"] == pytest.approx(present)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p * 1.1, "sum to 1"),
        (lambda p: p - 0.2, "at least 0"),
        (lambda p: p[:, :6], "shape"),
        (lambda p: p * np.nan, "sum to 1"),
    ],
)
def test_arrays_that_are_not_probabilities_are_refused(guesses, change, message: str) -> None:
    probs, labels = guesses
    with pytest.raises(DataError, match=message):
        compute_metrics(change(probs), labels, SEVEN)
    with pytest.raises(DataError, match="no rows"):
        compute_metrics(probs[:0], labels[:0], SEVEN)


def test_bootstrap_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(1).random(4000) < 0.7
    low, high = bootstrap_interval(values)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 4000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_vector_scaling_finds_the_distortion_of_the_logits(guesses) -> None:
    probs, labels = guesses
    right, rows = torch.from_numpy(probs).log(), torch.from_numpy(labels)
    assert fit_temperature(right * 2.5, rows).scale == pytest.approx([0.4] * 7, rel=0.1)
    factor, offset = torch.linspace(0.5, 2, 7), torch.linspace(-1, 1, 7)
    distorted = (right - right.mean(1, keepdim=True)) * factor + offset
    found = fit_vector(distorted, rows)
    loss = torch.nn.functional.cross_entropy
    assert float(loss(distorted, rows)) > float(loss(right, rows)) + 0.05
    assert float(loss(found(distorted), rows)) <= float(loss(right, rows)) + 1e-4
    assert torch.tensor(found.scale).min() > 0
    with pytest.raises(DataError, match="validation split"):
        fit_vector(distorted[:0], rows[:0])


def test_a_dozen_faces_change_little() -> None:
    """Without a prior, a dozen faces would give factors of hundreds and of millionths."""
    rows = torch.arange(12) % 6  # the seventh class has no face
    noise = torch.randn(12, 7, generator=torch.Generator().manual_seed(0))
    for logits in (noise, noise + 9 * torch.eye(7)[rows]):
        found = fit_vector(logits, rows)
        assert 0.3 < min(found.scale) <= max(found.scale) < 3
        assert max(map(abs, found.offset)) < 1


def test_targets_mix_label_smoothing_and_votes() -> None:
    faces = cartoon_set()
    mixed = targets(faces, TargetConfig(label_smoothing=0.1, vote_weight=0.5))
    torch.testing.assert_close(mixed.sum(1), torch.ones(len(faces)))
    angry = mixed[0]  # label angry; 8 votes of 10 anger, 2 neutral
    assert float(angry[0]) == pytest.approx(0.5 * (0.9 + 0.1 / 7) + 0.5 * 0.8, abs=1e-6)
    assert float(angry[6]) == pytest.approx(0.5 * 0.1 / 7 + 0.5 * 0.2, abs=1e-6)
    plain = targets(cartoon_set(votes=False), TargetConfig())
    assert torch.equal(plain.argmax(1), faces.labels)


def test_soft_cross_entropy_is_torchs_on_hard_targets() -> None:
    logits, labels = torch.randn(32, 7), torch.arange(32) % 7
    ours = class_loss(logits, torch.nn.functional.one_hot(labels, 7).float(), torch.ones(7), LossConfig())
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, labels))


def test_class_weights_raise_rare_classes_and_preserve_the_mean() -> None:
    faces = cartoon_set().select(torch.cat([torch.arange(0, 196, 7), torch.arange(7)]))  # 29 angry, one of each other
    weights = class_weights(faces, TargetConfig(class_weight_power=1.0))
    assert float(weights[1] / weights[0]) == pytest.approx(29)
    assert float(weights[faces.labels].mean()) == pytest.approx(1)
    assert torch.equal(class_weights(faces, TargetConfig()), torch.ones(7))


@pytest.fixture(scope="module")
def double_guesses() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (1500, 7))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([generator.choice(7, p=p) for p in probs])
    return probs, labels


def test_reliability_bins_add_up_to_the_calibration_error(double_guesses) -> None:
    probs, labels = double_guesses
    bins = [b for b in reliability(probs, labels) if b.n]
    error = sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / len(labels)
    assert error == pytest.approx(np.abs(calibration_gaps(probs, labels)[0]).sum())


def test_brier_is_that_of_scikit_learn(double_guesses) -> None:
    probs, labels = double_guesses
    theirs = reference.brier_score_loss(labels, probs, labels=list(range(7)), scale_by_half=False)
    assert brier(probs, labels).mean() == pytest.approx(theirs)


def test_bootstrap_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).gamma(2, size=400)
    ours = bootstrap_interval(values, resamples=4000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", random_state=1)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), rel=0.01)


def test_risk_and_coverage_are_precision_and_recall_of_being_right(double_guesses) -> None:
    """Selective accuracy is the precision of "right" scored by confidence, which scikit-learn knows."""
    probs, labels = (value[:300] for value in double_guesses)
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


def test_the_threshold_reaches_its_target_with_the_largest_coverage(double_guesses) -> None:
    probs, labels = double_guesses
    result, confidence, right = abstention(probs, labels), probs.max(1), probs.argmax(1) == labels
    predicted = confidence >= result["threshold"]
    assert right[predicted].mean() == pytest.approx(result["precision"])
    assert result["precision"] >= 0.9
    assert predicted.mean() == pytest.approx(result["coverage"])
    for lower in confidence[confidence < result["threshold"]]:
        assert right[confidence >= lower].mean() < 0.9
    assert result["elsewhere"]["precision"] == pytest.approx(0.9, abs=0.05)


def test_a_target_out_of_reach_has_no_threshold() -> None:
    probs = np.tile([0.6, 0.4], (20, 1))
    result = abstention(probs, np.tile([0, 1], 10))
    assert result["threshold"] is None
    assert result["elsewhere"] is None
    assert result["aurc"] == pytest.approx(0.5)


def test_precision_recall_points_are_on_the_curve(double_guesses) -> None:
    probs, labels = double_guesses
    for place, (precision, recall) in enumerate(precision_recall(probs, labels, SEVEN).values()):
        whole = reference.precision_recall_curve(labels == place, probs[:, place])
        known = set(zip(whole[0].tolist(), whole[1].tolist(), strict=True))
        assert {*zip(precision.tolist(), recall.tolist(), strict=True)} <= known
        assert {0.0, 1.0} <= set(recall.tolist())


@pytest.mark.parametrize(("correct", "total"), [(8, 10), (0, 5), (5, 5)])
def test_wilson_interval_is_that_of_scipy(correct: int, total: int) -> None:
    theirs = stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(correct, total)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    assert [float(edge) for edge in wilson_interval(0, 0)] == [0, 1]


def test_distances_to_votes_are_those_of_scipy(double_guesses) -> None:
    probs = double_guesses[0][:50]
    votes = np.random.default_rng(1).dirichlet(np.ones(7), 50)
    votes[0] = np.eye(7)[2]
    found = vote_distances(probs, votes)
    assert found["kl"] == pytest.approx(stats.entropy(votes, probs, axis=1))
    assert found["log_loss"] == pytest.approx(stats.entropy(votes, axis=1) + stats.entropy(votes, probs, axis=1))
    assert found["total_variation"] == pytest.approx(0.5 * np.abs(votes - probs).sum(1))
    assert found["log_loss"][0] == pytest.approx(-np.log(probs[0, 2]))
