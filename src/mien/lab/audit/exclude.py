"""Findings -> the list of rows that a training leaves out (`data.exclude`), each with its reasons."""

from collections.abc import Sequence

import numpy as np

from mien._errors import DataError
from mien.lab.audit.audit import Audit, leaked
from mien.lab.audit.duplicates import contradicting
from mien.lab.data import Split

REASONS = {
    "blank": "pixels of almost one grey level",
    "not-face": "no face found, in an image that is flat or that the voters of FER+ call no face",
    "leaked": "an exact or near copy stands in a test split, or in a set named by --against",
    "contradicting": "exact copies carry different labels",
    "copies": "an exact copy of an earlier Training face",
    "label-error": "the label is likely wrong",
}
DEFAULT_REASONS = ("blank", "not-face", "leaked", "contradicting")


def read_reasons(text: str) -> tuple[str, ...]:
    """The reasons in a list such as ``"blank,leaked"``; ``"none"`` and ``"all"`` are known. Raises ``DataError``."""
    if text.strip() in ("none", "all"):
        return tuple(REASONS) if text.strip() == "all" else ()
    words = [word.strip() for word in text.split(",")]
    strange = [word for word in words if word not in REASONS]
    if strange:
        raise DataError(f"--exclude: {strange[0]!r} is no reason; there are {', '.join(REASONS)}, all and none")
    return tuple(reason for reason in REASONS if reason in words)


def exclude_text(found: Audit, reasons: Sequence[str], *, head: str = "") -> tuple[str, dict[str, int]]:
    """The text of the list, and how many rows each of ``reasons`` names; a row may have several.

    Training rows alone are listed: no training learns from others. ``head`` is a first line of comment.
    """
    every = _by_reason(found)
    chosen: dict[int, list[str]] = {}
    for reason in reasons:
        for place, why in every[reason].items():
            chosen.setdefault(place, []).append(f"{reason}: {why}")
    rows = found.faces.rows.numpy()
    lines = [f"{rows[place]}  # {'; '.join(chosen[place])}" for place in sorted(chosen)]
    said = [head, f"{len(lines)} Training rows to leave out: data.exclude=THIS_FILE. Reasons: {', '.join(reasons)}."]
    counts = {reason: len(every[reason]) for reason in reasons}
    return "\n".join([*(f"# {line}" for line in said if line), *lines]) + "\n", counts


def _by_reason(found: Audit) -> dict[str, dict[int, str]]:
    """Reason -> place of a Training face -> what exactly."""
    usage = found.faces.usage.numpy()
    every = {
        "blank": _blank(found),
        "not-face": dict.fromkeys(found.content.faceless.tolist(), "no face found"),
        "leaked": _leaked(found),
        "contradicting": _contradicting(found),
        "copies": _copies(found),
        "label-error": _label_errors(found),
    }
    return {
        reason: {place: why for place, why in places.items() if usage[place] == 0} for reason, places in every.items()
    }


def _blank(found: Audit) -> dict[int, str]:
    constant = set(found.content.constant.tolist())
    places = found.content.near_blank.tolist()
    return {place: "one grey level" if place in constant else "nearly one grey level" for place in places}


def _leaked(found: Audit) -> dict[int, str]:
    copies, splits = found.copies, tuple(Split)
    reasons: dict[int, str] = {}
    for place in np.flatnonzero(leaked(copies.near_in, found.faces)).tolist():
        exact = copies.exact_in[place, 1:].any()
        stands = (copies.exact_in if exact else copies.near_in)[place, 1:]
        where = " and ".join(str(split) for split, there in zip(splits[1:], stands, strict=True) if there)
        reasons[place] = f"{'copy' if exact else 'near copy'} in {where}"
    for each in found.overlaps:
        name, rows = each.other.source.rpartition("/")[2], each.other.rows.numpy()
        for place, theirs in zip(each.place.tolist(), each.theirs.tolist(), strict=True):
            split = splits[int(each.other.usage[theirs])]
            reasons.setdefault(place, f"copy of row {rows[theirs]} of {_one_line(name)} ({split})")
    return reasons


def _contradicting(found: Audit) -> dict[int, str]:
    labels, emotions = found.faces.labels.numpy(), found.faces.emotions
    return {
        place: f"copies are {' and '.join(str(emotions[label]) for label in np.unique(labels[group]))}"
        for group in contradicting(found.copies, found.faces)
        for place in group.tolist()
    }


def _copies(found: Audit) -> dict[int, str]:
    """Every Training face that repeats an earlier Training face."""
    usage, rows = found.faces.usage.numpy(), found.faces.rows.numpy()
    training = [group[usage[group] == 0] for group in found.copies.groups]
    return {place: f"copy of row {rows[group[0]]}" for group in training for place in group[1:].tolist()}


def _label_errors(found: Audit) -> dict[int, str]:
    errors, emotions = found.label_errors, found.faces.emotions
    if errors is None:
        return {}
    given = found.faces.labels.numpy()[errors.places]
    values = zip(errors.places.tolist(), given.tolist(), errors.suggested.tolist(), strict=True)
    return {place: f"{emotions[label]}, rather {emotions[better]}" for place, label, better in values}


def _one_line(name: str) -> str:
    return " ".join(name.split())
