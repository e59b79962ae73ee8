"""How good made faces are, in figures: kernel distance, recognition, memorisation; for one emotion at a time.

Made faces are held against PublicTest, whose faces the GAN has not seen and which `mien-0` was not trained on.
PrivateTest stays untouched.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor
from torch.nn import functional as F

from mien._emotions import Emotion
from mien._errors import DataError, ModelError
from mien.bundled import BUNDLED
from mien.infer import PRECISIONS, Classifier
from mien.lab.data import FaceSet
from mien.lab.predictions import crops_of

# The model that judges, in fp32, so that rounding blurs no distance.
JUDGE = BUNDLED / "mien-0" / PRECISIONS["fp32"]


# Faces read at once.
CHUNK = 64


class Seen(NamedTuple):
    """``probs`` float32 ``[N, C]`` in the order of ``Eye.emotions``; ``features`` float32 ``[N, D]``."""

    probs: Tensor
    features: Tensor


class Eye:
    """A classifier of the contract, opened to its features. ``emotions`` are its classes, ``name`` is its name."""

    def __init__(self, path: Path = JUDGE, *, threads: int = 1) -> None:
        """Raises ``ModelError`` for a file that breaks the contract, or whose maps are no convolution of features."""
        classifier = Classifier(path)
        self.name, self.size = classifier.name, classifier.size
        self.emotions: tuple[Emotion, ...] = classifier.emotions
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        graph = _with_features(onnx.load(path), path).SerializeToString()
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, faces: FaceSet) -> Seen:
        """Look at ``faces``, on the CPU."""
        crops: NDArray[np.uint8] = crops_of(faces, self.size)
        parts = [self._run(crops[i : i + CHUNK]) for i in range(0, len(crops), CHUNK)]
        probs, features = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Seen(torch.from_numpy(probs), torch.from_numpy(features))

    def _run(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        probs, features = self._session.run(["probs", "features"], {"crops": np.ascontiguousarray(crops)})
        return probs, features


def _with_features(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """``model`` with the output ``features`` ``[N, D]``: what its maps are made of, averaged over the places."""
    graph = model.graph
    makers = [node for node in graph.node if "maps" in node.output and node.op_type == "Conv"]
    if not makers:
        raise ModelError(f"{path}: its maps are not made by a convolution, so it has no features to compare faces by")
    axes = helper.make_tensor("mien_axes", onnx.TensorProto.INT64, [2], [2, 3])
    graph.initializer.append(axes)
    graph.node.append(helper.make_node("ReduceMean", [makers[0].input[0], "mien_axes"], ["features"], keepdims=0))
    graph.output.append(helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, None))
    return model


# Faces of a set that are compared, at most: the cost grows with the square.
MOST = 1000


# Half-samples that the standard error is taken from.
HALVES = 200


class Distance(NamedTuple):
    """``value`` is unbiased, so it may be a little below 0 for sets of one distribution."""

    value: float
    standard_error: float


def kernel_distance(x: Tensor, y: Tensor, *, seed: int = 0, halves: int = HALVES) -> Distance:
    """The squared maximum mean discrepancy of ``x`` ``[N, D]`` and ``y`` ``[M, D]`` under ``(x.y / D + 1) ** 3``.

    The unbiased estimate of Gretton et al. (JMLR 2012), of at most ``MOST`` rows each. The standard error is the
    spread of the same estimate over random halves of both sets about the estimate of the whole (the delete-half
    jackknife, Shao and Wu 1989), which is a little too large where the sets are of one distribution; with ``halves``
    0 it is 0. Raises ``ValueError`` for a set of less than four rows.
    """
    if min(len(x), len(y)) < 4:
        raise ValueError(f"a kernel distance needs four faces of each set, not {len(x)} and {len(y)}")
    generator = torch.Generator().manual_seed(seed)
    x, y = (_some(rows.double(), MOST, generator) for rows in (x, y))
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    value = _discrepancy(xx, yy, xy)
    squares = 0.0
    for _ in range(halves):
        i, j = (torch.randperm(len(rows), generator=generator)[: len(rows) // 2] for rows in (x, y))
        squares += (_discrepancy(xx[i][:, i], yy[j][:, j], xy[i][:, j]) - value) ** 2
    return Distance(value, (squares / max(1, halves)) ** 0.5)


def _some(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:most]]


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _discrepancy(xx: Tensor, yy: Tensor, xy: Tensor) -> float:
    """Means over the kernel's blocks; a face is never compared with itself."""
    within = sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    return float(within - 2 * xy.mean())


# Standard deviation of the blur, in pixels of a 48-pixel face: what differs by noise alone shall look the same.
BLUR = 1.0


# Faces compared at once; 512 x 56,000 distances are 115 MB.
CHUNK_NEIGHBOURS = 512


def outlook(images: Tensor) -> Tensor:
    """uint8 ``[N, S, S]`` -> float32 ``[N, S*S/4]``: blurred, halved, brightness and contrast taken out.

    Each row has mean 0 and length 1, so the distance of two rows is ``sqrt(2 - 2 r)`` of their correlation r.
    """
    at = torch.arange(-3, 4, device=images.device)
    kernel = torch.exp(-0.5 * (at / BLUR) ** 2)
    kernel = (kernel / kernel.sum())[None, None, :, None]
    rows = []
    for part in torch.split(images, 1024):
        x = F.pad(part.unsqueeze(1).float(), (3,) * 4, mode="replicate")
        x = F.avg_pool2d(F.conv2d(F.conv2d(x, kernel), kernel.transpose(2, 3)), 2).flatten(1)
        rows.append(F.normalize(x - x.mean(1, keepdim=True), eps=1e-3))
    return torch.cat(rows)


def nearest(queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """For each of ``queries`` ``[N, D]`` the Euclidean distance to the nearest of ``references`` and its row."""
    found = [torch.cdist(part, references).min(dim=1) for part in torch.split(queries, CHUNK_NEIGHBOURS)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def nearest_face(images: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """As ``nearest``, for uint8 faces by ``outlook``; a training face counts as it is and mirrored."""
    references = outlook(torch.cat([training, training.flip(2)]))
    distance, row = nearest(outlook(images), references)
    return distance, row % len(training)


def share_below(distances: Tensor, real: Tensor, quantile: float) -> float:
    """Share of ``distances`` below that ``quantile`` of the distances of new ``real`` faces.

    Made faces that are as new as real ones have the share ``quantile``; copies have a share near 1.
    """
    return float((distances < torch.quantile(real, quantile)).float().mean())


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
