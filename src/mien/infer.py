"""Crops -> probabilities and maps: the one place that runs a classifier, and that refuses a file breaking the contract.

The contract: input ``crops`` uint8 ``[N, S, S]`` grey; outputs ``probs`` float32 ``[N, C]``, calibrated, and ``maps``
float32 ``[N, C, h, w]``; everything else that a reader must know stands in the file's metadata.
"""

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import ModelError
from mien._framing import Framing
from mien._session import open_session
from mien.bundled import BUNDLED

CONTRACT = "1"
METADATA = (
    "name",
    "emotions",
    "size",
    "framing",
    "precision",
    "recipe",
    "commit",
    "data_sha256",
    "accuracy",
    "licence",
)
PRECISIONS = {"int8": "model.onnx", "fp32": "model-fp32.onnx"}

# Crops given to ONNX Runtime at once. Its memory grows with them, its speed does not: a net of 128 MMAC took 0.57 ms a
# crop in int8 for 16 to 256 at once; in fp32 1.8 ms up to 64, but 2.7 ms from 128 on, when the cache was full.
CHUNK = 64


class Classifier:
    """A network that was opened from an ONNX file of the contract. Calls are thread-safe.

    ``name`` is the model's, ``emotions`` are its classes in the order of its answers, ``size`` is the side S of its
    crops in pixels, ``framing`` says how a face lies in them, ``metadata`` holds all that the file says about itself.
    """

    name: str
    emotions: tuple[Emotion, ...]
    size: int
    framing: Framing
    metadata: Mapping[str, str]

    def __init__(self, path: Path, *, threads: int = 1, providers: Sequence[str] = ("cpu",)) -> None:
        """Open ``path``; raises ``ModelError`` that names the part of the contract which the file breaks."""
        self.path = path
        self._session = open_session(path, threads=threads, providers=providers)
        self.metadata = MappingProxyType(dict(self._session.get_modelmeta().custom_metadata_map))
        self._read_metadata()
        self._check_signature()
        self._map_hw = self._try()

    def __call__(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read ``crops``, uint8 ``[N, S, S]`` grey: ``probs`` float32 ``[N, C]`` and ``maps`` float32 ``[N, C, h, w]``.

        N may be 0 or any number: long batches run in pieces of bounded memory. Raises ``ModelError`` for another shape
        or type.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (self.size, self.size):
            wanted, given = f"uint8 [N, {self.size}, {self.size}]", f"{crops.dtype} {list(crops.shape)}"
            raise ModelError(f"{self.name} reads crops of {wanted}, not {given}; cut them with mien.extract")
        count, classes = len(crops), len(self.emotions)
        probs = np.empty((count, classes), np.float32)
        maps = np.empty((count, classes, *self._map_hw), np.float32)
        for start in range(0, count, CHUNK):
            piece = slice(start, start + CHUNK)
            probs[piece], maps[piece] = self._run(crops[piece])
        return probs, maps

    def __repr__(self) -> str:
        precision, size = self.metadata["precision"], self.size
        return f"Classifier({self.name}, {precision}, {len(self.emotions)} emotions, {size}x{size})"

    def _run(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        probs, maps = self._session.run(["probs", "maps"], {"crops": np.ascontiguousarray(crops)})
        return probs, maps

    def _broken(self, what: str) -> ModelError:
        return ModelError(f"{self.path}: not a mien classifier: {what}; export the model again")

    def _read_metadata(self) -> None:
        said = self.metadata
        if "mien_contract" not in said:
            raise self._broken("its metadata has no mien_contract")
        if said["mien_contract"] != CONTRACT:
            raise self._broken(f"it follows contract {said['mien_contract']!r}, this mien reads {CONTRACT!r}")
        missing = [key for key in METADATA if key not in said]
        if missing:
            raise self._broken(f"its metadata lacks {', '.join(missing)}")
        if said["precision"] not in PRECISIONS:
            raise self._broken(f"its precision {said['precision']!r} is none of {', '.join(PRECISIONS)}")
        self.name = said["name"]
        self.emotions = self._read_emotions(said["emotions"])
        self.size = self._read_size(said["size"])
        try:
            self.framing = Framing.from_json(said["framing"])
        except ModelError as error:
            raise self._broken(str(error).partition(";")[0]) from error

    def _read_emotions(self, text: str) -> tuple[Emotion, ...]:
        try:
            names = json.loads(text)
            emotions = tuple(Emotion(name) for name in names)
        except (ValueError, TypeError) as error:
            raise self._broken(f"its emotions are not a JSON list of mien's emotions ({error})") from error
        if not emotions or len(set(emotions)) != len(emotions):
            raise self._broken(f"its emotions {text} are empty or name one twice")
        return emotions

    def _read_size(self, text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise self._broken(f"its size {text!r} is no positive number of pixels")
        return int(text)

    def _check_signature(self) -> None:
        size, classes = self.size, len(self.emotions)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [i.name for i in inputs] != ["crops"]:
            raise self._broken(f"its inputs are {[i.name for i in inputs]}, not ['crops']")
        if sorted(o.name for o in outputs) != ["maps", "probs"]:
            raise self._broken(f"its outputs are {[o.name for o in outputs]}, not ['probs', 'maps']")
        wanted = {
            "crops": ("tensor(uint8)", [None, size, size]),
            "probs": ("tensor(float)", [None, classes]),
            "maps": ("tensor(float)", [None, classes, None, None]),
        }
        for value in (*inputs, *outputs):
            kind, shape = wanted[value.name]
            if value.type != kind:
                raise self._broken(f"{value.name} is {value.type}, not {kind}")
            if not _agrees(value.shape, shape):
                raise self._broken(f"{value.name} has shape {value.shape}, not {['N', *shape[1:]]}")

    def _try(self) -> tuple[int, int]:
        """Read two blank crops, for what a graph declares and answers may differ; returns height and width of maps."""
        blank = np.zeros((2, self.size, self.size), np.uint8)
        try:
            probs, maps = self._run(blank)
        except Exception as error:  # ONNX Runtime's own classes share no base below Exception
            raise self._broken(f"it cannot read two crops ({str(error).splitlines()[0][:160]})") from error
        classes = len(self.emotions)
        if probs.shape != (2, classes) or maps.ndim != 4 or maps.shape[:2] != (2, classes):
            raise self._broken(f"for two crops it answers probs {list(probs.shape)} and maps {list(maps.shape)}")
        if not np.isfinite(maps).all() or not np.allclose(probs.sum(axis=1), 1, atol=1e-3) or (probs < 0).any():
            raise self._broken("its probs are no probabilities (each row must be >= 0 and sum to 1)")
        return int(maps.shape[2]), int(maps.shape[3])


def bundled_models() -> tuple[str, ...]:
    """The names of the classifiers that come with mien, sorted."""
    if not BUNDLED.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in BUNDLED.iterdir() if _is_classifier(folder / PRECISIONS["int8"])))


def find_model(name_or_path: str | os.PathLike[str], *, precision: str = "int8") -> Path:
    """The ONNX file of an embedded model's name, of a folder laid out like one, or of a path to a file.

    ``precision`` chooses between the files of a name or folder, ``"int8"`` or ``"fp32"``; a path to a file is taken as
    it is. Raises ``ModelError`` for anything that is not there, naming the nearest embedded model.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    wanted = os.fspath(name_or_path)
    known = bundled_models()
    path = BUNDLED / wanted if wanted in known else Path(wanted)
    if path.is_dir():
        path = path / PRECISIONS[precision]
        if not path.is_file():
            other = any((path.parent / name).is_file() for name in PRECISIONS.values())
            having = [name for name in known if (BUNDLED / name / PRECISIONS[precision]).is_file()]
            beside = f", or an embedded model that has one ({', '.join(having)})" if having else ""
            cure = f"choose the other precision{beside}" if other else "name a folder that holds a model, or its file"
            raise ModelError(f"{wanted} has no {precision} file ({path.name}); {cure}")
    if path.is_file():
        return path
    if path.suffix == ".onnx" or path.name != wanted:
        raise ModelError(f"{wanted}: no such model file; `mien models` lists the embedded models")
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else "give the path of an ONNX file"
    raise ModelError(f"unknown model {wanted!r}; {hint} (embedded: {', '.join(known) or 'none'})")


def _is_classifier(path: Path) -> bool:
    # Metadata lies in an ONNX file as plain bytes: looking for its key costs a millisecond, opening a session thirty.
    return path.is_file() and b"mien_contract" in path.read_bytes()


def _agrees(shape: Sequence[int | str | None], wanted: Sequence[int | None]) -> bool:
    """A dimension that the file leaves open agrees with every wanted one; N itself must be open."""
    if len(shape) != len(wanted) or isinstance(shape[0], int):
        return False
    return all(w is None or not isinstance(s, int) or s == w for s, w in zip(shape, wanted, strict=True))
