"""Mean corruption error relative to a reference model (Hendrycks and Dietterich, ICLR 2019, section 4)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mien.lab.stress.figures import Floats, Weights, draw_weights, weigh, with_interval
from mien.lab.stress.reference import Reference


def corruption(model: Reference, reference: Reference) -> dict[str, Any]:
    """``mce`` and ``relative_mce`` of ``model`` with 95 % intervals over faces, and both ``by_spoiling``.

    The error of a spoiling is the sum of the error rates over its five strengths, as a share of the reference's sum;
    the relative one counts only what passes the error on clean faces. 1 is as bad as the reference, less is better.
    ``left_out`` names the spoilings whose ratio does not exist: the reference makes no mistake, or (for the relative
    one) loses nothing that passes chance. ``why`` says why there is no figure at all. The draws of the intervals are of
    the same faces for both.
    """
    why = reference.unfit(model)
    if why:
        return {"why": why}
    reference, weights = reference.at(model.rows), draw_weights(len(model.rows))
    plain = _ratios(_mistakes(model), _mistakes(reference), weights, surely=False)
    relative = _ratios(_mistakes(model, beyond=True), _mistakes(reference, beyond=True), weights, surely=True)
    return {
        "reference": reference.name,
        "mce": _mean(plain),
        "relative_mce": _mean(relative),
        "by_spoiling": {
            name: {"ce": _said(plain.get(name)), "relative_ce": _said(relative.get(name))} for name in model.spoilt
        },
        "left_out": {
            "mce": [name for name in model.spoilt if name not in plain],
            "relative_mce": [name for name in model.spoilt if name not in relative],
        },
    }


def _mistakes(model: Reference, *, beyond: bool = False) -> dict[str, Floats]:
    """How many of its five versions are read wrongly, face by face; ``beyond``: less five times the clean face's."""
    less = len(next(iter(model.spoilt.values()))) * ~model.clean.astype(np.bool_) if beyond else 0
    return {name: (~right).sum(0) - np.asarray(less, np.float64) for name, right in model.spoilt.items()}


def _ratios(
    model: Mapping[str, Floats], reference: Mapping[str, Floats], weights: Weights, *, surely: bool
) -> dict[str, tuple[float, Floats]]:
    """By spoiling the ratio and its draws; where the reference's mistakes are (``surely``) more than none."""
    ratios = {}
    for name, mine in model.items():
        theirs = reference[name]
        below, drawn = theirs.sum(), weigh(weights, theirs)
        lowest = np.percentile(drawn, 2.5) if surely else below
        if below > 0 and lowest > 0:
            # A draw without a mistake of the reference has no ratio; an interval that it would stretch is without it.
            share = np.divide(weigh(weights, mine), drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)
            ratios[name] = float(mine.sum() / below), share
    return ratios


def _mean(ratios: Mapping[str, tuple[float, Floats]]) -> dict[str, Any] | None:
    if not ratios:
        return None
    values, draws = zip(*ratios.values(), strict=True)
    return _said((float(np.mean(values)), np.mean(draws, axis=0)))


def _said(ratio: tuple[float, Floats] | None) -> dict[str, Any] | None:
    return with_interval(ratio[0], ratio[1][np.isfinite(ratio[1])]) if ratio else None
