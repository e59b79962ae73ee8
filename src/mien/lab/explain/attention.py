"""Maps -> how attention is shared among the parts of the face, emotion by emotion, and what that says of a claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mien._emotions import Emotion
from mien.lab.explain.align import Alignment, warp
from mien.lab.explain.regions import REGIONS, masks, shares

Floats = NDArray[np.float64]
RESAMPLES = 2000
FEWEST = 10  # faces of an emotion below which nothing is concluded from them
NAMED = REGIONS[:-1]

# "Eyes for surprise, mouth for happiness" (document 000).
CLAIMS = ((Emotion.SURPRISE, "eyes"), (Emotion.HAPPY, "mouth"))


@dataclass(frozen=True, eq=False)
class Attention:
    """Of N faces laid on each other: ``maps`` float32 ``[N, S, S]``, none negative, each of sum 1, in the framing.

    ``shares`` ``[N, 5]`` by region sum to 1, ``chance`` ``[N, 5]`` are those of a map spread evenly over the crop,
    ``targets`` ``[N]`` the class that each map explains. ``kept`` bool are the faces, of all that were given, in it.
    """

    maps: NDArray[np.float32]
    shares: Floats
    chance: Floats
    targets: NDArray[np.int64]
    kept: NDArray[np.bool_]


def enlarge(maps: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """``maps`` ``[N, h, w]`` at ``side`` x ``side`` (bilinear, between the centres of places), float32."""
    if not len(maps):
        return np.zeros((0, side, side), np.float32)
    wide = F.interpolate(torch.from_numpy(maps).unsqueeze(1), size=(side, side), mode="bilinear", align_corners=False)
    return np.asarray(wide.squeeze(1).numpy())


def attend(maps: NDArray[np.float32], targets: NDArray[np.int64], alignment: Alignment, side: int) -> Attention:
    """What is positive in ``maps`` ``[N, h, w]``, laid into the framing; faces without place or without any are left.

    The sum of each is 1: every face counts alike, however sure the network was.
    """
    found = alignment.found
    affine = alignment.affine[found]
    # Cut before it is enlarged, as the papers do and the pictures show it: cut afterwards, a place that is hardly above
    # the negative ones around it would shrink to a speck, which then weighs as much as a whole map.
    positive = warp(enlarge(np.maximum(maps[found], 0), side), affine)
    total = positive.sum(axis=(1, 2), dtype=np.float64)
    there = total > 0
    positive = (positive[there] / total[there, None, None]).astype(np.float32)
    even = warp(np.ones((int(there.sum()), side, side), np.float32), affine[there])
    kept = found.copy()
    kept[found] = there
    return Attention(positive, shares(positive), shares(even), targets[kept], kept)


def resolvable(grid: tuple[int, int], side: int) -> dict[str, float]:
    """The share that each named region would get of a map of ``grid`` places which covers that region and no more.

    Places are coarse: part of the best map of the brows lies on the eyes. A share near 1 can be told from its
    neighbours.
    """
    masked = torch.from_numpy(masks(side)[: len(NAMED)].copy()).unsqueeze(1)
    coarse = F.adaptive_avg_pool2d(masked, grid).squeeze(1).float().numpy()
    return dict(zip(NAMED, np.diagonal(shares(enlarge(coarse, side))).tolist(), strict=True))


def attention_table(
    attention: Attention, right: NDArray[np.bool_], emotions: Sequence[Emotion], *, seed: int = 0
) -> dict[str, Any]:
    """Mean share of each region for each emotion, absolute and over chance, with 95 % bootstrap intervals over faces.

    ``right`` ``[N]`` says which faces of ``attention`` were read rightly. Emotions without a face are left out.
    """
    table: dict[str, Any] = {}
    for index, emotion in enumerate(emotions):
        rows = attention.targets == index
        if rows.any():
            regions = _by_region(attention.shares[rows], attention.chance[rows], seed)
            table[str(emotion)] = {"faces": int(rows.sum()), "right": int(right[rows].sum()), "regions": regions}
    return table


def judge_claims(attention: Attention, emotions: Sequence[Emotion], *, seed: int = 0) -> list[dict[str, Any]]:
    """Each of ``CLAIMS`` against the shares: three questions, each answered by a 95 % interval, and a verdict."""
    return [
        _judge(attention, emotions.index(emotion), str(emotion), region, seed)
        for emotion, region in CLAIMS
        if emotion in emotions
    ]


def bootstrap_means(values: Floats, *, seed: int = 0) -> Floats:
    """Means of ``values`` ``[N, K]`` over ``RESAMPLES`` draws of N rows: ``[RESAMPLES, K]`` (Efron, 1979)."""
    count = len(values)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return np.asarray(times @ values / count)


def interval(draws: Floats) -> list[float]:
    """The 95 % percentile interval of ``draws`` ``[R]``."""
    return [float(edge) for edge in np.percentile(draws, [2.5, 97.5])]


def _by_region(share: Floats, chance: Floats, seed: int) -> dict[str, Any]:
    draws, draws_chance = _draws(share, chance, seed)
    means, means_chance = share.mean(axis=0), chance.mean(axis=0)
    return {
        region: {
            "share": float(means[i]),
            "interval": interval(draws[:, i]),
            "chance": float(means_chance[i]),
            "relative": float(means[i] / means_chance[i]),
            "relative_interval": interval(draws[:, i] / draws_chance[:, i]),
        }
        for i, region in enumerate(REGIONS)
    }


def _draws(share: Floats, chance: Floats, seed: int) -> tuple[Floats, Floats]:
    both = bootstrap_means(np.concatenate([share, chance], axis=1), seed=seed)
    return both[:, : len(REGIONS)], both[:, len(REGIONS) :]


def _judge(attention: Attention, index: int, emotion: str, region: str, seed: int) -> dict[str, Any]:
    rows, place = attention.targets == index, REGIONS.index(region)
    said: dict[str, Any] = {"document": "000", "emotion": emotion, "region": region, "faces": int(rows.sum())}
    if min(rows.sum(), (~rows).sum()) < FEWEST:
        return said | {"verdict": "not measured", "why": f"fewer than {FEWEST} faces to compare"}
    share, chance = _draws(attention.shares[rows], attention.chance[rows], seed)
    relative = share / chance
    means = attention.shares[rows].mean(axis=0) / attention.chance[rows].mean(axis=0)
    rival = max((i for i in range(len(NAMED)) if i != place), key=lambda i: float(means[i]))
    elsewhere = bootstrap_means(attention.shares[~rows], seed=seed + 1)
    said |= {
        "relative": float(means[place]),
        "relative_interval": interval(relative[:, place]),
        "rival": REGIONS[rival],
        "over_rival": float(means[place] - means[rival]),
        "over_rival_interval": interval(relative[:, place] - relative[:, rival]),
        "over_other_emotions": float(
            (attention.shares[rows].mean(axis=0) - attention.shares[~rows].mean(axis=0))[place]
        ),
        "over_other_emotions_interval": interval(share[:, place] - elsewhere[:, place]),
    }
    return said | _verdict(said)


def _verdict(said: Mapping[str, Any]) -> dict[str, Any]:
    answers = {
        "more_than_chance": said["relative_interval"][0] > 1,
        "more_than_any_other_region": said["over_rival_interval"][0] > 0,
        "more_than_for_other_emotions": said["over_other_emotions_interval"][0] > 0,
    }
    # A region near the centre is above chance for every emotion: that alone says nothing of this one.
    part = answers["more_than_chance"] and answers["more_than_for_other_emotions"]
    verdict = "holds" if all(answers.values()) else "holds in part" if part else "does not hold"
    return {**answers, "verdict": verdict}
