"""The tables of docs/robustness.md, from results/stress/."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docs_tables import table
from mien.lab.robustness.corruptions import SPOILINGS
from mien.lab.robustness.report import HEADLINE, gain, headline_row

Json = Mapping[str, Any]


def parts(folder: Path) -> dict[str, str]:
    """Every table by the name of its markers, from the files that `mien stress --keep` wrote into ``folder``."""
    files = sorted(path for path in folder.glob("*.json") if not path.stem.startswith("groups"))
    models = [model for path in files for model in json.loads(path.read_text("utf-8"))["models"]]
    models.sort(key=lambda model: -model["clean"]["accuracy"]["value"])
    tables = {
        "headline": table(HEADLINE, [(f"`{model['name']}`", *headline_row(model)) for model in models]),
        "losses": _losses(models),
        "strengths": _strengths(),
        "groups": _groups(folder / "groups-mien-0.json"),
    }
    return {name: f"\n{text}\n" for name, text in tables.items()}


def _losses(models: Sequence[Json]) -> str:
    """One row per corruption: the loss of accuracy of each model in points, mean of the five strengths."""
    rows = [
        (each.name, *(gain(model["by_spoiling"][each.name]["accuracy"]) for model in models))
        for each in SPOILINGS
        if all(each.name in model["by_spoiling"] for model in models)
    ]
    return table(("spoiling", *(f"`{model['name']}`" for model in models)), rows)


def _strengths() -> str:
    """One row per corruption: what it does, and its five strengths."""
    rows = [(f"`{s.name}`", str(s.kind), s.does, s.unit, *(f"{amount:g}" for amount in s.amounts)) for s in SPOILINGS]
    return table(("spoiling", "kind", "what happens", "unit", *"12345"), rows)


def _groups(path: Path) -> str:
    """One row per gap between groups of faces."""
    model = json.loads(path.read_text("utf-8"))["models"][0]
    gaps = [
        (division, figure, gap)
        for division, judged in model["groups"].items()
        for figure, gap in judged["gaps"].items()
    ]
    return table(
        ("division", "figure", "gap", "largest", "smallest", "by chance and mix", "p, corrected"),
        [_gap(*each) for each in gaps],
    )


def _gap(division: str, figure: str, gap: Json) -> tuple[str, ...]:
    low, high = gap["interval"]
    return (
        division,
        figure.replace("_", " "),
        f"{gap['value']:.3f} ({low:.3f} to {high:.3f})",
        gap["largest"],
        gap["smallest"],
        f"{gap['by_chance']:.3f}",
        f"{gap['p_corrected']:.3f}",
    )
