"""Explain a model on a data set: mean maps, attention by region, faithfulness and the randomisation test."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien._errors import DataError, MienError, checked
from mien._progress import Progress, no_progress
from mien._suggest import require_known
from mien.detect import Detector, open_detector
from mien.lab.data.datasets import as_in_training, chosen_split, load_test_set, read_split
from mien.lab.explain.attention import (
    REGIONS,
    Attention,
    FaceAlignment,
    align_faces,
    attention_by_emotion,
    evaluate_claims,
    identity_alignment,
    max_region_shares,
    measure_attention,
    region_masks,
    warp_to_framing,
)
from mien.lab.explain.faithfulness import BASELINES, faithfulness, randomisation_test
from mien.lab.explain.methods import FEATURES_LAYER, Explainer
from mien.lab.ledger import Ledger, is_private_test
from mien.lab.models import answers_of_model, open_model
from mien.lab.predictions import Selection, resize_faces, select_rows
from mien.lab.provenance import provenance

# Curves predict every face about eighty times, the randomisation test about eight times, so they use fewer faces.
_FACES, _CURVE_FACES, _RANDOMISATION_FACES = 600, 140, 70
# An aligned crop is enlarged to 192 pixels, and its face fills most of it.
_THRESHOLD, _MIN_FACE = 0.5, 80.0


@dataclass(frozen=True, eq=False)
class DatasetExplanation:
    """The explanation of a model on N faces of a data set.

    Attributes:
        metrics: Plain values for a JSON file, without faces.
        about: Facts about the model, term -> text.
        provenance: Command, commit, machine and versions.
        note: Remarks about how the data set was read; empty if there are none.
        explainer: The model and its method.
        crops: The faces, uint8 ``[N, S, S]``.
        maps: The map of each face's predicted class, float32 ``[N, h, w]``.
        probs: Probabilities, float32 ``[N, C]``.
        labels: True classes ``[N]``.
        targets: Predicted classes ``[N]``.
        attention: The attention of the aligned faces.
        mean_faces: Mean of the aligned faces of each predicted class, float32 ``[C, S, S]`` from 0 to 255; NaN for
            classes without faces.
    """

    metrics: Mapping[str, Any]
    about: Mapping[str, str]
    provenance: Mapping[str, str]
    note: str
    explainer: Explainer
    crops: NDArray[np.uint8]
    maps: NDArray[np.float32]
    probs: NDArray[np.float32]
    labels: NDArray[np.int64]
    targets: NDArray[np.int64]
    attention: Attention
    mean_faces: NDArray[np.float32]

    def to_dict(self) -> dict[str, Any]:
        """Return model, metrics and provenance as plain values for a JSON file, without faces."""
        return {"model": dict(self.about), **self.metrics, "provenance": dict(self.provenance)}


@checked
def explain_dataset(
    model: str,
    data: Path | None = None,
    *,
    split: str | None = None,
    method: str = "map",
    layer: str = FEATURES_LAYER,
    faces: int = _FACES,
    align: bool = True,
    baseline: str = "blur",
    labels: Mapping[str, str] | None = None,
    skip_unreadable: bool = False,
    precision: str = "int8",
    seed: int = 0,
    ledger: Ledger | None = None,
    progress: Progress = no_progress,
) -> DatasetExplanation:
    """Explain the predictions of a model on a data set. Every face is explained for its predicted class.

    Args:
        model: What ``open_model`` opens: a name, an ONNX file or a run folder.
        data: The data set; ``None`` for the one at ``$MIEN_DATA``.
        split: ``PublicTest``, ``PrivateTest``, ``Training`` or ``all``; ``None`` for PublicTest, or for all rows of a
            data set without splits.
        method: One of ``METHODS``.
        layer: Module of a run's net, as for ``saliency_maps``.
        faces: Largest number of faces, drawn evenly from the classes of the labels; 0: all.
        align: Whether to align faces by eyes, nose and mouth.
        baseline: What replaces removed pixels: one of ``BASELINES``.
        labels: Label of the data set -> name of an emotion, or ``""`` to exclude its faces.
        skip_unreadable: Whether images that cannot be read are left out and counted.
        precision: The file of an embedded model: ``int8`` or ``fp32``.
        seed: Seed of the drawn faces and of everything random.
        ledger: Where a look at PrivateTest is written; ``None``: in ``default_ledger()``.
        progress: Called with the stage, the number of parts done, and the number of parts.

    Returns:
        The explanation. ``write_explanation`` writes it as JSON and HTML.

    Raises:
        DataError: If the data set cannot be used, or PrivateTest was looked at before for another model of its family.
        MienError: If method, layer or baseline are unknown.
        ModelError: If the model cannot be opened, or has no maps.

    Example:
        >>> explanation = explain_dataset("mien-0", faces=100)  # doctest: +SKIP
        >>> explanation.metrics["attention"]["happy"]["regions"]["mouth"].keys()  # doctest: +SKIP
        dict_keys(['share', 'interval', 'chance', 'relative', 'relative_interval'])
    """
    wanted = read_split(split)
    opened = open_model(model, precision=precision)
    Explainer(opened, method, layer)  # checks before the faces are read
    require_known("baseline", baseline, BASELINES, MienError)
    loaded = load_test_set(data, opened.emotions, size=opened.size, labels=labels, skip_unreadable=skip_unreadable)
    loaded = as_in_training(loaded, [opened.about.get("data_sha256")])
    if opened.trained is not None:
        opened = open_model(model, faces=loaded)  # calibrated if it was trained on these faces
    selection = select_rows(loaded, opened.emotions, chosen_split(wanted, loaded))
    if is_private_test(loaded, selection.split):  # it says how many predictions are correct
        ledger, answers = ledger or Ledger(), [answers_of_model(opened, loaded)]
        ledger.require(answers)
        ledger.add(answers, loaded.sha256)
    return explain_faces(
        Explainer(opened, method, layer),
        selection,
        detector=open_detector(threshold=_THRESHOLD, min_face=_MIN_FACE) if align else None,
        faces=faces,
        baseline=baseline,
        seed=seed,
        progress=progress,
    )


def explain_faces(
    explainer: Explainer,
    selection: Selection,
    *,
    detector: Detector | None,
    faces: int = _FACES,
    curve_faces: int = _CURVE_FACES,
    randomisation_faces: int = _RANDOMISATION_FACES,
    baseline: str = "blur",
    seed: int = 0,
    progress: Progress = no_progress,
) -> DatasetExplanation:
    """Explain the predictions of an open model on selected faces.

    Args:
        explainer: The model and its method.
        selection: The faces.
        detector: Finds the key points by which faces are aligned; ``None`` for no alignment.
        faces: Largest number of faces, drawn evenly from the classes of the labels; 0: all.
        curve_faces: How many of them are used for deletion and insertion.
        randomisation_faces: How many of them are used for the randomisation test.
        baseline: What replaces removed pixels: one of ``BASELINES``.
        seed: Seed of everything random.
        progress: Called with the stage, the number of parts done, and the number of parts.

    Returns:
        The explanation.

    Raises:
        ModelError: If the model has no maps.
        DataError: If no face could be aligned.
    """
    rows = draw_evenly(selection.faces.labels.numpy(), faces, seed)
    labels = selection.faces.labels.numpy()[rows]
    crops = resize_faces(selection.faces.select(torch.from_numpy(rows)), explainer.model.size)
    probs = explainer.predict(crops, progress=progress)
    targets = probs.argmax(axis=1)
    maps = explainer.maps(crops, targets, progress=progress)
    alignment = align_faces(crops, detector, progress=progress) if detector else identity_alignment(len(crops))
    attention = measure_attention(maps, targets, alignment, crops.shape[-1])
    if not len(attention.maps):
        raise DataError(f"{selection.faces.source}: eyes, nose and mouth were found in no face; do not align the faces")
    emotions, side = explainer.model.emotions, crops.shape[-1]
    best_shares = max_region_shares((int(maps.shape[1]), int(maps.shape[2])), side)
    area = dict(zip(REGIONS, region_masks(side).mean(axis=(1, 2)).tolist(), strict=True))
    some = draw_evenly(labels, curve_faces, seed)
    curves = faithfulness(
        explainer.predict, crops[some], targets[some], maps[some], baseline=baseline, seed=seed, progress=progress
    )
    few = draw_evenly(labels, randomisation_faces, seed)
    metrics = {
        "method": explainer.method,
        "layer": explainer.layer,
        "map_size": list(maps.shape[1:]),
        "faces": _face_counts(explainer, selection, labels, targets, seed),
        "alignment": _alignment_counts(attention, alignment, aligned=detector is not None),
        "regions": {"area": area, "max_share": best_shares},
        "attention": attention_by_emotion(attention, (targets == labels)[attention.mask], emotions, seed=seed),
        "claims": evaluate_claims(attention, emotions, seed=seed),
        "faithfulness": curves,
        "randomisation": randomisation_test(explainer, crops[few], targets[few], seed=seed, progress=progress),
    }
    return DatasetExplanation(
        metrics=metrics,
        about={"model": explainer.model.name, **explainer.model.about},
        provenance=provenance(selection.faces.sha256, selection.faces.note),
        note=selection.faces.note or "",
        explainer=explainer,
        crops=crops,
        maps=maps,
        probs=probs,
        labels=labels,
        targets=targets,
        attention=attention,
        mean_faces=_mean_faces(crops, alignment, attention, len(emotions)),
    )


def draw_evenly(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Draw rows with as equal class counts as possible.

    Args:
        labels: Class of every row, ``[N]``.
        count: Number of rows to draw; all rows if there are fewer, or with 0.
        seed: Seed of the draw.

    Returns:
        Row numbers in ascending order.
    """
    generator = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    chosen: list[NDArray[np.int64]] = []
    left = min(count or len(labels), len(labels))
    for place, index in enumerate(np.argsort(sizes, kind="stable")):  # small classes first: larger ones fill up
        take = min(int(sizes[index]), left // (len(classes) - place))
        rows = np.flatnonzero(labels == classes[index])
        chosen.append(generator.permutation(rows)[:take])
        left -= take
    return np.sort(np.concatenate(chosen))


def _face_counts(
    explainer: Explainer, selection: Selection, labels: NDArray[np.int64], targets: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    emotions = explainer.model.emotions
    return {
        "split": selection.split,
        "protocol": selection.protocol,
        "total": selection.total,
        "left_out": dict(selection.account),
        "explained": len(labels),
        "drawn": "evenly from the classes of the labels" if len(labels) < len(selection.faces) else "all",
        "seed": seed,
        "by_label": {str(e): int((labels == i).sum()) for i, e in enumerate(emotions)},
        "by_prediction": {str(e): int((targets == i).sum()) for i, e in enumerate(emotions)},
        "correct": int((labels == targets).sum()),
    }


def _alignment_counts(attention: Attention, alignment: FaceAlignment, *, aligned: bool) -> dict[str, Any]:
    found = int(alignment.found.sum())
    return {
        "how": "affine map of eyes, nose and mouth to the framing of FER-2013" if aligned else "none",
        "aligned": found,
        "key_points_not_found": len(alignment.found) - found,
        "map_without_evidence": found - len(attention.maps),
    }


def _mean_faces(
    crops: NDArray[np.uint8], alignment: FaceAlignment, attention: Attention, classes: int
) -> NDArray[np.float32]:
    aligned = warp_to_framing(crops[attention.mask], alignment.affine[attention.mask])
    means = np.full((classes, *aligned.shape[1:]), np.nan, np.float32)
    for index in np.unique(attention.targets):
        means[index] = aligned[attention.targets == index].mean(axis=0)
    return means
