"""Recorded results of a finished run: metrics, predictions, log, recipe, curves and a small model.

No file contains a face of a data set.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.functional import softmax

from mien._errors import DataError, MienError, OutputError
from mien._format import percent
from mien._output import MARK
from mien.infer import PRECISIONS
from mien.lab.data import FaceSet, Split, with_classes
from mien.lab.data.duplicates import same_pixels
from mien.lab.data.selection import validation_rows
from mien.lab.export.release import (
    INT8_LOSS,
    answers_of_run,
    calibrate,
    compute_split_metrics,
    export_files,
    int8_loss,
    predict_files,
    require_same_faces,
    split_accuracy,
)
from mien.lab.files import file_set, load_json, output_folder, save_arrays, save_json, save_text
from mien.lab.html import plot_confusion
from mien.lab.inference import current_runtime, predict
from mien.lab.ledger import Ledger, is_private_test, recorded_answers
from mien.lab.metrics import calibration_metrics, compute_metrics
from mien.lab.nets import count_macs, count_parameters
from mien.lab.predictions import Predictions
from mien.lab.provenance import commit, require_commit
from mien.lab.recipe import dump, fold_recipes, parse
from mien.lab.train.curves import draw_curves
from mien.lab.train.logging import read_log, write_log
from mien.lab.train.run import Trained, is_same_training, joined_provenance, load_final, with_calibration

_FILES = ("model.onnx", "predictions.npz", "metrics.json", "recipe.json", "log.jsonl", "curves.png", "confusion.svg")
_FOLD_FILES = ("metrics.json", "recipe.json", "folds.npz")
LARGEST_MODEL = 3 * 2**20  # bytes of the largest int8 file that is recorded


def record_run(
    run: Path,
    faces: FaceSet,
    folder: Path,
    *,
    final: bool = False,
    calibration: str = "",
    int8: bool = True,
    force: bool = False,
    ledger: Ledger | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run and record the results.

    A recipe with ``data.expand_first`` trains on faces of every split. Its run is evaluated only on its validation
    faces, as ``leaky``, without model files or predictions.

    Args:
        run: Folder of the run.
        faces: The data set that the run was trained on.
        folder: Folder to write to, usually ``results/RECIPE/seed-SEED``.
        final: Whether to evaluate PrivateTest, too: once, when everything has been chosen.
        calibration: ``"vector"`` or ``"temperature"``; empty for that of the recipe.
        int8: Whether to quantise and evaluate the model in int8, too. The file is recorded if it is small and as
            accurate.
        force: Whether to replace results that the folder holds.
        ledger: Where a look at PrivateTest is written; ``None``: in ``default_ledger()``.

    Returns:
        The content of ``metrics.json``.

    Raises:
        DataError: If the run is not finished or is one of several folds with PublicTest, the faces are not those of the
            run, PrivateTest was looked at before for another run of its family, or the code differs from its commit.
        ModelError: If the net cannot be exported.
        OutputError: If the folder holds results, cannot be written, or another process writes to it.

    Example:
        >>> record_run(Path("runs/conv4/seed-0"), faces, Path("results/conv4/seed-0"))  # doctest: +SKIP
    """
    trained = with_calibration(load_final(run, current_runtime().torch_device()), calibration)
    if trained.recipe.data.leak == "data.fold_public":
        raise DataError(f"{run}: has learned from PublicTest (data.fold_public); record the folder of all its folds")
    require_same_faces(trained, faces)
    ledger, answers = ledger or Ledger(), answers_of_run(trained)
    is_counted = final and not trained.recipe.data.expand_first and is_private_test(faces, Split.PRIVATE_TEST)
    if is_counted:
        require_commit()
        ledger.require([answers])
    with output_folder(folder, _FILES), file_set(folder, optional=PRECISIONS["int8"]) as draft:
        if not force:
            _require_free(folder, trained, faces)
        metrics = _evaluate(trained, faces, draft, final=final, int8=int8)
        save_json(draft / "metrics.json", metrics)
        save_json(draft / "recipe.json", dump(trained.recipe))
        write_log(draft, read_log(run))
        draw_curves(trained.recipe, trained.history, draft / "curves.png")
        if is_counted:
            digests = (*answers.digests, *recorded_answers(draft).digests)
            found = split_accuracy(metrics["metrics"]["private"])
            ledger.add([replace(answers, digests=digests, accuracy=found)], faces.sha256)
        save_text(draft / "confusion.svg", confusion_svg(metrics))
    return metrics


def record_folds(run: Path, faces: FaceSet, folder: Path, *, force: bool = False) -> dict[str, Any]:
    """Evaluate a cross-validation and record the result: every face is predicted by the net of its fold.

    The probabilities are those of the nets, not calibrated. PrivateTest is not read.

    Args:
        run: Folder of the runs, ``fold-0`` and so on.
        faces: The data set that they were trained on.
        folder: Folder to write ``metrics.json``, ``folds.npz`` and ``recipe.json`` to.
        force: Whether to replace results that the folder holds.

    Returns:
        The content of ``metrics.json``.

    Raises:
        DataError: If a fold is not finished or is one of another training, or the faces are not those of the runs.
        OutputError: If the folder holds results, cannot be written, or another process writes to it.

    Example:
        >>> record_folds(Path("runs/conv4/folds-seed-0"), faces, Path("results/conv4/folds-seed-0"))  # doctest: +SKIP
    """
    at = current_runtime().torch_device()
    first = load_final(run / "fold-0", at)
    trained = [first, *(load_final(run / f"fold-{fold}", at) for fold in range(1, first.recipe.data.folds))]
    for each, recipe in zip(trained, fold_recipes(first.recipe, len(trained), public=True), strict=True):
        require_same_faces(each, faces)
        if not is_same_training(dump(each.recipe), recipe):
            raise DataError(f"{run}: fold {recipe.data.fold} is of another training; train all folds with one command")
    with output_folder(folder, _FOLD_FILES), file_set(folder) as draft:
        if not force:
            _require_free(folder, first, faces)
        found = [_predict_fold(each, faces) for each in trained]
        order = np.argsort(rows := np.concatenate([each.rows for each in found]))
        probs, labels = (np.concatenate([getattr(each, key) for each in found])[order] for key in ("probs", "labels"))
        clean = np.isin(rows[order], faces.rows[torch.from_numpy(np.unique(same_pixels(faces)))].numpy())
        predictions = Predictions(rows[order], probs, labels, clean, first.emotions)
        metrics = _content(first, {"folds": {"fp32": predictions.metrics()}})
        metrics |= joined_provenance(each.provenance for each in trained) | {"folds": [each.accuracy for each in found]}
        metrics |= {"seconds": sum(round(sum(e.seconds for e in each.history)) for each in trained)}
        save_json(draft / "metrics.json", metrics)
        save_json(draft / "recipe.json", dump(first.recipe))
        save_arrays(draft / "folds.npz", {"rows": predictions.rows, "probs": predictions.probs})
    return metrics


def _predict_fold(trained: Trained, faces: FaceSet) -> Predictions:
    unseen = validation_rows(faces, trained.recipe)
    probs = softmax(predict(trained.net, unseen.images, trained.recipe.data.size), dim=1).numpy()
    rows, labels = unseen.rows.numpy(), unseen.labels.numpy()
    return Predictions(rows, probs, labels, np.ones(len(rows), np.bool_), trained.emotions)


def _require_free(folder: Path, trained: Trained, faces: FaceSet) -> None:
    """Raise ``OutputError`` if a folder holds the results of a run; the message says of which."""
    if not (folder / "metrics.json").exists():
        return
    try:
        recipe = dump(parse(load_json(folder / "recipe.json"), where=str(folder)))
        changed = [key for key, value in dump(trained.recipe).items() if recipe[key] != value]
        if load_json(folder / "metrics.json").get("data_sha256") != faces.sha256:
            changed.append("data set")
    except (OSError, ValueError, AttributeError, MienError):
        changed = ["files, damaged or of another version"]
    what = f"the results of another run (other {', '.join(changed)})" if changed else "results of such a run already"
    raise OutputError(f"{folder}: holds {what}; name another folder, or say that they are to be replaced")


def _evaluate(trained: Trained, faces: FaceSet, draft: Path, *, final: bool, int8: bool) -> dict[str, Any]:
    """Evaluate a run; write its predictions and its small int8 file to ``draft``. Returns ``metrics.json``."""
    if trained.recipe.data.expand_first:
        rows = validation_rows(faces, trained.recipe)
        probs = softmax(predict(trained.net, rows.images, trained.recipe.data.size), dim=1)
        found = compute_metrics(probs.numpy(), rows.labels.numpy(), rows.emotions)
        return _content(trained, {"leaky": {"fp32": {"all": found}}})
    scaling = calibrate(trained, faces)
    files = {precision: draft / name for precision, name in PRECISIONS.items() if int8 or precision != "int8"}
    export_files(trained, faces, files, scaling)
    splits = [Split.PUBLIC_TEST, *([Split.PRIVATE_TEST] if final else [])]
    predictions = predict_files(trained, faces, files, splits)
    metrics = compute_split_metrics(predictions)
    files["fp32"].unlink()
    if int8 and (int8_loss(metrics) > INT8_LOSS or files["int8"].stat().st_size > LARGEST_MODEL):
        files["int8"].unlink()
    # Rows and probabilities of the fp32 file, for paired tests.
    arrays: dict[str, Any] = {f"{split}_rows": by["fp32"].rows for split, by in predictions.items()}
    arrays |= {f"{split}_probs": by["fp32"].probs.astype(np.float32) for split, by in predictions.items()}
    save_arrays(draft / "predictions.npz", arrays)
    content = _content(trained, metrics) | {"calibration": asdict(scaling)}
    content["uncalibrated"] = _before_calibration(trained, faces, predictions)
    return content | ({"evaluation_sha256": faces.evaluation_sha256} if faces.evaluation_sha256 else {})


def _before_calibration(
    trained: Trained, faces: FaceSet, predictions: Mapping[str, Mapping[str, Predictions]]
) -> dict[str, dict[str, float]]:
    """Split -> log loss, Brier score and calibration error of the net without its calibration."""
    data, found = trained.recipe.data, {}
    for split, by_precision in predictions.items():
        part = with_classes(faces.split(Split(f"{split.capitalize()}Test")), data.classes)
        probs = softmax(predict(trained.net, part.images, data.size), dim=1).numpy()
        found[split] = calibration_metrics(probs, by_precision["fp32"].labels)
    return found


def confusion_svg(metrics: Mapping[str, Any]) -> str:
    """Draw the confusion matrix of the last evaluated split.

    Args:
        metrics: The content of ``metrics.json``.

    Returns:
        An SVG file.
    """
    split, by = list(metrics["metrics"].items())[-1]
    name = "leaky part" if split == "leaky" else f"{split.capitalize()}Test"
    found = by["fp32"]["all"]
    plot = plot_confusion(found, f"{metrics['recipe']}, {name}: {percent(found['accuracy'])}")
    return f"{plot}<!-- {MARK} -->\n"


def _content(trained: Trained, metrics: dict[str, Any]) -> dict[str, Any]:
    recipe, history = trained.recipe, trained.history
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "claim": asdict(recipe.claim),
        "metrics": metrics,
        "parameters": count_parameters(trained.net),
        "macs": count_macs(trained.net, recipe.data.size),
        "size": recipe.data.size,
        "epochs": len(history),
        "seconds": round(sum(epoch.seconds for epoch in history)),
        "images_per_second": round(median(epoch.images_per_second for epoch in history)),
        **trained.provenance,
        "evaluated_at": commit(),
    }
