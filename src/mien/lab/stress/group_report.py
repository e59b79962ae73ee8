"""The groups of ``--groups`` on the page: their figures, the gaps between them, what is too little to judge."""

from collections.abc import Mapping
from typing import Any

from mien.lab.page import details, note, paragraph, section, table
from mien.lab.page.blocks import Section
from mien.lab.stress.gaps import PERMUTATIONS, SMALLEST, alarms
from mien.lab.stress.words import between

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
