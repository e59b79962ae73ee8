"""Sentences that describe each emotion, and their embeddings by a sentence encoder.

``descriptions.toml`` holds the sentences. ``class_vectors.npz`` holds their embeddings, written by
`tools/embed_words.py`, so that training needs no encoder. The file names its encoder and the hash of the sentences.
"""

import io
from collections.abc import Sequence
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion

Vectors = NDArray[np.float32]


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
    content = resources.files("mien.lab.emotion_text").joinpath("class_vectors.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        order = file["emotions"].tolist()
        everything = file["vectors"]
    chosen: Vectors = everything[[order.index(emotion) for emotion in emotions]]
    return chosen
