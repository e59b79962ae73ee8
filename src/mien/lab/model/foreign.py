"""Anybody's ONNX classifier, read as a small TOML file describes it.

    model = "their.onnx"            # beside the TOML file, or an absolute path
    labels = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]   # its outputs, in order
    size = 48                       # side of its input in pixels
    channels = "grey"               # or "rgb", "bgr": the grey face three times
    layout = "nchw"                 # or "nhwc"
    mean = 0.0                      # what it gets is (pixel / 255 - mean) / std; numbers, or one per channel
    std = 1.0
    outputs = "probabilities"       # or "logits"
    input = ""                      # its name, where the file has several
    output = ""
    batch = 64                      # faces at once; 1 where the file fixes it

An output that is no emotion of mien's is labelled "-": it is left out, and the rest sums to 1 again.
"""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import ModelError
from mien._session import open_session
from mien.lab.data.columns import nearest
from mien.lab.model.model import Crops, Maps, Model, Probs

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
            raise ModelError(f"{path}: unknown key {key!r}{nearest(key, known)}")
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
            f"{path}: label {strange[0]!r} is no emotion of mien's{nearest(strange[0], tuple(Emotion))}; "
            f'"{_LEFT_OUT}" leaves an output out'
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
