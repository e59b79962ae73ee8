"""What a card says beside its figures: the mean over a face and its mirror image, and agreement with people."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mien.infer import Classifier
from mien.lab.data import FaceSet, Split, with_classes
from mien.lab.judge.examine import Selection
from mien.lab.judge.ferplus import against_votes
from mien.lab.judge.judge import Answers, crops_of

_KEPT = ("n", "accuracy", "interval", "log_loss", "ece")


def beside(classifier: Classifier, answers: Answers, faces: FaceSet, classes: str, split: Split) -> dict[str, Any]:
    """``flip`` and ``people`` for ``answers`` of ``classifier`` to ``split`` of ``faces``, the full set.

    ``flip`` holds the figures of the mean probabilities of each face and its mirror image, by part of the rows: two
    passes instead of one. ``people`` is what ``against_votes`` says of the answers as they are, ``None`` for a set
    without votes.
    """
    part = faces.split(split)
    chosen = with_classes(part, classes)
    mirrored, _ = classifier(np.ascontiguousarray(crops_of(chosen, classifier.size)[:, :, ::-1]))
    both = replace(answers, probs=((answers.probs + mirrored) / 2).astype(np.float32)).figures()
    return {
        "flip": {name: {key: figures[key] for key in _KEPT} for name, figures in both.items()},
        "people": against_votes(answers, Selection(chosen, answers.clean, str(split), len(part)), part),
    }


def tables_of(found: Mapping[str, Any]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The tables of a card, heads first, from what ``beside`` said by split: of flips, and of people (or empty)."""
    flips: list[tuple[str, ...]] = [("split, face and mirror image", "rows", "accuracy", "95 % interval", "ECE")]
    people: list[tuple[str, ...]] = []
    for split, said in sorted(found.items()):
        for part, figures in said["flip"].items():
            low, high = figures["interval"]
            told = (f"{100 * figures['accuracy']:.2f} %", f"{100 * low:.2f} % to {100 * high:.2f} %")
            flips.append((f"{split.capitalize()}Test, {part}", f"{figures['n']:,}", *told, f"{figures['ece']:.3f}"))
        if said["people"] and said["people"]["majority"]["n"] and said["people"]["distribution"]["n"]:
            people.append(_row(split, said["people"]))
    heads = ("split", "rows", "agrees with FER+", "95 % interval", "labels agree", "log loss", "of people", "distance")
    return flips, [heads, *people] if people else []


def _row(split: str, said: Mapping[str, Any]) -> tuple[str, ...]:
    majority, votes = said["majority"], said["distribution"]
    low, high = majority["interval"]
    return (
        f"{split.capitalize()}Test",
        f"{majority['n']:,}",
        f"{100 * majority['agreement']:.2f} %",
        f"{100 * low:.2f} % to {100 * high:.2f} %",
        f"{100 * majority['agreement_of_the_labels']:.2f} %",
        *(f"{votes[key]:.3f}" for key in ("log_loss", "entropy_of_the_votes", "total_variation")),
    )
