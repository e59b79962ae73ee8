"""The emotions described in words, and the place of each description in a sentence encoder's space.

``descriptions.toml`` holds the sentences, ``class_vectors.npz`` what `tools/embed_words.py` made of them, so that
training needs no encoder. The file says which encoder and which sentences it is of.
"""

import hashlib
import io
import tomllib
from collections.abc import Sequence
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion

Vectors = NDArray[np.float32]

_FILE = "class_vectors.npz"


def descriptions() -> dict[Emotion, tuple[str, ...]]:
    """The sentences that describe each emotion on a face, in the order of ``Emotion``."""
    said = tomllib.loads(_read("descriptions.toml").decode("utf-8"))
    return {emotion: tuple(said[emotion]) for emotion in Emotion}


def descriptions_sha256() -> str:
    """Hash of the sentences, by which ``class_vectors.npz`` names what it was made of."""
    lines = (f"{emotion}: {sentence}\n" for emotion, sentences in descriptions().items() for sentence in sentences)
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def vectors(emotions: Sequence[Emotion]) -> Vectors:
    """float32 ``[C, 384]``, of length 1: the mean direction of each emotion's sentences."""
    with np.load(io.BytesIO(_read(_FILE)), allow_pickle=False) as file:
        order = file["emotions"].tolist()
        everything = file["vectors"]
    chosen: Vectors = everything[[order.index(emotion) for emotion in emotions]]
    return chosen


def provenance() -> dict[str, str]:
    """What ``class_vectors.npz`` was made with and of: ``encoder``, ``package``, ``descriptions_sha256``."""
    with np.load(io.BytesIO(_read(_FILE)), allow_pickle=False) as file:
        return {key: str(file[key]) for key in ("encoder", "package", "descriptions_sha256")}


def mean_directions(embedded: Vectors, counts: Sequence[int]) -> Vectors:
    """Unit vectors ``[C, D]``: the mean of the normalised rows of ``embedded`` ``[sum(counts), D]``, class by class."""
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    means = np.stack([part.mean(axis=0) for part in np.split(unit, np.cumsum(counts)[:-1])])
    directions: Vectors = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    return directions


def _read(name: str) -> bytes:
    return resources.files("mien.lab.emotion_text").joinpath(name).read_bytes()
