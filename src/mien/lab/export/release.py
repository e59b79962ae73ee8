"""A finished run becomes a model folder: files of the contract, figures, card and licence."""

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
from mien.bundled import BUNDLED
from mien.infer import PRECISIONS, Classifier
from mien.lab.data import FaceSet, Split, with_classes
from mien.lab.data.selection import training_rows
from mien.lab.export.calibrate import Calibration, fit_temperature, fit_vector
from mien.lab.export.card import beside, card_json, card_markdown, headline_split, learned_from
from mien.lab.export.onnx import CALIBRATION_FACES, describe, export_fp32, export_int8, store_half, write_metadata
from mien.lab.files import save_text
from mien.lab.inference import predict
from mien.lab.predictions import Predictions, predict_split, resize_faces
from mien.lab.provenance import commit
from mien.lab.train.run import Trained

# The text of Apache-2.0, which the embedded detector carries, too.
APACHE = BUNDLED / "blazeface-short-range" / "LICENSE"
# Points of PublicTest accuracy that int8 may cost.
INT8_LOSS = 0.3


def export_model(
    trained: Trained, faces: FaceSet, folder: Path, *, final: bool = False, half: bool = False
) -> dict[str, Any]:
    """Export a finished run to ``folder`` and return the figures of its card.

    Writes ``model.onnx`` (int8), ``model-fp32.onnx``, ``card.md``, ``card.json`` and ``LICENSE``. The calibration is
    fitted on PublicTest. PrivateTest is judged only for the ``final`` model, after everything has been chosen. ``half``
    stores the weights of the fp32 file in half precision, before it is judged. Raises ``ModelError`` when a file
    disagrees with the trained net or int8 loses more than ``INT8_LOSS`` points on PublicTest, ``DataError`` for other
    faces than the run's.
    """
    if trained.recipe.data.expand_first:
        raise ModelError(f"{trained.recipe.name}: has learned from test faces (data.expand_first); not exported")
    require_same_faces(trained, faces)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".release-", dir=folder) as draft:  # a refused export leaves what was there
        card = _draft(trained, faces, Path(draft), final=final, half=half)
        for path in Path(draft).iterdir():
            path.replace(folder / path.name)
    return card


def _draft(trained: Trained, faces: FaceSet, folder: Path, *, final: bool, half: bool) -> dict[str, Any]:
    """Export, judge and describe in ``folder``."""
    calibration = calibrate(trained, faces)
    files = {precision: folder / name for precision, name in PRECISIONS.items()}
    export_files(trained, faces, files, calibration)
    if half:
        store_half(files["fp32"])
    answers = predict_files(trained, faces, files, [Split.PUBLIC_TEST])
    judged = compute_split_metrics(answers)
    loss = int8_loss(judged)
    if loss > INT8_LOSS:
        name = trained.recipe.name
        raise ModelError(f"{name}: int8 loses {loss:.2f} points on PublicTest, more than {INT8_LOSS}; not exported")
    if final:
        last = predict_files(trained, faces, files, [Split.PRIVATE_TEST])
        answers, judged = answers | last, judged | compute_split_metrics(last)
    learned = learned_from(trained.recipe, faces)
    card = card_json(trained, judged, learned, calibration=calibration, exported_at=commit())
    card["additional"] = measure_additional(trained, answers, faces, files["int8"])
    _write(trained, card, files, folder)
    return card


def measure_additional(
    trained: Trained, answers: dict[str, dict[str, Predictions]], faces: FaceSet, path: Path
) -> dict[str, dict[str, Any]]:
    """What the int8 file's ``answers`` are worth beside their figures, by split."""
    classifier, classes = Classifier(path), trained.recipe.data.classes
    return {
        split: beside(classifier, by["int8"], faces, classes, Split(f"{split.capitalize()}Test"))
        for split, by in answers.items()
    }


def require_same_faces(trained: Trained, faces: FaceSet) -> None:
    """Raises ``DataError`` for other faces than the run's: of one's own, those that validate may be others now."""
    ours = trained.provenance.get("data_sha256", faces.sha256)
    if ours != faces.sha256:
        raise DataError(
            f"{faces.source}: holds other faces (sha256 {faces.sha256[:12]}...) than {trained.recipe.name} was trained "
            f"on ({ours[:12]}...); name those with --data"
        )


def calibrate(trained: Trained, faces: FaceSet) -> Calibration:
    """The calibration that the run's recipe asks for, fitted on PublicTest."""
    fit = fit_vector if trained.recipe.calibration == "vector" else fit_temperature
    public = with_classes(faces.split(Split.PUBLIC_TEST), trained.recipe.data.classes)
    return fit(predict(trained.net, public.images, trained.recipe.data.size), public.labels)


def predict_files(
    trained: Trained, faces: FaceSet, files: dict[str, Path], splits: Sequence[Split]
) -> dict[str, dict[str, Predictions]]:
    """Predictions of exported ``files``: by split (``public``, ``private``) and precision."""
    opened = {precision: Classifier(path) for precision, path in files.items()}
    classes = trained.recipe.data.classes
    return {
        split.removesuffix("Test").lower(): {p: predict_split(c, faces, classes, split) for p, c in opened.items()}
        for split in splits
    }


def compute_split_metrics(answers: dict[str, dict[str, Predictions]]) -> dict[str, dict[str, Any]]:
    """Figures of ``answers``: by split, precision and part of the rows."""
    return {split: {p: a.metrics() for p, a in by_precision.items()} for split, by_precision in answers.items()}


def int8_loss(judged: dict[str, dict[str, Any]]) -> float:
    """Points of PublicTest accuracy that int8 costs."""
    accuracy = {precision: figures["all"]["accuracy"] for precision, figures in judged["public"].items()}
    return float(100 * (accuracy["fp32"] - accuracy["int8"]))


def export_files(trained: Trained, faces: FaceSet, files: dict[str, Path], calibration: Calibration) -> None:
    """Write the fp32 and, where ``files`` has one, the int8 file of the contract, its ranges from training faces."""
    recipe = trained.recipe
    provenance = {"commit": trained.provenance["commit"], "data_sha256": trained.provenance["data_sha256"]}
    metadata = describe(recipe.name, trained.emotions, recipe.data.size, FER2013, recipe.name, provenance)
    export_fp32(trained.net, files["fp32"], size=recipe.data.size, calibration=calibration, metadata=metadata)
    if "int8" not in files:
        return
    training = training_rows(faces, recipe)
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
    chosen = training.select(order[:CALIBRATION_FACES])
    export_int8(files["fp32"], files["int8"], resize_faces(chosen, recipe.data.size))


def _write(trained: Trained, card: dict[str, Any], files: dict[str, Path], folder: Path) -> None:
    """The card, and its headline figures into the files' own metadata."""
    split = headline_split(card["metrics"])
    for precision, path in files.items():
        model = onnx.load(path)
        said = {entry.key: entry.value for entry in model.metadata_props}
        figures = card["metrics"][split][precision]["all"]
        short = {
            key: round(figures[key], 4) for key in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece")
        }
        write_metadata(model, path, said | {"accuracy": json.dumps({"split": f"{split.capitalize()}Test", **short})})
    save_text(folder / "card.json", json.dumps(card, indent=1) + "\n")
    save_text(folder / "card.md", card_markdown(trained.recipe, card))
    shutil.copyfile(APACHE, folder / "LICENSE")
