"""The list of Training rows that a training leaves out (`data.exclude`), each with its reasons."""

from collections.abc import Sequence

import numpy as np

from mien._errors import DataError
from mien._suggest import suggest
from mien.lab.audit.audit import Audit
from mien.lab.audit.duplicates import contradicting, leaked_into_splits
from mien.lab.data import Split

REASONS = {
    "blank": "pixels of almost one grey level",
    "not-face": "no face found, in an image that is flat or that FER+ annotators call no face",
    "leaked": "an exact or near duplicate is in a test split, or in another set that was compared",
    "contradicting": "exact duplicates carry different labels",
    "duplicates": "an exact duplicate of an earlier Training face",
    "label-error": "the label is likely wrong",
}
DEFAULT_REASONS = ("blank", "not-face", "leaked", "contradicting")


def read_reasons(text: str) -> tuple[str, ...]:
    """Read a list of reasons.

    Args:
        text: Keys of ``REASONS`` with commas, ``"all"`` or ``"none"``.

    Returns:
        The reasons in the order of ``REASONS``.

    Raises:
        DataError: A reason is unknown.

    Example:
        >>> read_reasons("leaked, blank")
        ('blank', 'leaked')
    """
    if text.strip() in ("none", "all"):
        return tuple(REASONS) if text.strip() == "all" else ()
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in REASONS:
            known = f"known are {', '.join(REASONS)}, all and none"
            raise DataError(f"unknown reason to exclude a row {word!r}{suggest(word, REASONS)}; {known}")
    return tuple(reason for reason in REASONS if reason in words)


def exclude_list(
    found: Audit, reasons: Sequence[str] = DEFAULT_REASONS, *, comment: str = ""
) -> tuple[str, dict[str, int]]:
    """Write the list of Training rows to leave out; other splits are not trained on.

    Args:
        found: The audit.
        reasons: Keys of ``REASONS``.
        comment: A first line of comment.

    Returns:
        The text of the list, and the number of rows of each reason; a row may have several.
    """
    every = _by_reason(found)
    chosen: dict[int, list[str]] = {}
    for reason in reasons:
        for index, why in every[reason].items():
            chosen.setdefault(index, []).append(f"{reason}: {why}")
    rows = found.faces.rows.numpy()
    lines = [f"{rows[index]}  # {'; '.join(chosen[index])}" for index in sorted(chosen)]
    head = [comment, f"{len(lines)} Training rows to leave out: data.exclude=THIS_FILE. Reasons: {', '.join(reasons)}."]
    text = "\n".join([*(f"# {line}" for line in head if line), *lines]) + "\n"
    return text, {reason: len(every[reason]) for reason in reasons}


def _by_reason(found: Audit) -> dict[str, dict[int, str]]:
    """Reason -> index of a Training face -> explanation."""
    usage = found.faces.usage.numpy()
    every = {
        "blank": _blank(found),
        "not-face": dict.fromkeys(found.content.faceless.tolist(), "no face found"),
        "leaked": _leaked(found),
        "contradicting": _contradicting(found),
        "duplicates": _duplicates(found),
        "label-error": _label_errors(found),
    }
    return {reason: {at: why for at, why in indices.items() if usage[at] == 0} for reason, indices in every.items()}


def _blank(found: Audit) -> dict[int, str]:
    constant = set(found.content.constant.tolist())
    indices = found.content.near_blank.tolist()
    return {index: "one grey level" if index in constant else "nearly one grey level" for index in indices}


def _leaked(found: Audit) -> dict[int, str]:
    duplicates, splits = found.duplicates, tuple(Split)
    reasons: dict[int, str] = {}
    for index in np.flatnonzero(leaked_into_splits(duplicates.near_in, found.faces)).tolist():
        exact = duplicates.exact_in[index, 1:].any()
        in_split = (duplicates.exact_in if exact else duplicates.near_in)[index, 1:]
        where = " and ".join(str(split) for split, occurs in zip(splits[1:], in_split, strict=True) if occurs)
        reasons[index] = f"{'duplicate' if exact else 'near duplicate'} in {where}"
    for each in found.overlaps:
        name, rows = " ".join(each.name.split()), each.other.rows.numpy()
        for index, other in zip(each.index.tolist(), each.other_index.tolist(), strict=True):
            split = splits[int(each.other.usage[other])]
            reasons.setdefault(index, f"duplicate of row {rows[other]} of {name} ({split})")
    return reasons


def _contradicting(found: Audit) -> dict[int, str]:
    labels, emotions = found.faces.labels.numpy(), found.faces.emotions
    return {
        index: f"duplicates are labelled {' and '.join(str(emotions[label]) for label in np.unique(labels[group]))}"
        for group in contradicting(found.duplicates, found.faces)
        for index in group.tolist()
    }


def _duplicates(found: Audit) -> dict[int, str]:
    """Each Training face that repeats an earlier Training face."""
    usage, rows = found.faces.usage.numpy(), found.faces.rows.numpy()
    training = [group[usage[group] == 0] for group in found.duplicates.groups]
    return {index: f"duplicate of row {rows[group[0]]}" for group in training for index in group[1:].tolist()}


def _label_errors(found: Audit) -> dict[int, str]:
    errors, emotions = found.label_errors, found.faces.emotions
    if errors is None:
        return {}
    given = found.faces.labels.numpy()[errors.index]
    values = zip(errors.index.tolist(), given.tolist(), errors.suggested.tolist(), strict=True)
    return {index: f"{emotions[label]}, rather {emotions[suggested]}" for index, label, suggested in values}
