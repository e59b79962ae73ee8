"""Models of the lab, opened from any source: an embedded model, an exported file, a run, or a foreign ONNX file.

open_model("mien-0") -> Model -> crops -> probabilities and maps
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mien._emotions import Emotion
from mien._errors import DataError, ModelError, RecipeError, checked, first_line, shown
from mien._session import open_session, open_trial
from mien._suggest import require_known, suggest
from mien.infer import LARGEST_SIZE, find_model
from mien.lab.data import FaceSet
from mien.lab.data.datasets import is_fer2013
from mien.lab.data.faceset import file_sha256
from mien.lab.data.tables import pixel_column
from mien.lab.export.calibrate import Calibration
from mien.lab.export.release import answers_of_run, calibrate
from mien.lab.files import load_json, load_text
from mien.lab.inference import current_runtime, predict
from mien.lab.ledger import Answers, answers_of_recipe, digest_net, family_of, recorded_answers
from mien.lab.recipe import load
from mien.lab.train.run import Trained, load_final

__all__ = ["Model", "open_model"]

Crops = NDArray[np.uint8]
Probs = NDArray[np.float32]
Maps = NDArray[np.float32] | None

_SUM_ERROR = 1e-3  # largest distance of a row's sum from 1; far above the rounding of float32
_DEPENDENCE = 0.01  # of a probability on the batch; above the rounding of half precision
_CHOICES = {
    "channels": ("grey", "rgb", "bgr"),
    "layout": ("nchw", "nhwc"),
    "outputs": ("probabilities", "logits"),
}
_LONGEST_NAME = 1000  # characters of a path or name
_MOST_LABELS = 1000
_MOST_VALUES = 2**28  # of a batch: 1 GB in float32
_EXCLUDED = "-"  # label of an output that is not used


@dataclass(frozen=True, eq=False)
class Model:
    """A model that predicts faces.

    Attributes:
        name: Its name.
        emotions: Its C classes, in the order of its outputs.
        size: Side S of its crops in pixels.
        about: What a report says about it, term -> text: kind, recipe, seed, commit, calibration and more.
        path: The file or folder that it was opened from.
        predict: Crops uint8 ``[N, S, S]`` -> probabilities float32 ``[N, C]``, and maps float32 ``[N, C, h, w]`` or
            ``None``, without checks.
        trained: The run with its torch net, if it was opened from one.
    """

    name: str
    emotions: tuple[Emotion, ...]
    size: int
    about: Mapping[str, str]
    path: Path
    predict: Callable[[Crops], tuple[Probs, Maps]]
    trained: Trained | None = None

    def __call__(self, crops: Crops) -> tuple[Probs, Maps]:
        """Predict faces, and check the result.

        Args:
            crops: Grey faces, uint8 ``[N, S, S]``.

        Returns:
            Probabilities float32 ``[N, C]``, and maps float32 ``[N, C, h, w]`` or ``None``.

        Raises:
            ModelError: If the crops have another shape or type, or the model does not return probabilities.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (self.size, self.size):
            wanted, given = f"uint8 [N, {self.size}, {self.size}]", f"{crops.dtype} {list(crops.shape)}"
            raise ModelError(f"{self.name} reads crops of {wanted}, not {given}")
        probs, maps = self.predict(crops)
        found, shape = list(probs.shape), [len(crops), len(self.emotions)]
        if found != shape:
            raise ModelError(f"{self.name} returns {found}, not {shape}: its labels do not match its output")
        _check_probs(self.name, probs)
        return probs, maps


def _check_finite(name: str, values: Probs) -> None:
    if not np.isfinite(values).all():
        raise ModelError(f"{name} returns values that are not finite; check the scaling of its input")


def _check_probs(name: str, probs: Probs) -> None:
    _check_finite(name, probs)
    worst = float(np.abs(probs.sum(axis=1) - 1).max(initial=0))
    if worst > _SUM_ERROR or (probs < 0).any():
        raise ModelError(
            f"{name} does not return probabilities: a row is negative or its sum differs from 1 by "
            f'{worst:.3g}; for logits, set outputs = "logits" in its TOML file'
        )


@dataclass(frozen=True)
class Adapter:
    """The content of the TOML file that describes a foreign ONNX model.

    Attributes:
        model: The ONNX file, relative to the TOML file.
        labels: The emotion of each output; ``"-"`` for an output that is not used.
        size: Side of its crops in pixels.
        channels: ``"grey"``, ``"rgb"`` or ``"bgr"``.
        layout: ``"nchw"`` or ``"nhwc"``.
        mean: Subtracted from values from 0 to 1: a number, or one for each channel.
        std: Divisor after that: a number, or one for each channel.
        outputs: ``"probabilities"`` or ``"logits"``.
        input: Name of the input; needed only if there are several.
        output: Name of the output; needed only if there are several.
        batch: Largest number of faces in one call.
        name: Its name in reports; empty for the name of the TOML file.
    """

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


def open_foreign(path: Path) -> Model:
    """Open a foreign ONNX model. It reads one blank face for a trial, with a time limit of 30 s, then four patterns.

    Args:
        path: The TOML file that describes it, with the keys of ``Adapter``.

    Returns:
        The model. It has no maps.

    Raises:
        ModelError: If a key of the TOML file is wrong, the model cannot be opened, or an answer depends on the batch.
    """
    adapter = read_adapter(path)
    file = path.parent / adapter.model
    trial = open_trial(file, is_foreign=True)
    input_name = _choose(path, "input", adapter.input, [i.name for i in trial.get_inputs()])
    output_name = _choose(path, "output", adapter.output, [o.name for o in trial.get_outputs()])
    name = adapter.name or path.stem
    used = [index for index, label in enumerate(adapter.labels) if label != _EXCLUDED]

    def predict_crops(crops: Crops, run: Callable[..., Any]) -> tuple[Probs, Maps]:
        parts = [np.zeros((0, len(adapter.labels)), np.float32)] if not len(crops) else []
        for start in range(0, len(crops), adapter.batch):
            batch = prepare(crops[start : start + adapter.batch], adapter)
            try:
                parts.append(np.asarray(run([output_name], {input_name: batch})[0], np.float32))
            except Exception as error:  # the classes of ONNX Runtime have no common base below Exception
                cause = f"cannot read input {list(batch.shape)} ({first_line(error)})"
                raise ModelError(f"{file}: {cause}; check {path}") from error
        probs = np.concatenate(parts)
        if probs.ndim != 2 or probs.shape[1] != len(adapter.labels):
            raise ModelError(f"{path}: names {len(adapter.labels)} labels, but the model returns {list(probs.shape)}")
        _check_finite(name, probs)
        if adapter.outputs == "logits":
            odds = np.exp(probs - probs.max(axis=1, keepdims=True))
            probs = odds / odds.sum(axis=1, keepdims=True)
        _check_probs(name, probs)
        if len(used) < probs.shape[1]:
            probs = probs[:, used]
            probs = np.asarray(probs / np.maximum(probs.sum(axis=1, keepdims=True), 1e-12), np.float32)
        return probs, None

    predict_crops(np.zeros((1, adapter.size, adapter.size), np.uint8), trial.run_trial)
    here = current_runtime()
    run = open_session(file, threads=here.threads, providers=here.providers).run
    if adapter.batch > 1:
        _require_independence(path, adapter.size, partial(predict_crops, run=run))
    emotions = tuple(Emotion(adapter.labels[index]) for index in used)
    about = {"kind": "foreign ONNX file", "adapter": path.name, "file": file.name, "outputs": adapter.outputs}
    return Model(name, emotions, adapter.size, about, path, partial(predict_crops, run=run))


def _require_independence(path: Path, size: int, predict_crops: Callable[[Crops], tuple[Probs, Maps]]) -> None:
    """Raise ``ModelError`` if an answer depends on the other faces of the batch: sorted test faces give labels away."""
    blocks = (
        np.random.default_rng(0).integers(0, 256, (4, 6, 6), np.uint8) // np.arange(1, 5, dtype=np.uint8)[:, None, None]
    )
    crops = np.kron(blocks, np.ones((1, -(-size // 6), -(-size // 6)), np.uint8))[:, :size, :size]
    alone = np.concatenate([predict_crops(crop[None])[0] for crop in crops])
    change = float(np.abs(predict_crops(crops)[0] - alone).max())
    if change > _DEPENDENCE:
        raise ModelError(
            f"{path}: the answer for a face depends on the other faces of its batch (a probability changes by "
            f"{change:.2f}); batch = 1 reads each face alone"
        )


def read_adapter(path: Path) -> Adapter:
    """Read and check the TOML file that describes a foreign ONNX model.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ModelError: If the file cannot be read, or a key is missing, unknown or wrong.
    """
    try:
        content = tomllib.loads(load_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as TOML ({first_line(error)})") from error
    known = {field.name for field in fields(Adapter)}
    for key in content:
        require_known("key", key, known, ModelError, where=str(path))
    missing = [key for key in ("model", "labels", "size") if key not in content]
    if missing:
        raise ModelError(f"{path}: lacks {', '.join(missing)}")
    for key, choices in _CHOICES.items():
        if content.get(key, choices[0]) not in choices:
            raise ModelError(f"{path}: {key} is one of {', '.join(choices)}, not {shown(content[key])}")
    for key in ("model", "input", "output", "name"):
        value = content.get(key, "")
        if not isinstance(value, str) or len(value) > _LONGEST_NAME or not value.isprintable():
            raise ModelError(f"{path}: {key} is a text of at most {_LONGEST_NAME} characters, not {shown(value)}")
    labels = content["labels"]
    if (
        not isinstance(labels, list)
        or len(labels) > _MOST_LABELS
        or not all(isinstance(label, str) for label in labels)
    ):
        raise ModelError(f"{path}: labels is a list of up to {_MOST_LABELS} names, one for each output of the model")
    adapter = Adapter(**{**content, "labels": tuple(labels)})
    _check_values(adapter, path)
    return adapter


def _check_values(adapter: Adapter, path: Path) -> None:
    named = [label for label in adapter.labels if label != _EXCLUDED]
    unknown = [label for label in named if label not in tuple(Emotion)]
    if unknown:
        raise ModelError(
            f"{path}: label {unknown[0]!r:.80} is no emotion that mien knows; "
            f'use "{_EXCLUDED}" to exclude an output{suggest(unknown[0], Emotion)}'
        )
    if len(set(named)) < len(named) or len(named) < 2:
        raise ModelError(f"{path}: labels must name at least two emotions, each once")
    for key in ("size", "batch"):
        value = getattr(adapter, key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_SIZE:
            raise ModelError(f"{path}: {key} is a whole number from 1 to {LARGEST_SIZE}, not {shown(value)}")
    channels = 1 if adapter.channels == "grey" else 3
    if adapter.batch * adapter.size**2 * channels > _MOST_VALUES:
        raise ModelError(f"{path}: batch ({adapter.batch}) of faces of {adapter.size} pixels needs GB; lower it")
    for key in ("mean", "std"):
        value = getattr(adapter, key)
        values = value if isinstance(value, list) else [value]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= 1e6 for v in values)
        if not numbers or len(values) not in (1, channels) or (key == "std" and min(map(abs, values)) < 1e-6):
            known = f"a number up to 1e6, or {channels} of them (std not 0)"
            raise ModelError(f"{path}: {key} is {known}, not {shown(value)}")


def prepare(crops: Crops, adapter: Adapter) -> NDArray[np.float32]:
    """Convert faces to the input of a foreign model.

    Args:
        crops: Grey faces, uint8 ``[N, S, S]``.
        adapter: Its channels, layout and scaling.

    Returns:
        float32 ``[N, channels, S, S]``, or ``[N, S, S, channels]`` for the layout ``nhwc``.
    """
    channels = 1 if adapter.channels == "grey" else 3
    images = np.repeat(crops[:, None].astype(np.float32) / 255, channels, axis=1)  # grey: rgb and bgr are equal
    mean, std = (np.asarray(value, np.float32).reshape(1, -1, 1, 1) for value in (adapter.mean, adapter.std))
    images = (images - mean) / std
    return np.ascontiguousarray(images if adapter.layout == "nchw" else images.transpose(0, 2, 3, 1))


def _choose(path: Path, key: str, wanted: str, there: list[str]) -> str:
    if wanted in there:
        return wanted
    if wanted or len(there) != 1:
        raise ModelError(f"{path}: set {key} to one of {', '.join(there)}" + (f", not {wanted!r}" if wanted else ""))
    return there[0]


# The threads of ONNX Runtime, its execution providers, and the device of nets of torch.


@checked
def open_model(what: str | os.PathLike[str], *, precision: str = "int8", faces: FaceSet | None = None) -> Model:
    """Open a model from any source.

    Args:
        what: One of: the name of an embedded model; an ONNX file that mien exported, or its folder; a run folder
            (``final.pt``), or the folder of a recipe with one run; a TOML file that describes a foreign ONNX model,
            with the keys of ``Adapter``.
        precision: The file of a model folder, ``"int8"`` or ``"fp32"``.
        faces: A data set. If a run was trained on it, its probabilities are calibrated on PublicTest as in its
            exported files. Otherwise they are not calibrated, and ``about`` says so.

    Returns:
        The model.

    Raises:
        ModelError: If the model cannot be found or opened.
        DataError: If a run is damaged.

    Example:
        >>> probs, maps = open_model("mien-0")(np.zeros((2, 48, 48), np.uint8))
        >>> probs.shape
        (2, 7)
    """
    path = Path(what)
    if path.suffix == ".toml":
        return open_foreign(path)
    runs = [path / "final.pt"] if (path / "final.pt").is_file() else sorted(path.glob("seed-*/final.pt"))
    if len(runs) > 1:
        names = ", ".join(run.parent.name for run in runs)
        raise ModelError(f"{path}: holds several runs ({names}); name one of them")
    if runs:
        return _open_run(runs[0].parent, faces)
    if (path / "predictions.npz").is_file() and not (path / "model.onnx").is_file():
        raise ModelError(f"{path}: holds predictions of a run, but no model; name the run's folder under runs/")
    classifier = current_runtime().open_classifier(find_model(what, precision=precision))
    about = {"kind": "ONNX file of the contract"}
    keys = ("precision", "recipe", "commit", "data_sha256", "licence", "family")
    about |= {key: classifier.metadata[key] for key in keys if key in classifier.metadata}  # older files: no family
    try:  # files of results/ have the metrics of their run beside them
        metrics = load_json(classifier.path.parent / "metrics.json")
        about["seed"] = str(metrics["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Model(classifier.name, classifier.emotions, classifier.size, about, classifier.path, classifier.__call__)


def files_of_model(model: Model) -> tuple[Path, ...]:
    """Return the files that hold a model.

    Args:
        model: Any model.

    Returns:
        Its file, or the TOML file that describes it and the file that this names.
    """
    if model.trained is not None:
        return (model.path / "final.pt",)
    if model.path.suffix == ".toml":
        return model.path, model.path.parent / read_adapter(model.path).model
    return (model.path,)


def was_trained_on(data_sha256: str, faces: FaceSet) -> bool:
    """Return whether training data is a data set.

    Each form of FER-2013 has a hash of its own. A model that was trained on the file that mien-0 was trained on counts
    as trained on every form, and on every other table of pixels, which is likely to be a part of it.

    Args:
        data_sha256: Hash of the data that a model was trained on; empty where it is not known.
        faces: The set.

    Returns:
        Whether it is; also ``False`` where the hash is not known.
    """
    if data_sha256 in (faces.sha256, ""):
        return data_sha256 != ""
    path = Path(faces.source)
    is_part = is_fer2013(path) or (path.is_file() and pixel_column(path) is not None)
    return is_part and data_sha256 == open_model("mien-0").about["data_sha256"]


def answers_of_model(model: Model, faces: FaceSet | None) -> Answers:
    """Return the answers of a model for PrivateTest, without their accuracy.

    Args:
        model: Any model.
        faces: The data set; a run that was trained on it is calibrated. ``None``: no run is calibrated.

    Returns:
        The answers; the folder of a recorded run adds those that were recorded.
    """
    if model.trained is not None:
        recipe, data = model.trained.recipe, model.trained.provenance.get("data_sha256", "")
        if faces is not None and data == faces.sha256:
            return answers_of_run(model.trained)
        answers = answers_of_recipe(recipe, [digest_net(model.trained.net, "")], trained_on=data)
        return replace(answers, settings=f"{answers.settings}+uncalibrated")
    if model.path.suffix == ".toml":
        return Answers(model.name, ("+".join(map(file_sha256, files_of_model(model))),))
    digest = file_sha256(model.path)
    if (model.path.parent / "predictions.npz").is_file() and (model.path.parent / "recipe.json").is_file():
        recorded = recorded_answers(model.path.parent)
        if digest in recorded.digests:  # another file in this folder has answers of its own
            return recorded
    try:
        family = model.about.get("family") or family_of(load(model.about["recipe"]))
    except RecipeError:  # a file without its family, of a user's recipe or of an ensemble: the ledger may know it
        family = ""
    return Answers(model.about["recipe"], (digest,), family, model.about.get("seed", ""))


def _open_run(folder: Path, faces: FaceSet | None) -> Model:
    trained = load_final(folder, current_runtime().torch_device())
    recipe, (calibration, remark) = trained.recipe, _calibration(trained, faces)
    about = {"kind": "run (torch, fp32)", "recipe": recipe.name, "seed": str(recipe.seed), "calibration": remark}
    about |= {key: str(trained.provenance[key]) for key in ("commit", "data_sha256") if key in trained.provenance}

    def predict_crops(crops: Crops) -> tuple[Probs, Maps]:
        logits = predict(trained.net, torch.from_numpy(crops), recipe.data.size)
        return F.softmax(calibration(logits) if calibration else logits, dim=1).numpy(), None

    return Model(recipe.name, trained.emotions, recipe.data.size, about, folder, predict_crops, trained)


def _calibration(trained: Trained, faces: FaceSet | None) -> tuple[Calibration | None, str]:
    if faces is None or faces.sha256 != trained.provenance.get("data_sha256"):
        return None, "none: probabilities as trained"
    if leak := trained.recipe.data.leak:
        return None, f"none: learned from the faces to fit it on ({leak})"
    try:
        return calibrate(trained, faces), "fitted on PublicTest, as in its exported files"
    except DataError:  # a set without PublicTest
        return None, "none: the set has no PublicTest to fit it on"
