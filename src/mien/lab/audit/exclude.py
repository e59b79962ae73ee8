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
    faces, content, errors = found.faces, found.content, found.label_errors
    usage, rows, labels, emotions = faces.usage.numpy(), faces.rows.numpy(), faces.labels.numpy(), faces.emotions
    every: dict[str, dict[int, str]] = {reason: {} for reason in REASONS}
    for index in content.near_blank.tolist():
        every["blank"][index] = "one grey level" if index in content.constant else "nearly one grey level"
    every["not-face"] = dict.fromkeys(content.faceless.tolist(), "no face found")
    every["leaked"] = _leaked(found)
    for group in contradicting(found.duplicates, faces):
        names = " and ".join(str(emotions[label]) for label in np.unique(labels[group]))
        every["contradicting"] |= dict.fromkeys(group.tolist(), f"duplicates are labelled {names}")
    for group in found.duplicates.groups:
        training = group[usage[group] == 0].tolist()
        for index in training[1:]:
            every["duplicates"][index] = f"duplicate of row {rows[training[0]]}"
    if errors is not None:
        for index, suggested in zip(errors.index.tolist(), errors.suggested.tolist(), strict=True):
            every["label-error"][index] = f"{emotions[labels[index]]}, rather {emotions[suggested]}"
    return {reason: {at: why for at, why in indices.items() if usage[at] == 0} for reason, indices in every.items()}


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
