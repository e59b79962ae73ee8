"""The part of docs/results.md that sets every figure that a document publishes beside ours."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from markdown import table
from mien.lab.compare.words import claimed
from results_rows import Row, mean, named, published, told

_SAID = (
    "A claim was measured by its document on a split of its own, ours on PrivateTest: the two are no fair pair. "
    "**Bold**: at least as good as claimed."
)
_LESS_IS_BETTER = ("log_loss",)


def sections(rows: Sequence[Row], results: Path) -> list[str]:
    """A table for each published system, its figures down and our recipes across, with the leak of one that has it."""
    systems: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        figures = row.claim.get("figures")
        if figures and (row.judged("private") or row.judged("public")):
            systems.setdefault((row.document, json.dumps(figures)), []).append(row)
    if not systems:
        return []
    shown = _leak(results / "claims" / "leak.json")
    parts = ["## Claimed and measured", _SAID]
    for group in systems.values():
        parts += _system(group)
        parts += shown.get(published(group[0].name), [])
    return parts


def _system(rows: Sequence[Row]) -> list[str]:
    """Heading, where the document measured, and the table of one system."""
    rows = sorted(
        rows, key=lambda row: (row.claim["variant"] != "faithful", -mean(row.judged(_split(row)), "accuracy"))
    )
    theirs: Mapping[str, float] = rows[0].claim["figures"]
    heads = ["figure", "claimed", *(f"`{row.name}`" + _where(row) for row in rows)]
    lines = [[named(key), told(key, value), *(_ours(row, key, value) for row in rows)] for key, value in theirs.items()]
    heading = f"### Document {rows[0].document}: `{published(rows[0].name)}`"
    return [heading, f"Claimed on: {rows[0].claim['split']}.", table(heads, lines)]


def _leak(path: Path) -> dict[str, list[str]]:
    """By the recipe whose leak `benchmarks/claims.py leak` has shown: what the leaky run reads, and the clean one."""
    if not path.exists():
        return {}
    said = json.loads(path.read_text("utf-8"))
    leaky, clean = said["runs"]["leaky"], said["runs"]["clean"]
    faces, public = said["leaky"], said["clean"]["PublicTest, all"]
    course = f"from random weights at {leaky['size']} px for {leaky['epochs']} epochs"
    told = (
        f"The leak, shown: `{leaky['recipe']}`, {course}, reads {_share(faces['all'])} of its "
        f"{faces['all']['n']:,} validation faces, {_share(faces['with a relative'])} of those with a relative in "
        f"training and {_share(faces['without'])} of those without. The same net, trained as long on Training alone, "
        f"reads {_share(public)} of PublicTest. [How it was measured](claims.md)."
    )
    return {clean["recipe"]: [told]}


def _share(judged: dict[str, Any]) -> str:
    low, high = judged["accuracy_interval"]
    return f"{judged['accuracy']:.1f} % ({low:.1f} to {high:.1f})"


def _split(row: Row) -> str:
    return "private" if row.judged("private") else "public"


def _where(row: Row) -> str:
    """Runs that only PublicTest judges are named so."""
    return "" if row.judged("private") else ", PublicTest"


def _ours(row: Row, key: str, theirs: float) -> str:
    """The mean over seeds, a dash where it was not measured."""
    measured = [found for figures in row.judged(_split(row)) for found in claimed(row.claim, figures)]
    values = [ours for name, _, ours in measured if name == key]
    if not values:
        return "–"
    ours = fmean(values)
    as_good = ours <= theirs if key in _LESS_IS_BETTER else ours >= theirs
    return f"**{told(key, ours)}**" if as_good else told(key, ours)
