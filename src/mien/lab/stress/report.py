"""stress.json as a page to read. It shows no face of the data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mien.lab.page import columns, details, facts, headline, note, page, paragraph, section, table, write_page
from mien.lab.page.blocks import Section
from mien.lab.page.words import percent
from mien.lab.stress.group_report import group_section
from mien.lab.stress.plots import key, mean_plot, multiples
from mien.lab.stress.sheet import sheet
from mien.lab.stress.spoilings import SPOILINGS, Kind
from mien.lab.stress.words import HEADLINE, between, gain, headline_row, ratio

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
