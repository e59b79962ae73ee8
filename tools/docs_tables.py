"""Shared parts of the generated pages of docs/: Markdown tables, marked parts, and the metrics kept in results/."""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mien._errors import RecipeError
from mien._metrics import METRICS, format_metric
from mien.bundled import BUNDLED
from mien.infer import bundled_models
from mien.lab.files import load_json
from mien.lab.recipe import load, parse
from mien.lab.recipe.text import differences, toml_value

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
Json = dict[str, Any]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace_marked(path: Path, parts: Mapping[str, str]) -> str:
    """The text of the page ``path`` with each of ``parts`` between its markers."""
    text = path.read_text("utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        text, count = pattern.subn(lambda _, b=begin, p=part, e=end: f"{b}\n{p}\n{e}", text)
        if count != 1:
            raise SystemExit(f"{path.name}: has the markers of {name!r} {count} times, not once")
    return text


def write_pages(pages: Mapping[str, Callable[[], str | None]], *, check: bool) -> int:
    """Write each page (path below the repository's root -> function), or only check that it is up to date.

    A function returns ``None`` if its page has no measurements. Returns the exit status, 1 for an outdated page.
    """
    stale = []
    for name, write in pages.items():
        path, text = ROOT / name, write()
        if text is None:
            continue
        if check and (not path.is_file() or path.read_text("utf-8") != text):
            stale.append(name)
        elif not check:
            path.write_text(text, "utf-8")
            print(name)
    if stale:
        print(f"out of date: {', '.join(stale)}; run: make docs", file=sys.stderr)
    return 1 if stale else 0


@dataclass(frozen=True)
class Row:
    """One recipe with the ``metrics.json`` of its seeds."""

    name: str
    runs: tuple[Json, ...]
    changed: str  # the keys in which it differs from the recipe of the published system
    needs: tuple[str, ...] = ()  # the runs it took its first weights or its teachers from

    @property
    def first(self) -> Json:
        """The run of the smallest seed."""
        return self.runs[0]

    @cached_property
    def claim(self) -> Json:
        """The claim of its document: from the shipped recipe, else from the run."""
        try:
            return asdict(load(self.name).claim)
        except RecipeError:
            return dict(self.first.get("claim", {}))

    @property
    def document(self) -> str:
        """The document that describes the system; empty for our own."""
        return str(self.claim.get("document", ""))

    @property
    def by_people(self) -> bool:
        """Whether it is evaluated on the majority of FER+: it has the class contempt."""
        return any(
            "contempt" in metrics["recall"] for metrics in self.metrics_of("public") + self.metrics_of("private")
        )

    def metrics_of(self, split: str, part: str = "all", precision: str = "fp32") -> list[Json]:
        """The metrics of every seed for this split, part and precision."""
        found = (run["metrics"].get(split, {}).get(precision, {}).get(part) for run in self.runs)
        return [metrics for metrics in found if metrics]


def read_rows(results: Path) -> list[Row]:
    """One row per recipe, its seeds in order."""
    by_name: dict[str, list[tuple[Json, Path]]] = {}
    for path in sorted(results.rglob("seed-*/metrics.json")):
        metrics = json.loads(path.read_text("utf-8"))
        by_name.setdefault(metrics["recipe"], []).append((metrics, path.parent))
    rows = []
    for name, runs in by_name.items():
        runs.sort(key=lambda run: run[0]["seed"])
        needs = _needs([folder / "recipe.json" for _, folder in runs])
        rows.append(Row(name, tuple(metrics for metrics, _ in runs), _changed(name, runs[0][1]), needs))
    return rows


def embedded_rows(results: Path) -> list[Row]:
    """One row per embedded model, from its card and from its recipes below ``results``."""
    rows = []
    for name in bundled_models():
        card = read_card(name)
        needs = _needs(sorted((results / name).rglob("recipe.json")))
        rows.append(Row(card["name"], (card | {"size": _size(card)},), "", needs))
    return rows


def read_card(name: str) -> Json:
    """The card of an embedded model."""
    card: Json = json.loads((BUNDLED / name / "card.json").read_text("utf-8"))
    return card


def _needs(recipes: Sequence[Path]) -> tuple[str, ...]:
    """The teachers and first weights of the resolved recipes, each once."""
    runs: dict[str, None] = {}
    for path in (path for path in recipes if path.is_file()):
        recipe = json.loads(path.read_text("utf-8"))
        net, target = recipe["net"], recipe["target"]  # older runs lack these keys
        runs |= dict.fromkeys([net.get("weights", ""), *target.get("teachers", ())])
    names = (re.sub(r"^(runs|results)/|/seed-\d+$|\.npz$", "", run) for run in runs if run not in ("", "imagenet"))
    return tuple(dict.fromkeys(names))


def _size(card: Json) -> int | None:
    if "size" in card:
        return int(card["size"])
    try:
        return load(card["recipe"]).data.size
    except RecipeError:
        return None


def published(name: str) -> str:
    """The faithful recipe of the document of the recipe ``name``: the name without our suffix."""
    return re.sub("-(tuned|taught|longer|long|live|128|narrow|scratch)$", "", name)


def _changed(name: str, folder: Path) -> str:
    """The keys in which the recipe of a run differs from the published system's."""
    try:
        system = load(published(name))
        run = parse(load_json(folder / "recipe.json"), where=str(folder))
    except (OSError, ValueError, RecipeError):
        return ""
    changed = {key: value for key, value in differences(run, system).items() if not key.startswith(("claim", "family"))}
    return ", ".join(f"{key} = {toml_value(value)}" for key, value in changed.items() if key != "seed")


def mean(metrics: Sequence[Json], key: str) -> float:
    """The mean of ``key`` over seeds."""
    return fmean(each[key] for each in metrics)


def spread(metrics: Sequence[Mapping[str, Any]], key: str) -> str:
    """The mean over seeds, and their standard deviation where there are several."""
    values = [each[key] for each in metrics if key in each]  # results of other versions lack a metric
    if not values:
        return "–"
    if len(values) == 1:
        return format_metric(key, values[0])
    deviation = f"{100 * stdev(values):.1f}" if METRICS[key].is_share else f"{stdev(values):.3f}"
    return f"{format_metric(key, fmean(values))} ± {deviation}"


def share(value: float) -> str:
    """A share as percent with one decimal."""
    return f"{100 * value:.1f} %"


def interval(edges: Sequence[float]) -> str:
    """An interval of shares in percent."""
    return f"{100 * edges[0]:.1f} to {100 * edges[1]:.1f}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison kept by `mien compare RESULTS... --split PrivateTest --keep FOLDER`, all models timed together."""

    folder: str  # of results/
    heading: str
    plot: str  # path below docs/
    alt: str  # of the plot
    faces: str  # what its faces are, as a sentence

    def read(self, results: Path) -> Json | None:
        """Its file, if its models were timed."""
        path = results / self.folder / "PrivateTest.json"
        kept: Json | None = json.loads(path.read_text("utf-8")) if path.is_file() else None
        return kept if kept and kept["measured_on"] else None


# results/comparison: the systems evaluated on the labels of FER-2013. results/agreed: these and mien-plus, which is
# evaluated on voters, on the faces where labels and voters agree.
LABELLED = Comparison(
    "comparison",
    "## Accuracy against milliseconds",
    "images/pace.svg",
    "Accuracy against milliseconds a face",
    "Accuracy on the {n:,} faces of {split} and the classes that all models know ({names}): the only fair "
    "comparison of six classes with seven, and easier than all seven. `mien-1-blend` is no longer a recipe: "
    "[experiments](experiments.md).",
)
AGREED = Comparison(
    "agreed",
    "### Where labels and voters agree",
    "images/pace-agreed.svg",
    "Accuracy against milliseconds a face, where labels and voters agree",
    "`mien-plus` is evaluated on the majority of ten voters, all others on the labels of FER-2013. Accuracy on the "
    "{n:,} faces of {split} for which both agree, and the classes that all models know ({names}). These faces are "
    "unambiguous, which favours a net that was trained on the votes.",
)
COMPARISONS = (LABELLED, AGREED)


def milliseconds(model: Json, precision: str) -> float | None:
    """Time of one face of a ``model`` of a comparison; ``None`` if it was not timed."""
    timings = model["cost"]["timings"]
    return next((t["ms_a_face"]["ms"] for t in timings if (t["precision"], t["batch"]) == (precision, 1)), None)
