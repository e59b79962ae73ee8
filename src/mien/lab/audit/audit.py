"""The audit of one data set: its findings, their counts, the rows behind them, and the list of rows to leave out.

Images that show no face are blanks, images that FER+ annotators call no face, and those in which none is detected.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import DataError, checked
from mien._progress import Progress, no_progress
from mien._suggest import require_known
from mien.detect import open_detector
from mien.lab.audit.duplicates import (
    NEAR_DUPLICATE,
    Duplicates,
    Leak,
    Overlap,
    contradicting,
    find_duplicates,
    find_overlap,
    leaked_into_splits,
    leaks,
    within_one_split,
)
from mien.lab.audit.label_errors import (
    LabelErrors,
    OutOfFold,
    VoteAgreement,
    check_with_votes,
    find_label_errors,
    vote_agreement,
)
from mien.lab.data import FERPLUS_COLUMNS, FaceSet, Split
from mien.lab.data.datasets import load_test_set

BLANK_SPREAD = 10.0  # grey levels: an image whose pixels have a smaller standard deviation is nearly blank
FLAT_SHARE = 0.38  # of pixels without a slope; text, signs and logos have more, and so do a few hundred real faces

_FLAT_STEP = 2  # grey levels between neighbours that still count as flat
_MAX_SUSPECTS = 2000  # images that are shown to the detector, the flattest first: 7 ms each
_CHUNK = 4096  # images at a time
# The detector sees an image with a border and enlarged to a size at which it is sure.
_BORDER = 0.25  # of the side, on each side
_SEEN_AT = 192  # pixels
_SCORE = 0.5  # from which a face counts as found: 2 % of FER-2013's faces are missed

FindsFace = Callable[[NDArray[np.uint8]], bool]


@dataclass(frozen=True, eq=False)
class Content:
    """Indices of images that show no face, int64.

    Attributes:
        constant: Images of one grey level.
        black: Images of grey level 0.
        near_blank: Images with a standard deviation below ``BLANK_SPREAD``, constant ones included.
        all_votes: Images with votes of FER+ that are all for not_face.
        majority: Images with more than half of the votes for not_face.
        suspects: Images that were shown to the detector, or would have been.
        faceless: Suspects in which the detector found no face.
        not_checked: Number of suspects that were not shown to a detector.
    """

    constant: NDArray[np.int64]
    black: NDArray[np.int64]
    near_blank: NDArray[np.int64]
    all_votes: NDArray[np.int64]
    majority: NDArray[np.int64]
    suspects: NDArray[np.int64]
    faceless: NDArray[np.int64]
    not_checked: int


def inspect_images(faces: FaceSet, finds_face: FindsFace | None = None) -> Content:
    """Find the images that show no face.

    Suspects are flat images and those that most FER+ votes call no face; only these are shown to the detector.

    Args:
        faces: The set.
        finds_face: Says of an image uint8 ``[S, S]`` whether it shows a face, such as ``face_finder()``; ``None``
            leaves suspects unchecked.

    Returns:
        The indices of what was found.
    """
    images = faces.images.numpy()
    parts = [part.reshape(len(part), -1) for part in _chunks(images)]
    spread = np.concatenate([part.std(axis=1) for part in parts])
    highest = np.concatenate([part.max(axis=1) for part in parts])
    blank = spread < BLANK_SPREAD
    not_face = votes = np.zeros(len(faces), np.int64)
    if faces.votes is not None:
        every = faces.votes.numpy().astype(np.int64)
        not_face, votes = every[:, FERPLUS_COLUMNS.index("not_face")], every.sum(axis=1)
    majority, flat = 2 * not_face > votes, flatness(images)
    indices = np.flatnonzero((majority | (flat > FLAT_SHARE)) & ~blank)
    ranked = indices[np.argsort(-(flat[indices] + majority[indices]), kind="stable")]  # those with votes before others
    suspects = np.sort(ranked[:_MAX_SUSPECTS])
    found = [finds_face is None or finds_face(images[index]) for index in suspects]
    return Content(
        constant=np.flatnonzero(spread == 0),
        black=np.flatnonzero(highest == 0),
        near_blank=np.flatnonzero(blank),
        all_votes=np.flatnonzero((not_face == votes) & (votes > 0)),
        majority=np.flatnonzero(majority),
        suspects=suspects,
        faceless=suspects[~np.array(found, np.bool_)],
        not_checked=len(ranked) - (len(suspects) if finds_face else 0),
    )


def face_finder() -> FindsFace:
    """Open the embedded detector for ``inspect_images``.

    Returns:
        A function that says of a grey image uint8 ``[S, S]`` whether it shows a face.
    """
    detector = open_detector("blazeface", threshold=_SCORE)

    def finds_face(image: NDArray[np.uint8]) -> bool:
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        framed = np.pad(image, round(_BORDER * image.shape[0]), constant_values=int(np.median(edge)))
        enlarged = Image.fromarray(framed).resize((_SEEN_AT, _SEEN_AT), Image.Resampling.BILINEAR)
        return bool(detector(np.asarray(enlarged.convert("RGB"))))

    return finds_face


def flatness(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the share of flat pixels: those that hardly differ from their right and lower neighbours.

    Args:
        images: uint8 ``[N, S, S]``.

    Returns:
        float64 ``[N]`` from 0 to 1.
    """
    shares = [np.empty(0)]
    for part in _chunks(images):
        levels = part.astype(np.int16)
        right = np.abs(np.diff(levels, axis=2))[:, :-1] <= _FLAT_STEP
        down = np.abs(np.diff(levels, axis=1))[:, :, :-1] <= _FLAT_STEP
        shares.append((right & down).mean(axis=(1, 2)))
    return np.concatenate(shares)


def _chunks(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Pieces of the images: as floats all of them would take eight times the memory."""
    return [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]


# Why a Training row is left out (`data.exclude`).
REASONS = {
    "blank": "pixels of almost one grey level",
    "not-face": "no face found, in an image that is flat or that FER+ annotators call no face",
    "leaked": "an exact or near duplicate is in a test split, or in another set that was compared",
    "contradicting": "exact duplicates carry different labels",
    "duplicates": "an exact duplicate of an earlier Training face",
    "label-error": "the label is likely wrong",
}
DEFAULT_REASONS = ("blank", "not-face", "leaked", "contradicting")


@dataclass(frozen=True, eq=False)
class Audit:
    """The findings about a data set, as indices (not rows) of the set.

    Attributes:
        faces: The set.
        threshold: Pearson correlation above which two images are near duplicates.
        duplicates: Exact and near duplicates.
        content: Images that show no face.
        agreement: Labels against FER+ votes; ``None`` for a set without votes.
        overlaps: Duplicates in other sets, one for each.
        label_errors: Likely label errors; ``None`` where they were not looked for.
    """

    faces: FaceSet
    threshold: float
    duplicates: Duplicates
    content: Content
    agreement: VoteAgreement | None
    overlaps: tuple[Overlap, ...]
    label_errors: LabelErrors | None


def audit(
    faces: FaceSet,
    against: Sequence[FaceSet] = (),
    *,
    probabilities: OutOfFold | None = None,
    finds_face: FindsFace | bool = True,
    threshold: float = NEAR_DUPLICATE,
    progress: Progress = no_progress,
) -> Audit:
    """Find duplicates, leaks between splits, contradicting labels, blanks, non-faces and likely label errors.

    Args:
        faces: The set with all its splits, as ``load_faces`` reads it.
        against: Other sets in which the faces of this one are looked for.
        probabilities: Probabilities of nets that were not trained on these faces, as of ``train_folds``,
            ``predict_unseen`` or ``read_probabilities``; without them no label errors are looked for.
        finds_face: Says of an image uint8 ``[S, S]`` whether it shows a face. ``True``: the embedded detector;
            ``False``: suspected non-faces are not checked.
        threshold: Pearson correlation above which two images are near duplicates, from 0.9 to below 1.
        progress: Called with the number of images that are compared.

    Returns:
        The findings. ``audit_counts`` and ``audit_rows`` turn them into plain values, ``write_audit`` into files.

    Raises:
        DataError: There are too many near duplicates, or the probabilities have fewer than two classes of the set.

    Example:
        >>> from pathlib import Path
        >>> from mien.lab.audit import audit, audit_counts, load_faces
        >>> found = audit(load_faces(Path("my_faces")))  # doctest: +SKIP
        >>> audit_counts(found)["duplicates"]["groups"]  # doctest: +SKIP
        3
    """
    check = (face_finder() if finds_face else None) if isinstance(finds_face, bool) else finds_face
    return Audit(
        faces,
        threshold,
        find_duplicates(faces, threshold=threshold, progress=progress),
        inspect_images(faces, check),
        vote_agreement(faces),
        tuple(find_overlap(faces, other, threshold=threshold, progress=progress) for other in against),
        None if probabilities is None else find_label_errors(faces, probabilities),
    )


@checked
def load_faces(path: Path | None, labels: Mapping[str, str] | None = None, *, skip_unreadable: bool = False) -> FaceSet:
    """Read a data set for an audit, at 48 pixels; in eight classes where it has contempt, else in seven.

    Args:
        path: FER-2013 in any of its forms, a labelled folder or a table; ``None`` for the path in $MIEN_DATA.
        labels: Label of the set -> emotion, where the names differ.
        skip_unreadable: Whether images that cannot be read are left out, which ``note`` counts.

    Returns:
        All faces, with the splits that the set has.

    Raises:
        DataError: The set cannot be read.
    """
    eight = CLASS_SETS["eight"]
    faces = load_test_set(path, eight, labels=labels or {}, skip_unreadable=skip_unreadable)
    if faces.emotions != eight or bool((faces.labels == eight.index(Emotion.CONTEMPT)).any()):
        return faces
    to_seven = torch.tensor([SEVEN.index(emotion) if emotion in SEVEN else -1 for emotion in eight])
    return replace(faces, labels=to_seven[faces.labels], emotions=SEVEN)


def audit_counts(found: Audit) -> dict[str, Any]:
    """Return the counts of an audit as plain values for a JSON file, without rows and faces.

    Args:
        found: The audit.

    Returns:
        Counts by subject: ``classes``, ``duplicates``, ``content``, ``ferplus``, ``against``, ``label_errors``.
    """
    faces, agreed, errors = found.faces, found.agreement, found.label_errors
    return {
        "faces": len(faces),
        "note": faces.note,
        "classes": _count_classes(faces),
        "duplicates": _count_duplicates(found),
        "content": _count_content(found),
        "ferplus": None
        if agreed is None
        else {
            "rule": agreed.rule,
            "n": len(agreed.index),
            "agree": int(agreed.agree.sum()),
            "rate": float(agreed.agree.mean()) if len(agreed.agree) else None,
            "by_split": {str(split): {"n": n, "agree": agree} for split, (n, agree) in agreed.by_split.items()},
            "columns": [str(emotion) for emotion in agreed.emotions],
            "table": agreed.table.tolist(),
        },
        "against": [
            {"source": each.name, "data_sha256": each.other.sha256, "pairs": len(each.index)}
            | {"found": len(np.unique(each.index)), "rows": _leaks_as_values(each.leaks)}
            for each in found.overlaps
        ],
        "label_errors": None if errors is None else _count_label_errors(found, errors),
    }


def audit_rows(found: Audit) -> dict[str, Any]:
    """Return the rows behind the counts as plain values for a JSON file.

    Args:
        found: The audit.

    Returns:
        Rows of the set's table by finding. A pair of near duplicates has its correlation, a likely label error its
        given label, suggested label and the probability of the given label.
    """
    faces, near, content = found.faces, found.duplicates.near, found.content
    agreed, errors = found.agreement, found.label_errors
    rows, labels = faces.rows.numpy(), faces.labels.numpy()
    pairs = zip(rows[near.first].tolist(), rows[near.second].tolist(), near.r.round(5).tolist(), strict=True)
    by_mirrored: dict[bool, list[list[float]]] = {False: [], True: []}
    for pair, mirrored in zip(pairs, near.mirrored.tolist(), strict=True):
        by_mirrored[mirrored].append([*pair])
    label_errors = []
    if errors is not None:
        given = labels[errors.index].tolist()
        suggested, quality = errors.suggested.tolist(), errors.quality.tolist()
        values = zip(rows[errors.index].tolist(), given, suggested, quality, strict=True)
        label_errors = [[row, str(faces.emotions[a]), str(faces.emotions[b]), round(q, 4)] for row, a, b, q in values]
    return {
        "duplicates": [rows[group].tolist() for group in found.duplicates.groups],
        "near_pairs": by_mirrored[False],
        "mirrored_pairs": by_mirrored[True],
        "contradicting": [rows[group].tolist() for group in contradicting(found.duplicates, faces)],
        "leaked": rows[leaked_into_splits(found.duplicates.near_in, faces)].tolist(),
        "near_blank": rows[content.near_blank].tolist(),
        "not_face_votes": rows[content.majority].tolist(),
        "faceless": rows[content.faceless].tolist(),
        "ferplus_disagrees": [] if agreed is None else rows[agreed.index[~agreed.agree]].tolist(),
        "against": [
            np.stack([rows[each.index], each.other.rows.numpy()[each.other_index]], axis=1).tolist()
            for each in found.overlaps
        ],
        "label_errors": label_errors,
    }


def _count_classes(faces: FaceSet) -> dict[str, dict[str, int]]:
    """Number of faces by split, then by emotion in the order of ``Emotion``."""
    usage, labels = faces.usage.numpy(), faces.labels.numpy()
    order = sorted(range(len(faces.emotions)), key=lambda index: tuple(Emotion).index(faces.emotions[index]))
    table = {}
    for index, split in enumerate(Split):
        counts = np.bincount(labels[usage == index], minlength=len(faces.emotions)).tolist()
        if sum(counts):
            table[str(split)] = {str(faces.emotions[label]): counts[label] for label in order}
    return table


def _count_duplicates(found: Audit) -> dict[str, Any]:
    duplicates, near, faces, labels = found.duplicates, found.duplicates.near, found.faces, found.faces.labels.numpy()
    groups = contradicting(duplicates, faces)
    of_splits = {str(split): duplicates.first[faces.usage.numpy() == place] for place, split in enumerate(Split)}
    within = within_one_split(groups, faces, ignore=found.content.constant)
    return {
        "distinct": len(np.unique(duplicates.first)),
        "groups": len(duplicates.groups),
        "rows_in_groups": sum(map(len, duplicates.groups)),
        "repeats_by_split": {split: len(first) - len(np.unique(first)) for split, first in of_splits.items()},
        "leaks": _leaks_as_values(leaks(duplicates, faces)),
        "training_rows_in_tests": int(leaked_into_splits(duplicates.exact_in, faces).sum()),
        "training_rows_in_tests_near": int(leaked_into_splits(duplicates.near_in, faces).sum()),
        "near": {
            "threshold": found.threshold,
            "pairs": int((~near.mirrored).sum()),
            "pairs_above_0.999": int((~near.mirrored & (near.r > 0.999)).sum()),
            "mirrored_pairs": int(near.mirrored.sum()),
            "pairs_of_different_labels": int((labels[near.first] != labels[near.second]).sum()),
        },
        "contradicting": {
            "groups": len(groups),
            "rows": sum(map(len, groups)),
            "groups_within_one_split": len(within),
            "rows_within_one_split": sum(map(len, within)),
        },
    }


def _leaks_as_values(found: Sequence[Leak]) -> list[dict[str, str | int]]:
    return [asdict(leak) | {"of": str(leak.of), "into": str(leak.into)} for leak in found]


def _count_content(found: Audit) -> dict[str, Any]:
    content = found.content
    black = np.bincount(found.faces.usage.numpy()[content.black], minlength=len(Split))
    return {
        "one_grey_level": len(content.constant),
        "all_black": len(content.black),
        "all_black_by_split": {str(split): int(count) for split, count in zip(Split, black, strict=True)},
        "near_blank": len(content.near_blank),
        "near_blank_below": BLANK_SPREAD,
        "all_votes_not_face": len(content.all_votes),
        "majority_not_face": len(content.majority),
        "suspects": len(content.suspects),
        "suspects_flat_above": FLAT_SHARE,
        "suspects_not_checked": content.not_checked,
        "faceless": len(content.faceless),
    }


def _count_label_errors(found: Audit, errors: LabelErrors) -> dict[str, Any]:
    faces, agreed = found.faces, found.agreement
    table = np.zeros((len(faces.emotions), len(faces.emotions)), np.int64)
    np.add.at(table, (faces.labels.numpy()[errors.index], errors.suggested), 1)
    return {
        "origin": errors.origin,
        "method": "confident learning, cleanlab prune_by_noise_rate, ranked by self-confidence",
        "evaluated": len(errors.evaluated),
        "accuracy": errors.accuracy,
        "left_out": dict(errors.left_out),
        "flagged": len(errors.index),
        "emotions": [str(emotion) for emotion in faces.emotions],
        "given_by_suggested": table.tolist(),
        "against_ferplus": None if agreed is None else asdict(check_with_votes(errors, agreed, faces)),
    }


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
        require_known("reason to exclude a row", word, (*REASONS, "all", "none"), DataError)
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
