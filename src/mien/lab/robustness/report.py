"""stress.json as a page to read. It shows no face of the data set."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mien.lab.files import save_text
from mien.lab.html import columns, details, facts, headline, note, page, paragraph, section, table, write_page
from mien.lab.html.blocks import Section, percent, percent_within, points, points_within
from mien.lab.robustness.corruptions import SPOILINGS, Kind
from mien.lab.robustness.groups import PERMUTATIONS, SMALLEST, alarms
from mien.lab.robustness.metrics import FIGURES
from mien.lab.robustness.plots import key, mean_plot, multiples, sheet


def between(figure: Mapping[str, Any], *, decimals: int = 1) -> str:
    """A share and its interval: ``70.5 % (68.9 to 72.0)``."""
    return f"{percent(figure['value'], decimals)} ({percent_within(figure['interval'], decimals)})"


def gain(figure: Mapping[str, Any]) -> str:
    """The difference to clean faces in percentage points and its interval; empty for clean faces themselves."""
    if "difference" not in figure:
        return "–"
    said = f"{points(figure['difference'])} ({points_within(figure['difference_interval'])})"
    return said.replace("-", "\u2212")


# A row a model, on the page and in the docs.
HEADLINE = ("model", "faces", "clean accuracy", "spoilt accuracy", "mean corruption", "relative", "flips", "ECE")


def headline_row(model: Mapping[str, Any]) -> tuple[str, ...]:
    """What ``HEADLINE`` names, but for the model's name."""
    return (
        f"{model['n']:,}",
        between(model["clean"]["accuracy"]),
        between(model["mean"]["accuracy"]),
        ratio(model, "mce"),
        ratio(model, "relative_mce"),
        percent(model["mean"]["flips"]),
        f"{percent(model['clean']['ece']['value'])} → {percent(model['mean']['ece']['value'])}",
    )


def ratio(model: Mapping[str, Any], name: str, spoiling: str = "") -> str:
    """A corruption figure against the reference, of one ``spoiling`` or of all; a dash where there is none."""
    said = model["corruption"]
    figure = said.get("by_spoiling", {}).get(spoiling, {}).get(name) if spoiling else said.get(name)
    return between(figure, decimals=0) if figure else "–"


_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
    "ece": "calibration error",
    "spoilt_accuracy": "spoilt accuracy",
}


def group_section(said: Mapping[str, Any]) -> Section:
    """Every model's groups, division by division."""
    text = (
        "The same figures by group, on clean faces and (spoilt) as the mean of all spoilings. A gap is the largest "
        f"figure less the smallest. Its p says how often {PERMUTATIONS:,} deals of the groups among faces of the same "
        "emotion gave as large a gap, so that neither chance nor the mix of emotions counts; it is corrected for all "
        "gaps of a model (Holm). A gap is no cause: groups differ in more than their name. "
        "The calibration error of few faces is raised by chance, and its bootstrap interval once more: that may lie "
        "above the figure itself. The p of its gap allows for it."
    )
    parts = [paragraph(text)]
    strange = said["groups"]["strange"]
    if strange:
        parts.append(note(f"{strange:,} rows of {said['groups']['source']} are no faces of the data set."))
    for model in said["models"]:
        parts.append(f"<h3>{_escaped(model['name'])}</h3>")
        found = alarms(model["groups"])
        parts.append(
            paragraph(f"Not explained by chance or mix: {'; '.join(found)}." if found else "No gap passes chance.")
        )
        for division, judged in model["groups"].items():
            parts += _division(division, judged)
    return section("Groups", *parts)


def _division(name: str, judged: Mapping[str, Any]) -> list[str]:
    parts = []
    if judged["groups"]:
        rows = [
            [group, f"{each['n']:,}", *(_told(each, f) for f in _NAMES)] for group, each in judged["groups"].items()
        ]
        parts.append(table([name, "faces", *_NAMES.values()], rows))
    if judged["gaps"]:
        parts.append(table(_GAP_HEAD, [[_NAMES[f], *_gap(f, gap)] for f, gap in judged["gaps"].items()]))
        parts.append(_spoilt(name, judged))
    else:
        parts.append(note(f"{name}: fewer than two groups of {SMALLEST} faces; no gap is judged."))
    small = ", ".join(f"{group} ({count})" for group, count in judged["small"].items())
    absent = "; ".join(f"{g} has no {', '.join(e['absent'])}" for g, e in judged["groups"].items() if e["absent"])
    texts = {
        "faces without a group": f"{judged['missing']:,}" if judged["missing"] else "",
        f"fewer than {SMALLEST} faces, not judged": small,
        "balanced accuracies are of unlike emotions": absent,
    }
    return [*parts, *(note(f"{name}: {what}: {text}.") for what, text in texts.items() if text)]


_GAP_HEAD = ["gap", "size", "largest", "smallest", "by chance and mix", "p", "p corrected"]


def _spoilt(name: str, judged: Mapping[str, Any]) -> str:
    groups = judged["groups"]
    spoilings = next(iter(groups.values()))["by_spoiling"]
    rows = [[spoiling, *(between(each["by_spoiling"][spoiling]) for each in groups.values())] for spoiling in spoilings]
    caption = "Accuracy, mean of the five strengths, with 95 % intervals."
    return details(f"{name}: by spoiling", table(["spoiling", *groups], rows, caption=caption))


def _told(group: Mapping[str, Any], figure: str) -> str:
    if figure != "log_loss":
        return between(group[figure])
    low, high = group[figure]["interval"]
    return f"{group[figure]['value']:.3f} ({low:.3f} to {high:.3f})"


def _gap(figure: str, gap: Mapping[str, Any]) -> list[str]:
    times, unit = (1, "") if figure == "log_loss" else (100, " points")
    low, high = gap["interval"]
    size = f"{times * gap['value']:.2f}{unit} ({times * low:.2f} to {times * high:.2f})"
    by_chance = f"{times * gap['by_chance']:.2f}{unit}"
    return [size, gap["largest"], gap["smallest"], by_chance, f"{gap['p']:.4f}", f"{gap['p_corrected']:.4f}"]


def _escaped(text: str) -> str:
    from html import escape

    return escape(text)


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


Model = Mapping[str, Any]


_FIGURES = {"accuracy": "accuracy", "ece": "expected calibration error"}


def write_report(said: Mapping[str, Any], path: Path) -> None:
    """Write what ``stress.json`` says as a page that carries everything. Raises ``OutputError``."""
    write_page(path, report(said))


def report(said: Mapping[str, Any]) -> str:
    """The page of ``said``, the contents of a ``stress.json``."""
    models, setting = said["models"], said["setting"]
    names = " · ".join(model["name"] for model in models)
    drawn = f"{setting['drawn']:,} of the {setting['of']:,} faces of {setting['split']}"
    lead = f"{drawn}, spoilt in {len(said['spoilings'])} ways at five strengths: what the answers are worth then."
    sections = [
        _in_short(said),
        _by_strength(said),
        _accuracy(said),
        _calibration(said),
        _corruption(said),
        *([group_section(said)] if said["groups"] else []),
        _looks(said),
        _figures(models),
        _judged(models),
    ]
    return page(f"Stress: {names}", sections, lead=lead, provenance=said["provenance"])


def _in_short(said: Mapping[str, Any]) -> Section:
    models = said["models"]
    rows = [[model["name"], *headline_row(model)] for model in models]
    first = models[0]
    large = {
        f"{first['name']}: clean accuracy": (percent(first["clean"]["accuracy"]["value"]), _edges(first["clean"])),
        "spoilt, mean of all": (percent(first["mean"]["accuracy"]["value"]), _edges(first["mean"])),
        "answers that flip": (percent(first["mean"]["flips"]), "another emotion than on the clean face"),
    }
    texts = [
        "Spoilt figures are means over all spoilings and strengths. In brackets, here and below: 95 % bootstrap "
        "intervals over faces. Flips is the share of answers that are another emotion than on the clean face. ECE is "
        "the expected calibration error, clean → spoilt: runs and their files were calibrated on PublicTest, so clean "
        "it is flattered there.",
        _about_reference(said),
    ]
    caption = "Every model saw the same pixels."
    return section("In short", headline(large), table(HEADLINE, rows, caption=caption), *map(paragraph, texts))


def _by_strength(said: Mapping[str, Any]) -> Section:
    drawn = [mean_plot(said["models"], figure, label) for figure, label in _FIGURES.items()]
    return section("By strength", key(said["models"]), columns(*drawn))


def _accuracy(said: Mapping[str, Any]) -> Section:
    parts = [_explain(said), key(said["models"])]
    for kind in Kind:
        chosen = [spoiling for spoiling in said["spoilings"] if spoiling["kind"] == kind]
        if chosen:
            parts += [f"<h3>{kind.capitalize()}</h3>", multiples(said["models"], chosen, "accuracy", "accuracy")]
    return section("Accuracy by spoiling", *parts)


def _explain(said: Mapping[str, Any]) -> str:
    shaded = " The shade is the 95 % interval." if len(said["models"]) == 1 else ""
    return paragraph(
        "Noisy and partial cues are what document 002 names as the evaluation still to be done. The dotted line is the "
        f"accuracy on clean faces; below each plot stands what its strengths 1 to 5 are.{shaded}"
    )


def _calibration(said: Mapping[str, Any]) -> Section:
    text = (
        "How far confidence and accuracy are apart (expected calibration error, 15 bins; Guo et al., 2017). A model "
        "that is unsure when it sees little stays low; one that is sure of what it cannot see rises. "
        "Resampling raises this error, so an interval may lie above the figure itself."
    )
    drawn = multiples(said["models"], said["spoilings"], "ece", "expected calibration error")
    return section("Calibration by spoiling", paragraph(text), key(said["models"]), drawn)


def _corruption(said: Mapping[str, Any]) -> Section:
    models = said["models"]
    losses = [[-m["by_spoiling"][s["name"]]["accuracy"]["difference"] for m in models] for s in said["spoilings"]]
    most = max(max(max(row) for row in losses), 1e-9)
    rows, shades = [], []
    for spoiling, row in zip(said["spoilings"], losses, strict=True):
        cells: list[str | None] = [spoiling["name"]]
        shade: list[float | None] = []
        for model, loss in zip(models, row, strict=True):
            cells += [gain(model["by_spoiling"][spoiling["name"]]["accuracy"]), ratio(model, "ce", spoiling["name"])]
            shade += [max(loss, 0) / most, None]
        rows.append(cells)
        shades.append(shade)
    head = ["spoiling", *(text for m in models for text in (f"{m['name']}: points of accuracy", "corruption error"))]
    text = (
        "The difference in accuracy to clean faces, mean of the five strengths, in percentage points with its 95 % "
        "interval; and the corruption error, the error rates summed over the strengths as a share of the reference's "
        "sum (Hendrycks and Dietterich, 2019): 100 % is as bad as the reference, less is better."
    )
    return section("Mean corruption", paragraph(text), table(head, rows, shade=shades), *_left_out(models))


def _left_out(models: Sequence[Model]) -> list[str]:
    notes = [f"{m['name']}: no mean corruption; {m['corruption']['why']}." for m in models if "why" in m["corruption"]]
    texts = {
        "mce": "{} makes no mistake under {}: no corruption error there.",
        "relative_mce": "{} loses nothing that passes chance under {}: no relative figure there, for any model.",
    }
    for model in models:
        left, of = model["corruption"].get("left_out", {}), model["corruption"].get("reference")
        notes += [text.format(of, ", ".join(left[name])) for name, text in texts.items() if left.get(name)]
    notes = list(dict.fromkeys(notes))  # what is the reference's own is the same for every model
    return [note(text) for text in notes]


def _about_reference(said: Mapping[str, Any]) -> str:
    name, kept = said["reference"]["name"], said["reference"]["kept"]
    how = "whose kept answers for the same pixels were used" if kept else "which read the same pixels in this run"
    return (
        f"Mean corruption is relative to {name}, {how}: 100 % is as bad. The relative figure counts only what is lost "
        "beyond the error on clean faces, so a model that starts low and loses little has a low one."
    )


def _looks(said: Mapping[str, Any]) -> Section:
    chosen = {spoiling["name"] for spoiling in said["spoilings"]}
    text = (
        "NASA's portrait of Eileen Collins (public domain) as mien cuts faces, at the strengths 1 to 5; below each "
        "picture its amount. Patches lie where the median face of FER-2013 has eyes and mouth."
    )
    shown = sheet([s for s in SPOILINGS if s.name in chosen], seed=said["setting"]["seed"])
    return section("What the spoilings look like", paragraph(text), shown)


def _figures(models: Sequence[Model]) -> Section:
    head = ["spoiling", "strength", "amount", "accuracy", "difference", "balanced", "log loss", "ECE", "flips"]
    parts = []
    for model in models:
        rows = [["clean", "–", "–", *_row(model["clean"])]]
        for name, five in model["spoilt"].items():
            rows += [[name, c["strength"], f"{c['amount']:g}", *_row(c)] for c in five]
        parts.append(details(model["name"], table(head, rows)))
    return section("Every figure", paragraph("With 95 % intervals. stress.csv holds the same for programs."), *parts)


def _row(condition: Mapping[str, Any]) -> list[str]:
    loss = condition["log_loss"]
    return [
        between(condition["accuracy"]),
        gain(condition["accuracy"]),
        between(condition["balanced_accuracy"]),
        f"{loss['value']:.3f} ({loss['interval'][0]:.3f} to {loss['interval'][1]:.3f})",
        between(condition["ece"]),
        percent(condition.get("flips", 0)),
    ]


def _judged(models: Sequence[Model]) -> Section:
    parts = []
    for model in models:
        account = {f"not judged: {why}": f"{count:,} faces" for why, count in model["account"].items()}
        told = {"emotions": ", ".join(model["emotions"]), "labels": model["protocol"], "faces": f"{model['n']:,}"}
        parts.append(details(model["name"], facts({**told, **account, **model["about"]})))
    return section("What was judged", *parts)


def _edges(condition: Mapping[str, Any]) -> str:
    low, high = condition["accuracy"]["interval"]
    return f"{100 * low:.1f} to {100 * high:.1f} %"
