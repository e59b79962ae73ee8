"""The embedded models side by side, for docs/models.md: what they get right, what spoils them, what they cost.

From their cards, and from what `mien stress`, `benchmarks/paste.py` and `mien compare` have kept in results/.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markdown import table
from mien.lab.page.words import percent
from mien.lab.stress.words import between, ratio
from results_pace import AGREED, milliseconds

Json = Mapping[str, Any]


def side_by_side(cards: Sequence[Json], results: Path) -> list[str]:
    """The section, where there are two models or more; a dash stands for what was not measured of one."""
    if len(cards) < 2:
        return []
    names = [card["name"] for card in cards]
    columns = [
        _judged(card) | _people(card) | _paste(results / "paste" / f"{card['name']}.json")
        | _stress(results / "stress" / f"{card['name']}.json", card["name"]) | _cost(card, results)
        for card in cards
    ]  # fmt: skip
    wanted = list(dict.fromkeys(key for column in columns for key in column))
    rows = [(key, *(column.get(key, "–") for column in columns)) for key in wanted]
    told = (
        "int8 files. Spoilt: the mean over 19 spoilings of five strengths of PublicTest faces (docs/robustness.md). "
        "Pasted: faces of PublicTest laid into a photograph, found and cut out again (`benchmarks/paste.py`). "
        "Milliseconds: one face, one thread, all in the same minutes (docs/results.md)."
    )
    return ["## Side by side", table(("", *(f"`{name}`" for name in names)), rows), told]


def _judged(card: Json) -> dict[str, str]:
    private = card["judged"]["private"]["int8"]  # an embedded model is a final one
    whole, clean = private["all"], private["clean"]
    low, high = whole["interval"]
    voted = "contempt" in whole["recall"]
    return {
        "judged on": f"{whole['n']:,} faces, " + ("majority of FER+" if voted else "labels of FER-2013"),
        "PrivateTest accuracy": f"**{percent(whole['accuracy'], 2)}** ({percent(low)} to {percent(high)})",
        "without copies": percent(clean["accuracy"], 2),
        "balanced accuracy, macro F1": f"{percent(whole['balanced_accuracy'])}, {percent(whole['macro_f1'])}",
        "log loss, calibration error": f"{whole['log_loss']:.3f}, {whole['ece']:.3f}",
    }


def _people(card: Json) -> dict[str, str]:
    said = card.get("beside", {}).get("private")
    if not said:
        return {}
    rows = {"with its mirror image": percent(said["flip"]["all"]["accuracy"], 2)}
    if said["people"]:
        rows["agrees with the FER+ majority"] = percent(said["people"]["majority"]["agreement"], 2)
        rows["log loss to the votes"] = f"{said['people']['distribution']['log_loss']:.3f}"
    return rows


def _paste(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    by = {row["condition"]: row for row in json.loads(path.read_text("utf-8"))["rows"]}
    shown = {"192 px": "192 px", "48 px": "48 px", "192 px, +30 degrees": "192 px, tilted by 30 degrees"}
    return {
        f"pasted, {words}: same top emotion, accuracy": f"{by[key]['agreement']:.0%}, {by[key]['accuracy']:.0%}"
        for key, words in shown.items()
    }


def _stress(path: Path, name: str) -> dict[str, str]:
    if not path.is_file():
        return {}
    model = next(m for m in json.loads(path.read_text("utf-8"))["models"] if m["name"] == name)
    return {
        "spoilt accuracy": between(model["mean"]["accuracy"]),
        "mean corruption": ratio(model, "mce"),
        "answers that a spoiling changes": percent(model["mean"]["flips"]),
        "calibration error, clean → spoilt": f"{percent(model['clean']['ece']['value'])} → "
        f"{percent(model['mean']['ece']['value'])}",
    }


def _cost(card: Json, results: Path) -> dict[str, str]:
    rows = {"parameters, MMAC": f"{card['parameters'] / 1e6:.2f} M, {card['macs'] / 1e6:.0f}"}
    said = AGREED.read(results)  # which has them all
    for model in said["models"] if said else []:
        if model["name"] == card["name"]:
            rows["milliseconds a face"] = f"{milliseconds(model, 'int8'):.2f}"
    return rows
