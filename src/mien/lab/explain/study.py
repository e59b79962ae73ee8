"""A model on a data set: mean maps, attention by region, faithfulness and sanity, as figures and as arrays to draw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._errors import DataError
from mien.lab.explain.attention import (
    REGIONS,
    Alignment,
    Attention,
    Locate,
    align,
    as_they_lie,
    attend,
    attention_table,
    judge_claims,
    masks,
    resolvable,
    warp,
)
from mien.lab.explain.faithfulness import ORDERS, POINTS, faithfulness, sanity
from mien.lab.explain.methods import Looker
from mien.lab.predictions import Selection, crops_of

# What is being done, how much of it is done, and how much there is.
Report = Callable[[str, int, int], None]

FACES = 600
# Curves read every face some eighty times, the cascade looks at it eight times: fewer faces are enough there.
CURVE_FACES, SANITY_FACES = 140, 70


@dataclass(frozen=True, eq=False)
class Study:
    """``figures`` are plain values for a JSON file. The arrays are for a report that stays on this computer.

    ``crops`` uint8 ``[N, S, S]`` are the faces, ``maps`` float32 ``[N, h, w]`` those of the class ``targets`` ``[N]``
    that each was read as, ``probs`` float32 ``[N, C]``, ``labels`` ``[N]``; ``attention`` holds the aligned maps and
    ``mean_faces`` float32 ``[C, S, S]``, 0..255, the aligned faces' means by answer, NaN where there is none.
    """

    figures: Mapping[str, Any]
    looker: Looker
    crops: NDArray[np.uint8]
    maps: NDArray[np.float32]
    probs: NDArray[np.float32]
    labels: NDArray[np.int64]
    targets: NDArray[np.int64]
    attention: Attention
    mean_faces: NDArray[np.float32]


def study(
    looker: Looker,
    selection: Selection,
    *,
    locate: Locate | None,
    faces: int = FACES,
    curve_faces: int = CURVE_FACES,
    sanity_faces: int = SANITY_FACES,
    baseline: str = "blur",
    seed: int = 0,
    report: Report = lambda *_: None,
) -> Study:
    """Explain what ``looker`` answers for ``faces`` of ``selection`` at most, drawn evenly from its classes.

    Every face's map is that of the emotion it was read as. ``locate`` finds the face in a picture, by whose key points
    faces are laid on each other; ``None`` takes them as they lie. ``curve_faces`` and ``sanity_faces`` are how many of
    them serve deletion and insertion, and the randomised weights. Raises ``ModelError`` for a model without maps,
    ``DataError`` where no face is left.
    """
    rows = draw_evenly(selection.faces.labels.numpy(), faces, seed)
    labels = selection.faces.labels.numpy()[rows]
    crops = crops_of(selection.faces.select(_index(rows)), looker.model.size)
    count = len(crops)
    probs = looker.read(crops, lambda n: report("reading", n, count))
    targets = probs.argmax(axis=1)
    maps = looker.maps(crops, targets, lambda n: report("maps", n, count))
    alignment = _align(crops, locate, report)
    attention = attend(maps, targets, alignment, crops.shape[-1])
    if not len(attention.maps):
        raise DataError(f"{selection.faces.source}: eyes, nose and mouth were found in no face; take them as they lie")
    few = draw_evenly(labels, curve_faces, seed)
    fewer = draw_evenly(labels, sanity_faces, seed)
    curves = faithfulness(
        looker.read,
        crops[few],
        targets[few],
        maps[few],
        baseline=baseline,
        seed=seed,
        report=lambda n: report("deletion and insertion", n, 2 * len(ORDERS) * POINTS),
    )
    checked = sanity(
        looker, crops[fewer], targets[fewer], seed=seed, report=lambda n, of: report("randomised weights", n, of)
    )
    emotions = looker.model.emotions
    right = (targets == labels)[attention.kept]
    figures = {
        "method": looker.method,
        "layer": looker.layer,
        "map": list(maps.shape[1:]),
        "faces": _faces(looker, selection, labels, targets, seed),
        "alignment": _aligned(attention, alignment, locate is not None),
        "regions": _regions(maps, crops.shape[-1]),
        "attention": attention_table(attention, right, emotions, seed=seed),
        "claims": judge_claims(attention, emotions, seed=seed),
        "faithfulness": curves,
        "sanity": checked,
    }
    means = _mean_faces(crops, alignment, attention, len(emotions))
    return Study(figures, looker, crops, maps, probs, labels, targets, attention, means)


def draw_evenly(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """``count`` places of ``labels`` (all, where there are no more), as many of each class as there are; sorted."""
    generator = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    chosen: list[NDArray[np.int64]] = []
    left = min(count, len(labels))
    for place, index in enumerate(np.argsort(sizes, kind="stable")):  # small classes first: the others fill up
        take = min(int(sizes[index]), left // (len(classes) - place))
        rows = np.flatnonzero(labels == classes[index])
        chosen.append(generator.permutation(rows)[:take])
        left -= take
    return np.sort(np.concatenate(chosen))


def _index(rows: NDArray[np.int64]) -> Any:
    import torch

    return torch.from_numpy(rows)


def _align(crops: NDArray[np.uint8], locate: Locate | None, report: Report) -> Alignment:
    if locate is None:
        return as_they_lie(len(crops))
    return align(crops, locate, report=lambda n: report("eyes, nose, mouth", n, len(crops)))


def _faces(
    looker: Looker, selection: Selection, labels: NDArray[np.int64], targets: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    emotions = looker.model.emotions
    return {
        "split": selection.split,
        "protocol": selection.protocol,
        "total": selection.total,
        "left_out": dict(selection.account),
        "explained": len(labels),
        "drawn": "evenly from the classes of the labels" if len(labels) < len(selection.faces) else "all",
        "seed": seed,
        "by_label": {str(e): int((labels == i).sum()) for i, e in enumerate(emotions)},
        "by_answer": {str(e): int((targets == i).sum()) for i, e in enumerate(emotions)},
        "read_rightly": int((labels == targets).sum()),
    }


def _aligned(attention: Attention, alignment: Alignment, by_points: bool) -> dict[str, Any]:
    found = int(alignment.found.sum())
    return {
        "how": "affine map of eyes, nose and mouth to the framing of FER-2013" if by_points else "none: as they lie",
        "aligned": found,
        "key_points_not_found": len(alignment.found) - found,
        "map_without_evidence": found - len(attention.maps),
    }


def _regions(maps: NDArray[np.float32], side: int) -> dict[str, Any]:
    area = masks(side).mean(axis=(1, 2))
    grid = (int(maps.shape[1]), int(maps.shape[2]))
    return {
        "area": dict(zip(REGIONS, area.tolist(), strict=True)),
        "resolvable": resolvable(grid, side),
    }


def _mean_faces(
    crops: NDArray[np.uint8], alignment: Alignment, attention: Attention, classes: int
) -> NDArray[np.float32]:
    laid = warp(crops[attention.kept], alignment.affine[attention.kept])
    means = np.full((classes, *laid.shape[1:]), np.nan, np.float32)
    for index in np.unique(attention.targets):
        means[index] = laid[attention.targets == index].mean(axis=0)
    return means
