"""Crops -> probabilities and maps: runs a classifier, and refuses a file that violates the contract.

The contract: input ``crops`` uint8 ``[N, S, S]`` grey; outputs ``probs`` float32 ``[N, C]``, calibrated, and ``maps``
float32 ``[N, C, h, w]``. All other settings are in the metadata of the file.
"""

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import ModelError, first_line, shown, why_absent
from mien._framing import Framing
from mien._session import open_session, open_trial
from mien._suggest import nearest_words
from mien.bundled import BUNDLED

CONTRACT = "1"
# Keys that the metadata must have, besides that of the contract.
_KEYS = ("name", "emotions", "size", "framing", "precision", "recipe", "commit", "data_sha256", "accuracy", "licence")
LARGEST_SIZE = 1024  # side of a crop in pixels; the nets of mien have 48 to 224
_LARGEST_CARD = 2**20  # bytes
_LONGEST_TEXT = 4096  # characters of a value of the metadata
PRECISIONS = {"int8": "model.onnx", "fp32": "model-fp32.onnx"}

# Crops in one call of ONNX Runtime. More crops need more memory but are not faster: in int8, a network of 128 MMAC took
# 0.57 ms a crop for 16 to 256 crops. In fp32 it took 1.8 ms up to 64 crops, and 2.7 ms from 128 on (full cache).
CHUNK = 64


class Classifier:
    """A network opened from an ONNX file that follows the contract. Calls are thread-safe.

    Attributes:
        name: The name of the model.
        emotions: Its C classes, in the order of its outputs.
        size: The side S of its crops, in pixels.
        framing: Where the eyes and the mouth are in its crops.
        accuracy: What was measured: ``split`` and metrics by key; may be empty.
        metadata: The metadata of the file.
        path: The file.
    """

    def __init__(self, path: Path, *, threads: int = 1, providers: Sequence[str] = ("cpu",)) -> None:
        """Open a file and check it against the contract.

        Args:
            path: The ONNX file.
            threads: Threads of ONNX Runtime for one call; 0 uses all cores.
            providers: Execution providers of ONNX Runtime, first choice first, as of ``Reader``.

        Raises:
            ModelError: The file is missing or damaged, or violates the contract; the message names the part.
        """
        self.path = path
        is_embedded = BUNDLED in path.parents
        self._session = open_session(path, threads=threads, providers=providers) if is_embedded else open_trial(path)
        self.metadata = MappingProxyType(dict(self._session.get_modelmeta().custom_metadata_map))
        self._read_metadata()
        self._check_signature()
        self._map_hw = self._check_outputs()
        if not is_embedded:
            self._session = open_session(path, threads=threads, providers=providers)

    @cached_property
    def unsure_below(self) -> Mapping[float, float]:
        """By side of a face in pixels, ascending, the confidence from which on 75 % of the answers are right.

        It is read from ``card.json`` beside the file, and empty where that has none.
        """
        return _read_thresholds(self.path.with_name("card.json"), self.name)

    def __call__(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Classify crops.

        Args:
            crops: Grey crops, uint8 ``[N, S, S]``. N may be 0. A large batch runs in parts of bounded memory.

        Returns:
            The probabilities, float32 ``[N, C]``, and the maps, float32 ``[N, C, h, w]``.

        Raises:
            ModelError: The crops have another shape or type, or the network returns no probabilities for them.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (self.size, self.size):
            expected, given = f"uint8 [N, {self.size}, {self.size}]", f"{crops.dtype} {list(crops.shape)}"
            raise ModelError(f"{self.name} reads crops of {expected}, not {given}; cut them with mien.extract")
        count, classes = len(crops), len(self.emotions)
        probs = np.empty((count, classes), np.float32)
        maps = np.empty((count, classes, *self._map_hw), np.float32)
        for start in range(0, count, CHUNK):
            piece = slice(start, start + CHUNK)
            probs[piece], maps[piece] = self._run(crops[piece])
        self._check_values(probs, maps)
        return probs, maps

    def __repr__(self) -> str:
        precision, size = self.metadata["precision"], self.size
        return f"Classifier({self.name}, {precision}, {len(self.emotions)} emotions, {size}x{size})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "metadata": dict(self.metadata)}  # a mapping proxy cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, metadata=MappingProxyType(state["metadata"]))

    def _run(
        self, crops: NDArray[np.uint8], *, is_trial: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        run = self._session.run_trial if is_trial else self._session.run
        try:
            probs, maps = run(["probs", "maps"], {"crops": np.ascontiguousarray(crops)})
        except Exception as error:  # ONNX Runtime's own classes share no base below Exception
            cause = "it needs too much memory" if "bfc_arena" in str(error) else first_line(error)
            raise self._broken(f"it cannot read {len(crops)} crops ({cause})") from error
        return probs, maps

    def _check_values(self, probs: NDArray[np.float32], maps: NDArray[np.float32]) -> None:
        """Refuse numbers that are no probabilities: a file may return them for some crops only."""
        if not np.isfinite(maps).all() or not np.allclose(probs.sum(axis=1), 1, atol=1e-3) or (probs < 0).any():
            raise self._broken("its probs are not probabilities (each row must be >= 0 and sum to 1)")

    def _broken(self, what: str) -> ModelError:
        return ModelError(f"{self.path}: not a mien classifier: {what}; export the model again")

    def _read_metadata(self) -> None:
        metadata = self.metadata
        if "mien_contract" not in metadata:
            raise self._broken("its metadata has no mien_contract")
        if metadata["mien_contract"] != CONTRACT:
            raise self._broken(
                f"it follows contract {metadata['mien_contract']!r:.40}, this version of mien reads {CONTRACT!r}"
            )
        missing = [key for key in _KEYS if key not in metadata]
        if missing:
            raise self._broken(f"its metadata lacks {', '.join(missing)}")
        for key in _KEYS:
            if len(metadata[key]) > _LONGEST_TEXT:
                raise self._broken(f"its {key} has {len(metadata[key]):,} characters, more than {_LONGEST_TEXT:,}")
        if metadata["precision"] not in PRECISIONS:
            raise self._broken(f"its precision {metadata['precision']!r:.40} is none of {', '.join(PRECISIONS)}")
        self.name = metadata["name"]
        if not self.name.isprintable():
            raise self._broken(f"its name {self.name!r:.80} has control characters")
        try:
            names = json.loads(metadata["emotions"])
            self.emotions = tuple(Emotion(name) for name in (names if isinstance(names, list) else [names]))
        except (ValueError, TypeError, RecursionError) as error:
            raise self._broken(f"its emotions are not a JSON list of mien's emotions ({first_line(error)})") from error
        if not self.emotions or len(set(self.emotions)) != len(self.emotions):
            raise self._broken(f"its emotions {metadata['emotions']:.80} are empty or name one twice")
        size = metadata["size"]
        if not (size.isascii() and size.isdecimal() and len(size) <= 9 and 1 <= int(size) <= LARGEST_SIZE):
            raise self._broken(f"its size {size!r:.40} is not a number of pixels from 1 to {LARGEST_SIZE}")
        self.size = int(size)
        self.accuracy = self._read_accuracy()
        try:
            self.framing = Framing.from_json(metadata["framing"])
        except ModelError as error:
            raise self._broken(str(error).partition(";")[0]) from error

    def _read_accuracy(self) -> dict[str, Any]:
        try:
            found = json.loads(self.metadata["accuracy"])
            values = [value for value in found.values() if not isinstance(value, str)]
            if all(isinstance(value, int | float) and 0 <= value < _LONGEST_TEXT for value in values):
                return dict(found)
        except (ValueError, AttributeError, RecursionError):
            pass
        raise self._broken(f"its accuracy {self.metadata['accuracy']!r:.80} is not a JSON object of metrics")

    def _check_signature(self) -> None:
        size, classes = self.size, len(self.emotions)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [i.name for i in inputs] != ["crops"]:
            raise self._broken(f"its inputs are {[i.name for i in inputs]}, not ['crops']")
        if sorted(o.name for o in outputs) != ["maps", "probs"]:
            raise self._broken(f"its outputs are {[o.name for o in outputs]}, not ['probs', 'maps']")
        expected = {
            "crops": ("tensor(uint8)", [None, size, size]),
            "probs": ("tensor(float)", [None, classes]),
            "maps": ("tensor(float)", [None, classes, None, None]),
        }
        for value in (*inputs, *outputs):
            kind, shape = expected[value.name]
            if value.type != kind:
                raise self._broken(f"{value.name} is {value.type}, not {kind}")
            # An open dimension of the file matches any size; N must be open.
            sizes = zip(value.shape, shape, strict=False)
            matches = all(size is None or not isinstance(found, int) or found == size for found, size in sizes)
            if len(value.shape) != len(shape) or isinstance(value.shape[0], int) or not matches:
                raise self._broken(f"{value.name} has shape {value.shape}, not {['N', *shape[1:]]}")

    def _check_outputs(self) -> tuple[int, int]:
        """Run two blank crops, as outputs may differ from the declared ones. Return height and width of the maps."""
        blank = np.zeros((2, self.size, self.size), np.uint8)
        probs, maps = self._run(blank, is_trial=True)
        classes = len(self.emotions)
        if probs.shape != (2, classes) or maps.ndim != 4 or maps.shape[:2] != (2, classes):
            raise self._broken(f"for two crops it returns probs {list(probs.shape)} and maps {list(maps.shape)}")
        if not 1 <= min(maps.shape[2:]) <= max(maps.shape[2:]) <= self.size:
            raise self._broken(f"its maps are {maps.shape[3]}x{maps.shape[2]}, its crops {self.size}x{self.size}")
        self._check_values(probs, maps)
        return int(maps.shape[2]), int(maps.shape[3])


def _read_thresholds(card: Path, name: str) -> Mapping[float, float]:
    """The thresholds in the card of a model; none where the card is missing, older, or that of another model."""
    try:
        if card.stat().st_size > _LARGEST_CARD:
            raise ModelError(f"{card}: is too large for the card of a model; export the model again")
        content = json.loads(card.read_text("utf-8"))
        sizes = content.get("sizes", {}) if content["name"] == name else {}
        found = {float(side): float(values["unsure_below"]) for side, values in sizes.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{card}: is no card of a model ({first_line(error)}); export the model again") from error
    if not all(0 < side <= LARGEST_SIZE and 0 <= value <= 1 for side, value in found.items()):
        raise ModelError(f"{card}: its sizes have thresholds outside of 0 to 1; export the model again")
    return dict(sorted(found.items()))


def bundled_models() -> tuple[str, ...]:
    """Return the names of the embedded classifiers, sorted."""
    # Metadata is plain bytes in an ONNX file: a search for its key takes 1 ms, opening a session 30 ms.
    files = BUNDLED.glob(f"*/{PRECISIONS['int8']}")
    return tuple(sorted(file.parent.name for file in files if b"mien_contract" in file.read_bytes()))


def find_model(name_or_path: str | os.PathLike[str], *, precision: str = "int8") -> Path:
    """Find the ONNX file of a model.

    Args:
        name_or_path: The name of an embedded model, a folder with the same files as one, or the path of an ONNX file.
        precision: Which file of a name or folder, ``"int8"`` or ``"fp32"``. It has no effect on the path of a file.

    Returns:
        The path of the file.

    Raises:
        ModelError: There is no such model or file; the message names the nearest embedded model.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ModelError(f"unknown precision {shown(precision)}; choose one of {', '.join(PRECISIONS)}")
    if not isinstance(name_or_path, str | os.PathLike):
        raise ModelError(f"a {type(name_or_path).__name__} is no model; give the name of a model or a path")
    name = os.fspath(name_or_path)
    known = bundled_models()
    path = BUNDLED / name if name in known else Path(name)
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises errors for names that cannot be looked at)
        path = path / PRECISIONS[precision]
        if not path.is_file():
            cure = "name a folder that holds a model, or its file"
            if any((path.parent / file).is_file() for file in PRECISIONS.values()):
                others = [each for each in known if (BUNDLED / each / PRECISIONS[precision]).is_file()]
                beside = f", or an embedded model that has one ({', '.join(others)})" if others else ""
                cure = f"choose the other precision{beside}"
            raise ModelError(f"{name} has no {precision} file ({path.name}); {cure}")
    if os.path.isfile(path):  # noqa: PTH113
        return path
    if path.suffix == ".onnx" or path.name != name:
        absent = f"no such model file; embedded models: {', '.join(known) or 'none'}"
        raise ModelError(f"{name}: {why_absent(path, absent)}")
    near = nearest_words(name, known, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else "give the path of an ONNX file"
    raise ModelError(f"unknown model {name!r}; {hint} (embedded: {', '.join(known) or 'none'})")
