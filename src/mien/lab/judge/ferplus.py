"""Answers against the crowd of FER+ (Barsoum et al., ICMI 2016): how often its majority, how far from its votes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.lab.data import FaceSet, vote_distribution, with_classes
from mien.lab.judge.examine import FERPLUS_PROTOCOL, Selection
from mien.lab.judge.judge import Answers
from mien.lab.judge.metrics import bootstrap_interval

Floats = NDArray[np.floating[Any]]


def against_votes(answers: Answers, selection: Selection, part: FaceSet) -> dict[str, Any] | None:
    """``majority`` and ``distribution`` for answers to ``selection`` of ``part``; ``None`` for a set without votes.

    ``part`` is the split as it was read, in the seven classes and with its votes.
    """
    if part.votes is None:
        return None
    return {
        "rule": FERPLUS_PROTOCOL,
        "majority": _majority(answers, part),
        "distribution": _distribution(answers, selection.faces),
    }


def distances(probs: Floats, votes: Floats) -> dict[str, NDArray[np.float64]]:
    """Three distances of ``probs`` to ``votes``, both ``[N, C]`` with rows that sum to 1; each is ``[N]``.

    - ``kl``: Kullback-Leibler divergence of the answer from the votes, in nats
    - ``total_variation``: half the sum of absolute differences, 0..1
    - ``log_loss``: cross-entropy of the answer under the votes, in nats; ``kl`` plus the entropy of the votes
    """
    p, v = np.asarray(probs, np.float64), np.asarray(votes, np.float64)
    logs = np.log(p.clip(np.finfo(np.float64).eps, 1))
    surprise = -(v * logs).sum(1)
    entropy = -(v * np.log(np.where(v > 0, v, 1))).sum(1)
    return {"kl": surprise - entropy, "total_variation": np.abs(p - v).sum(1) / 2, "log_loss": surprise}


def _majority(answers: Answers, part: FaceSet) -> dict[str, Any]:
    """Agreement with the majority, on the judged rows that have one among the model's classes."""
    voted = with_classes(part, "eight")
    winner = dict(zip(voted.rows.tolist(), (voted.emotions[i] for i in voted.labels.tolist()), strict=True))
    own = dict(zip(part.rows.tolist(), (part.emotions[i] for i in part.labels.tolist()), strict=True))
    rows, guess = answers.rows.tolist(), answers.probs.argmax(1).tolist()
    judged = [(row, answers.emotions[place]) for row, place in zip(rows, guess, strict=True) if row in winner]
    shared = [(row, told) for row, told in judged if winner[row] in answers.emotions]
    account = {
        "no majority, or pixels from JPEG": len(rows) - len(judged),
        "majority for an emotion that the model does not know": len(judged) - len(shared),
    }
    right = np.array([told == winner[row] for row, told in shared], np.float64)
    labels = np.array([own[row] == winner[row] for row, _ in shared], np.float64)
    return {
        "n": len(shared),
        "of": len(rows),
        "account": {reason: count for reason, count in account.items() if count},
        "agreement": float(right.mean()) if len(shared) else None,
        "interval": list(bootstrap_interval(right, np.mean)) if len(shared) else None,
        "agreement_of_the_labels": float(labels.mean()) if len(shared) else None,
    }


def _distribution(answers: Answers, faces: FaceSet) -> dict[str, Any]:
    """Distances to the votes for the model's classes, on the judged rows that have any."""
    votes = vote_distribution(faces).numpy()
    usable = votes.sum(1) > 0
    told: dict[str, Any] = {"n": int(usable.sum()), "of": len(usable)}
    if not usable.any():
        return told
    chosen = votes[usable].astype(np.float64)
    rest = chosen / chosen.sum(1, keepdims=True)
    for name, values in distances(answers.probs[usable], rest).items():
        told[name] = float(values.mean())
        told[f"{name}_interval"] = list(bootstrap_interval(values, np.mean))
    told["entropy_of_the_votes"] = told["log_loss"] - told["kl"]
    return told
