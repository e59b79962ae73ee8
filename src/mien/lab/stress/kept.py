"""What the command writes: stress.json, a table for other programs, and the figures of each model for results/."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mien.lab.checkpoint import save_text
from mien.lab.stress.figures import FIGURES


def write_json(said: Mapping[str, Any], path: Path) -> None:
    """Write ``said`` atomically, one line a condition. Raises ``OutputError``."""
    text = json.dumps(said, indent=1)
    # Innermost lists and objects on one line: a third of the lines, and as easy to compare.
    text = re.sub(r"\[[^\[\]{}]*\]", _flat, text)
    save_text(path, re.sub(r"\{[^{}]*\}", _flat, text) + "\n")


def write_table(said: Mapping[str, Any], path: Path) -> None:
    """Write a row for every model, spoiling and strength as CSV, atomically. Raises ``OutputError``."""
    text = io.StringIO()
    ends = ("", "_low", "_high", "_difference", "_difference_low", "_difference_high")
    fields = [figure + end for figure in FIGURES for end in ends]
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["model", "spoiling", "strength", "amount", "unit", "n", "flips", *fields])
    for model in said["models"]:
        units = {each["name"]: each["unit"] for each in said["spoilings"]}
        for name, strength, amount, condition in _conditions(model):
            cells = [cell for figure in FIGURES for cell in _cells(condition[figure])]
            first = [model["name"], name, strength, amount, units.get(name, "")]
            table.writerow([*first, model["n"], condition.get("flips", 0), *cells])
    save_text(path, text.getvalue())


def write_each(said: Mapping[str, Any], folder: Path) -> list[Path]:
    """A ``stress.json`` of each model alone, ``NAME.json``, as a reference for later; returns the files.

    Groups, which a reference does without, stand in a ``groups-NAME.json`` of their own.
    """
    files = []
    for model in said["models"]:
        name = re.sub(r"[^\w.-]+", "-", model["name"]).strip("-.")
        alone = {key: value for key, value in model.items() if key != "groups"}
        parts = {f"{name}.json": {**said, "groups": None, "models": [alone]}}
        if "groups" in model:
            parts[f"groups-{name}.json"] = _of_groups(said, model)
        for file, part in parts.items():
            write_json(part, folder / file)
            files.append(folder / file)
    return files


def _of_groups(said: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    shared = {key: said[key] for key in ("provenance", "setting", "source", "groups")}
    return {**shared, "models": [{key: model[key] for key in ("name", "about", "n", "groups")}]}


def _conditions(model: Mapping[str, Any]) -> Iterator[tuple[str, int, Any, Mapping[str, Any]]]:
    yield "clean", 0, "", model["clean"]
    for name, five in model["spoilt"].items():
        for condition in five:
            yield name, condition["strength"], condition["amount"], condition


def _cells(figure: Mapping[str, Any]) -> list[Any]:
    if "difference" not in figure:
        return [figure["value"], *figure["interval"], 0, 0, 0]
    return [figure["value"], *figure["interval"], figure["difference"], *figure["difference_interval"]]


def _flat(match: re.Match[str]) -> str:
    return re.sub(r"(?<=[\[{]) | (?=[\]}])", "", re.sub(r"\s*\n\s*", " ", match[0]))
