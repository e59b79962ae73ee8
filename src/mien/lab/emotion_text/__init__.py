"""Sentences that describe each emotion, and their embeddings by a sentence encoder.

``descriptions.toml`` holds the sentences. ``class_vectors.npz`` holds their embeddings, written by
`tools/embed_words.py`, so that training needs no encoder. The file names its encoder and the hash of the sentences.
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
    """Return the sentences that describe each emotion on a face, in the order of ``Emotion``."""
    sentences = tomllib.loads(_read("descriptions.toml").decode("utf-8"))
    return {emotion: tuple(sentences[emotion]) for emotion in Emotion}


def descriptions_sha256() -> str:
    """Return the hash of the sentences, which ``class_vectors.npz`` records."""
    lines = (f"{emotion}: {sentence}\n" for emotion, sentences in descriptions().items() for sentence in sentences)
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def class_vectors(emotions: Sequence[Emotion]) -> Vectors:
    """Return the embedding of each emotion: the mean direction of its sentences.

    Args:
        emotions: The emotions.

    Returns:
        float32 ``[C, 384]`` with rows of length 1.

    Example:
        >>> from mien import Emotion
        >>> class_vectors([Emotion.HAPPY, Emotion.SAD]).shape
        (2, 384)
    """
    with np.load(io.BytesIO(_read(_FILE)), allow_pickle=False) as file:
        order = file["emotions"].tolist()
        everything = file["vectors"]
    chosen: Vectors = everything[[order.index(emotion) for emotion in emotions]]
    return chosen


def vectors_provenance() -> dict[str, str]:
    """Return the origin of ``class_vectors.npz``: ``encoder``, ``package`` and ``descriptions_sha256``."""
    with np.load(io.BytesIO(_read(_FILE)), allow_pickle=False) as file:
        return {key: str(file[key]) for key in ("encoder", "package", "descriptions_sha256")}


def mean_directions(embedded: Vectors, counts: Sequence[int]) -> Vectors:
    """Average the normalised embeddings of each class.

    Args:
        embedded: Embeddings ``[sum(counts), D]``, class by class.
        counts: Number of sentences of each class.

    Returns:
        Unit vectors ``[C, D]``.
    """
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    means = np.stack([part.mean(axis=0) for part in np.split(unit, np.cumsum(counts)[:-1])])
    directions: Vectors = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    return directions


def _read(name: str) -> bytes:
    return resources.files("mien.lab.emotion_text").joinpath(name).read_bytes()
