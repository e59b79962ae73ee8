"""Where models disagree: how often two answer differently or fail together, and what all of them know together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.lab.compare.common import Common
from mien.lab.judge.metrics import checked


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Of M models on N common faces; all but ``divergence`` are shares of those faces.

    - ``differ`` ``[M, M]``: two answer differently; ``double_fault`` ``[M, M]``: both are wrong (Giacinto and Roli,
      2001), on the diagonal the error of each
    - ``accuracy`` ``[M]``; ``oracle``: at least one is right; ``all_right``, ``all_wrong``
    - ``majority``: the answer of most is right, ties going to the higher mean probability; ``mean``: that of the mean
    - ``divergence`` ``[N]``: Jensen-Shannon divergence of their probabilities in nats (Lin, 1991), 0 where all agree
    """

    differ: NDArray[np.float64]
    double_fault: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    oracle: float
    all_right: float
    all_wrong: float
    majority: float
    mean: float
    divergence: NDArray[np.float64]


def disagreement(common: Common) -> Disagreement:
    """How the models of ``common`` disagree on its faces."""
    guesses, right = common.guesses, common.right
    wrong, mean = ~right, common.probs.mean(0, dtype=np.float64)
    return Disagreement(
        (guesses[:, None] != guesses[None]).mean(2),
        (wrong[:, None] & wrong[None]).mean(2),
        right.mean(1),
        float(right.any(0).mean()),
        float(right.all(0).mean()),
        float(wrong.all(0).mean()),
        float((_majority(guesses, mean) == common.labels).mean()),
        float((mean.argmax(1) == common.labels).mean()),
        _divergence(common, mean),
    )


def _majority(guesses: NDArray[np.int64], mean: NDArray[np.float64]) -> NDArray[np.int64]:
    votes = np.stack([(guesses == place).sum(0) for place in range(mean.shape[1])], axis=1)
    return np.asarray((votes + mean / 2).argmax(1))  # a mean probability never outweighs a vote


def _divergence(common: Common, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    single = np.stack([_entropy(checked(probs, common.labels, mean.shape[1])) for probs in common.probs])
    return np.asarray((_entropy(mean) - single.mean(0)).clip(min=0))


def _entropy(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(probs * np.log(np.maximum(probs, np.finfo(np.float64).tiny))).sum(1))
