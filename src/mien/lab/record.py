"""The evidence of a finished run, as it stands in results/: figures, answers, log, recipe, curves, small model.

What is written here holds no face of any data set.
"""

import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mien.infer import PRECISIONS
from mien.lab import checkpoint
from mien.lab.count import macs, parameters
from mien.lab.data import FaceSet, Split
from mien.lab.export.calibrate import Calibration
from mien.lab.export.release import INT8_LOSS, answer_files, calibrate, export_files, int8_loss, judge_answers
from mien.lab.judge.judge import Answers
from mien.lab.provenance import commit
from mien.lab.recipe import dump
from mien.lab.train.curves import draw_curves
from mien.lab.train.run import Trained, load_final

# Bytes up to which the int8 file of a run is kept beside its figures.
KEPT_MODEL = 6 * 2**20


def record(run: Path, faces: FaceSet, folder: Path, *, final: bool = False) -> dict[str, Any]:
    """Judge the finished run in ``run`` and write its evidence to ``folder``; returns what ``metrics.json`` says.

    PublicTest is judged always, PrivateTest only where ``final`` says that everything has been chosen. ``model.onnx``
    is the int8 file where it is small and loses little, else it is left out. Raises ``DataError`` for a run that is not
    finished and ``ModelError`` for a net that cannot be exported.
    """
    trained = load_final(run)
    calibration = calibrate(trained, faces)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".record-", dir=folder) as draft:
        files = {precision: Path(draft) / name for precision, name in PRECISIONS.items()}
        export_files(trained, faces, files, calibration)
        answers = answer_files(trained, faces, files, [Split.PUBLIC_TEST, *([Split.PRIVATE_TEST] if final else [])])
        judged = judge_answers(answers)
        if int8_loss(judged) <= INT8_LOSS and files["int8"].stat().st_size <= KEPT_MODEL:
            files["int8"].replace(folder / "model.onnx")
    _write_answers(answers, folder / "answers.npz")
    metrics = _metrics(trained, judged, calibration)
    checkpoint.save_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    checkpoint.save_text(folder / "recipe.json", json.dumps(dump(trained.recipe), indent=1) + "\n")
    shutil.copyfile(run / "log.jsonl", folder / "log.jsonl")
    draw_curves(trained.recipe, trained.history, folder / "curves.png")
    return metrics


def _write_answers(answers: dict[str, dict[str, Answers]], path: Path) -> None:
    """Rows and probabilities of the fp32 file, for paired tests: neither faces nor labels."""
    columns: dict[str, Any] = {f"{split}_rows": by["fp32"].rows for split, by in answers.items()}
    columns |= {f"{split}_probs": by["fp32"].probs.astype(np.float16) for split, by in answers.items()}
    content = io.BytesIO()
    np.savez_compressed(content, **columns)
    checkpoint.save_bytes(path, content.getvalue())


def _metrics(trained: Trained, judged: dict[str, Any], calibration: Calibration) -> dict[str, Any]:
    recipe, history = trained.recipe, trained.history
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "claim": asdict(recipe.claim),
        "judged": judged,
        "calibration": asdict(calibration),
        "parameters": parameters(trained.net),
        "macs": macs(trained.net, recipe.data.size),
        "size": recipe.data.size,
        "epochs": len(history),
        "seconds": round(sum(epoch["seconds"] for epoch in history)),
        "images_per_second": round(median(epoch["images_per_second"] for epoch in history)),
        **trained.provenance,
        "judged_at": commit(),
    }
