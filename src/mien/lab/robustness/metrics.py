"""Metrics under corruption with paired bootstrap intervals, the mean corruption error (mCE), and steadiness.

All conditions share the bootstrap draws of the faces, so that differences between them are paired. ``mien.lab.metrics``
defines the metrics. Here one matrix product computes all draws of a metric, and
``tests/lab/robustness/test_metrics.py`` checks that both agree. A model is steady if its answers stay the same for
crops that are moved by as little as a detector's box moves.
"""

import math
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from mien._format import milliseconds, percent, percent_interval
from mien.lab.augment import JITTER
from mien.lab.augment.geometry import draw_affine, resample
from mien.lab.data import FaceSet
from mien.lab.metrics import BINS, bootstrap_interval, check_probabilities, confidence_bins, debias, gap_errors
from mien.lab.models import Model, files_of_model
from mien.lab.predictions import (
    Selection,
    compare_with_votes,
    measure_by_size,
    predict_selection,
    resize_faces,
)
from mien.lab.robustness.corruptions import SEVERITIES, Corruption
from mien.lab.robustness.predictions import CorruptedPredictions, CorruptionReference
from mien.lab.significance import percentile_interval, row_draws, wilson_interval

_Floats = NDArray[np.float64]
_Weights = NDArray[np.uint8]

CORRUPTION_METRICS = ("accuracy", "balanced_accuracy", "log_loss", "ece")
_RESAMPLES = 1000
_BLOCK = 32 * 2**20  # bytes of weights that are multiplied at once
_DIGITS = 6  # in files
DRAWS = 10  # moves of every face
STEADY_FACES = 800  # faces that are moved
_STEP = 0.05  # pixels of the face: a shift too small to be seen
_PERCENTILE = 99
_TIMED = 100  # runs of one crop


class Estimate(TypedDict):
    """A value with its 95 % bootstrap interval over faces.

    Attributes:
        value: The value.
        interval: Lower and upper edge; missing for the calibration error, whose bootstrap interval is not valid.
        difference: The difference to the clean faces; missing for clean faces.
        difference_interval: Lower and upper edge of the difference, from paired draws; missing as ``interval`` is.
    """

    value: float
    interval: NotRequired[list[float]]
    difference: NotRequired[float]
    difference_interval: NotRequired[list[float]]


class Condition(TypedDict):
    """The metrics of one model in one condition, or their means over several conditions.

    Attributes:
        severity: 1 to 5; missing for clean faces and for means.
        amount: The amount of the corruption; missing for clean faces and for means.
        metrics: ``CORRUPTION_METRICS`` by key.
        flip_rate: Fraction of the predictions that differ from that of the clean face.
    """

    severity: NotRequired[int]
    amount: NotRequired[float]
    metrics: dict[str, Estimate]
    flip_rate: float


class CorruptionMetrics(TypedDict):
    """The metrics of one model.

    Attributes:
        clean: On clean faces.
        corrupted: By name of the corruption, at the severities 1 to 5.
        by_corruption: Means over the severities.
        by_severity: Means over the corruptions.
        mean: Mean over all corruptions and severities.
    """

    clean: Condition
    corrupted: dict[str, list[Condition]]
    by_corruption: dict[str, Condition]
    by_severity: list[Condition]
    mean: Condition


class CorruptionError(TypedDict, total=False):
    """The mean corruption error of one model (Hendrycks and Dietterich, ICLR 2019).

    Attributes:
        reason: Why there is no corruption error; all other keys are missing then.
        reference: Name of the reference model.
        mce: Mean over corruptions of the error rates summed over the severities, relative to the reference's sum.
        relative_mce: The same for the errors beyond those on clean faces.
        by_corruption: ``ce`` and ``relative_ce`` of every corruption.
        excluded: By metric, the corruptions without a ratio: the reference makes no error, or loses no accuracy.
    """

    reason: str
    reference: str
    mce: Estimate | None
    relative_mce: Estimate | None
    by_corruption: dict[str, dict[str, Estimate | None]]
    excluded: dict[str, list[str]]


def corruption_metrics(predictions: CorruptedPredictions, corruptions: Sequence[Corruption]) -> CorruptionMetrics:
    """Compute the metrics of one model in all conditions.

    Args:
        predictions: The predictions of the model.
        corruptions: The corruptions that were applied.

    Returns:
        Metrics of every condition and their means.
    """
    labels, weights = predictions.labels, bootstrap_weights(len(predictions.labels))
    clean_classes = predictions.clean.argmax(1)

    def measure(probs: NDArray[np.float32]) -> _Measured:
        flip_rate = float((probs.argmax(1) != clean_classes).mean())
        return _Measured(metric_values(probs, labels), weighted_metrics(probs, labels, weights), flip_rate)

    clean = measure(predictions.clean)
    measured = {c.name: [measure(probs) for probs in predictions.corrupted[c.name]] for c in corruptions}
    return {
        "clean": _condition([clean]),
        "corrupted": {
            c.name: [
                {"severity": severity, "amount": amount, **_condition([each], clean)}
                for severity, amount, each in zip(SEVERITIES, c.amounts, measured[c.name], strict=True)
            ]
            for c in corruptions
        },
        "by_corruption": {name: _condition(each, clean) for name, each in measured.items()},
        "by_severity": [_condition(each, clean) for each in zip(*measured.values(), strict=True)],
        "mean": _condition([each for severities in measured.values() for each in severities], clean),
    }


class _Measured(NamedTuple):
    """``CORRUPTION_METRICS`` of one condition: their values ``[4]`` and bootstrap draws ``[R, 4]``."""

    values: _Floats
    draws: _Floats
    flip_rate: float


def _condition(measured: Sequence[_Measured], clean: _Measured | None = None) -> Condition:
    """The mean of conditions, with the differences to ``clean``."""
    values, draws, flip_rate = (np.mean(each, axis=0) for each in zip(*measured, strict=True))
    metrics: dict[str, Estimate] = {}
    for at, key in enumerate(CORRUPTION_METRICS):
        metrics[key] = metric_estimate(key, values[at], draws[:, at])
        if clean:
            metrics[key]["difference"] = round(float(values[at] - clean.values[at]), _DIGITS)
            if "interval" in metrics[key]:
                metrics[key]["difference_interval"] = rounded_interval(draws[:, at] - clean.draws[:, at])
    return {"metrics": metrics, "flip_rate": round(float(flip_rate), _DIGITS)}


def bootstrap_weights(count: int, *, seed: int = 0) -> _Weights:
    """Draw bootstrap samples of faces.

    Args:
        count: Number of faces N.
        seed: Seed of the draws.

    Returns:
        How often each face is in each of R draws, uint8 ``[R, N]``.
    """
    draws = row_draws(count, resamples=_RESAMPLES, seed=seed)
    return np.concatenate([part.astype(np.uint8) for part in draws])


def weighted_sums(weights: NDArray[Any], columns: NDArray[Any]) -> _Floats:
    """Multiply weights by columns, in blocks of bounded memory.

    Args:
        weights: ``[R, N]``.
        columns: ``[N, ...]``.

    Returns:
        ``[R, ...]``.
    """
    step = max(1, _BLOCK // (8 * weights.shape[1]))
    blocks = (weights[start : start + step].astype(np.float64) for start in range(0, len(weights), step))
    return np.concatenate([block @ columns for block in blocks])


def weighted_metrics(probs: NDArray[np.floating[Any]], labels: NDArray[np.int64], weights: NDArray[Any]) -> _Floats:
    """Compute ``CORRUPTION_METRICS`` for many weightings of the faces at once.

    Args:
        probs: Probabilities ``[N, C]``.
        labels: True classes ``[N]``.
        weights: ``[R, N]``; a row of ones gives the metrics themselves.

    Returns:
        ``[R, 4]``. Classes without weight do not count in the balanced accuracy.

    Raises:
        DataError: The rows of ``probs`` are not probabilities.
    """
    count, classes = probs.shape
    rows, probs = np.arange(count), check_probabilities(probs, labels, classes)
    is_correct, confidence = (probs.argmax(1) == labels).astype(np.float64), probs.max(1)
    losses = -np.log(probs[rows, labels].clip(np.finfo(np.float64).eps, 1))  # as scikit-learn clips
    one_hot, gap = np.eye(classes)[labels], is_correct - confidence
    bins = np.eye(BINS)[confidence_bins(probs)]
    by_bin = [bins * column[:, None] for column in (np.ones(count), gap, gap**2, confidence * (1 - confidence))]
    columns = np.column_stack([np.ones(count), is_correct, losses, one_hot, one_hot * is_correct[:, None], *by_bin])
    edges = np.cumsum([3, classes, classes, BINS, BINS, BINS])
    sums, support, hits, n, gaps, squares, expected = np.split(weighted_sums(weights, columns), edges, axis=1)
    total, correct, loss = sums.T
    recall = np.divide(hits, support, out=np.full_like(hits, np.nan), where=support > 0)
    ece = debias(gaps / total[:, None], gap_errors(n, gaps, squares, expected))
    return np.stack([correct / total, np.nanmean(recall, axis=1), loss / total, ece], axis=1)


def metric_values(probs: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> _Floats:
    """Compute ``CORRUPTION_METRICS`` of all rows.

    Args:
        probs: Probabilities ``[N, C]``.
        labels: True classes ``[N]``.

    Returns:
        The values ``[4]``.
    """
    return np.asarray(weighted_metrics(probs, labels, np.ones((1, len(labels)), np.uint8))[0])


def rounded_interval(draws: _Floats) -> list[float]:
    """Return the 95 % percentile interval of bootstrap draws, rounded for files.

    Args:
        draws: Bootstrap draws ``[R]``.

    Returns:
        Lower and upper edge.
    """
    return [round(edge, _DIGITS) for edge in percentile_interval(draws)]


def estimate(value: float, draws: _Floats) -> Estimate:
    """Return a value with the interval of its draws, rounded for files.

    Args:
        value: The value.
        draws: Its bootstrap draws ``[R]``.

    Returns:
        The estimate.
    """
    return {"value": round(float(value), _DIGITS), "interval": rounded_interval(draws)}


def metric_estimate(key: str, value: float, draws: _Floats) -> Estimate:
    """Return a metric with its interval, or without one where the bootstrap is not valid.

    Args:
        key: The metric.
        value: Its value.
        draws: Its bootstrap draws ``[R]``.

    Returns:
        The estimate; of the calibration error without interval.
    """
    found = estimate(value, draws)
    if key == "ece":
        del found["interval"]
    return found


def corruption_error(model: CorruptionReference, reference: CorruptionReference) -> CorruptionError:
    """Compute the mean corruption error and the relative mean corruption error.

    1 is as many errors as the reference makes; lower is better. Model and reference share the bootstrap draws.

    Args:
        model: Which predictions of the model are correct.
        reference: The same for the reference model.

    Returns:
        Both errors with their intervals, by corruption and on average; or the reason why there are none.
    """
    reason = reference.mismatch(model)
    if reason:
        return {"reason": reason}
    reference, weights = reference.at(model.rows), bootstrap_weights(len(model.rows))
    plain = _ratios(_errors(model), _errors(reference), weights, significant=False)
    beyond, reference_beyond = (_errors(each, beyond_clean=True) for each in (model, reference))
    relative = _ratios(beyond, reference_beyond, weights, significant=True)
    return {
        "reference": reference.name,
        "mce": _mean_ratio(plain),
        "relative_mce": _mean_ratio(relative),
        "by_corruption": {
            name: {"ce": _ratio_estimate(plain.get(name)), "relative_ce": _ratio_estimate(relative.get(name))}
            for name in model.corrupted
        },
        "excluded": {
            "mce": [name for name in model.corrupted if name not in plain],
            "relative_mce": [name for name in model.corrupted if name not in relative],
        },
    }


def _errors(model: CorruptionReference, *, beyond_clean: bool = False) -> dict[str, _Floats]:
    """Errors summed over the severities, ``[N]`` by corruption; ``beyond_clean`` subtracts the clean face's errors."""
    clean = len(SEVERITIES) * ~model.clean.astype(np.bool_) if beyond_clean else 0
    return {name: (~correct).sum(0) - np.asarray(clean, np.float64) for name, correct in model.corrupted.items()}


def _ratios(
    model: Mapping[str, _Floats], reference: Mapping[str, _Floats], weights: _Weights, *, significant: bool
) -> dict[str, tuple[float, _Floats]]:
    """The ratio of each corruption with its draws, if the reference has errors (``significant``: beyond chance)."""
    ratios = {}
    for name, errors in model.items():
        total, draws = reference[name].sum(), weighted_sums(weights, reference[name])
        if total > 0 and (not significant or np.percentile(draws, 2.5) > 0):
            # A draw without an error of the reference has no ratio.
            ratio = np.divide(weighted_sums(weights, errors), draws, out=np.full(len(draws), np.nan), where=draws > 0)
            ratios[name] = float(errors.sum() / total), ratio
    return ratios


def _mean_ratio(ratios: Mapping[str, tuple[float, _Floats]]) -> Estimate | None:
    if not ratios:
        return None
    values, draws = zip(*ratios.values(), strict=True)
    return _ratio_estimate((float(np.mean(values)), np.mean(draws, axis=0)))


def _ratio_estimate(ratio: tuple[float, _Floats] | None) -> Estimate | None:
    return estimate(ratio[0], ratio[1][np.isfinite(ratio[1])]) if ratio else None


class Steadiness(TypedDict):
    """The steadiness of one model. Intervals are of 95 % and over faces.

    Attributes:
        n: Number of faces of the split, of which ``accuracy``, ``sizes`` and ``agreement`` are.
        accuracy: Its accuracy, one view of each face.
        accuracy_interval: Lower and upper edge.
        moved: Number of faces that were moved, ``draws`` times each.
        draws: Moves of every face: up to 4 % of the side, 4 % of the size and 3 degrees.
        flip_rate: Share of the moved faces whose most probable emotion differs from that of the face as it is.
        flip_interval: Lower and upper edge.
        total_variation: Mean distance of the probabilities of a moved face to those of the face as it is, 0..1.
        total_variation_interval: Lower and upper edge.
        step_change: 99th percentile of the largest change of a probability when the face is shifted by 0.05 pixels.
        sizes: By side of the faces in pixels, ``accuracy``, ``ece`` and ``unsure_below``, see ``measure_by_size``.
        agreement: Agreement with the FER+ majority; ``None`` for a set without votes.
        ms: Fastest time of one crop in milliseconds, on the threads in use: that which other programs disturbed least.
        bytes: Size of the model's file.
    """

    n: int
    accuracy: float
    accuracy_interval: list[float]
    moved: int
    draws: int
    flip_rate: float
    flip_interval: list[float]
    total_variation: float
    total_variation_interval: list[float]
    step_change: float
    sizes: dict[str, dict[str, float]]
    agreement: float | None
    ms: float
    bytes: int


def measure_steadiness(
    model: Model, whole: Selection, moved: FaceSet, part: FaceSet, *, seed: int = 0, draws: int = DRAWS
) -> Steadiness:
    """Measure how steady a model is.

    Args:
        model: The model.
        whole: What ``select_rows`` returned for its classes.
        moved: The faces that are moved. Every model gets the same moves of the same faces.
        part: The whole split, with its votes if it has any.
        seed: Seed of the moves, at least 0.
        draws: Moves of every face, at least 1.

    Returns:
        The measurements.
    """
    predictions = predict_selection(model, whole)
    n, right = len(predictions.labels), int((predictions.probs.argmax(1) == predictions.labels).sum())
    still = model(resize_faces(moved, model.size))[0]
    generator, size = torch.Generator().manual_seed(seed), int(moved.images.shape[-1])
    flips, distances, changes = [], [], []
    for _ in range(draws):
        probs = _predict_moved(model, moved, draw_affine(len(moved), JITTER, generator))
        flips.append(probs.argmax(1) != still.argmax(1))
        distances.append(np.abs(probs - still).sum(1) / 2)
        probs = _predict_moved(model, moved, _shifts(len(moved), 2 * _STEP / size, generator))
        changes.append(np.abs(probs - still).max(1))
    flipped, distance = np.mean(flips, axis=0), np.mean(distances, axis=0)
    votes = compare_with_votes(predictions, whole, part)
    face = resize_faces(moved.select(torch.arange(1)), model.size)
    return {
        "n": n,
        "accuracy": right / n,
        "accuracy_interval": [float(edge) for edge in wilson_interval(right, n)],
        "moved": len(moved),
        "draws": draws,
        "flip_rate": float(flipped.mean()),
        "flip_interval": list(bootstrap_interval(flipped)),
        "total_variation": float(distance.mean()),
        "total_variation_interval": list(bootstrap_interval(distance)),
        "step_change": float(np.percentile(changes, _PERCENTILE)),
        "sizes": measure_by_size(model, whole),
        "agreement": votes["majority"]["agreement"] if votes else None,
        "ms": 1000 * min(timeit.repeat(lambda: model(face), number=1, repeat=_TIMED)),
        "bytes": sum(path.stat().st_size for path in files_of_model(model)),
    }


def _predict_moved(model: Model, faces: FaceSet, maps: Tensor) -> NDArray[np.float32]:
    """Probabilities of faces after affine maps. Bicubic, because bilinear resampling would also blur them."""
    images = resample(faces.images[:, None].float() / 255, maps, "border", "bicubic")
    return model(resize_faces(replace(faces, images=(255 * images[:, 0]).round().to(torch.uint8)), model.size))[0]


def _shifts(n: int, length: float, generator: Generator) -> Tensor:
    """Affine maps that shift by ``length`` (2 is the whole side) in a random direction."""
    angle = torch.rand(n, generator=generator) * 2 * math.pi
    shift = length * torch.stack([angle.cos(), angle.sin()], dim=1)
    return torch.cat([torch.eye(2).expand(n, 2, 2), shift[:, :, None]], dim=2)


def steadiness_rows(models: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the table of steadiness: one row for each measurement, one column for each model.

    Args:
        models: The results of the models, with the key ``steadiness``.

    Returns:
        The rows; the first has the names of the models.
    """
    columns = [_cells(model["steadiness"], model["corruption_error"].get("mce")) for model in models]
    names = dict.fromkeys(name for column in columns for name in column)
    return [
        ("", *(str(model["name"]) for model in models)),
        *((name, *(column.get(name, "-") for column in columns)) for name in names),
    ]


def _cells(found: Steadiness, mce: Mapping[str, Any] | None) -> dict[str, str]:
    sizes = list(found["sizes"].items())[:-1]  # the last are the faces as they are
    agreement = found["agreement"]
    return {
        "faces; of these moved": f"{found['n']:,}; {found['moved']:,}, {found['draws']} times each",
        "accuracy": f"{percent(found['accuracy'])} ({percent_interval(found['accuracy_interval'])})",
        "top emotion changed by jitter": f"{percent(found['flip_rate'])} ({percent_interval(found['flip_interval'])})",
        "mean total variation under that jitter": f"{found['total_variation']:.3f}",
        f"largest change by a shift of {_STEP} px, {_PERCENTILE}th percentile": f"{found['step_change']:.3f}",
        **{f"calibration error at {side} px": f"{each['ece']:.3f}" for side, each in sizes},
        **{f"accuracy at {side} px": percent(each["accuracy"]) for side, each in sizes},
        "agreement with the FER+ majority": "-" if agreement is None else percent(agreement),
        "mean corruption error": percent(mce["value"]) if mce else "-",
        "one crop": milliseconds(found["ms"]),
        "size of the file": f"{found['bytes'] / 1e6:.2f} MB",
    }
