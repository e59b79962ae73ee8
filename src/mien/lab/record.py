"""The evidence of a finished run, as it stands in results/: figures, answers, log, recipe, curves, small model.

What is written here holds no face of any data set.
"""

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch.nn.functional import softmax

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
from mien.lab.files import save_bytes, save_text
from mien.lab.html.figures import plot_confusion
from mien.lab.inference import predict
from mien.lab.metrics import compute_metrics
from mien.lab.predictions import Predictions
from mien.lab.provenance import commit
from mien.lab.recipe import dump
from mien.lab.train.curves import draw_curves
from mien.lab.train.run import Trained, load_final, recalibrated

# Bytes up to which the int8 file of a run is kept beside its figures.
KEPT_MODEL = 3 * 2**20


def record(
    run: Path, faces: FaceSet, folder: Path, *, final: bool = False, calibration: str = "", int8: bool = True
) -> dict[str, Any]:
    """Judge the finished run in ``run`` and write its evidence to ``folder``; returns what ``metrics.json`` says.

    PublicTest is judged always, PrivateTest only where ``final`` says that everything has been chosen. ``model.onnx``
    is the int8 file where it is small and loses little; without ``int8`` none is made or judged. A run of
    ``data.expand_first`` has learned from faces of every split: it is judged on the part that validated it alone, as
    ``leaky``, without files or answers.
    Raises ``DataError`` for a run that is not finished and for other faces than its own, ``ModelError`` for a net that
    cannot be exported.
    """
    trained = recalibrated(load_final(run), calibration)
    require_same_faces(trained, faces)
    if trained.recipe.data.expand_first:
        return _write(run, trained, folder, _metrics(trained, _leaky_figures(trained, faces)))
    judged_on = {"evaluation_sha256": faces.evaluation_sha256} if faces.evaluation_sha256 else {}
    scaling = calibrate(trained, faces)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".record-", dir=folder) as draft:
        files = {precision: Path(draft) / name for precision, name in PRECISIONS.items() if int8 or precision != "int8"}
        export_files(trained, faces, files, scaling)
        answers = predict_files(trained, faces, files, [Split.PUBLIC_TEST, *([Split.PRIVATE_TEST] if final else [])])
        judged = compute_split_metrics(answers)
        (folder / "model.onnx").unlink(missing_ok=True)  # of a record before this one
        if int8 and int8_loss(judged) <= INT8_LOSS and files["int8"].stat().st_size <= KEPT_MODEL:
            files["int8"].replace(folder / "model.onnx")
    _write_answers(answers, folder / "predictions.npz")
    return _write(run, trained, folder, _metrics(trained, judged) | {"calibration": asdict(scaling)} | judged_on)


def _write(run: Path, trained: Trained, folder: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    save_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    save_text(folder / "recipe.json", json.dumps(dump(trained.recipe), indent=1) + "\n")
    shutil.copyfile(run / "log.jsonl", folder / "log.jsonl")
    draw_curves(trained.recipe, trained.history, folder / "curves.png")
    save_text(folder / "confusion.svg", confusion_svg(metrics))
    return metrics


def confusion_svg(metrics: Mapping[str, Any]) -> str:
    """The confusion matrix of what ``metrics.json`` says, on the last split judged, as SVG."""
    split, by = list(metrics["metrics"].items())[-1]
    name = "leaky part" if split == "leaky" else f"{split.capitalize()}Test"
    figures = by["fp32"]["all"]
    return plot_confusion(figures, f"{metrics['recipe']}, {name}: {100 * figures['accuracy']:.1f} %")


def _leaky_figures(trained: Trained, faces: FaceSet) -> dict[str, Any]:
    """Shaped as the figures of files are: of the net itself, on faces whose copies it has learned from."""
    rows = validation_rows(faces, trained.recipe)
    probs = softmax(predict(trained.net, rows.images, trained.recipe.data.size), dim=1)
    return {"leaky": {"fp32": {"all": compute_metrics(probs.numpy(), rows.labels.numpy(), rows.emotions)}}}


def _write_answers(answers: dict[str, dict[str, Predictions]], path: Path) -> None:
    """Rows and probabilities of the fp32 file, for paired tests: neither faces nor labels."""
    columns: dict[str, Any] = {f"{split}_rows": by["fp32"].rows for split, by in answers.items()}
    columns |= {f"{split}_probs": by["fp32"].probs.astype(np.float32) for split, by in answers.items()}
    content = io.BytesIO()
    np.savez_compressed(content, **columns)
    save_bytes(path, content.getvalue())


def _metrics(trained: Trained, judged: dict[str, Any]) -> dict[str, Any]:
    recipe, history = trained.recipe, trained.history
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "claim": asdict(recipe.claim),
        "metrics": judged,
        "parameters": count_parameters(trained.net),
        "macs": count_macs(trained.net, recipe.data.size),
        "size": recipe.data.size,
        "epochs": len(history),
        "seconds": round(sum(epoch["seconds"] for epoch in history)),
        "images_per_second": round(median(epoch["images_per_second"] for epoch in history)),
        **trained.provenance,
        "evaluated_at": commit(),
    }
