"""Recorded results of a finished run: metrics, predictions, log, recipe, curves and a small model.

No file contains a face of a data set.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch.nn.functional import softmax

from mien._format import percent
from mien._output import MARK
from mien.infer import PRECISIONS
from mien.lab.complexity import count_macs, count_parameters
from mien.lab.data import FaceSet, Split
from mien.lab.data.selection import validation_rows
from mien.lab.export.release import (
    INT8_LOSS,
    calibrate,
    compute_split_metrics,
    export_files,
    int8_loss,
    predict_files,
    require_same_faces,
)
from mien.lab.files import require_writable, save_arrays, save_bytes, save_text
from mien.lab.html.figures import plot_confusion
from mien.lab.inference import predict
from mien.lab.metrics import compute_metrics
from mien.lab.provenance import commit
from mien.lab.recipe import dump
from mien.lab.train.curves import draw_curves
from mien.lab.train.run import Trained, load_final, with_calibration

_FILES = ("model.onnx", "predictions.npz", "metrics.json", "recipe.json", "log.jsonl", "curves.png", "confusion.svg")
LARGEST_MODEL = 3 * 2**20  # bytes of the largest int8 file that is recorded


def record_run(
    run: Path, faces: FaceSet, folder: Path, *, final: bool = False, calibration: str = "", int8: bool = True
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

    Returns:
        The content of ``metrics.json``.

    Raises:
        DataError: If the run is not finished, or the faces are not those of the run.
        ModelError: If the net cannot be exported.

    Example:
        >>> record_run(Path("runs/conv4/seed-0"), faces, Path("results/conv4/seed-0"))  # doctest: +SKIP
    """
    require_writable(folder, names=_FILES)
    trained = with_calibration(load_final(run), calibration)
    require_same_faces(trained, faces)
    if trained.recipe.data.expand_first:
        rows = validation_rows(faces, trained.recipe)
        probs = softmax(predict(trained.net, rows.images, trained.recipe.data.size), dim=1)
        found = compute_metrics(probs.numpy(), rows.labels.numpy(), rows.emotions)
        return _write(run, trained, folder, _content(trained, {"leaky": {"fp32": {"all": found}}}))
    scaling = calibrate(trained, faces)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".record-", dir=folder) as draft:
        files = {precision: Path(draft) / name for precision, name in PRECISIONS.items() if int8 or precision != "int8"}
        export_files(trained, faces, files, scaling)
        splits = [Split.PUBLIC_TEST, *([Split.PRIVATE_TEST] if final else [])]
        predictions = predict_files(trained, faces, files, splits)
        metrics = compute_split_metrics(predictions)
        (folder / "model.onnx").unlink(missing_ok=True)  # of an earlier record
        if int8 and int8_loss(metrics) <= INT8_LOSS and files["int8"].stat().st_size <= LARGEST_MODEL:
            files["int8"].replace(folder / "model.onnx")
    # Rows and probabilities of the fp32 file, for paired tests.
    arrays: dict[str, Any] = {f"{split}_rows": by["fp32"].rows for split, by in predictions.items()}
    arrays |= {f"{split}_probs": by["fp32"].probs.astype(np.float32) for split, by in predictions.items()}
    save_arrays(folder / "predictions.npz", arrays)
    content = _content(trained, metrics) | {"calibration": asdict(scaling)}
    content |= {"evaluation_sha256": faces.evaluation_sha256} if faces.evaluation_sha256 else {}
    return _write(run, trained, folder, content)


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


def _write(run: Path, trained: Trained, folder: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    save_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    save_text(folder / "recipe.json", json.dumps(dump(trained.recipe), indent=1) + "\n")
    save_bytes(folder / "log.jsonl", (run / "log.jsonl").read_bytes())
    draw_curves(trained.recipe, trained.history, folder / "curves.png")
    save_text(folder / "confusion.svg", confusion_svg(metrics))
    return metrics


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
