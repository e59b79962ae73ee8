"""Write docs/results.md and its plots from results/; a test checks that they are up to date.

    python tools/docs_results.py            write them
    python tools/docs_results.py --check    exit 1 if they are out of date

Every number comes from results/**/seed-*/metrics.json, which `mien record` wrote, from the studies, explanations,
comparisons and races in results/, and from the cards of the embedded models. Nothing is measured here.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

from docs_claimed import RECALLS, claims_sections, draw_recalls
from docs_tables import (
    COMPARISONS,
    LABELLED,
    MARK_NOTE,
    RESULTS,
    Comparison,
    Json,
    Row,
    embedded_rows,
    folds_section,
    looks_cell,
    looks_mark,
    looks_section,
    machine_of,
    mean,
    milliseconds,
    read_rows,
    reduced_by,
    spread,
    table,
    write_pages,
)
from mien._format import percent, percent_interval
from mien.lab.compare.plots import ModelPoint, pareto_figure
from mien.lab.explain import report as explained
from mien.lab.files import load_json
from mien.lab.html import drawing
from reproduce import PLACES, is_done, read_queue


def page(results: Path, *, cards: bool = True) -> str:
    """The whole page from the files below ``results``; ``cards`` adds the embedded models and the open trainings."""
    rows = read_rows(results) + (embedded_rows(results) if cards else [])
    every = sorted(rows, key=lambda row: (row.document or "999", row.name))
    studies = [load_json(path) for path in sorted((results / "studies").glob("*.json"))]
    families = {study["family"] for study in studies}  # their members are compared in a section of their own
    rows = [row for row in every if row.name.partition("/")[0] not in families]
    parts = ["# Results", "Written by `make docs` from `results/` and the models' cards; do not edit."]
    parts.append(_protocol(rows))
    for split in ("private", "public"):
        there = [row for row in rows if row.metrics_of(split) and (split == "private" or not row.metrics_of("private"))]
        if labelled := [row for row in there if not row.by_people]:
            parts += [f"## {split.capitalize()}Test", _metrics(labelled, split)]
        if voted := [row for row in there if row.by_people]:
            parts += [f"## {split.capitalize()}Test, eight emotions", _VOTED, _metrics(voted, split)]
    parts += looks_section() if cards else []
    parts += folds_section(results)
    parts += _leaky(rows)
    parts += [part for comparison in COMPARISONS for part in _compared(comparison, results)]
    parts += _alike(results)
    parts += _races(results)
    parts += ["## What each cost", _costs(every)]
    parts += claims_sections(rows, every, results)
    parts += [part for study in studies for part in _study(study)]
    parts += [part for path in sorted((results / "explain").glob("*.json")) for part in _explained(load_json(path))]
    parts += _changes(rows)
    parts += _left_to_train(results) if cards else []
    return "\n\n".join(parts) + "\n"


_VOTED = (
    "Evaluated on the majority of ten FER+ voters, where there is one (Barsoum et al., 2016), instead of the labels of "
    "FER-2013. Faces and labels differ from those above, so the two tables are not comparable."
)


def _protocol(rows: Sequence[Row]) -> str:
    counts = {metrics["n"] for row in rows for metrics in row.metrics_of("private")}
    clean = {metrics["n"] for row in rows for metrics in row.metrics_of("private", "clean")}
    whole = f"{max(counts):,} rows of PrivateTest" if counts else "PrivateTest"
    rest = f"the {max(clean):,} of them" if clean else "those"
    return (
        "Trained on Training without the rows whose pixels also occur in a test split; epochs and calibration were "
        f"chosen on PublicTest. Each system is evaluated on {whole}: accuracy with its 95 % interval, and "
        f"accuracy on {rest} without an exact copy in another split (clean). Not every choice was made on PublicTest: "
        f"where the column *looks* is above 1, figures on PrivateTest were seen before later choices "
        f"([looks](#looks-at-privatetest)). The row `-128` of document 003 was chosen so: five courses were evaluated "
        f"on PrivateTest, each before the next was designed, and the last is the one that passed the claim."
    )


def _metrics(rows: Sequence[Row], split: str) -> str:
    heads = ["recipe", "document", "variant", "classes", "faces", "accuracy", "95 % interval", "clean", "balanced"]
    heads += ["macro F1", "log loss", "Brier", "ECE", "int8", "seeds"]
    heads += ["input", "parameters", "epochs"]
    heads += ["teachers, first weights", "extra labels", "reduced by", *(["looks"] if split == "private" else [])]
    lines = [
        _metrics_line(row, split) for row in sorted(rows, key=lambda row: -mean(row.metrics_of(split), "accuracy"))
    ]
    note = (
        "Metrics of the fp32 file, calibrated on PublicTest (log loss, Brier score, ECE: before → after, a dash where "
        "it was not recorded); int8: accuracy of the quantised file. ECE: expected calibration error, debiased. Fewer "
        "classes are easier: compare rows with the same number of classes. Reduced by: multiplications, parameters and "
        "epochs of the faithful recipe of the document, divided by those of the row."
    )
    several = any(len(row.metrics_of(split)) > 1 for row in rows)
    seeds = " ±: standard deviation over seeds; intervals: mean over seeds." if several else ""
    looks = f" {MARK_NOTE}" if split == "private" else ""
    return f"{table(heads, lines)}\n\n{note}{seeds}{looks}"


def _metrics_line(row: Row, split: str) -> list[str]:
    whole, clean, int8 = row.metrics_of(split), row.metrics_of(split, "clean"), row.metrics_of(split, precision="int8")
    return [
        f"`{row.name}`",
        row.document or "own",
        str(row.claim.get("variant", "own")),
        str(len(whole[0]["recall"])),
        f"{whole[0]['n']:,}",
        spread(whole, "accuracy") + (looks_mark(row.name) if split == "private" else ""),
        percent_interval([fmean(metrics["interval"][edge] for metrics in whole) for edge in (0, 1)]),
        spread(clean, "accuracy"),
        *(spread(whole, key) for key in ("balanced_accuracy", "macro_f1")),
        *(f"{spread(row.uncalibrated(split), key)} → {spread(whole, key)}" for key in ("log_loss", "brier", "ece")),
        spread(int8, "accuracy"),
        str(len(whole)),
        f"{row.first['size']} px" if row.first.get("size") else "–",
        f"{row.first['parameters'] / 1e6:.2f} M",
        str(row.first["epochs"]),
        ", ".join(f"`{name}`" for name in row.needs) or "none",
        row.extra_labels,
        reduced_by(row),
        *([looks_cell(row.name)] if split == "private" else []),
    ]


def _leaky(rows: Sequence[Row]) -> list[str]:
    """A separate section for runs that were trained on copies of their validation faces; they are not results."""
    there = [row for row in rows if row.metrics_of("leaky")]
    if not there:
        return []
    lines = [
        (
            f"`{row.name}`",
            row.document,
            f"{row.metrics_of('leaky')[0]['n']:,}",
            spread(row.metrics_of("leaky"), "accuracy"),
        )
        for row in there
    ]
    note = "Evaluated on faces whose copies were in the training set: a demonstration of the leak, not a result."
    return ["## Leaky on purpose", note, table(("recipe", "document", "faces", "accuracy"), lines)]


def _costs(rows: Sequence[Row]) -> str:
    heads = ("recipe", "input", "parameters", "MMAC", "epochs", "seconds")
    heads += ("built on", "trained on", "commit", "evaluated at")
    note = (
        "Several seeds, or the parts of an ensemble, are listed in order; a machine or commit that several share is "
        "listed once. `+`: with uncommitted changes. The weights of runs that were evaluated so are not in the "
        "repository, so they can only be trained again: they are in the queue. Built on: the "
        "runs that gave the first weights or the teachers' answers; their seconds are not included."
    )
    return f"{note}\n\n{table(heads, [_costs_line(row) for row in rows])}"


def _costs_line(row: Row) -> list[str]:
    run = row.first
    trainings = [part for each in row.runs for part in each.get("parts", [each])]  # an ensemble has several
    return [
        f"`{row.name}`",
        f"{run['size']} px" if run.get("size") else "–",
        f"{run['parameters']:,}",
        f"{run['macs'] / 1e6:,.1f}",
        str(run["epochs"]),
        " ".join(f"{each['seconds']:,}" for each in trainings),
        ", ".join(f"`{name}`" for name in row.needs) or "–",
        "; ".join(dict.fromkeys(map(machine_of, trainings))),
        _commits([each["commit"] for each in trainings]),
        _evaluated_at(row),
    ]


def _evaluated_at(row: Row) -> str:
    """The commits of the evaluations; in words where the code had uncommitted changes and no weights are kept."""
    commits = _commits([each.get("evaluated_at") or each.get("exported_at", "–") for each in row.runs])
    return f"{commits}, +: changed tree, weights not kept" if "+" in commits else commits


def _commits(commits: Sequence[str]) -> str:
    """Each commit once, its first twelve digits; `+` marks uncommitted changes. A resumed training has several."""
    single = "; ".join(commits).split("; ")
    return " ".join(dict.fromkeys(each[:12] + ("+" if each.endswith("+") else "") for each in single))


def _changes(rows: Sequence[Row]) -> list[str]:
    lines = [f"- `{row.name}`: `{row.changed}`" for row in rows if row.changed]
    if not lines:
        return []
    note = (
        "A faithful recipe is trained as its document says. A tuned recipe is not, and its file says why. These are "
        "all keys in which it differs from the faithful one:"
    )
    return ["## What was changed", note, "\n".join(lines)]


def _left_to_train(results: Path) -> list[str]:
    """The trainings of results/queue.toml that are not done, and their cost."""
    left = [each for each in read_queue() if not is_done(each, results)]
    title = "## Still to be trained"
    if not left:
        return [title, "Nothing: every training of `results/queue.toml` is done."]
    families = Counter((each.member.partition("/")[0], each.on, each.minutes, each.mmacs, each.why) for each in left)
    lines = [
        [f"`{name}`", str(count), on, f"{mmacs:,.1f}" if mmacs else "–", f"{count * minutes:g} min", why]
        for (name, on, minutes, mmacs, why), count in families.items()
    ]
    totals = {on: sum(each.minutes for each in left if each.on == on) for on in PLACES}
    note = (
        "`results/queue.toml`, the most important first. `python tools/reproduce.py` trains it and resumes an "
        "interrupted training. "
        + ", ".join(f"{minutes:g} minutes on one {on}" for on, minutes in totals.items() if minutes)
        + "."
    )
    return [title, note, table(("recipe", "runs", "on", "MMAC", "cost, estimated", "for"), lines)]


# Accuracy against milliseconds


def _compared(comparison: Comparison, results: Path) -> list[str]:
    """The section of a comparison, if it was recorded with its times."""
    kept = comparison.read(results)
    if kept is None:
        return []
    common = kept["common"]
    faces = comparison.faces.format(n=common["n"], split=kept["split"], names=", ".join(common["emotions"]))
    note = (
        f"One face at a time on one thread of {kept['measured_on']['processor']}, ONNX Runtime, all models in the same "
        f"minutes. {faces} The plot shows the time of int8 for an embedded model, of fp32 for recorded answers. "
        f"`{kept['provenance']['command']}`."
    )
    note += _ratio_of_times(kept, LABELLED.read(results)) if comparison is not LABELLED else ""
    note += f" {MARK_NOTE}"
    return [comparison.heading, f"![{comparison.alt}]({comparison.plot})", note, _compared_models(kept)]


def _ratio_of_times(kept: Json, other: Json | None) -> str:
    """A sentence on the ratio of the times of two tables measured on different days."""
    if other is None:
        return ""
    before = {model["name"]: milliseconds(model, "int8") for model in other["models"]}
    now = {model["name"]: milliseconds(model, "int8") for model in kept["models"]}
    ratios = [now[name] / ms for name, ms in before.items() if ms and now.get(name)]
    if not ratios:
        return ""
    return (
        f" The {len(ratios)} int8 files of the table above took {median(ratios):.2f} times as long here "
        f"(median; there {other['measured_on']['processor']}, {other['measured_on']['system']}, here "
        f"{kept['measured_on']['processor']}, {kept['measured_on']['system']}): compare times within one table."
    )


def _compared_models(kept: Json) -> str:
    lines = []
    for model in sorted(kept["models"], key=lambda model: -model["common"]["accuracy"]):
        common = model["common"]
        times = [f"{ms:.2f}" if (ms := milliseconds(model, precision)) else "–" for precision in ("fp32", "int8")]
        size = f"{model['parameters'] / 1e6:.2f} M" if model["parameters"] else "–"
        accuracy = percent(common["accuracy"]) + looks_mark(model.get("recipe", ""))
        lines.append([f"`{model['name']}`", accuracy, percent_interval(common["interval"]), *times, size])
    return table(["model", "accuracy", "95 % interval", "fp32, ms", "int8, ms", "parameters"], lines)


def _alike(results: Path) -> list[str]:
    """Models with different calibrations, before and after all have the same one."""
    path = results / "alike" / "PublicTest.json"
    if not path.is_file():
        return []
    kept = load_json(path)
    keys = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece")
    lines = []
    for model in sorted(kept["models"], key=lambda model: -model["metrics"]["all"]["accuracy"]):
        compared, own, method = model["metrics"]["all"], model.get("own"), model["calibration"]
        cells = [(f"{spread([own], key)} → " if own else "") + spread([compared], key) for key in keys]
        change = (
            method["compared"] if method["own"] == method["compared"] else f"{method['own']} → {method['compared']}"
        )
        lines.append([f"`{model['name']}`", change, *cells])
    note = (
        "The recipes of document 001 and `conv4-tuned` have a temperature, because vector scaling fits the class "
        "frequencies and so takes back a part of what class weights and oversampling do. `mien compare` gives all "
        "models vector scaling of their recorded log-probabilities, fitted on PublicTest. A cell shows the figure with "
        "the own calibration → with that of the comparison, on PublicTest, where both were fitted; PrivateTest was not "
        f"looked at. `{kept['provenance']['command']}`."
    )
    heads = ("model", "calibration", "accuracy", "balanced", "macro F1", "log loss", "ECE")
    return ["## The same calibration for compared variants", note, table(heads, lines)]


def draw(results: Path, comparison: Comparison) -> str | None:
    """The plot of ``comparison`` as SVG; ``None`` if it was not recorded."""
    kept = comparison.read(results)
    if kept is None:
        return None
    times = [(model, milliseconds(model, model["precision"])) for model in kept["models"]]
    points = [
        ModelPoint(model["name"], ms, model["common"]["accuracy"], tuple(model["common"]["interval"]))
        for model, ms in times
        if ms
    ]
    accuracy = "accuracy on the common faces" if kept["common"]["narrowed"] else "accuracy"
    figure, alt = pareto_figure(points, cost="milliseconds a face, one thread", accuracy=accuracy)
    return drawing(figure, alt=alt)


# The race to 70 %

_VIEWS = {"none": "faces", "flip": "faces and mirror images", "six": "six views", "ten": "ten views"}


def _races(results: Path) -> list[str]:
    """The section on the time to the target accuracy, from the files of `benchmarks/speedrun.py`."""
    races = [load_json(path) for path in sorted(results.glob("speedrun*/*.json"))]
    if not races:
        return []
    steps = list(dict.fromkeys(step for race in races for run in race["runs"] for step in run["on_the_way"]))
    heads = ["recipe", "machine", "evaluated on", "interpolation", "target", *(f"to {step}" for step in steps)]
    heads += ["to the target", "reached", "best", "commit"]
    note = (
        "Wall time from the start of `mien train RECIPE` in its own process, including imports, reading the data and "
        "every evaluation on PublicTest (`python benchmarks/speedrun.py --recipe RECIPE`). Means over the runs, in "
        "seconds (±: standard deviation). Six views are the face in three sizes and their mirror images. "
        "Interpolation: of the transforms of training faces; bicubic is sharper. PublicTest is evaluated after every "
        "epoch or every few epochs, so these accuracies are not results. Each row is of the recipe at its commit."
    )
    return ["## The race to 70 %", note, table(heads, [_race(race, steps) for race in races])]


def _race(race: Json, steps: Sequence[str]) -> list[str]:
    runs, recipe, deviation = race["runs"], race["recipe"], race.get("deviation_seconds")
    spread_of_times = "" if deviation is None else f" ± {deviation:,.0f}"
    return [
        f"`{recipe['name']}`",
        str(race["machine"]),
        _VIEWS[recipe.get("tta", "none")],
        recipe.get("augment", {}).get("interpolation", "bilinear"),
        f"{100 * race['target']:.0f} %",
        *(_mean_seconds([run["on_the_way"].get(step) for run in runs]) for step in steps),
        _mean_seconds([run["seconds"] for run in runs]) + spread_of_times,
        f"{race['reached']} of {race['n']}",
        percent(max(run["accuracy"] for run in runs)),
        " ".join(dict.fromkeys(run["commit"] for run in runs)),
    ]


def _mean_seconds(values: Sequence[float | None]) -> str:
    """The mean, if every run reached the step."""
    reached = [value for value in values if value is not None]
    return f"{fmean(reached):,.0f}" if len(reached) == len(values) else "–"


# Studies: families of recipes, compared by `mien compare --grid FAMILY --keep results/studies`

# Families whose settings are in an order, each with one thing more than the one before.
_STEPS = ("hybrid-ablation", "hybrid-ablation-narrow")
_MANY = 4  # values of an axis from which on only the first is compared with the others
_STEP_METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "macro_f1": "macro F1"}


def _study(study: Json) -> list[str]:
    settings = study["settings"]
    faces = " or ".join(f"{n:,}" for n in sorted({each["metrics"]["n"] for each in settings}, reverse=True))
    about = f"{len(settings)} settings, evaluated on {faces} faces of {study['split']}."
    if study["split"] == "PrivateTest" and (looks := looks_cell(f"{study['family']}/{settings[0]['models'][0]}")):
        about += f" Looks at PrivateTest for this family: {looks}."
    if study["missing"]:
        about += f" Not trained: {', '.join(study['missing'])}."
    if voted := any(each.get("agrees_with_voters") is not None for each in settings):
        about += " Voters: share of the faces with a majority of ten FER+ voters on which the net agrees with it."
    if timed := any(each.get("milliseconds") for each in settings):
        about += f" Milliseconds: of one face on one thread of {study['provenance']['machine'].partition(',')[0]}."
    heads = [*study["axes"], "accuracy", "95 % interval", "balanced", "macro F1", "log loss"]
    heads += [*(["voters"] if voted else []), *(["ms fp32", "ms int8"] if timed else []), "seeds"]
    lines = [_setting(each, voted=voted, timed=timed) for each in settings]
    effects = _steps(study) if study["family"] in _STEPS else _effects(study)
    return [f"## Study `{study['family']}`", about, table(heads, lines), *effects, _confusions(study)]


def _setting(setting: Json, *, voted: bool, timed: bool) -> list[str]:
    metrics, agreed, ms = setting["metrics"], setting.get("agrees_with_voters"), setting.get("milliseconds") or {}
    return [
        *setting["setting"],
        percent(metrics["accuracy"]),
        percent_interval(metrics["interval"]),
        *(percent(metrics[key]) for key in ("balanced_accuracy", "macro_f1")),
        f"{metrics['log_loss']:.3f}",
        *(["–" if agreed is None else percent(agreed)] if voted else []),
        *([f"{ms[key]:.2f}" if key in ms else "–" for key in ("fp32", "int8")] if timed else []),
        str(len(setting["models"])),
    ]


def _steps(study: Json) -> list[str]:
    """What each step adds to the one before; the file holds the effect of the earlier over the later."""
    (axis, names), *_ = study["axes"].items()
    effects = {(e["first"], e["second"], e["metric"]): e for e in study["effects_on_own_classes"] if e["axis"] == axis}
    lines = [
        [f"+ {step}", *(cell for key in _STEP_METRICS for cell in _points(effects.get((before, step, key)), sign=-1))]
        for before, step in pairwise(names)
    ]
    heads = ["step", *(cell for name in _STEP_METRICS.values() for cell in (name, "95 % interval"))]
    note = "What each step adds, in points. **Bold**: the 95 % interval over faces excludes zero."
    return [note + _one_seed(study, "step"), table(heads, lines)]


def _effects(study: Json) -> list[str]:
    """Main effects on the faces that all settings share; of an axis with many values, the first over the others."""
    many = {axis: values[0] if len(values) > _MANY else None for axis, values in study["axes"].items()}
    main = [
        e for e in study["effects_on_shared_faces"] if e["within"] is None and many[e["axis"]] in (None, e["first"])
    ]
    effects = {(e["axis"], e["first"], e["second"], e["metric"]): e for e in main}
    lines = []
    for axis, first, second, matched in dict.fromkeys((e["axis"], e["first"], e["second"], e["matched"]) for e in main):
        cells = [cell for key in ("accuracy", "macro_f1") for cell in _points(effects[axis, first, second, key])]
        lines.append([f"{axis}: {first} over {second}", *cells, str(matched)])
    heads = ["effect", "accuracy", "95 % interval", "macro F1", "95 % interval", "matched settings"]
    note = (
        "Main effects on the faces and classes that all settings share, in points. **Bold**: the 95 % interval over "
        "faces excludes zero."
    )
    note += f" Of more than {_MANY} values, the first against each other one." if any(many.values()) else ""
    return [note + _one_seed(study, "setting"), table(heads, lines)] if lines else []


def _points(effect: Json | None, *, sign: int = 1) -> list[str]:
    """Effect and interval in percentage points; bold where the interval excludes zero."""
    if effect is None:
        return ["–", "–"]
    low, high = sorted(100 * sign * edge for edge in effect["interval"])
    value = f"{100 * sign * effect['value']:+.1f}"
    return [f"**{value}**" if low > 0 or high < 0 else value, f"{low:+.1f} to {high:+.1f}"]


def _one_seed(study: Json, what: str) -> str:
    several = max(len(setting["models"]) for setting in study["settings"]) > 1
    return "" if several else f" One seed per {what}: the intervals do not include the variation between trainings."


def _confusions(study: Json) -> str:
    lines = [
        [*each["setting"], *(f"{c['label']} as {c['read_as']} {percent(c['share'])}" for c in each["confusions"])]
        for each in study["settings"]
    ]
    places = range(1, len(lines[0]) - len(study["axes"]) + 1)
    return table([*study["axes"], *(f"{place}. most confused" for place in places)], lines)


# Explanations: `mien explain MODEL --data SET --keep results/explain`


def _explained(explanation: Json) -> list[str]:
    """Where a network looks: attention by region of the face, the document's claims, and the sanity tests."""
    method = "class activation maps" if explanation["method"] == "map" else f"maps by {explanation['method']}"
    height, width = explanation["map_size"]
    places = f"{method.capitalize()} at `{explanation['layer']}`, {height}x{width} places."
    how = f"{places} {explained.describe_faces(explanation)}"
    note = "Times chance: 1 is what a map without information would have. **Bold**: more or less than chance."
    claims = [
        f"- Document {c['document']}, {c['region']} for {c['emotion']}: {explained.describe_claim(c)}"
        for c in explanation["claims"]
    ]
    tests = [
        explained.describe_faithfulness(explanation["faithfulness"]),
        explained.describe_randomisation(explanation["randomisation"]),
    ]
    source = explanation["provenance"]
    return [
        f"## Where `{explanation['model']['model']}` looks",
        how,
        f"{note}\n\n{_attention(explanation)}",
        "\n".join([*claims, *(f"- {test}" for test in tests)]),
        f"`{source['command']}` at commit `{source['commit']}`, {source['machine']}.",
    ]


def _attention(explanation: Json) -> str:
    regions = [name for name in explanation["regions"]["area"] if name != "rest"]
    lines = []
    for emotion, found in explanation["attention"].items():
        cells = [_times_chance(found["regions"][region]) for region in regions if region in found["regions"]]
        lines.append([emotion, str(found["faces"]), str(found["correct"]), *cells])
    return table(["prediction", "faces", "correct", *regions], lines)


def _times_chance(region: Json) -> str:
    low, high = region["relative_interval"]
    text = explained.format_relative(region)
    return f"**{text}**" if low > 1 or high < 1 else text


PAGES: Mapping[str, Callable[[], str | None]] = {
    **{f"docs/{comparison.plot}": partial(draw, RESULTS, comparison) for comparison in COMPARISONS},
    f"docs/{RECALLS}": lambda: draw_recalls(read_rows(RESULTS)),
    "docs/results.md": partial(page, RESULTS),
}

if __name__ == "__main__":
    sys.exit(write_pages(PAGES, check="--check" in sys.argv[1:]))
