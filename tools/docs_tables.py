"""Shared parts of the generated pages of docs/: Markdown tables, marked parts, and the metrics kept in results/."""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mien._errors import RecipeError
from mien._format import percent, percent_interval
from mien._metrics import METRICS, format_metric
from mien.bundled import BUNDLED
from mien.infer import bundled_models
from mien.lab.export.calibrate import Calibration
from mien.lab.files import load_json
from mien.lab.ledger import Ledger, count_looks
from mien.lab.recipe import load, members, parse, recipe_names
from mien.lab.recipe.load import differences, toml_value
from mien.lab.recipe_summary import explanation

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
Json = dict[str, Any]
LEDGER = Ledger(RESULTS / "private-test-looks.json")
MARKED = "†"  # after a figure of a family that PrivateTest was looked at for more than once
MARK_NOTE = f"{MARKED}: PrivateTest was looked at more than once for its family, so it may be too good."


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
    extra_labels: str = "none"  # FER+ votes, further data sets
    last_epoch: float | None = None  # PublicTest accuracy, not calibrated, of a faithful run whose best epoch was kept

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

    @property
    def calibration(self) -> str:
        """How its probabilities were calibrated on PublicTest, temperature or vector; a dash if not recorded."""
        found = self.first.get("calibration")
        return Calibration(tuple(found["scale"]), tuple(found["offset"])).method if found else "–"

    def uncalibrated(self, split: str) -> list[Json]:
        """Log loss, Brier score and calibration error of every seed before calibration, where they were recorded."""
        return [run["uncalibrated"][split] for run in self.runs if split in run.get("uncalibrated", {})]


def reduced_by(row: Row) -> str:
    """How much smaller a row is than the faithful recipe of its document, as factors; ``none`` if it is not."""
    faithful, run = published(row.name), row.first
    if not row.document or faithful not in _recipes():
        return "–"
    net, epochs = _full_size(faithful)
    factors = {
        "multiplications": net["macs"] / run["macs"],
        "parameters": net["parameters"] / run["parameters"],
        "epochs": epochs / run["epochs"],
    }
    return ", ".join(f"{what} {factor:.1f}" for what, factor in factors.items() if abs(factor - 1) >= 0.05) or "none"


@cache
def _recipes() -> frozenset[str]:
    """All recipes, and the members of families."""
    return frozenset(member for name in recipe_names() for member in members(name))


@cache
def _full_size(recipe: str) -> tuple[Json, int]:
    """Net, as parameters and multiplications, and epochs of all phases."""
    explained = explanation(recipe)
    return explained["net"], sum(phase["epochs"] for phase in explained["phases"])


def read_rows(results: Path) -> list[Row]:
    """One row per recipe, its seeds in order."""
    by_name: dict[str, list[tuple[Json, Path]]] = {}
    for path in sorted(results.rglob("seed-*/metrics.json")):
        metrics = load_json(path)
        by_name.setdefault(metrics["recipe"], []).append((metrics, path.parent))
    rows = []
    for name, runs in by_name.items():
        runs.sort(key=lambda run: run[0]["seed"])
        recipes = [load_json(path) for _, folder in runs if (path := folder / "recipe.json").is_file()]
        needs, labels = _needs(recipes), _extra_labels(recipes)
        changed, last = _changed(name, runs[0][1]), _last_epoch(*runs[0])
        rows.append(Row(name, tuple(metrics for metrics, _ in runs), changed, needs, labels, last))
    return rows


def _last_epoch(metrics: Json, folder: Path) -> float | None:
    """PublicTest accuracy after the last epoch in the log of a faithful run, if another epoch was kept."""
    log, recipe = folder / "log.jsonl", folder / "recipe.json"
    if metrics.get("claim", {}).get("variant") != "faithful" or not (log.is_file() and recipe.is_file()):
        return None
    last = json.loads(log.read_text("utf-8").splitlines()[-1])
    is_best = load_json(recipe)["checkpoint"] == "best"
    return float(last["val_accuracy"]) if is_best and last.get("val_split") == "public" else None


@cache
def looks_at(recipe: str) -> tuple[int, int]:
    """Looks at PrivateTest for the family of a recipe, and figures that were seen; 0 for one that was not evaluated."""
    entries = LEDGER.entries()
    families = [entry["family"] for entry in entries if entry["recipe"] == recipe]
    return count_looks(families[-1], entries) if families else (0, 0)


def looks_mark(recipe: str) -> str:
    """The mark of a PrivateTest figure: empty where it was the only look at its family."""
    return MARKED if looks_at(recipe)[0] > 1 else ""


def looks_cell(recipe: str) -> str:
    """Looks at PrivateTest for the family of a recipe, as a cell."""
    looks, figures = looks_at(recipe)
    return "–" if not looks else f"{looks}" if looks == figures else f"{looks} ({figures} figures)"


def looks_section() -> list[str]:
    """Every family that PrivateTest was looked at for, with the figures in their order; and why more than once."""
    entries = LEDGER.entries()
    lines = []
    for family in dict.fromkeys(entry["family"] for entry in entries):
        own = [entry for entry in entries if entry["family"] == family]
        looks: dict[int, list[Json]] = {}
        for entry in own:
            looks.setdefault(entry["look"], []).append(entry)
        if len(looks) == 1:
            continue
        for number, seen in looks.items():
            values = [100 * next(iter(entry["accuracy"].values())) for entry in seen]
            found = f"{min(values):.1f}" + (f" to {max(values):.1f}" if len(values) > 1 else "")
            name = seen[0]["recipe"].partition("/")[0] if len(seen) > 1 else seen[0]["recipe"]
            why = seen[0]["why"] or "the first"
            lines.append([family, str(number), f"`{name}`", str(len(seen)), f"{found} %", seen[0]["date"], why])
    singles = len({entry["family"] for entry in entries}) - len({line[0] for line in lines})
    note = (
        f"`results/private-test-looks.json` holds every figure that was computed on PrivateTest, "
        f"{len(entries)} in all. A family is the recipes of one document and net. Further seeds of a training and the "
        "members of one grid belong to one look; so do several files of the same weights. The families below were "
        "looked at more than once: each "
        "look could lead the next choice, so these figures are too good by an unknown amount. A fresh figure needs "
        "faces that no choice has used: [cross-validation](how-to/reproduce.md#fresh-figures). "
        f"{singles} other families were looked at once."
    )
    heads = ("family", "look", "recipe", "figures", "accuracy", "date", "why again")
    return ["## Looks at PrivateTest", note, table(heads, lines)]


def machine_of(run: Json) -> str:
    """The machine of a training, with the precision where it is known to be fp32."""
    return f"{run['machine']}{', fp32' if run.get('train_precision') == '32-true' else ''}"


def folds_section(results: Path) -> list[str]:
    """The cross-validations: figures of predictions that no choice has used."""
    lines = []
    for path in sorted(results.rglob("folds-*/metrics.json")):
        run = load_json(path)
        found, clean = run["metrics"]["folds"]["fp32"]["all"], run["metrics"]["folds"]["fp32"].get("clean")
        row = [f"`{run['recipe']}`", str(run["seed"]), f"{found['n']:,}", percent(found["accuracy"])]
        row += [percent_interval(found["interval"]), percent(clean["accuracy"]) if clean else "–"]
        row += [spread([found], key) for key in ("balanced_accuracy", "macro_f1", "log_loss")]
        lines.append([*row, " ".join(percent(each) for each in run["folds"]), machine_of(run)])
    if not lines:
        return []
    note = (
        "Every face of Training and PublicTest is predicted by a net that was not trained on it; copies are in one "
        "fold. Nothing was chosen on these predictions, which are not calibrated."
    )
    heads = (
        "recipe",
        "seed",
        "faces",
        "accuracy",
        "95 % interval",
        "clean",
        "balanced",
        "macro F1",
        "log loss",
        "folds",
        "trained on",
    )
    return ["## Fresh figures: cross-validation", note, table(heads, lines)]


def embedded_rows(results: Path) -> list[Row]:
    """One row per embedded model, from its card and from its recipes below ``results``."""
    rows = []
    for name in bundled_models():
        card = read_card(name)
        recipes = [load_json(path) for path in sorted((results / name).rglob("recipe.json"))]
        labels = _extra_labels(recipes)
        rows.append(Row(card["name"], (card | {"size": _size(card)},), "", _needs(recipes), labels))
    return rows


def read_card(name: str) -> Json:
    """The card of an embedded model."""
    card: Json = load_json(BUNDLED / name / "card.json")
    return card


def _needs(recipes: Sequence[Json]) -> tuple[str, ...]:
    """The teachers and first weights of the resolved recipes, each once; also ``imagenet``."""
    runs: dict[str, None] = {}
    for recipe in recipes:
        net, target = recipe["net"], recipe["target"]  # older runs lack these keys
        runs |= dict.fromkeys([net.get("weights", ""), *target.get("teachers", ())])
    names = (re.sub(r"^(runs|results)/|/seed-\d+$|\.npz$", "", run) for run in runs if run)
    return tuple(dict.fromkeys(names))


def _extra_labels(recipes: Sequence[Json]) -> str:
    """The labels of the resolved recipes that FER-2013 does not have."""
    found: dict[str, None] = {}
    for recipe in recipes:
        if recipe["target"].get("vote_weight") or recipe["data"].get("classes") == "eight":
            found["FER+ votes"] = None
        if recipe["data"].get("extra"):
            found["further data sets"] = None
    return ", ".join(found) or "none"


def _size(card: Json) -> int | None:
    if "size" in card:
        return int(card["size"])
    try:
        return load(card["recipe"]).data.size
    except RecipeError:
        return None


def published(name: str) -> str:
    """The faithful recipe of the document of the recipe or member ``name``: the name without our suffix."""
    return re.sub("-(tuned|taught|longer|long|live|30|128|narrow|reduced|scratch|meant)(?=/|$)", "", name)


def _changed(name: str, folder: Path) -> str:
    """The keys in which the recipe of a run differs from the published system; empty where there is no such system."""
    try:
        system = load(published(name))
    except RecipeError:
        return ""  # a step that the document does not have, as in `hybrid-ablation-narrow/milder`
    run = parse(load_json(folder / "recipe.json"), where=str(folder))
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
        kept: Json | None = load_json(path) if path.is_file() else None
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
    "[experiments](explanations/experiments.md).",
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
