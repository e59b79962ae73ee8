"""Evaluation of synthetic faces of one emotion: kernel distance, recognition, memorisation and variety.

Synthetic faces are compared with PublicTest, on which neither the GAN nor ``mien-0`` was trained. PrivateTest is not
used.
"""

from dataclasses import dataclass, replace
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
from mien.lab.predictions import resize_faces

# The model whose features are compared; in fp32, so that rounding does not change distances.
REFERENCE_MODEL = BUNDLED / "mien-0" / PRECISIONS["fp32"]
# Faces in a batch of the model, and in a batch of distances (512 x 56,000 distances take 115 MB).
_READ_BATCH, _DISTANCE_BATCH = 64, 512
# Largest number of faces of a set in a kernel distance; the cost grows with its square.
_MAX_FACES = 1000
# Half-samples of the standard error, and random partitions of one set, whose distance is 0 in expectation.
_HALVES, _PARTITIONS = 200, 50
# Smallest number of real faces of an evaluated class. A face counts as a copy if its distance is below this quantile.
MIN_FACES, QUANTILE = 8, 0.01
# Standard deviation in pixels of the blur of a 48-pixel face, which hides noise.
_BLUR = 1.0

_Metrics = dict[str, Any]


class FaceReadings(NamedTuple):
    """The output of the reference model for faces.

    Attributes:
        probs: float32 ``[N, C]``.
        features: float32 ``[N, D]``, averaged over the map.
    """

    probs: Tensor
    features: Tensor


class FeatureExtractor:
    """The ONNX file of a classifier with its features as a second output.

    Args:
        path: The file; its maps are a convolution of its features.
        threads: Threads of one call.

    Raises:
        ModelError: The file breaks the contract, or its maps are not the output of a convolution.
    """

    def __init__(self, path: Path = REFERENCE_MODEL, *, threads: int = 1) -> None:
        classifier = Classifier(path)
        self.name, self.size = classifier.name, classifier.size
        self.emotions: tuple[Emotion, ...] = classifier.emotions
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        model = onnx.load(path)
        graph = model.graph
        convolutions = [node for node in graph.node if "maps" in node.output and node.op_type == "Conv"]
        if not convolutions:
            raise ModelError(f"{path}: its maps are not the output of a convolution, so faces cannot be compared by it")
        graph.initializer.append(helper.make_tensor("mien_axes", onnx.TensorProto.INT64, [2], [2, 3]))
        inputs = [convolutions[0].input[0], "mien_axes"]
        graph.node.append(helper.make_node("ReduceMean", inputs, ["features"], keepdims=0))
        graph.output.append(helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, None))
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def __call__(self, faces: FaceSet) -> FaceReadings:
        """Classify faces on the CPU.

        Args:
            faces: N faces of any size.

        Returns:
            Probabilities and features.
        """
        crops: NDArray[np.uint8] = resize_faces(faces, self.size)
        starts = range(0, len(crops), _READ_BATCH)
        parts = [self._session.run(["probs", "features"], {"crops": crops[i : i + _READ_BATCH]}) for i in starts]
        probs, features = (np.concatenate(column) for column in zip(*parts, strict=True))
        return FaceReadings(torch.from_numpy(probs), torch.from_numpy(features))


class Distance(NamedTuple):
    """A kernel distance. The estimate is unbiased, so it may be slightly negative for sets of one distribution."""

    value: float
    standard_error: float


def kernel_distance(x: Tensor, y: Tensor, *, seed: int = 0, halves: int = _HALVES) -> Distance:
    """Estimate the squared maximum mean discrepancy of two sets under the kernel ``(x.y / D + 1) ** 3``.

    This is the kernel inception distance (Binkowski et al., ICLR 2018) with the features of ``mien-0``: the unbiased
    estimate of Gretton et al. (JMLR 2012). The standard error is that of the delete-half jackknife (Shao & Wu, 1989);
    it is slightly too large if both sets are of one distribution.

    Args:
        x: Features ``[N, D]``; at most 1,000 random rows are used.
        y: Features ``[M, D]``.
        seed: Seed of the random rows.
        halves: Random halves for the standard error; with 0 it is 0.

    Returns:
        The distance.

    Raises:
        ValueError: A set has less than four rows.
    """
    if min(len(x), len(y)) < 4:
        raise ValueError(f"a kernel distance needs four faces of each set, not {len(x)} and {len(y)}")
    generator = torch.Generator().manual_seed(seed)
    x, y = (rows.double()[torch.randperm(len(rows), generator=generator)[:_MAX_FACES]] for rows in (x, y))
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    value = _discrepancy(xx, yy, xy)
    squares = 0.0
    for _ in range(halves):
        i, j = (torch.randperm(len(rows), generator=generator)[: len(rows) // 2] for rows in (x, y))
        squares += (_discrepancy(xx[i][:, i], yy[j][:, j], xy[i][:, j]) - value) ** 2
    return Distance(value, (squares / max(1, halves)) ** 0.5)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _discrepancy(xx: Tensor, yy: Tensor, xy: Tensor) -> float:
    """The squared discrepancy of two sets from their kernel matrices. A face is not compared with itself."""
    within = sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    return float(within - 2 * xy.mean())


def appearance(images: Tensor) -> Tensor:
    """Describe faces by their pixels, independently of brightness and contrast.

    Args:
        images: uint8 ``[N, S, S]``.

    Returns:
        float32 ``[N, S*S/4]``: blurred and halved. Each row has mean 0 and length 1, so the distance of two rows is
        ``sqrt(2 - 2 r)`` for their correlation r.
    """
    at = torch.arange(-3, 4, device=images.device)
    kernel = torch.exp(-0.5 * (at / _BLUR) ** 2)
    kernel = (kernel / kernel.sum())[None, None, :, None]
    rows = []
    for part in torch.split(images, 1024):
        x = F.pad(part.unsqueeze(1).float(), (3,) * 4, mode="replicate")
        x = F.avg_pool2d(F.conv2d(F.conv2d(x, kernel), kernel.transpose(2, 3)), 2).flatten(1)
        rows.append(F.normalize(x - x.mean(1, keepdim=True), eps=1e-3))
    return torch.cat(rows)


class Neighbours(NamedTuple):
    """The nearest training face of each of N faces.

    Attributes:
        distance: ``[N]``.
        row: Row in the training set, ``[N]``.
    """

    distance: Tensor
    row: Tensor


def nearest_faces(images: Tensor, training: Tensor) -> Neighbours:
    """Find the nearest training face of each image by appearance, also among mirrored training faces.

    Args:
        images: uint8 ``[N, S, S]``.
        training: uint8 ``[M, S, S]``.

    Returns:
        Distances and rows.
    """
    found = _nearest_rows(appearance(images), appearance(torch.cat([training, training.flip(2)])))
    return Neighbours(found.distance, found.row % len(training))


def _nearest_rows(queries: Tensor, references: Tensor) -> Neighbours:
    found = [torch.cdist(part, references).min(dim=1) for part in torch.split(queries, _DISTANCE_BATCH)]
    return Neighbours(torch.cat([f.values for f in found]), torch.cat([f.indices for f in found]))


def share_below(distances: Tensor, real: Tensor, quantile: float) -> float:
    """Return the share of ``distances`` below a quantile of the distances of new real faces.

    Args:
        distances: Distances of synthetic faces to their nearest training face, ``[N]``.
        real: The same of real faces that are not in the training set, ``[M]``.
        quantile: The quantile, from 0 to 1.

    Returns:
        About ``quantile`` for faces as new as real ones, nearly 1 for copies.
    """
    return float((distances < torch.quantile(real, quantile)).float().mean())


@dataclass(frozen=True)
class Reference:
    """The real faces of an evaluation with their features and distances, on the CPU.

    Attributes:
        extractor: The reference model.
        training: The training faces of the GAN.
        held_out: Other real faces.
        training_readings: Probabilities and features of ``training``.
        held_out_readings: Probabilities and features of ``held_out``.
        noise: Features of images of random pixels.
        appearance_distances: Distance of each held-out face to the nearest training face by appearance, ``[M]``.
        feature_distances: The same by features.
    """

    extractor: FeatureExtractor
    training: FaceSet
    held_out: FaceSet
    training_readings: FaceReadings
    held_out_readings: FaceReadings
    noise: Tensor
    appearance_distances: Tensor
    feature_distances: Tensor

    def features(self, emotion: Emotion) -> Tensor:
        """Return the features of the held-out faces of an emotion.

        Args:
            emotion: The emotion.

        Returns:
            float32 ``[m, D]``.
        """
        return self.held_out_readings.features[self.held_out.labels == self.held_out.emotions.index(emotion)]


def read_real_faces(extractor: FeatureExtractor, training: FaceSet, held_out: FaceSet, *, seed: int = 0) -> Reference:
    """Classify the real faces with which synthetic faces are compared.

    Args:
        extractor: The reference model.
        training: The training faces of the GAN.
        held_out: Other real faces.
        seed: Seed of the images of random pixels.

    Returns:
        The reference.

    Raises:
        DataError: There are too few held-out faces.
    """
    if len(held_out) < MIN_FACES:
        raise DataError(
            f"{training.source}: {len(held_out)} PublicTest faces are too few to evaluate synthetic ones "
            f"({MIN_FACES} needed)"
        )
    known, new = extractor(training), extractor(held_out)
    source = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (256, *held_out.images.shape[1:]), generator=source, dtype=torch.uint8)
    return Reference(
        extractor=extractor,
        training=training,
        held_out=held_out,
        training_readings=known,
        held_out_readings=new,
        noise=extractor(_as_face_set(noise, held_out)).features,
        appearance_distances=nearest_faces(held_out.images, training.images).distance,
        feature_distances=_nearest_rows(new.features, known.features).distance,
    )


def evaluate_faces(
    images: Tensor, emotion: Emotion, reference: Reference, *, seed: int = 0
) -> tuple[_Metrics, Neighbours]:
    """Evaluate the synthetic faces of one emotion.

    Args:
        images: uint8 ``[N, 48, 48]``.
        emotion: Their emotion.
        reference: The real faces.
        seed: Seed of random rows and partitions.

    Returns:
        Plain values for a JSON file, and the nearest training face of each image.
    """
    label = reference.held_out.emotions.index(emotion)
    readings = reference.extractor(_as_face_set(images, reference.held_out))
    neighbours = nearest_faces(images, reference.training.images)
    feature_distances = _nearest_rows(readings.features, reference.training_readings.features).distance
    emotions = reference.extractor.emotions
    real = reference.held_out_readings.probs[reference.held_out.labels == label]
    training = reference.training.images[reference.training.labels == label]
    count = min(len(images), len(training))
    metrics = {
        "made": len(images),
        "training": len(training),
        "held_out": len(real),
        "kernel_distance": _kernel_distances(readings.features, emotion, reference, seed),
        "read_as": _shares(readings.probs, emotions),
        "real_read_as": _shares(real, emotions),
        "memorised": {
            "quantile": QUANTILE,
            "by_appearance": share_below(neighbours.distance, reference.appearance_distances, QUANTILE),
            "by_features": share_below(feature_distances, reference.feature_distances, QUANTILE),
            "median_distance": _medians(neighbours.distance, reference.appearance_distances),
            "median_distance_features": _medians(feature_distances, reference.feature_distances),
        },
        "variety": {"made": _variety(images[:count]), "training": _variety(training[:count])},
    }
    return metrics, neighbours


def _kernel_distances(features: Tensor, emotion: Emotion, reference: Reference, seed: int) -> _Metrics | None:
    """Kernel distances of several sets to the held-out faces of the class; ``None`` if there are too few."""
    held_out = reference.features(emotion)
    if min(len(held_out), len(features)) < MIN_FACES:
        return None
    label = reference.training.emotions.index(emotion)
    sets = {
        "made": features,
        "training": reference.training_readings.features[reference.training.labels == label],
        "noise": reference.noise,
        **{str(other): reference.features(other) for other in reference.held_out.emotions if other != emotion},
    }
    found = {name: kernel_distance(rows, held_out, seed=seed)._asdict() for name, rows in sets.items() if len(rows) > 3}
    # The distance of one half of the held-out faces to the other half, over random partitions.
    source = torch.Generator().manual_seed(seed)
    values, half = [], len(held_out) // 2
    for _ in range(_PARTITIONS):
        rows = held_out[torch.randperm(len(held_out), generator=source)]
        values.append(kernel_distance(rows[:half], rows[half:], halves=0).value)
    halves = torch.tensor(values)
    return {**found, "halves": {"value": float(halves.mean()), "standard_deviation": float(halves.std())}}


def _shares(probs: Tensor, emotions: tuple[Emotion, ...]) -> dict[str, float]:
    """The share of the faces that the classifier predicts as each emotion."""
    counts = torch.bincount(probs.argmax(1), minlength=len(emotions)) / max(1, len(probs))
    return {str(emotion): float(share) for emotion, share in zip(emotions, counts, strict=True)}


def _medians(made: Tensor, real: Tensor) -> dict[str, float]:
    return {"made": float(made.median()), "held_out": float(real.median())}


def _variety(images: Tensor) -> float | None:
    """The median distance of a face to the nearest other one by appearance; near 0 for a collapsed generator."""
    if len(images) < 2:
        return None
    rows = appearance(images)
    distances = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    return float(distances.min(1).values.median())


def _as_face_set(images: Tensor, like: FaceSet) -> FaceSet:
    """A face set of images, so that they are classified like real faces. Its other columns have no meaning."""
    return replace(like.select(torch.zeros(len(images), dtype=torch.int64)), images=images)
