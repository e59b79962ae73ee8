"""What the answers of one model are worth, clean and spoilt, with intervals and paired differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mien.lab.stress.figures import FIGURES, Floats, Weights, draw_weights, figures_of, interval, point, with_interval
from mien.lab.stress.read import Probs, Read
from mien.lab.stress.spoilings import STRENGTHS, Spoiling


def judge(read: Read, spoilings: Sequence[Spoiling]) -> dict[str, Any]:
    """``clean`` figures, those ``spoilt`` by name and strength, and their means, as plain values.

    A ``difference`` is that to the clean faces, its interval from the same draws of the faces. ``flips`` is the share
    of faces whose answer is another than on the clean face.
    """
    weights = draw_weights(len(read.labels))
    clean = _Figures(read, read.clean, weights)
    spoilt = {s.name: [_Figures(read, probs, weights) for probs in read.spoilt[s.name]] for s in spoilings}
    return {
        "clean": clean.said(),
        "spoilt": {
            s.name: [
                {"strength": strength, "amount": amount, **each.said(clean), "flips": each.flips}
                for strength, amount, each in zip(STRENGTHS, s.amounts, spoilt[s.name], strict=True)
            ]
            for s in spoilings
        },
        "by_spoiling": {name: _mean(five, clean) for name, five in spoilt.items()},
        "by_strength": [_mean([five[at] for five in spoilt.values()], clean) for at in range(len(STRENGTHS))],
        "mean": _mean([each for five in spoilt.values() for each in five], clean),
    }


class _Figures:
    """``FIGURES`` of one condition: their values ``[4]`` and their draws ``[R, 4]``."""

    def __init__(self, read: Read, probs: Probs, weights: Weights) -> None:
        self.values = point(probs, read.labels)
        self.draws = figures_of(probs, read.labels, weights)
        self.flips = round(float((probs.argmax(1) != read.clean.argmax(1)).mean()), 6)

    def said(self, clean: "_Figures | None" = None) -> dict[str, Any]:
        return _said(self.values, self.draws, clean)


def _mean(conditions: Sequence[_Figures], clean: _Figures) -> dict[str, Any]:
    values = np.mean([each.values for each in conditions], axis=0)
    draws = np.mean([each.draws for each in conditions], axis=0)
    flips = round(float(np.mean([each.flips for each in conditions])), 6)
    return {**_said(values, draws, clean), "flips": flips}


def _said(values: Floats, draws: Floats, clean: _Figures | None) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for at, name in enumerate(FIGURES):
        said[name] = with_interval(values[at], draws[:, at])
        if clean:
            said[name]["difference"] = round(float(values[at] - clean.values[at]), 6)
            said[name]["difference_interval"] = interval(draws[:, at] - clean.draws[:, at])
    return said
