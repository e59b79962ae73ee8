"""The table of metrics: key, name, format and direction of every metric that mien reports.

``mien.lab.metrics`` computes them. Reports, pages, model cards, comparisons and the docs read their names and
formats here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mien._format import interval, percent, percent_interval


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a classifier.

    Attributes:
        key: Its key in JSON files.
        name: Its name in text.
        heading: Its short name, for the heads of tables.
        is_share: Whether it is a share from 0 to 1, printed in per cent. Others are printed with three decimals.
        higher_is_better: Whether a larger value is better.
    """

    key: str
    name: str
    heading: str
    is_share: bool = True
    higher_is_better: bool = True


METRICS = {
    metric.key: metric
    for metric in (
        Metric("accuracy", "accuracy", "accuracy"),
        Metric("balanced_accuracy", "balanced accuracy", "balanced"),
        Metric("macro_f1", "macro F1", "macro F1"),
        Metric("weighted_f1", "weighted F1", "weighted F1"),
        Metric("macro_precision", "macro precision", "macro precision"),
        Metric("weighted_precision", "weighted precision", "weighted precision"),
        Metric("top2", "top-2 accuracy", "top-2"),
        Metric("log_loss", "log loss", "log loss", is_share=False, higher_is_better=False),
        Metric("brier", "Brier score", "Brier", is_share=False, higher_is_better=False),
        Metric("ece", "expected calibration error", "ECE", is_share=False, higher_is_better=False),
    )
}
# The metrics that reports show first.
HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece")


def metric_name(key: str, *, short: bool = False) -> str:
    """Return the name of a metric for people.

    Args:
        key: A key of ``METRICS``, one of a class such as ``recall.sad``, or a confusion such as ``confusion.sad.fear``.
        short: Whether to return the short name, for the head of a table.

    Returns:
        For example ``macro F1``, ``recall of sad`` or ``sad as fear``.

    Example:
        >>> metric_name("recall.sad")
        'recall of sad'
    """
    if key in METRICS:
        return METRICS[key].heading if short else METRICS[key].name
    if key.startswith("confusion."):
        return key.removeprefix("confusion.").replace(".", " as ")
    return key.replace(".", " of ").replace("_", " ").replace("f1", "F1")


def format_metric(key: str, value: float | None, decimals: int = 1) -> str:
    """Format the value of a metric.

    Args:
        key: A key of ``METRICS``, or one of a class such as ``recall.sad``.
        value: The value, or ``None`` where it is not known.
        decimals: Digits after the point of a share in per cent.

    Returns:
        A share in per cent (``70.5 %``), any other metric with three decimals, or ``–`` for ``None``.

    Example:
        >>> format_metric("log_loss", 0.7812)
        '0.781'
    """
    if value is None:
        return "–"
    return percent(value, decimals) if _is_share(key) else f"{value:.3f}"


def format_metric_interval(key: str, edges: Sequence[float]) -> str:
    """Format the interval of a metric, without its unit.

    Args:
        key: A key of ``METRICS``, or one of a class such as ``recall.sad``.
        edges: Lower and upper edge.

    Returns:
        For example ``69.0 to 72.1`` for a share and ``0.412 to 0.431`` for any other metric.
    """
    return percent_interval(edges) if _is_share(key) else interval(edges)


def headline_metrics(metrics: Mapping[str, Any], clean: Mapping[str, Any] | None = None) -> str:
    """Format the headline metrics of an evaluation in one line.

    Args:
        metrics: Metrics as ``mien.lab.metrics.compute_metrics`` returns them.
        clean: The same of the clean rows, whose accuracy is added.

    Returns:
        For example ``70.52 % (69.02 to 72.07), clean 69.41 %, balanced 66.10 %, macro F1 66.90 %, log loss 0.812``.
    """
    first, *others = (key for key in HEADLINE if key in metrics)
    parts = [f"{format_metric(first, metrics[first], 2)} ({percent_interval(metrics['interval'], 2)})"]
    parts += [f"clean {format_metric(first, clean[first], 2)}"] if clean else []
    parts += [f"{metric_name(key, short=True)} {format_metric(key, metrics[key], 2)}" for key in others]
    return ", ".join(parts)


def compare_with_claim(key: str, claimed: float, edges: Sequence[float]) -> str:
    """Compare the 95 % interval of a metric with a claimed value.

    Args:
        key: A key of ``METRICS``, one of a class, or a confusion.
        claimed: The claimed value.
        edges: Lower and upper edge of what was measured.

    Returns:
        ``better`` if the whole interval is at least as good as the claim, ``worse`` if none of it is, else
        ``within noise``.

    Example:
        >>> compare_with_claim("accuracy", 0.518, [0.522, 0.554])
        'better'
    """
    higher_is_better = METRICS[key].higher_is_better if key in METRICS else not key.startswith("confusion.")
    low, high = sorted(edge if higher_is_better else -edge for edge in edges)
    bound = claimed if higher_is_better else -claimed
    return "better" if low >= bound else "worse" if high < bound else "within noise"


def _is_share(key: str) -> bool:
    return key not in METRICS or METRICS[key].is_share
