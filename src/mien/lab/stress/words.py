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


# A row a model, on the page and in the docs.
HEADLINE = ("model", "faces", "clean accuracy", "spoilt accuracy", "mean corruption", "relative", "flips", "ECE")


def headline_row(model: Mapping[str, Any]) -> tuple[str, ...]:
    """What ``HEADLINE`` names, but for the model's name."""
    return (
        f"{model['n']:,}",
        between(model["clean"]["accuracy"]),
        between(model["mean"]["accuracy"]),
        ratio(model, "mce"),
        ratio(model, "relative_mce"),
        percent(model["mean"]["flips"]),
        f"{percent(model['clean']['ece']['value'])} → {percent(model['mean']['ece']['value'])}",
    )


def ratio(model: Mapping[str, Any], name: str, spoiling: str = "") -> str:
    """A corruption figure against the reference, of one ``spoiling`` or of all; a dash where there is none."""
    said = model["corruption"]
    figure = said.get("by_spoiling", {}).get(spoiling, {}).get(name) if spoiling else said.get(name)
    return between(figure, decimals=0) if figure else "–"
