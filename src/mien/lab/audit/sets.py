"""Whatever labelled faces there are -> the set that is audited: nobody is left out for an emotion few sets have."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien.lab.data import FaceSet
from mien.lab.feed.test_set import load_test_set

_EIGHT = CLASS_SETS["eight"]


def load_any(path: Path | None, labels: Mapping[str, str]) -> FaceSet:
    """The faces at ``path`` (``None``: at $MIEN_DATA) at 48 pixels; with contempt in eight classes, else in seven.

    ``labels`` say what the set's labels mean. Raises ``DataError`` and ``RecipeError`` as ``load_test_set`` does.
    """
    faces = load_test_set(path, _EIGHT, labels=labels)
    if faces.emotions != _EIGHT or bool((faces.labels == _EIGHT.index(Emotion.CONTEMPT)).any()):
        return faces
    places = torch.tensor([SEVEN.index(emotion) if emotion in SEVEN else -1 for emotion in _EIGHT])
    return replace(faces, labels=places[faces.labels], emotions=SEVEN)
