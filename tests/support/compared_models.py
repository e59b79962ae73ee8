"""Models with a chosen accuracy, for the tests of comparison."""

from typing import Any

import numpy as np

from mien._emotions import class_set
from mien.lab.compare import Comparison, Contender, Entries, compare_entries
from mien.lab.data import FaceSet, Split
from mien.lab.judge.examine import select_rows
from mien.lab.judge.judge import Answers


def contender(
    faces: FaceSet, name: str, right: float, *, classes: str = "seven", seed: int = 0, **more: Any
) -> Contender:
    """Predictions for PublicTest: the label on a share ``right`` of the faces, else a random class."""
    emotions = class_set(classes)
    selection = select_rows(faces, emotions, Split.PUBLIC_TEST)
    labels = selection.faces.labels.numpy()
    generator = np.random.default_rng(sum(map(ord, name)) + seed)
    told = np.where(generator.random(len(labels)) < right, labels, generator.integers(0, len(emotions), len(labels)))
    probs = np.full((len(labels), len(emotions)), 0.3 / len(emotions), np.float32)
    probs[np.arange(len(labels)), told] += 0.7
    answers = Answers(selection.faces.rows.numpy(), probs, labels, selection.clean, selection.faces.emotions)
    return Contender(name, name, str(seed), f"results/{name}/seed-{seed}", "kept", answers, selection, **more)


def four_compared(faces: FaceSet) -> Comparison:
    """A poor model with a published claim, a good one, an equally good one, and one with six classes."""
    claim = {"document": "004", "variant": "faithful", "split": "test", "figures": {"accuracy": 0.5, "recall.sad": 0.4}}
    entries = (
        contender(faces, "poor", 0.3, claim=claim, parameters=1000),
        contender(faces, "good", 0.9, parameters=5_000_000, macs=2_000_000),
        contender(faces, "as-good", 0.9),
        contender(faces, "six", 0.6, classes="six-no-neutral"),
    )
    return compare_entries(Entries(entries, faces), Split.PUBLIC_TEST, latency=False)
