"""Anything that reads faces, opened for the lab: a model of mien, a file of the contract, a run, a foreign ONNX file.

open_model("mien-0") -> Model -> crops -> probabilities and maps
"""

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mien._emotions import Emotion
from mien._errors import DataError, ModelError
from mien._session import open_session
from mien._suggest import suggest
from mien.infer import Classifier, find_model
from mien.lab.data import FaceSet
from mien.lab.export.calibrate import Calibration
from mien.lab.export.release import calibrate
from mien.lab.inference import predict
from mien.lab.train.run import Trained, load_final

__all__ = ["Model", "open_model"]

Crops = NDArray[np.uint8]


Probs = NDArray[np.float32]


Maps = NDArray[np.float32] | None


# Largest distance from 1 of the sum of a row of probabilities: rounding of float32 stays far below.
_SUM_ERROR = 1e-3


@dataclass(frozen=True, eq=False)
class Model:
    """A reader of faces.

    - ``name``; ``emotions``: its classes, in the order of its answers; ``size``: the side S of its crops in pixels
    - ``about``: what a report says of it (kind, precision, recipe, seed, commit, calibration, ...), term to text
    - ``path``: the file or folder it was opened from
    - ``answer``: crops uint8 ``[N, S, S]`` grey -> probabilities float32 ``[N, C]``, and maps float32 ``[N, C, h, w]``
      or ``None`` where the model gives none
    - ``trained``: the run with its torch net, where it was opened from one
    """

    name: str
    emotions: tuple[Emotion, ...]
    size: int
    about: Mapping[str, str]
    path: Path
    answer: Callable[[Crops], tuple[Probs, Maps]]
    trained: Trained | None = None

    def __call__(self, crops: Crops) -> tuple[Probs, Maps]:
        """Read ``crops``. Raises ``ModelError`` for another shape, and for answers that are no probabilities."""
        if crops.dtype != np.uint8 or crops.shape[1:] != (self.size, self.size):
            wanted, given = f"uint8 [N, {self.size}, {self.size}]", f"{crops.dtype} {list(crops.shape)}"
            raise ModelError(f"{self.name} reads crops of {wanted}, not {given}")
        probs, maps = self.answer(crops)
        _check_model(self.name, probs, (len(crops), len(self.emotions)))
        return probs, maps


def _check_model(name: str, probs: Probs, shape: tuple[int, int]) -> None:
    if probs.shape != shape:
        raise ModelError(f"{name} answers {list(probs.shape)}, not {list(shape)}: its labels do not match its output")
    if not np.isfinite(probs).all():
        raise ModelError(f"{name} answers values that are no numbers; check the scaling of its input")
    worst = float(np.abs(probs.sum(axis=1) - 1).max(initial=0))
    if worst > _SUM_ERROR or (probs < 0).any():
        raise ModelError(
            f"{name} answers no probabilities: a row is negative or its sum is off 1 by {worst:.3g}; "
            'for logits, say outputs = "logits" in its TOML'
        )


_CHOICES = {
    "channels": ("grey", "rgb", "bgr"),
    "layout": ("nchw", "nhwc"),
    "outputs": ("probabilities", "logits"),
}


_LEFT_OUT = "-"


@dataclass(frozen=True)
class Adapter:
    """What the TOML file says; see the module's own words."""

    model: str
    labels: tuple[str, ...]
    size: int
    channels: str = "grey"
    layout: str = "nchw"
    mean: Any = 0.0
    std: Any = 1.0
    outputs: str = "probabilities"
    input: str = ""
    output: str = ""
    batch: int = 64
    name: str = ""


def open_foreign(path: Path, *, threads: int = 1) -> Model:
    """The model that the TOML file at ``path`` describes. Raises ``ModelError`` naming the key that is wrong."""
    adapter = read_adapter(path)
    file = path.parent / adapter.model
    session = open_session(file, threads=threads)
    feed = _choose(path, "input", adapter.input, [i.name for i in session.get_inputs()])
    fetch = _choose(path, "output", adapter.output, [o.name for o in session.get_outputs()])
    kept = [index for index, label in enumerate(adapter.labels) if label != _LEFT_OUT]

    def answer(crops: Crops) -> tuple[Probs, Maps]:
        parts: list[Probs] = []
        for start in range(0, len(crops), adapter.batch):
            piece = prepare(crops[start : start + adapter.batch], adapter)
            try:
                parts.append(np.asarray(session.run([fetch], {feed: piece})[0], np.float32))
            except Exception as error:  # ONNX Runtime's own classes share no base below Exception
                raise ModelError(
                    f"{file}: cannot read input {list(piece.shape)} ({_line(error)}); check {path}"
                ) from error
        said = np.concatenate(parts) if parts else np.zeros((0, len(adapter.labels)), np.float32)
        return _probabilities(said, adapter, kept, path), None

    emotions = tuple(Emotion(adapter.labels[index]) for index in kept)
    about = {"kind": "foreign ONNX file", "adapter": path.name, "file": file.name, "outputs": adapter.outputs}
    return Model(adapter.name or path.stem, emotions, adapter.size, about, path, answer)


def read_adapter(path: Path) -> Adapter:
    """Read and check the TOML file. Raises ``ModelError``."""
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"{path}: cannot be read as TOML ({error})") from error
    known = {field.name for field in fields(Adapter)}
    for key in said:
        if key not in known:
            raise ModelError(f"{path}: unknown key {key!r}{suggest(key, known)}")
    missing = [key for key in ("model", "labels", "size") if key not in said]
    if missing:
        raise ModelError(f"{path}: lacks {', '.join(missing)}")
    for key, choices in _CHOICES.items():
        if said.get(key, choices[0]) not in choices:
            raise ModelError(f"{path}: {key} is one of {', '.join(choices)}, not {said[key]!r}")
    labels = said["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ModelError(f"{path}: labels is a list of names, the model's outputs in order")
    adapter = Adapter(**{**said, "labels": tuple(labels)})
    _check(adapter, path)
    return adapter


def prepare(crops: Crops, adapter: Adapter) -> NDArray[np.float32]:
    """``crops`` uint8 ``[N, S, S]`` as the model takes them, float32."""
    channels = 1 if adapter.channels == "grey" else 3
    images = np.repeat(crops[:, None].astype(np.float32) / 255, channels, axis=1)  # grey: rgb and bgr are the same
    mean, std = (np.asarray(value, np.float32).reshape(1, -1, 1, 1) for value in (adapter.mean, adapter.std))
    images = (images - mean) / std
    return np.ascontiguousarray(images if adapter.layout == "nchw" else images.transpose(0, 2, 3, 1))


def _check(adapter: Adapter, path: Path) -> None:
    named = [label for label in adapter.labels if label != _LEFT_OUT]
    strange = [label for label in named if label not in tuple(Emotion)]
    if strange:
        raise ModelError(
            f"{path}: label {strange[0]!r} is no emotion of mien's; "
            f'"{_LEFT_OUT}" leaves an output out{suggest(strange[0], Emotion)}'
        )
    if len(set(named)) < len(named) or len(named) < 2:
        raise ModelError(f"{path}: labels name at least two emotions, each once")
    for key in ("size", "batch"):
        value = getattr(adapter, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(f"{path}: {key} is a whole number above 0, not {value!r}")
    channels = 1 if adapter.channels == "grey" else 3
    for key in ("mean", "std"):
        _check_scaling(path, key, getattr(adapter, key), channels)


def _check_scaling(path: Path, key: str, value: Any, channels: int) -> None:
    values = value if isinstance(value, list) else [value]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) not in (1, channels) or (key == "std" and 0 in values):
        raise ModelError(f"{path}: {key} is a number or {channels} of them (std not 0), not {value!r}")


def _choose(path: Path, key: str, wanted: str, there: list[str]) -> str:
    if wanted in there:
        return wanted
    if wanted or len(there) != 1:
        raise ModelError(f"{path}: set {key} to one of {', '.join(there)}" + (f", not {wanted!r}" if wanted else ""))
    return there[0]


def _probabilities(said: NDArray[np.float32], adapter: Adapter, kept: list[int], path: Path) -> Probs:
    if said.ndim != 2 or said.shape[1] != len(adapter.labels):
        raise ModelError(f"{path}: names {len(adapter.labels)} labels, but the model answers {list(said.shape)}")
    if adapter.outputs == "logits":
        odds = np.exp(said - said.max(axis=1, keepdims=True))
        said = odds / odds.sum(axis=1, keepdims=True)
    if len(kept) == said.shape[1]:
        return said
    chosen = said[:, kept]
    return np.asarray(chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1e-12), np.float32)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def open_model(
    what: str | os.PathLike[str], *, precision: str = "int8", threads: int = 1, faces: FaceSet | None = None
) -> Model:
    """Open ``what``:

    - the name of an embedded model, an ONNX file of the contract, or a folder that holds one (``precision`` chooses);
    - a run folder of ``mien train`` (``final.pt``), or the folder of a recipe with one run in it: the torch net. Where
      ``faces`` are the set it was trained on, its answers are calibrated on their PublicTest as its exported files
      are; else they are as trained, and ``about`` says so;
    - a TOML file that describes a foreign ONNX model (``mien.lab.models``).

    ``threads`` is how many a call may use. Raises ``ModelError`` or ``DataError`` that names what is wrong.
    """
    path = Path(what)
    if path.suffix == ".toml":
        return open_foreign(path, threads=threads)
    run = _run_folder(path)
    if run is not None:
        return _of_run(run, faces)
    if path.is_dir() and (path / "predictions.npz").is_file() and not (path / "model.onnx").is_file():
        raise ModelError(f"{path}: holds the answers of a run, but no model; name the run's folder under runs/")
    return _of_file(find_model(what, precision=precision), threads)


def _run_folder(path: Path) -> Path | None:
    if (path / "final.pt").is_file():
        return path
    seeds = sorted(path.glob("seed-*/final.pt")) if path.is_dir() else []
    if len(seeds) > 1:
        names = ", ".join(seed.parent.name for seed in seeds)
        raise ModelError(f"{path}: holds several runs ({names}); name one of them")
    return seeds[0].parent if seeds else None


def _of_file(path: Path, threads: int) -> Model:
    classifier = Classifier(path, threads=threads)
    said = classifier.metadata
    about = {"kind": "ONNX file of the contract"}
    about |= {key: said[key] for key in ("precision", "recipe", "commit", "data_sha256", "licence")}
    seed = _seed_beside(path)
    if seed is not None:
        about["seed"] = seed
    return Model(classifier.name, classifier.emotions, classifier.size, about, path, classifier.__call__)


def _seed_beside(path: Path) -> str | None:
    """The seed of a file of results/, whose figures stand beside it."""
    try:
        return str(json.loads((path.parent / "metrics.json").read_text("utf-8"))["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_run(folder: Path, faces: FaceSet | None) -> Model:
    trained = load_final(folder)
    recipe, calibration, said = trained.recipe, *_calibration(trained, faces)
    about = {"kind": "run (torch, fp32)", "recipe": recipe.name, "seed": str(recipe.seed), "calibration": said}
    about |= {key: str(trained.provenance[key]) for key in ("commit", "data_sha256") if key in trained.provenance}

    def answer(crops: Crops) -> tuple[Probs, Maps]:
        logits = predict(trained.net, torch.from_numpy(crops), recipe.data.size)
        return F.softmax(calibration(logits) if calibration else logits, dim=1).numpy(), None

    return Model(recipe.name, trained.emotions, recipe.data.size, about, folder, answer, trained)


def _calibration(trained: Trained, faces: FaceSet | None) -> tuple[Calibration | None, str]:
    if faces is None or faces.sha256 != trained.provenance.get("data_sha256"):
        return None, "none: probabilities as trained"
    if trained.recipe.data.expand_first:
        return None, "none: learned from faces of every split"
    try:
        return calibrate(trained, faces), "fitted on PublicTest, as in its exported files"
    except DataError:  # a set without PublicTest
        return None, "none: the set has no PublicTest to fit it on"
