"""The tables of docs/how-to/stress.md, from results/stress/ and results/steady/."""

from collections.abc import Sequence
from pathlib import Path

from docs_tables import Json, table
from mien._metrics import metric_name
from mien.lab.files import load_json
from mien.lab.robustness.corruptions import CORRUPTIONS
from mien.lab.robustness.metrics import steadiness_rows
from mien.lab.robustness.report import ROBUSTNESS_HEADINGS, format_difference, gap_cells, robustness_row


def parts(folder: Path) -> dict[str, str]:
    """Every table by the name of its markers, from the files that `mien stress --keep` wrote into ``folder``."""
    files = sorted(path for path in folder.glob("*.json") if not path.stem.startswith("groups"))
    models = [model for path in files for model in _marked(load_json(path))]
    models.sort(key=lambda model: -model["clean"]["metrics"]["accuracy"]["value"])
    tables = {
        "headline": table(ROBUSTNESS_HEADINGS, [(_name(model), *robustness_row(model)) for model in models]),
        "losses": _losses(models),
        "severities": _severities(),
        "steadiness": _steadiness(folder.parent / "steady"),
        "groups": _groups(folder / "groups-mien-0.json"),
    }
    return {name: f"\n{text}\n" for name, text in tables.items()}


def _marked(result: Json) -> list[Json]:
    """The models of a result, and whether the tree of its commit had changes."""
    return [{**model, "changed": result["provenance"]["commit"].endswith("+")} for model in result["models"]]


def _name(model: Json) -> str:
    return f"`{model['name']}`{'+' if model['changed'] else ''}"


def _losses(models: Sequence[Json]) -> str:
    """One row per corruption: the loss of accuracy of each model in points, mean of the five severities."""
    rows = [
        (each.name, *(format_difference(model["by_corruption"][each.name]["metrics"]["accuracy"]) for model in models))
        for each in CORRUPTIONS
        if all(each.name in model["by_corruption"] for model in models)
    ]
    return table(("corruption", *map(_name, models)), rows)


def _steadiness(folder: Path) -> str:
    """One row per measurement, one column per model."""
    models = [model for path in sorted(folder.glob("*.json")) for model in load_json(path)["models"]]
    models.sort(key=lambda model: -model["steadiness"]["accuracy"])
    head, *rows = steadiness_rows(models)
    return table(head, rows)


def _severities() -> str:
    """One row per corruption: what it does, and its five severities."""
    rows = [
        (f"`{s.name}`", str(s.kind), s.description, s.unit, *(f"{amount:g}" for amount in s.amounts))
        for s in CORRUPTIONS
    ]
    return table(("corruption", "kind", "what happens", "unit", *"12345"), rows)


def _groups(path: Path) -> str:
    """One row per gap between groups of faces."""
    model = load_json(path)["models"][0]
    rows = [
        (column, metric_name(key), *gap_cells(key, gap))
        for column, comparison in model["groups"].items()
        for key, gap in comparison["gaps"].items()
    ]
    return table(("division", "metric", "gap", "largest", "smallest", "by chance", "p", "p corrected"), rows)
