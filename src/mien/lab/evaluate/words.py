"""Figures of an evaluation as its pages name and print them."""

from collections.abc import Sequence

# How the figures are called, and whether they are shares.
FIGURES = {
    "accuracy": ("accuracy", True),
    "balanced_accuracy": ("balanced accuracy", True),
    "macro_f1": ("macro F1", True),
    "weighted_f1": ("weighted F1", True),
    "top2": ("top-2 accuracy", True),
    "log_loss": ("log loss", False),
    "brier": ("Brier score", False),
    "ece": ("calibration error", False),
}
# Those that stand first.
HEAD = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece")


def split_name(split: str) -> str:
    """A split as a page names it."""
    return "all splits" if split == "all" else split


def shown(value: float | None, name: str) -> str:
    """A figure for people."""
    if value is None:
        return "–"
    return f"{value:.1%}" if FIGURES.get(name, ("", True))[1] else f"{value:.3f}"


def span(interval: Sequence[float] | None, name: str) -> str:
    """An interval for people."""
    return f"{shown(interval[0], name)} to {shown(interval[1], name)}" if interval else ""
