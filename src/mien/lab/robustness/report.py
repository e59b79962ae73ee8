"""Files of a robustness test: ``stress.json``, ``stress.csv`` and an HTML report. None of them shows a tested face."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mien._format import csv_cell, p_value, percent, percent_interval, points, points_interval
from mien._metrics import format_metric, format_metric_interval, metric_name
from mien._page import escape
from mien.lab.files import file_name, file_set, save_json, save_text
from mien.lab.html import Section, beside, details, facts, headline, note, page, paragraph, section, table
from mien.lab.robustness.corruptions import CORRUPTIONS, CorruptionKind
from mien.lab.robustness.groups import (
    GROUP_METRICS,
    GROUP_PERMUTATIONS,
    MIN_GROUP_FACES,
    GroupComparison,
    GroupGap,
    significant_gaps,
)
from mien.lab.robustness.metrics import CORRUPTION_METRICS, Condition, Estimate, steadiness_rows
from mien.lab.robustness.plots import corruption_sheet, mean_plot, model_key, small_multiples
from mien.lab.robustness.run import ModelRobustness, RobustnessResult

# One row per model, in the report and in the docs; the first cell is the name of the model.
ROBUSTNESS_HEADINGS = ("model", "faces", "clean accuracy", "corrupted accuracy", "mCE", "relative mCE", "flips", "ECE")


def robustness_row(model: ModelRobustness) -> tuple[str, ...]:
    """Return the row of a model under ``ROBUSTNESS_HEADINGS``.

    Args:
        model: The result of the model.

    Returns:
        The cells after the name.
    """
    clean, mean = model["clean"]["metrics"], model["mean"]["metrics"]
    return (
        f"{model['n']:,}",
        format_estimate("accuracy", clean["accuracy"]),
        format_estimate("accuracy", mean["accuracy"]),
        format_ratio(model["corruption_error"].get("mce")),
        format_ratio(model["corruption_error"].get("relative_mce")),
        percent(model["mean"]["flip_rate"]),
        " → ".join(format_metric("ece", each["ece"]["value"] if "ece" in each else None) for each in (clean, mean)),
    )


def format_estimate(key: str, estimate: Estimate) -> str:
    """Format a metric with its interval.

    Args:
        key: The metric.
        estimate: Its value.

    Returns:
        For example ``70.5 % (68.9 to 72.0)``; the value alone if it has no interval.
    """
    value = format_metric(key, estimate["value"])
    return f"{value} ({format_metric_interval(key, estimate['interval'])})" if "interval" in estimate else value


def format_difference(estimate: Estimate) -> str:
    """Format the difference of a share to the clean faces, in percentage points.

    Args:
        estimate: The share.

    Returns:
        For example ``−11.5 (−13.1 to −10.0)``; a dash for clean faces.
    """
    if "difference" not in estimate:
        return "–"
    text = f"{points(estimate['difference'])} ({points_interval(estimate['difference_interval'])})"
    return text.replace("-", "\u2212")


def format_ratio(ratio: Estimate | None) -> str:
    """Format a corruption error relative to the reference.

    Args:
        ratio: The error; ``None`` where there is none.

    Returns:
        For example ``96 % (95 to 97)``, or a dash.
    """
    return f"{percent(ratio['value'], 0)} ({percent_interval(ratio['interval'], 0)})" if ratio else "–"


def describe_robustness(result: RobustnessResult) -> list[str]:
    """Describe the main results.

    Args:
        result: The result.

    Returns:
        For each model one line with its metrics, and one with the rows that were left out, if any.
    """
    lines = []
    for model in result["models"]:
        clean, mean = model["clean"]["metrics"]["accuracy"], model["mean"]["metrics"]["accuracy"]
        error = model["corruption_error"]
        mce = error.get("mce")
        relative = error.get("reason") or (f"mCE {percent(mce['value'])} of {error['reference']}'s" if mce else "")
        lines.append(
            f"{model['name']}: {model['n']:,} faces, clean accuracy {percent(clean['value'], 2)} "
            f"({percent_interval(clean['interval'], 2)}), corrupted {percent(mean['value'], 2)}, "
            f"flip rate {percent(model['mean']['flip_rate'])}" + (f", {relative}" if relative else "")
        )
        if model["left_out"]:
            lines.append("  left out: " + "; ".join(f"{count:,} {why}" for why, count in model["left_out"].items()))
    return lines


def write_robustness(result: RobustnessResult, folder: Path, *, models_folder: Path | None = None) -> Path:
    """Write the result as ``stress.json``, ``stress.csv`` and ``report.html``.

    Args:
        result: The result.
        folder: The folder to write to.
        models_folder: Also write one file per model to this folder, see ``write_models``.

    Returns:
        The path of the report.

    Raises:
        OutputError: A file cannot be written.
    """
    with file_set(folder) as draft:
        save_json(draft / "stress.json", result)
        _write_csv(result, draft / "stress.csv")
        save_text(draft / "report.html", robustness_page(result))
    if models_folder:
        write_models(result, models_folder)
    return folder / "report.html"


def write_models(result: RobustnessResult, folder: Path) -> list[Path]:
    """Write one ``NAME.json`` per model, which can be a reference later, and ``groups-NAME.json`` for its groups.

    Args:
        result: The result.
        folder: The folder to write to.

    Returns:
        The files.

    Raises:
        OutputError: A file cannot be written.
    """
    files = []
    for model in result["models"]:
        name = file_name(model["name"])
        alone = {key: value for key, value in model.items() if key != "groups"}
        parts: dict[str, Mapping[str, Any]] = {f"{name}.json": {**result, "groups": None, "models": [alone]}}
        if "groups" in model:
            shared = {key: result[key] for key in ("provenance", "setting", "source", "groups")}
            own = {"name": model["name"], "about": model["about"], "n": model["n"], "groups": model["groups"]}
            parts[f"groups-{name}.json"] = {**shared, "models": [own]}
        for file, part in parts.items():
            save_json(folder / file, part)
            files.append(folder / file)
    return files


def _write_csv(result: RobustnessResult, path: Path) -> None:
    """One row per model, corruption and severity."""
    text = io.StringIO()
    ends = ("", "_low", "_high", "_difference", "_difference_low", "_difference_high")
    fields = [key + end for key in CORRUPTION_METRICS for end in ends]
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["model", "corruption", "severity", "amount", "unit", "n", "flip_rate", *fields])
    units = {each["name"]: each["unit"] for each in result["corruptions"]}
    for model in result["models"]:
        for name, condition in _conditions(model):
            cells = [name, condition.get("severity", 0), condition.get("amount", ""), units.get(name, ""), model["n"]]
            values: list[float | str] = []
            for key in CORRUPTION_METRICS:
                estimate = condition["metrics"][key]
                edges = estimate.get("difference_interval", (0, 0) if "difference" not in estimate else ("", ""))
                values += [
                    estimate["value"],
                    *estimate.get("interval", ("", "")),
                    estimate.get("difference", 0),
                    *edges,
                ]
            rows.writerow([csv_cell(model["name"]), *cells, condition["flip_rate"], *values])
    save_text(path, text.getvalue())


def _conditions(model: ModelRobustness) -> Iterator[tuple[str, Condition]]:
    yield "clean", model["clean"]
    for name, conditions in model["corrupted"].items():
        yield from ((name, condition) for condition in conditions)


def robustness_page(result: RobustnessResult) -> str:
    """Return the HTML report. It loads nothing and shows no face of the data set.

    Args:
        result: The result.

    Returns:
        The page.
    """
    models, corruptions, setting = result["models"], result["corruptions"], result["setting"]
    lead = (
        f"{setting['drawn']:,} of the {setting['of']:,} faces of {setting['split']} under "
        f"{len(corruptions)} corruptions at five severities."
    )
    calibration = (
        "The expected calibration error is the gap between confidence and accuracy (15 bins; Guo et al., 2017). It "
        "stays low where a model becomes less confident on faces that it cannot read. It is debiased (Kumar et al., "
        "2019) and has no interval here: the bootstrap is not valid for it."
    )
    examples = (
        "NASA's portrait of Eileen Collins (public domain), cropped by mien, at the severities 1 to 5, with the amount "
        "below each image. Patches are placed where the median face of FER-2013 has eyes and mouth."
    )
    names = {corruption["name"] for corruption in corruptions}
    sheet = corruption_sheet([c for c in CORRUPTIONS if c.name in names], seed=setting["seed"])
    key = model_key(models)
    sections = [
        _summary(result),
        *_steadiness(models),
        section("By severity", key, beside(mean_plot(models, "accuracy"), mean_plot(models, "ece"))),
        _accuracy(result),
        section("Calibration by corruption", paragraph(calibration), key, small_multiples(models, corruptions, "ece")),
        _corruption_errors(result),
        *([_groups(result, result["groups"])] if result["groups"] else []),
        section("Examples of the corruptions", paragraph(examples), sheet),
        _all_metrics(models),
        _models_and_faces(models),
    ]
    title = f"Robustness: {' · '.join(model['name'] for model in models)}"
    return page(title, sections, lead=lead, provenance=result["provenance"])


def _summary(result: RobustnessResult) -> Section:
    models, reference = result["models"], result["reference"]
    first = models[0]
    clean, mean = first["clean"]["metrics"]["accuracy"], first["mean"]["metrics"]["accuracy"]
    large = {
        f"{first['name']}: clean accuracy": (percent(clean["value"]), f"{percent_interval(clean['interval'])} %"),
        "mean accuracy under corruption": (percent(mean["value"]), f"{percent_interval(mean['interval'])} %"),
        "flip rate": (percent(first["mean"]["flip_rate"]), "predictions that differ from the clean face's"),
    }
    text = (
        "Corrupted metrics are means over all corruptions and severities. Brackets hold 95 % bootstrap intervals over "
        "faces. Flips is the fraction of predictions that differ from the prediction of the clean face. ECE is the "
        "expected calibration error, clean → corrupted. Runs and their files were calibrated on PublicTest, so that "
        "their ECE on its clean faces is too low."
    )
    mce = (
        f"The mean corruption error (mCE) is relative to {reference['name']}: 100 % is as many errors. Its predictions "
        f"of the same pixels were {'recorded before' if reference['recorded'] else 'computed in this run'}. The "
        "relative mCE counts only errors beyond those on clean faces. A model with a low clean accuracy can have a low "
        "relative mCE."
    )
    rows = [[model["name"], *robustness_row(model)] for model in models]
    shown = table(ROBUSTNESS_HEADINGS, rows, caption="All models were tested on the same pixels.")
    return section("Summary", headline(large), shown, paragraph(text), paragraph(mce))


def _steadiness(models: Sequence[ModelRobustness]) -> list[Section]:
    if not all("steadiness" in model for model in models):
        return []
    text = (
        "A detector's box is never twice at the same place. Each crop is moved by up to 4 % of its side, 4 % of its "
        "size and 3 degrees. Total variation is half the sum of the changes of all probabilities. Smaller faces are "
        "shrunk (area average) and enlarged again (bilinear), as they are in photographs."
    )
    head, *rows = steadiness_rows(models)
    return [section("Steadiness", paragraph(text), table(head, rows))]


def _accuracy(result: RobustnessResult) -> Section:
    models = result["models"]
    shaded = " The shaded band is the 95 % interval." if len(models) == 1 else ""
    text = (
        "Document 002 names the evaluation under noisy and partial cues as future work. The dotted line is the "
        f"accuracy on clean faces. The axis shows the amount of the corruption at the severities 1 to 5.{shaded}"
    )
    parts = [paragraph(text), model_key(models)]
    for kind in CorruptionKind:
        chosen = [corruption for corruption in result["corruptions"] if corruption["kind"] == kind]
        if chosen:
            parts += [f"<h3>{kind.capitalize()}</h3>", small_multiples(models, chosen, "accuracy")]
    return section("Accuracy by corruption", *parts)


def _corruption_errors(result: RobustnessResult) -> Section:
    models = result["models"]
    losses = [-mean["metrics"]["accuracy"]["difference"] for m in models for mean in m["by_corruption"].values()]
    largest = max(*losses, 1e-9)
    rows, shades = [], []
    for name in (corruption["name"] for corruption in result["corruptions"]):
        cells: list[str | None] = [name]
        shade: list[float | None] = []
        for model in models:
            accuracy = model["by_corruption"][name]["metrics"]["accuracy"]
            ratio = model["corruption_error"].get("by_corruption", {}).get(name, {}).get("ce")
            cells += [format_difference(accuracy), format_ratio(ratio)]
            shade += [max(-accuracy["difference"], 0) / largest, None]
        rows.append(cells)
        shades.append(shade)
    head = ["corruption", *(text for m in models for text in (f"{m['name']}: points of accuracy", "corruption error"))]
    text = (
        "The difference in accuracy to clean faces is the mean of the five severities, in percentage points with its "
        "95 % interval. The corruption error is the sum of the error rates over the severities, relative to the "
        "reference's sum (Hendrycks and Dietterich, 2019). Lower is better."
    )
    notes = dict.fromkeys(text for model in models for text in _exclusions(model))
    return section("Corruption error", paragraph(text), table(head, rows, shade=shades), *map(note, notes))


def _exclusions(model: ModelRobustness) -> Iterator[str]:
    error = model["corruption_error"]
    if "reason" in error:
        yield f"{model['name']}: no mean corruption error; {error['reason']}."
    texts = {
        "mce": "{} makes no error under {}: no corruption error there.",
        "relative_mce": "{} loses no significant accuracy under {}: no relative corruption error there, for any model.",
    }
    for key, names in error.get("excluded", {}).items():
        if names:
            yield texts[key].format(error["reference"], ", ".join(names))


def _groups(result: RobustnessResult, source: Mapping[str, Any]) -> Section:
    text = (
        "Metrics by group, on clean faces and (corrupted) as the mean of all corruptions. A gap is the largest value "
        f"of a group minus the smallest. Its p-value comes from {GROUP_PERMUTATIONS:,} permutations of the groups "
        "among faces of the same emotion: a significant gap is neither chance nor an effect of different emotions. "
        "The p-value is corrected for all gaps of a model (Holm). A gap does not prove a cause."
    )
    parts = [paragraph(text)]
    if source["unknown_rows"]:
        parts.append(note(f"{source['unknown_rows']:,} rows of {source['source']} are not in the data set."))
    for model in result["models"]:
        found = significant_gaps(model["groups"])
        gaps = f"Significant gaps: {'; '.join(found)}." if found else "No gap is significant."
        parts += [f"<h3>{escape(model['name'])}</h3>", paragraph(gaps)]
        for column, comparison in model["groups"].items():
            parts += _group_column(column, comparison)
    return section("Groups", *parts)


def _group_column(name: str, comparison: GroupComparison) -> list[str]:
    parts, groups = [], comparison["groups"]
    if groups:
        rows = [
            [group, f"{each['n']:,}", *(format_estimate(key, each["metrics"][key]) for key in GROUP_METRICS)]
            for group, each in groups.items()
        ]
        parts.append(table([name, "faces", *map(metric_name, GROUP_METRICS)], rows))
    if comparison["gaps"]:
        head = ["gap", "size", "largest", "smallest", "by chance", "p", "p corrected"]
        rows = [[metric_name(key), *gap_cells(key, gap)] for key, gap in comparison["gaps"].items()]
        parts.append(table(head, rows))
        rows = [
            [corruption, *(format_estimate("accuracy", each["by_corruption"][corruption]) for each in groups.values())]
            for corruption in next(iter(groups.values()))["by_corruption"]
        ]
        caption = "Accuracy, mean of the five severities, with 95 % intervals."
        parts.append(details(f"{name}: by corruption", table(["corruption", *groups], rows, caption=caption)))
    else:
        parts.append(note(f"{name}: fewer than two groups of {MIN_GROUP_FACES} faces; gaps are not computed."))
    small = ", ".join(f"{group} ({count})" for group, count in comparison["small"].items())
    absent = "; ".join(f"{group} has no {', '.join(g['absent'])}" for group, g in groups.items() if g["absent"])
    notes = {
        "faces without a group": f"{comparison['missing']:,}" if comparison["missing"] else "",
        f"fewer than {MIN_GROUP_FACES} faces, not evaluated": small,
        "the balanced accuracies are of different emotions": absent,
    }
    return [*parts, *(note(f"{name}: {what}: {text}.") for what, text in notes.items() if text)]


def gap_cells(key: str, gap: GroupGap) -> list[str]:
    """Format the gap between two groups.

    Args:
        key: The metric.
        gap: The gap.

    Returns:
        Size, largest and smallest group, gap by chance, p-value, corrected p-value.
    """
    return [
        format_metric(key, gap["value"]),
        gap["largest"],
        gap["smallest"],
        format_metric(key, gap["by_chance"]),
        p_value(gap["p"]),
        p_value(gap["p_corrected"]),
    ]


def _all_metrics(models: Sequence[ModelRobustness]) -> Section:
    names = [metric_name(key, short=True) for key in CORRUPTION_METRICS]
    head = ["corruption", "severity", "amount", *names, "accuracy, difference", "flips"]
    parts = []
    for model in models:
        rows = [
            [
                name,
                str(condition.get("severity", "–")),
                f"{condition['amount']:g}" if "amount" in condition else "–",
                *(format_estimate(key, condition["metrics"][key]) for key in CORRUPTION_METRICS),
                format_difference(condition["metrics"]["accuracy"]),
                percent(condition["flip_rate"]),
            ]
            for name, condition in _conditions(model)
        ]
        parts.append(details(model["name"], table(head, rows)))
    return section("All metrics", paragraph("With 95 % intervals. stress.csv holds the same values."), *parts)


def _models_and_faces(models: Sequence[ModelRobustness]) -> Section:
    parts = []
    for model in models:
        left_out = {f"left out: {why}": f"{count:,} faces" for why, count in model["left_out"].items()}
        terms = {"emotions": ", ".join(model["emotions"]), "labels": model["protocol"], "faces": f"{model['n']:,}"}
        parts.append(details(model["name"], facts({**terms, **left_out, **model["about"]})))
    return section("Models and faces", *parts)
