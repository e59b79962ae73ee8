"""All findings about one set of faces, as values, as counts for a file, and as lists of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien.lab.audit.content import DARK_SPREAD, FLAT_SHARE, Content, FindsFace, look
from mien.lab.audit.duplicates import (
    THRESHOLD,
    Copies,
    Overlap,
    Progress,
    contradicting,
    extra_by_split,
    find_copies,
    leaks,
    overlap,
    overlap_counts,
    within_one_split,
)
from mien.lab.audit.label_errors import Agreement, LabelErrors, Opinion, against_votes, agreement, find_label_errors
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import load_test_set

_EIGHT = CLASS_SETS["eight"]


def load_any(path: Path | None, labels: Mapping[str, str]) -> FaceSet:
    """The faces at ``path`` (``None``: at $MIEN_DATA) at 48 pixels; with contempt in eight classes, else in seven.

    ``labels`` say what the set's labels mean. Raises ``DataError`` and ``RecipeError`` as ``load_test_set`` does.
    """
    faces = load_test_set(path, _EIGHT, labels=labels)
    if faces.emotions != _EIGHT or bool((faces.labels == _EIGHT.index(Emotion.CONTEMPT)).any()):
        return faces
    places = torch.tensor([SEVEN.index(emotion) if emotion in SEVEN else -1 for emotion in _EIGHT])
    return replace(faces, labels=places[faces.labels], emotions=SEVEN)


_VERY_NEAR = 0.999  # Pearson correlation, counted beside the threshold


@dataclass(frozen=True, eq=False)
class Audit:
    """Everything that was found about ``faces``; places, not rows, are told. ``threshold`` is that of near copies."""

    faces: FaceSet
    threshold: float
    copies: Copies
    content: Content
    agreement: Agreement | None
    overlaps: tuple[Overlap, ...]
    label_errors: LabelErrors | None


def audit(
    faces: FaceSet,
    against: Sequence[FaceSet] = (),
    *,
    opinion: Opinion | None = None,
    finds_face: FindsFace | None = None,
    threshold: float = THRESHOLD,
    progress: Progress = lambda *_: None,
) -> Audit:
    """Find what is wrong with ``faces`` (all splits), and which of them stand in the sets ``against``.

    ``opinion`` are out-of-fold probabilities, without which no label errors are looked for; ``finds_face`` says whether
    a face is in a uint8 ``[S, S]`` image, without which suspected placeholders are not confirmed. ``threshold`` is the
    Pearson correlation above which two images are copies. ``progress`` is told a stage, and how much of it is done.
    Raises ``DataError``.
    """
    return Audit(
        faces,
        threshold,
        find_copies(faces, threshold=threshold, progress=progress),
        look(faces, finds_face),
        agreement(faces),
        tuple(overlap(faces, other, threshold=threshold, progress=progress) for other in against),
        None if opinion is None else find_label_errors(faces, opinion),
    )


def figures(found: Audit) -> dict[str, Any]:
    """The counts, as plain values for a file: no rows and no faces."""
    faces, copies = found.faces, found.copies
    groups = contradicting(copies, faces)
    alone = within_one_split(groups, faces, aside=found.content.constant)
    return {
        "faces": len(faces),
        "note": faces.note,
        "classes": _classes(faces),
        "copies": {
            "distinct": len(np.unique(copies.first)),
            "groups": len(copies.groups),
            "rows_in_groups": _count(copies.groups),
            "extra_by_split": extra_by_split(copies, faces),
            "leaks": [vars(leak) | {"of": str(leak.of), "into": str(leak.into)} for leak in leaks(copies, faces)],
            "training_rows_in_tests": int(leaked(copies.exact_in, faces).sum()),
            "training_rows_in_tests_near": int(leaked(copies.near_in, faces).sum()),
            "near": _near(found),
            "contradicting": {
                "groups": len(groups),
                "rows": _count(groups),
                "groups_within_one_split": len(alone),
                "rows_within_one_split": _count(alone),
            },
        },
        "content": _content(found.content, faces),
        "ferplus": None if found.agreement is None else _agreement(found.agreement),
        "against": [
            {"source": each.other.source.rpartition("/")[2], "data_sha256": each.other.sha256}
            | {"pairs": len(each.place), "found": len(np.unique(each.place)), "rows": overlap_counts(each, faces)}
            for each in found.overlaps
        ],
        "label_errors": None if found.label_errors is None else _label_errors(found),
    }


def listed(found: Audit) -> dict[str, Any]:
    """The rows behind the counts, as plain values for a file; rows are those of the set's table."""
    faces, copies, content, errors = found.faces, found.copies, found.content, found.label_errors
    rows = faces.rows.numpy()
    near = copies.near
    pairs = list(zip(rows[near.first].tolist(), rows[near.second].tolist(), near.r.round(5).tolist(), strict=True))
    return {
        "copies": [rows[group].tolist() for group in copies.groups],
        "near_pairs": [list(pair) for pair, mirrored in zip(pairs, near.mirrored, strict=True) if not mirrored],
        "mirrored_pairs": [list(pair) for pair, mirrored in zip(pairs, near.mirrored, strict=True) if mirrored],
        "contradicting": [rows[group].tolist() for group in contradicting(copies, faces)],
        "leaked": rows[leaked(copies.near_in, faces)].tolist(),
        "near_blank": rows[content.near_blank].tolist(),
        "not_face_votes": rows[content.majority].tolist(),
        "faceless": rows[content.faceless].tolist(),
        "ferplus_disagrees": []
        if found.agreement is None
        else rows[found.agreement.places[~found.agreement.agree]].tolist(),
        "against": [
            np.stack([rows[each.place], each.other.rows.numpy()[each.theirs]], axis=1).tolist()
            for each in found.overlaps
        ],
        "label_errors": [] if errors is None else _listed_errors(errors, faces),
    }


def leaked(stands_in: NDArray[np.bool_], faces: FaceSet) -> NDArray[np.bool_]:
    """Training rows with a copy in a test split, bool ``[N]``; ``stands_in`` is ``exact_in`` or ``near_in``."""
    return np.asarray((faces.usage.numpy() == 0) & stands_in[:, 1:].any(axis=1))


def _count(groups: Sequence[NDArray[np.int64]]) -> int:
    return sum(map(len, groups))


def _classes(faces: FaceSet) -> dict[str, dict[str, int]]:
    usage, labels = faces.usage.numpy(), faces.labels.numpy()
    table = {}
    for index, split in enumerate(Split):
        counts = np.bincount(labels[usage == index], minlength=len(faces.emotions))
        if counts.sum():
            table[str(split)] = {str(emotion): int(n) for emotion, n in zip(faces.emotions, counts, strict=True)}
    return table


def _near(found: Audit) -> dict[str, Any]:
    near, labels = found.copies.near, found.faces.labels.numpy()
    other = labels[near.first] != labels[near.second]
    return {
        "threshold": found.threshold,
        "pairs": int((~near.mirrored).sum()),
        f"pairs_above_{_VERY_NEAR}": int((~near.mirrored & (near.r > _VERY_NEAR)).sum()),
        "mirrored_pairs": int(near.mirrored.sum()),
        "pairs_of_different_labels": int(other.sum()),
    }


def _content(content: Content, faces: FaceSet) -> dict[str, Any]:
    usage = faces.usage.numpy()
    counts = np.bincount(usage[content.black], minlength=len(Split))
    return {
        "one_grey_level": len(content.constant),
        "all_black": len(content.black),
        "all_black_by_split": {str(split): int(count) for split, count in zip(Split, counts, strict=True)},
        "near_blank": len(content.near_blank),
        "near_blank_below": DARK_SPREAD,
        "all_votes_not_face": len(content.all_votes),
        "majority_not_face": len(content.majority),
        "suspects": len(content.suspects),
        "suspects_flat_above": FLAT_SHARE,
        "suspects_not_asked": content.not_asked,
        "faceless": len(content.faceless),
    }


def _agreement(agreed: Agreement) -> dict[str, Any]:
    return {
        "rule": agreed.rule,
        "n": len(agreed.places),
        "agree": int(agreed.agree.sum()),
        "rate": float(agreed.agree.mean()) if len(agreed.agree) else None,
        "by_split": {split: {"n": n, "agree": agree} for split, (n, agree) in agreed.by_split.items()},
        "columns": [str(emotion) for emotion in agreed.classes],
        "table": agreed.table.tolist(),
    }


def _label_errors(found: Audit) -> dict[str, Any]:
    errors, faces = found.label_errors, found.faces
    assert errors is not None
    given = faces.labels.numpy()[errors.places]
    table = np.zeros((len(faces.emotions), len(faces.emotions)), np.int64)
    np.add.at(table, (given, errors.suggested), 1)
    checked = None if found.agreement is None else against_votes(errors, found.agreement, faces)
    return {
        "origin": errors.origin,
        "method": "confident learning, cleanlab prune_by_noise_rate, ranked by self-confidence",
        "judged": len(errors.judged),
        "accuracy": errors.accuracy,
        "not_judged": dict(errors.account),
        "flagged": len(errors.places),
        "emotions": [str(emotion) for emotion in faces.emotions],
        "given_by_suggested": table.tolist(),
        "against_ferplus": checked,
    }


def _listed_errors(errors: LabelErrors, faces: FaceSet) -> list[list[Any]]:
    """Row, given label, suggested label, probability of the given label; least likely first."""
    rows, labels = faces.rows.numpy()[errors.places], faces.labels.numpy()[errors.places]
    values = zip(rows.tolist(), labels.tolist(), errors.suggested.tolist(), errors.quality.tolist(), strict=True)
    return [[row, str(faces.emotions[a]), str(faces.emotions[b]), round(q, 4)] for row, a, b, q in values]
