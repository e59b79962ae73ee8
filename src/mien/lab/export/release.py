"""Export of a finished run to a model folder: ONNX files of the contract, metrics, card and licence."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch

from mien._errors import DataError, ModelError
from mien._framing import FER2013
from mien._metrics import HEADLINE
from mien.bundled import BUNDLED
from mien.infer import PRECISIONS, Classifier
from mien.lab.data import FaceSet, Split, with_classes
from mien.lab.data.selection import training_rows
from mien.lab.export.calibrate import Calibration, fit_temperature, fit_vector
from mien.lab.export.card import additional_metrics, card_json, card_markdown, describe_training_data, headline_split
from mien.lab.export.onnx import (
    CALIBRATION_FACES,
    contract_metadata,
    export_fp32,
    export_int8,
    store_half,
    write_metadata,
)
from mien.lab.files import save_text
from mien.lab.inference import predict
from mien.lab.predictions import Predictions, predict_split, resize_faces
from mien.lab.provenance import commit
from mien.lab.train.run import Trained

# The text of Apache-2.0, shared with the embedded detector.
APACHE = BUNDLED / "blazeface-short-range" / "LICENSE"
# Largest loss of PublicTest accuracy by int8, in percentage points.
INT8_LOSS = 0.3


def export_model(
    trained: Trained, faces: FaceSet, folder: Path, *, final: bool = False, half: bool = False
) -> dict[str, Any]:
    """Export a finished run.

    Writes ``model.onnx`` (int8), ``model-fp32.onnx``, ``card.md``, ``card.json`` and ``LICENSE``. The calibration is
    fitted on PublicTest.

    Args:
        trained: The run, from ``load_final``.
        faces: The data set that the run was trained on.
        folder: Folder to write to; it is left as it was if the export fails.
        final: Whether to evaluate PrivateTest, too: once, when everything has been chosen.
        half: Whether to store the weights of the fp32 file in half precision.

    Returns:
        The content of ``card.json``.

    Raises:
        ModelError: If a file disagrees with the net, or int8 loses more than ``INT8_LOSS`` points on PublicTest.
        DataError: If the faces are not those of the run.

    Example:
        >>> export_model(load_final(Path("runs/conv4/seed-0")), faces, Path("conv4"))["ece"]  # doctest: +SKIP
        0.021
    """
    if trained.recipe.data.expand_first:
        raise ModelError(f"{trained.recipe.name}: has learned from test faces (data.expand_first); not exported")
    require_same_faces(trained, faces)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".release-", dir=folder) as draft:  # a failed export leaves the folder as it was
        card = _draft(trained, faces, Path(draft), final=final, half=half)
        for path in Path(draft).iterdir():
            path.replace(folder / path.name)
    return card


def _draft(trained: Trained, faces: FaceSet, folder: Path, *, final: bool, half: bool) -> dict[str, Any]:
    """Export, evaluate and describe in ``folder``."""
    calibration = calibrate(trained, faces)
    files = {precision: folder / name for precision, name in PRECISIONS.items()}
    export_files(trained, faces, files, calibration)
    if half:
        store_half(files["fp32"])
    predictions = predict_files(trained, faces, files, [Split.PUBLIC_TEST])
    metrics = compute_split_metrics(predictions)
    loss = int8_loss(metrics)
    if loss > INT8_LOSS:
        name = trained.recipe.name
        raise ModelError(f"{name}: int8 loses {loss:.2f} points on PublicTest, more than {INT8_LOSS}; not exported")
    if final:
        last = predict_files(trained, faces, files, [Split.PRIVATE_TEST])
        predictions, metrics = predictions | last, metrics | compute_split_metrics(last)
    learned = describe_training_data(trained.recipe, faces)
    card = card_json(trained, metrics, learned, calibration=calibration, exported_at=commit())
    card["additional"] = measure_additional(trained, predictions, faces, files["int8"])
    _write(trained, card, files, folder)
    return card


def measure_additional(
    trained: Trained, predictions: dict[str, dict[str, Predictions]], faces: FaceSet, path: Path
) -> dict[str, dict[str, Any]]:
    """Measure what ``additional_metrics`` returns for the int8 file, by split."""
    classifier, classes = Classifier(path), trained.recipe.data.classes
    return {
        split: additional_metrics(classifier, by["int8"], faces, classes, Split(f"{split.capitalize()}Test"))
        for split, by in predictions.items()
    }


def require_same_faces(trained: Trained, faces: FaceSet) -> None:
    """Check that faces are those of a run.

    Args:
        trained: The run.
        faces: The data set.

    Raises:
        DataError: If they are other faces.
    """
    ours = trained.provenance.get("data_sha256", faces.sha256)
    if ours != faces.sha256:
        raise DataError(
            f"{faces.source}: holds other faces (sha256 {faces.sha256[:12]}...) than {trained.recipe.name} was trained "
            f"on ({ours[:12]}...); use those"
        )


def calibrate(trained: Trained, faces: FaceSet) -> Calibration:
    """Fit the calibration of the recipe of a run on PublicTest."""
    fit = fit_vector if trained.recipe.calibration == "vector" else fit_temperature
    public = with_classes(faces.split(Split.PUBLIC_TEST), trained.recipe.data.classes)
    return fit(predict(trained.net, public.images, trained.recipe.data.size), public.labels)


def predict_files(
    trained: Trained, faces: FaceSet, files: dict[str, Path], splits: Sequence[Split]
) -> dict[str, dict[str, Predictions]]:
    """Predict splits with exported files; returns predictions by split (``public``, ``private``) and precision."""
    opened = {precision: Classifier(path) for precision, path in files.items()}
    classes = trained.recipe.data.classes
    return {
        split.removesuffix("Test").lower(): {p: predict_split(c, faces, classes, split) for p, c in opened.items()}
        for split in splits
    }


def compute_split_metrics(predictions: dict[str, dict[str, Predictions]]) -> dict[str, dict[str, Any]]:
    """Compute metrics by split, precision and part of the rows (``all``, ``clean``)."""
    return {split: {p: a.metrics() for p, a in by_precision.items()} for split, by_precision in predictions.items()}


def int8_loss(metrics: dict[str, dict[str, Any]]) -> float:
    """Return the loss of PublicTest accuracy by int8, in percentage points."""
    accuracy = {precision: found["all"]["accuracy"] for precision, found in metrics["public"].items()}
    return float(100 * (accuracy["fp32"] - accuracy["int8"]))


def export_files(trained: Trained, faces: FaceSet, files: dict[str, Path], calibration: Calibration) -> None:
    """Write the fp32 and, where ``files`` has one, the int8 file; int8 ranges come from training faces."""
    recipe = trained.recipe
    provenance = {"commit": trained.provenance["commit"], "data_sha256": trained.provenance["data_sha256"]}
    metadata = contract_metadata(recipe.name, trained.emotions, recipe.data.size, FER2013, recipe.name, provenance)
    export_fp32(trained.net, files["fp32"], size=recipe.data.size, calibration=calibration, metadata=metadata)
    if "int8" not in files:
        return
    training = training_rows(faces, recipe)
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
    chosen = training.select(order[:CALIBRATION_FACES])
    export_int8(files["fp32"], files["int8"], resize_faces(chosen, recipe.data.size))


def _write(trained: Trained, card: dict[str, Any], files: dict[str, Path], folder: Path) -> None:
    """Write the card, and its headline metrics into the metadata of the files."""
    split = headline_split(card["metrics"])
    for precision, path in files.items():
        model = onnx.load(path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        metrics = card["metrics"][split][precision]["all"]
        headline = {"split": f"{split.capitalize()}Test"} | {key: round(metrics[key], 4) for key in HEADLINE}
        write_metadata(model, path, metadata | {"accuracy": json.dumps(headline)})
    save_text(folder / "card.json", json.dumps(card, indent=1) + "\n")
    save_text(folder / "card.md", card_markdown(trained.recipe, card))
    shutil.copyfile(APACHE, folder / "LICENSE")
