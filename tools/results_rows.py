"""The rows of docs/results.md: recipes with the figures of their seeds, from results/ and the models' cards."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mien._errors import RecipeError
from mien.bundled import BUNDLED
from mien.infer import bundled_models
from mien.lab.recipe import load, parse
from mien.lab.recipe.text import describe, differences

SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "macro_precision")
NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "macro_precision": "macro precision",
    "weighted_f1": "weighted F1",
    "log_loss": "log loss",
}

Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One recipe: the ``metrics.json`` of its seeds, and what its recipe says otherwise than the one it stands for."""

    name: str
    runs: tuple[Json, ...]
    changed: str
    place: str = ""  # the folder of the first seed's evidence, as docs/ name it
    needs: tuple[str, ...] = ()  # the runs whose weights it began with, or whose answers it was taught

    @property
    def first(self) -> Json:
        """The run of the smallest seed."""
        return self.runs[0]

    @property
    def claim(self) -> Json:
        """What its document says of it, as the shipped recipe has it now, else as it was when it was judged."""
        try:
            return asdict(load(self.name).claim)
        except RecipeError:
            return dict(self.first.get("claim", {}))

    @property
    def document(self) -> str:
        """The document whose system it is; empty for our own."""
        return str(self.claim.get("document", ""))

    @property
    def by_people(self) -> bool:
        """Whether it knows contempt, and so is judged on the majority of FER+."""
        return any("contempt" in figures["recall"] for figures in self.judged("public") + self.judged("private"))

    def judged(self, split: str, part: str = "all", precision: str = "fp32") -> list[Json]:
        """The figures of every seed that was judged so."""
        found = (run["judged"].get(split, {}).get(precision, {}).get(part) for run in self.runs)
        return [figures for figures in found if figures]


def read(results: Path) -> list[Row]:
    """One row a recipe, its seeds in order."""
    by_name: dict[str, list[tuple[Json, Path]]] = {}
    for path in sorted(results.rglob("seed-*/metrics.json")):
        said = json.loads(path.read_text("utf-8"))
        by_name.setdefault(said["recipe"], []).append((said, path.parent))
    found = []
    for name, runs in by_name.items():
        runs.sort(key=lambda run: run[0]["seed"])
        place = f"../{results.name}/{runs[0][1].relative_to(results)}"
        needs = _needs([folder / "recipe.json" for _, folder in runs])
        found.append(Row(name, tuple(said for said, _ in runs), _changed(name, runs[0][1]), place, needs))
    return found


def embedded(results: Path) -> list[Row]:
    """One row an embedded model, from its card, and from its recipes, which may lie below ``results``."""
    found = []
    for name in bundled_models():
        card = json.loads((BUNDLED / name / "card.json").read_text("utf-8"))
        needs = _needs(sorted((results / name).rglob("recipe.json")))
        found.append(Row(card["name"], (card | {"size": _side(card)},), "", needs=needs))
    return found


def _needs(recipes: Sequence[Path]) -> tuple[str, ...]:
    """The runs that those recipes, resolved, name as teachers or as weights to begin with, each once."""
    them: dict[str, None] = {}
    for path in (path for path in recipes if path.is_file()):
        said = json.loads(path.read_text("utf-8"))
        net, target = said["net"], said["target"]  # of older runs without these keys
        them |= dict.fromkeys([net.get("weights", ""), *target.get("teachers", ())])
    names = (re.sub(r"^(runs|results)/|/seed-\d+$|\.npz$", "", run) for run in them if run not in ("", "imagenet"))
    return tuple(dict.fromkeys(names))


def _side(card: Json) -> int | None:
    if "size" in card:
        return int(card["size"])
    try:
        return load(card["recipe"]).data.size
    except RecipeError:
        return None


def published(name: str) -> str:
    """The recipe that is faithful to the document of the recipe ``name``: the name without our suffix."""
    return re.sub("-(tuned|taught|longer|long|live|128|narrow|scratch)$", "", name)


def _changed(name: str, folder: Path) -> str:
    """What the recipe as it was run has otherwise than the published system's, in words of its file."""
    try:
        system = load(published(name))
        run = parse(json.loads((folder / "recipe.json").read_text("utf-8")), where=str(folder))
    except (OSError, ValueError, RecipeError):
        return ""
    changed = {key: value for key, value in differences(run, system).items() if not key.startswith("claim")}
    return ", ".join(f"{key} = {describe(value)}" for key, value in changed.items() if key != "seed")


def named(key: str) -> str:
    """What people call the figure ``key``."""
    name, _, emotion = key.partition(".")
    return f"{name} of {emotion}" if emotion else NAMES.get(key, key)


def mean(judged: Sequence[Json], key: str) -> float:
    """The mean of ``key`` over seeds."""
    return fmean(figures[key] for figures in judged)


def spread(judged: Sequence[Mapping[str, Any]], key: str) -> str:
    """The mean over seeds, and their standard deviation where there are several."""
    if not judged:
        return "–"
    values = [figures[key] for figures in judged]
    if len(values) == 1:
        return told(key, values[0])
    deviation = f"{100 * stdev(values):.1f}" if key in SHARES else f"{stdev(values):.3f}"
    return f"{told(key, fmean(values))} ± {deviation}"


def told(key: str, value: float) -> str:
    """The figure as a cell."""
    share = key in SHARES or key.partition(".")[0] in ("recall", "precision", "f1")
    return f"{100 * value:.1f} %" if share else f"{value:.3f}"
