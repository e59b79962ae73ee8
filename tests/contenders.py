"""Models that answer as planned, for the tests of comparison."""

from typing import Any

import numpy as np

from mien._emotions import class_set
from mien.lab.compare import Contender
from mien.lab.data import FaceSet, Split
from mien.lab.judge.examine import select_rows
from mien.lab.judge.judge import Answers


def contender(
    faces: FaceSet, name: str, right: float, *, classes: str = "seven", seed: int = 0, **more: Any
) -> Contender:
    """Answers for PublicTest that name the label on a share ``right`` of the faces, else any class."""
    emotions = class_set(classes)
    selection = select_rows(faces, emotions, Split.PUBLIC_TEST)
    labels = selection.faces.labels.numpy()
    generator = np.random.default_rng(sum(map(ord, name)) + seed)
    told = np.where(generator.random(len(labels)) < right, labels, generator.integers(0, len(emotions), len(labels)))
    probs = np.full((len(labels), len(emotions)), 0.3 / len(emotions), np.float32)
    probs[np.arange(len(labels)), told] += 0.7
    answers = Answers(selection.faces.rows.numpy(), probs, labels, selection.clean, selection.faces.emotions)
    return Contender(name, name, str(seed), f"results/{name}/seed-{seed}", "kept", answers, selection, **more)
