"""How good made faces are, in figures: kernel distance, recognition, memorisation; for one emotion at a time.

Made faces are held against PublicTest, whose faces the GAN has not seen and which `mien-0` was not trained on.
PrivateTest stays untouched.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab.data import FaceSet
from mien.lab.gan.features import Eye, Seen
from mien.lab.gan.kernel import kernel_distance
from mien.lab.gan.neighbours import nearest, nearest_face, outlook, share_below

# Real faces of the class needed to judge by, and the quantile of their distances that a copy lies below.
FEWEST, QUANTILE = 8, 0.01
# Random partitions of the held-out faces whose distance shows what 0 looks like.
PARTITIONS = 50

Figures = dict[str, Any]


class Pairs(NamedTuple):
    """Made faces and their nearest training faces by looks: distance ``[N]`` and row of the training set ``[N]``."""

    distance: Tensor
    row: Tensor


@dataclass(frozen=True)
class Yardstick:
    """All that judging needs of the real faces, looked at once; everything on the CPU."""

    eye: Eye
    training: FaceSet
    held_out: FaceSet
    seen_training: Seen
    seen_held_out: Seen
    newness: Tensor  # of held-out faces, float32 [M]: distance to the nearest training face by looks
    newness_features: Tensor  # ... and in the features

    def features(self, emotion: Emotion) -> Tensor:
        """Features of the held-out faces of ``emotion``, ``[m, D]``."""
        return self.seen_held_out.features[self.held_out.labels == self.held_out.emotions.index(emotion)]


def yardstick(eye: Eye, training: FaceSet, held_out: FaceSet) -> Yardstick:
    """Look at the real faces. Raises ``DataError`` when there is nothing held out to judge by."""
    if len(held_out) < FEWEST:
        raise DataError(
            f"{training.source}: {len(held_out)} PublicTest faces are too few to judge made ones by ({FEWEST} needed)"
        )
    seen_training, seen_held_out = eye(training), eye(held_out)
    return Yardstick(
        eye=eye,
        training=training,
        held_out=held_out,
        seen_training=seen_training,
        seen_held_out=seen_held_out,
        newness=nearest_face(held_out.images, training.images)[0],
        newness_features=nearest(seen_held_out.features, seen_training.features)[0],
    )


def judge_made(made: Tensor, emotion: Emotion, by: Yardstick, *, seed: int = 0) -> tuple[Figures, Pairs]:
    """The figures of ``made`` uint8 ``[N, 48, 48]``, and each face's nearest training face."""
    label = by.held_out.emotions.index(emotion)
    seen = by.eye(_as_faces(made, label, by.held_out))
    pairs = Pairs(*nearest_face(made, by.training.images))
    distance_features, _ = nearest(seen.features, by.seen_training.features)
    figures = {
        "made": len(made),
        "training": int((by.training.labels == label).sum()),
        "held_out": int((by.held_out.labels == label).sum()),
        "kernel_distance": _distances(seen.features, emotion, by, seed),
        "read_as": _readings(seen.probs, by.eye),
        "real_read_as": _readings(by.seen_held_out.probs[by.held_out.labels == label], by.eye),
        "memorised": {
            "quantile": QUANTILE,
            "by_looks": share_below(pairs.distance, by.newness, QUANTILE),
            "by_features": share_below(distance_features, by.newness_features, QUANTILE),
            "median_distance": _medians(pairs.distance, by.newness),
            "median_distance_features": _medians(distance_features, by.newness_features),
        },
        "variety": _variety(made, by.training.images[by.training.labels == label]),
    }
    return figures, pairs


def _distances(made: Tensor, emotion: Emotion, by: Yardstick, seed: int) -> Figures | None:
    """Kernel distance of several sets to the held-out faces of the class; ``None`` where those are too few."""
    held_out = by.features(emotion)
    if min(len(held_out), len(made)) < FEWEST:
        return None
    source = torch.Generator().manual_seed(seed)
    label = by.training.emotions.index(emotion)
    noise = torch.randint(0, 256, (256, *by.held_out.images.shape[1:]), generator=source, dtype=torch.uint8)
    sets = {
        "made": made,
        "training": by.seen_training.features[by.training.labels == label],
        "noise": by.eye(_as_faces(noise, label, by.held_out)).features,
        **{str(other): by.features(other) for other in by.held_out.emotions if other != emotion},
    }
    found = {name: kernel_distance(rows, held_out, seed=seed)._asdict() for name, rows in sets.items() if len(rows) > 3}
    return {**found, "halves": _halves(held_out, seed)}


def _halves(rows: Tensor, seed: int) -> Figures:
    """The distance of one half of ``rows`` to the other, over random partitions: its mean and its spread."""
    source = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(PARTITIONS):
        order = torch.randperm(len(rows), generator=source)
        half = len(rows) // 2
        values.append(kernel_distance(rows[order[:half]], rows[order[half:]], halves=0).value)
    spread = torch.tensor(values)
    return {"value": float(spread.mean()), "standard_deviation": float(spread.std())}


def _readings(probs: Tensor, eye: Eye) -> dict[str, float]:
    """Share of the faces that the classifier reads as each emotion."""
    counts = torch.bincount(probs.argmax(1), minlength=len(eye.emotions))
    return {
        str(emotion): float(count) / max(1, len(probs)) for emotion, count in zip(eye.emotions, counts, strict=True)
    }


def _medians(made: Tensor, real: Tensor) -> dict[str, float]:
    return {"made": float(made.median()), "held_out": float(real.median())}


def _variety(made: Tensor, real: Tensor) -> dict[str, float]:
    """Median distance by looks from a face to the nearest other of its own set; equally many of both sets.

    Of made faces that collapsed to a few it is near 0.
    """
    count = min(len(made), len(real))
    return {name: _spread(images[:count]) for name, images in (("made", made), ("training", real))}


def _spread(images: Tensor) -> float:
    rows = outlook(images)
    distances = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    return float(distances.min(1).values.median())


def _as_faces(images: Tensor, label: int, like: FaceSet) -> FaceSet:
    """``images`` as a set of one class, so that they are read exactly as real ones are."""
    count = len(images)
    return FaceSet(
        images=images,
        labels=torch.full((count,), label),
        votes=None,
        usage=torch.zeros(count, dtype=torch.int64),
        rows=torch.arange(count),
        pixels_from_jpeg=None,
        emotions=like.emotions,
        sha256="",
        source="made faces",
    )
