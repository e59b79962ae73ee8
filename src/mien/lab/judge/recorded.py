"""Answers that ``mien record`` kept: evidence that can be looked at again without touching a test split again."""

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mien._emotions import class_set
from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.judge.examine import Selection, select_rows
from mien.lab.judge.judge import Answers
from mien.lab.judge.metrics import checked


def read_metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a folder of results/. Raises ``DataError`` where there is none, or half of one."""
    path = folder / "metrics.json"
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); write it with `mien record`") from error
    if isinstance(said, dict) and {"model", "about"} <= said.keys():
        raise DataError(f"{folder}: is a report of `mien evaluate`, no run; name the model that it is about")
    if not isinstance(said, dict) or not {"recipe", "seed", "judged", "data_sha256"} <= said.keys():
        raise DataError(f"{path}: holds no figures of a run; write it again with `mien record`")
    return said


def recorded(folder: Path, faces: FaceSet, split: Split) -> tuple[Answers, Selection]:
    """The kept answers (fp32, calibrated) for ``split`` of ``faces``, and the selection that they answer.

    Raises ``DataError`` for answers about other faces, for a split that was not judged, and for a damaged file.
    """
    said, path = read_metrics(folder), folder / "answers.npz"
    # A run that further sets were mixed into has a hash of all; it is judged on one of them.
    if said.get("judged_sha256", said["data_sha256"]) != (faces.judged_sha256 or faces.sha256):
        raise DataError(f"{folder}: its answers are about other faces than {faces.source}; name those with --data")
    name = split.removesuffix("Test").lower()
    try:
        classes = json.loads((folder / "recipe.json").read_text("utf-8"))["data"]["classes"]
        with np.load(path, allow_pickle=False) as file:
            if f"{name}_rows" not in file:
                raise DataError(f"{folder}: {split} was not judged; `mien record RUN --final` judges PrivateTest")
            rows, probs = file[f"{name}_rows"], file[f"{name}_probs"].astype(np.float32)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such file; write it with `mien record`") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}); write it again with `mien record`") from error
    selection = select_rows(faces, class_set(classes), split)
    if not np.array_equal(rows, selection.faces.rows.numpy()):
        raise DataError(f"{path}: answers other rows of {split} than are judged now; write it again with `mien record`")
    emotions, labels = selection.faces.emotions, selection.faces.labels.numpy()
    try:
        probs = checked(probs, labels, len(emotions)).astype(np.float32)
    except DataError as error:
        raise DataError(f"{path}: {error}; write it again with `mien record`") from error
    return Answers(rows, probs, labels, selection.clean, emotions), selection
