"""The part of docs/results.md on how long a training takes to its target, from results/speedrun*/*.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markdown import table

# What `looks.VIEWS` is called here.
_JUDGED_ON = {"one": "faces", "flip": "faces and mirror images", "six": "six views", "ten": "ten views"}


def sections(results: Path) -> list[str]:
    """The section, where `benchmarks/speedrun.py` has written a file."""
    files = sorted(results.glob("speedrun*/*.json"))
    if not files:
        return []
    measured = [json.loads(path.read_text("utf-8")) for path in files]
    steps = list(dict.fromkeys(step for said in measured for run in said["runs"] for step in run["on_the_way"]))
    lines = [_line(said, steps) for said in measured]
    heads = (
        "recipe",
        "machine",
        "judged on",
        "moves",
        "target",
        *(f"to {step}" for step in steps),
        "to the target",
        "reached",
        "best",
        "commit",
    )
    told = (
        "Wall time from the start of `mien train RECIPE` in a process of its own: imports, reading of the data and "
        "every judgement on PublicTest counted (`python benchmarks/speedrun.py --recipe RECIPE`). Means over the runs, "
        "in seconds (±: standard deviation). Six views are the face in three sizes and their mirror images; training "
        "faces are moved bilinearly or bicubically, which is sharper. PublicTest is looked at after every epoch or "
        "every few of them, so these accuracies are no results. A row is of the recipe as it stood at its commit."
    )
    return ["## The race to 70 %", told, table(heads, lines)]


def _line(said: Mapping[str, Any], steps: list[str]) -> list[str]:
    runs = said["runs"]
    best = max(run["accuracy"] for run in runs)
    return [
        f"`{said['recipe']['name']}`",
        str(said["machine"]),
        _JUDGED_ON[said["recipe"].get("views", "one")],
        said["recipe"].get("augment", {}).get("resample", "bilinear"),
        f"{100 * said['target']:.0f} %",
        *(_mean([run["on_the_way"].get(step) for run in runs]) for step in steps),
        _mean([run["seconds"] for run in runs]) + _spread(said),
        f"{said['reached']} of {said['n']}",
        f"{100 * best:.1f} %",
        " ".join(dict.fromkeys(run["commit"] for run in runs)),
    ]


def _mean(values: list[float | None]) -> str:
    """The mean, where every run got there."""
    there = [value for value in values if value is not None]
    return f"{sum(there) / len(there):,.0f}" if len(there) == len(values) else "–"


def _spread(said: Mapping[str, Any]) -> str:
    """The standard deviation, where there is one: of several runs that all got to the target."""
    deviation = said.get("deviation_seconds")
    return "" if deviation is None else f" ± {deviation:,.0f}"
