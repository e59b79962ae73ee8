"""How steady a model is: its answers for crops that are moved by as little as a detector's box moves."""

import math
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from mien._format import milliseconds, percent, percent_interval
from mien.lab.augment import JITTER
from mien.lab.augment.geometry import draw_affine, resample
from mien.lab.data import FaceSet
from mien.lab.metrics import bootstrap_interval
from mien.lab.models import Model, files_of_model
from mien.lab.predictions import (
    Selection,
    compare_with_votes,
    measure_by_size,
    predict_selection,
    resize_faces,
)
from mien.lab.significance import wilson_interval

DRAWS = 10  # moves of every face
STEADY_FACES = 800  # faces that are moved
_STEP = 0.05  # pixels of the face: a shift too small to be seen
_PERCENTILE = 99
_TIMED = 100  # runs of one crop


class Steadiness(TypedDict):
    """The steadiness of one model. Intervals are of 95 % and over faces.

    Attributes:
        n: Number of faces of the split, of which ``accuracy``, ``sizes`` and ``agreement`` are.
        accuracy: Its accuracy, one view of each face.
        accuracy_interval: Lower and upper edge.
        moved: Number of faces that were moved, ``draws`` times each.
        draws: Moves of every face: up to 4 % of the side, 4 % of the size and 3 degrees.
        flip_rate: Share of the moved faces whose most probable emotion differs from that of the face as it is.
        flip_interval: Lower and upper edge.
        total_variation: Mean distance of the probabilities of a moved face to those of the face as it is, 0..1.
        total_variation_interval: Lower and upper edge.
        step_change: 99th percentile of the largest change of a probability when the face is shifted by 0.05 pixels.
        sizes: By side of the faces in pixels, ``accuracy``, ``ece`` and ``unsure_below``, see ``measure_by_size``.
        agreement: Agreement with the FER+ majority; ``None`` for a set without votes.
        ms: Fastest time of one crop in milliseconds, on one thread: that which other programs disturbed least.
        bytes: Size of the model's file.
    """

    n: int
    accuracy: float
    accuracy_interval: list[float]
    moved: int
    draws: int
    flip_rate: float
    flip_interval: list[float]
    total_variation: float
    total_variation_interval: list[float]
    step_change: float
    sizes: dict[str, dict[str, float]]
    agreement: float | None
    ms: float
    bytes: int


def measure_steadiness(
    model: Model, whole: Selection, moved: FaceSet, part: FaceSet, *, seed: int = 0, draws: int = DRAWS
) -> Steadiness:
    """Measure how steady a model is.

    Args:
        model: The model.
        whole: What ``select_rows`` returned for its classes.
        moved: The faces that are moved. Every model gets the same moves of the same faces.
        part: The whole split, with its votes if it has any.
        seed: Seed of the moves, at least 0.
        draws: Moves of every face, at least 1.

    Returns:
        The measurements.
    """
    predictions = predict_selection(model, whole)
    n, right = len(predictions.labels), int((predictions.probs.argmax(1) == predictions.labels).sum())
    still = model(resize_faces(moved, model.size))[0]
    generator, size = torch.Generator().manual_seed(seed), int(moved.images.shape[-1])
    flips, distances, changes = [], [], []
    for _ in range(draws):
        probs = _predict_moved(model, moved, draw_affine(len(moved), JITTER, generator))
        flips.append(probs.argmax(1) != still.argmax(1))
        distances.append(np.abs(probs - still).sum(1) / 2)
        probs = _predict_moved(model, moved, _shifts(len(moved), 2 * _STEP / size, generator))
        changes.append(np.abs(probs - still).max(1))
    flipped, distance = np.mean(flips, axis=0), np.mean(distances, axis=0)
    votes = compare_with_votes(predictions, whole, part)
    face = resize_faces(moved.select(torch.arange(1)), model.size)
    return {
        "n": n,
        "accuracy": right / n,
        "accuracy_interval": [float(edge) for edge in wilson_interval(right, n)],
        "moved": len(moved),
        "draws": draws,
        "flip_rate": float(flipped.mean()),
        "flip_interval": list(bootstrap_interval(flipped, np.mean)),
        "total_variation": float(distance.mean()),
        "total_variation_interval": list(bootstrap_interval(distance, np.mean)),
        "step_change": float(np.percentile(changes, _PERCENTILE)),
        "sizes": measure_by_size(model, whole),
        "agreement": votes["majority"]["agreement"] if votes else None,
        "ms": 1000 * min(timeit.repeat(lambda: model(face), number=1, repeat=_TIMED)),
        "bytes": sum(path.stat().st_size for path in files_of_model(model)),
    }


def _predict_moved(model: Model, faces: FaceSet, maps: Tensor) -> NDArray[np.float32]:
    """Probabilities of faces after affine maps. Bicubic, because bilinear resampling would also blur them."""
    images = resample(faces.images[:, None].float() / 255, maps, "border", "bicubic")
    return model(resize_faces(replace(faces, images=(255 * images[:, 0]).round().to(torch.uint8)), model.size))[0]


def _shifts(n: int, length: float, generator: Generator) -> Tensor:
    """Affine maps that shift by ``length`` (2 is the whole side) in a random direction."""
    angle = torch.rand(n, generator=generator) * 2 * math.pi
    shift = length * torch.stack([angle.cos(), angle.sin()], dim=1)
    return torch.cat([torch.eye(2).expand(n, 2, 2), shift[:, :, None]], dim=2)


def steadiness_rows(models: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the table of steadiness: one row for each measurement, one column for each model.

    Args:
        models: The results of the models, with the key ``steadiness``.

    Returns:
        The rows; the first has the names of the models.
    """
    columns = [_cells(model["steadiness"], model["corruption_error"].get("mce")) for model in models]
    names = dict.fromkeys(name for column in columns for name in column)
    return [
        ("", *(str(model["name"]) for model in models)),
        *((name, *(column.get(name, "-") for column in columns)) for name in names),
    ]


def _cells(found: Steadiness, mce: Mapping[str, Any] | None) -> dict[str, str]:
    sizes = list(found["sizes"].items())[:-1]  # the last are the faces as they are
    agreement = found["agreement"]
    return {
        "faces; of these moved": f"{found['n']:,}; {found['moved']:,}, {found['draws']} times each",
        "accuracy": f"{percent(found['accuracy'])} ({percent_interval(found['accuracy_interval'])})",
        "top emotion changed by jitter": f"{percent(found['flip_rate'])} ({percent_interval(found['flip_interval'])})",
        "mean total variation under that jitter": f"{found['total_variation']:.3f}",
        f"largest change by a shift of {_STEP} px, {_PERCENTILE}th percentile": f"{found['step_change']:.3f}",
        **{f"calibration error at {side} px": f"{each['ece']:.3f}" for side, each in sizes},
        **{f"accuracy at {side} px": percent(each["accuracy"]) for side, each in sizes},
        "agreement with the FER+ majority": "-" if agreement is None else percent(agreement),
        "mean corruption error": percent(mce["value"]) if mce else "-",
        "one crop": milliseconds(found["ms"]),
        "size of the file": f"{found['bytes'] / 1e6:.2f} MB",
    }
