"""Figures as people read them."""

from collections.abc import Mapping
from typing import Any


def share(value: float, decimals: int = 1) -> str:
    """``0.705`` as ``70.5 %``."""
    return f"{100 * value:.{decimals}f} %"


def between(figure: Mapping[str, Any], *, decimals: int = 1) -> str:
    """A share and its interval: ``70.5 % (68.9 to 72.0)``."""
    low, high = figure["interval"]
    return f"{share(figure['value'], decimals)} ({100 * low:.{decimals}f} to {100 * high:.{decimals}f})"


def gain(figure: Mapping[str, Any]) -> str:
    """The difference to clean faces in percentage points and its interval; empty for clean faces themselves."""
    if "difference" not in figure:
        return "–"
    low, high = figure["difference_interval"]
    return f"{100 * figure['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})".replace("-", "\u2212")
