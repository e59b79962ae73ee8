"""Figures as people read them."""

from collections.abc import Mapping
from typing import Any

from mien.lab.page.words import percent, percent_within, points, points_within


def between(figure: Mapping[str, Any], *, decimals: int = 1) -> str:
    """A share and its interval: ``70.5 % (68.9 to 72.0)``."""
    return f"{percent(figure['value'], decimals)} ({percent_within(figure['interval'], decimals)})"


def gain(figure: Mapping[str, Any]) -> str:
    """The difference to clean faces in percentage points and its interval; empty for clean faces themselves."""
    if "difference" not in figure:
        return "–"
    said = f"{points(figure['difference'])} ({points_within(figure['difference_interval'])})"
    return said.replace("-", "\u2212")
