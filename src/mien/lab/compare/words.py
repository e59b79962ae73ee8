"""Figures as a comparison prints them."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mien.lab.compare.compare import Comparison
from mien.lab.compare.pairs import Pair
from mien.lab.judge.paired import Difference
from mien.lab.page.words import percent, percent_within, short_count, within

# Figure -> its heading.
HEADINGS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "ece": "ECE",
}
# Figures that are no shares; all others are told in per cent.
PLAIN = ("log_loss", "brier", "ece")


def figure(key: str, value: float) -> str:
    """A figure as ``metrics.figures`` names it: a share in per cent, else three decimals."""
    return f"{value:.3f}" if key in PLAIN else percent(value)


def heading(key: str) -> str:
    """A figure for people: ``recall.sad`` is the recall of sad."""
    return HEADINGS.get(key, key.replace(".", " of ").replace("_", " ").replace("f1", "F1"))


def interval(key: str, edges: Sequence[float]) -> str:
    """A 95 % interval without its unit, as ``69.0 to 72.1``."""
    return within(edges) if key in PLAIN else percent_within(edges)


def count(value: float | None) -> str | None:
    """A large number short: 1.56 M, 783 k; ``None`` where it is not known."""
    return None if value is None else short_count(value)


def millions(value: float | None) -> str | None:
    """A number in millions, without the unit."""
    return None if value is None else f"{value / 1e6:,.1f}" if value < 1e8 else f"{value / 1e6:,.0f}"


def differences_in_words(comparison: Comparison, figure_name: str) -> list[str]:
    """One sentence a model, the best first: whom it beats beyond noise, whom it only seems to beat."""
    sentences = []
    for place in ranking(comparison):
        beaten, alike = [], []
        for other in ranking(comparison):
            if other == place:
                continue
            pair, sign = comparison.pair(place, other)
            found, differs = told(pair, figure_name)
            name = comparison.contenders[other].name
            if not differs:
                alike.append(name)
            elif sign * found.value > 0:
                beaten.append(f"{name} by {100 * sign * found.value:.1f}")
        parts = [f"better than {_listed(beaten)} points" if beaten else "better than none"]
        parts += [f"not to be told from {_listed(alike)}"] if alike else []
        sentences.append(f"{comparison.contenders[place].name}: {'; '.join(parts)}.")
    return sentences


def told(pair: Pair, figure_name: str) -> tuple[Difference, bool]:
    """The difference of a pair in ``accuracy`` or ``macro_f1``, and whether it is more than noise."""
    if figure_name == "accuracy":
        return pair.accuracy, pair.accuracy_differs
    return pair.macro_f1, pair.f1_differs


def ranking(comparison: Comparison) -> list[int]:
    """Places, the highest accuracy on the common faces first."""
    scores = [figures["accuracy"] for figures in comparison.common_figures]
    return sorted(range(len(scores)), key=lambda place: (-scores[place], comparison.contenders[place].name))


def account(reasons: Mapping[str, int]) -> str:
    """What was left out of a split and why, in one line."""
    return "; ".join(f"{number:,} {reason}" for reason, number in reasons.items()) or "none left out"


def claimed(claim: Mapping[str, Any], measured: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Figure, what a document claims, what is measured; only where both say it."""
    rows = []
    for key, value in claim.get("figures", {}).items():
        name, _, emotion = key.partition(".")
        ours = measured.get(name, {}).get(emotion) if emotion else measured.get(name)
        if name == "macro_precision":
            ours = fmean(measured["precision"].values())
        if isinstance(ours, int | float):
            rows.append((key, float(value), float(ours)))
    return rows


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
