"""Listing -> FaceSet: one's own faces, read, labelled, and with something to validate on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab.data.divide import clusters, divide
from mien.lab.data.faces import FaceSet, Split, split_index
from mien.lab.data.join_votes import list_sha256
from mien.lab.data.list_folder import list_folder
from mien.lab.data.list_table import list_table
from mien.lab.data.listing import Entry
from mien.lab.data.read_labels import RECIPE_KEY, read_labels
from mien.lab.data.read_pictures import read_pictures

HELD_OUT = 0.15  # share of Training that validates where nothing else is there to do it
# What is held out belongs to the set, not to a run: one seed for all, so that runs are compared on the same faces.
_HOLD_OUT_SEED = 0


def read_own(
    path: Path, *, label_map: Mapping[str, str], emotions: tuple[Emotion, ...], side: int, option: str = RECIPE_KEY
) -> FaceSet:
    """The faces of a labelled folder or table, ``side`` pixels a side, labels indexing ``emotions``.

    Faces of other emotions and those that the map drops are left out before anything is opened; the note says how many.
    Raises ``DataError`` naming file or row for whatever is not as it should be.
    """
    listing = list_folder(path) if path.is_dir() else list_table(path)
    meaning = read_labels(sorted({entry.label for entry in listing.entries}), label_map, where=str(path), option=option)
    kept = [entry for entry in listing.entries if meaning[entry.label] in emotions]
    if not kept:
        raise DataError(f"{path}: none of its {len(listing.entries):,} faces is of {', '.join(emotions)}")
    images, digests = read_pictures(kept, side)
    digest = list_sha256([*listing.digests, *zip([entry.name for entry in kept], digests, strict=True)])
    labels = [meaning[entry.label] for entry in kept]
    return FaceSet(
        images=torch.from_numpy(images),
        labels=torch.tensor([emotions.index(label) for label in labels if label is not None]),
        votes=None,
        usage=torch.tensor([split_index(entry.split) for entry in kept]),
        rows=torch.tensor([row for row, entry in enumerate(listing.entries) if meaning[entry.label] in emotions]),
        pixels_from_jpeg=None,
        emotions=emotions,
        sha256=digest,
        source=str(path),
        note=_left_out(listing.entries, meaning, emotions),
        groups=_groups(kept),
    )


def hold_out(faces: FaceSet) -> FaceSet:
    """``faces`` with a share of Training made PublicTest where there is none, by class and group; the note says so.

    Raises ``DataError`` when nothing is Training, when a group is in several splits, and when all faces are of one.
    """
    _require_parted_groups(faces)
    if not bool((faces.usage == split_index(Split.TRAINING)).any()):
        raise DataError(f"{faces.source}: holds no Training row or train/ folder; a training needs faces to learn from")
    if bool((faces.usage == split_index(Split.PUBLIC_TEST)).any()):
        return faces
    training = np.flatnonzero(faces.usage.numpy() == split_index(Split.TRAINING))
    part = _divided(faces.select(torch.from_numpy(training)))
    usage = faces.usage.clone()
    usage[torch.from_numpy(training[part == 1])] = split_index(Split.PUBLIC_TEST)
    grouped = "" if faces.groups is None else ", no group in both"
    count = f"{int((part == 1).sum()):,} of {len(part):,} Training faces"
    note = f"no validation split: {count} ({HELD_OUT:.0%} of each class{grouped}) validate as PublicTest"
    return replace(faces, usage=usage, note="; ".join(filter(None, (faces.note, note))))


def _divided(training: FaceSet) -> NDArray[np.int64]:
    together = clusters(training)
    part = divide(training.labels.numpy(), together, shares=(1 - HELD_OUT, HELD_OUT), seed=_HOLD_OUT_SEED)
    if len(np.unique(part)) < 2:
        raise DataError(
            f"{training.source}: {len(training)} Training faces in {len(np.unique(together))} groups leave none to "
            "validate on; add faces, give a val/ folder or a split column, or leave the groups out"
        )
    return part


def _require_parted_groups(faces: FaceSet) -> None:
    if faces.groups is None:
        return
    pairs = torch.unique(torch.stack([faces.groups, faces.usage]), dim=1)
    names, counts = torch.unique(pairs[0], return_counts=True)
    if bool((counts > 1).any()):
        row = int((faces.groups == names[counts > 1][0]).nonzero()[0])
        raise DataError(
            f"{faces.source}: the group of row {int(faces.rows[row])} is in several splits ({int((counts > 1).sum())} "
            "groups are); move each into one, or leave the groups out"
        )


def _groups(entries: Sequence[Entry]) -> torch.Tensor | None:
    """The number of each face's group; who names none is a group alone."""
    if not any(entry.group for entry in entries):
        return None
    numbers: dict[str, int] = {}
    return torch.tensor(
        [numbers.setdefault(entry.group or f"\0{row}", len(numbers)) for row, entry in enumerate(entries)]
    )


def _left_out(
    entries: Sequence[Entry], meaning: Mapping[str, Emotion | None], emotions: tuple[Emotion, ...]
) -> str | None:
    counts = Counter(entry.label for entry in entries if meaning[entry.label] not in emotions)
    if not counts:
        return None
    names = ", ".join(f"{count:,} of {label}" for label, count in sorted(counts.items()))
    return f"left out: {names}"
