"""Maps -> how attention is shared among the parts of the face, emotion by emotion, and what that says of a claim."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from mien._emotions import Emotion
from mien._face import Detection
from mien._framing import FER2013, Fraction, Framing

# RGB uint8 [H, W, 3] -> the faces in it, largest first.
Locate = Callable[[NDArray[np.uint8]], Sequence[Detection]]


FACE_SIDE, BORDER = 192, 104  # pixels: a crop is enlarged, and laid on a border as wide, for the detector to find it


_LEAST_WIDTH = 0.4  # of the crop's side: what is narrower is not the face that fills it


# Largest factor by which one direction may be stretched or shrunk: beyond it the points are wrong, or in full profile.
_MOST_STRETCH = 2.0


@dataclass(frozen=True, eq=False)
class Alignment:
    """For N crops: ``affine`` float64 ``[N, 2, 3]``, from places in the framing to places in the crop.

    Places are ``(x, y, 1)`` in fractions of a side. ``found`` bool ``[N]`` says which are known; the others hold NaN.
    """

    affine: NDArray[np.float64]
    found: NDArray[np.bool_]


def as_they_lie(count: int) -> Alignment:
    """Crops that are taken to lie in the framing already."""
    return Alignment(np.tile(np.eye(2, 3), (count, 1, 1)), np.ones(count, np.bool_))


def align(
    crops: NDArray[np.uint8],
    locate: Locate,
    *,
    framing: Framing = FER2013,
    report: Callable[[int], None] = lambda _: None,
) -> Alignment:
    """Find eyes, nose and mouth of each of ``crops`` uint8 ``[N, S, S]`` and fit the affine map, by least squares.

    A crop without a face of its own size, or whose points would stretch it more than twofold, is not found.
    """
    affine = np.full((len(crops), 2, 3), np.nan)
    wanted = np.array([framing.right_eye, framing.left_eye, framing.nose, framing.mouth])
    for index, crop in enumerate(crops):
        points = _points(crop, locate)
        if points is not None:
            affine[index] = _fit(wanted, points)
        report(index + 1)
    found = np.array([_usable(each) for each in affine], np.bool_)
    affine[~found] = np.nan
    return Alignment(affine, found)


def warp(maps: NDArray[np.floating] | NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Square ``maps`` ``[N, S, S]`` as they lie in the framing (bilinear), float32; outside of a crop they are 0."""
    if not len(maps):  # torch makes no empty grid
        return np.zeros(maps.shape, np.float32)
    # torch counts places from -1 to 1: p = 2 q - 1.
    theta = affine.copy()
    theta[:, :, 2] = 2 * affine[:, :, 2] + affine[:, :, 0] + affine[:, :, 1] - 1
    source = torch.from_numpy(np.ascontiguousarray(maps, np.float32)).unsqueeze(1)
    grid = F.affine_grid(torch.from_numpy(theta).float(), list(source.shape), align_corners=False)
    return np.asarray(F.grid_sample(source, grid, align_corners=False).squeeze(1).numpy())


def _points(crop: NDArray[np.uint8], locate: Locate) -> NDArray[np.float64] | None:
    """Right eye, left eye, nose and mouth as fractions of the crop's side, ``[4, 2]``."""
    canvas = np.full((FACE_SIDE + 2 * BORDER,) * 2, round(float(crop.mean())), np.uint8)
    enlarged = Image.fromarray(crop).resize((FACE_SIDE, FACE_SIDE), Image.Resampling.BICUBIC)
    canvas[BORDER : BORDER + FACE_SIDE, BORDER : BORDER + FACE_SIDE] = np.asarray(enlarged)
    faces = locate(np.repeat(canvas[..., None], 3, axis=2))
    if not faces or faces[0].points is None or faces[0].box.width < _LEAST_WIDTH * FACE_SIDE:
        return None
    return (np.array(faces[0].points[:4], np.float64) - BORDER) / FACE_SIDE


def _fit(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.column_stack([source, np.ones(len(source))])
    return np.asarray(np.linalg.lstsq(known, target, rcond=None)[0].T)


def _usable(affine: NDArray[np.float64]) -> bool:
    if not np.isfinite(affine).all() or np.linalg.det(affine[:, :2]) <= 0:
        return False
    stretch = np.linalg.svd(affine[:, :2], compute_uv=False)
    return bool(stretch.max() <= _MOST_STRETCH and stretch.min() >= 1 / _MOST_STRETCH)


REGIONS = ("brows", "eyes", "nose", "mouth", "rest")


Polygon = tuple[Fraction, ...]


_FINE = 8  # places drawn along a side of a pixel: how finely an edge through a pixel is shared


def polygons(framing: Framing = FER2013) -> dict[str, tuple[Polygon, ...]]:
    """The outlines of the named regions, corners ``(x, y)`` as fractions of the crop's side; the rest has none.

    Heights are those of a neutral face: brows rise and jaws drop, so that the mouth's box leaves room below.
    """
    right, left, nose, mouth = framing.right_eye, framing.left_eye, framing.nose, framing.mouth
    middle, level = (right[0] + left[0]) / 2, (right[1] + left[1]) / 2
    bridge, wings, root, base = 0.045, 0.105, level - 0.02, nose[1] + 0.07
    return {
        "brows": tuple(_box(x - 0.135, y - 0.19, x + 0.135, y - 0.06) for x, y in (right, left)),
        "eyes": tuple(_box(x - 0.115, y - 0.06, x + 0.115, y + 0.06) for x, y in (right, left)),
        "nose": (((middle - bridge, root), (middle + bridge, root), (nose[0] + wings, base), (nose[0] - wings, base)),),
        "mouth": (_box(mouth[0] - 0.175, mouth[1] - 0.09, mouth[0] + 0.175, mouth[1] + 0.12),),
    }


@cache
def masks(size: int, framing: Framing = FER2013) -> NDArray[np.float64]:
    """How much of each pixel belongs to each of ``REGIONS``: ``[5, size, size]``, 0..1, which sum to 1 everywhere."""
    named = np.stack([_cover(outlines, size) for outlines in polygons(framing).values()])
    every = np.concatenate([named, 1 - named.sum(axis=0, keepdims=True)])
    every.flags.writeable = False
    return every


def shares(maps: NDArray[np.floating], *, framing: Framing = FER2013) -> NDArray[np.float64]:
    """How the sum of each map ``[N, S, S]``, none negative, is shared among ``REGIONS``: ``[N, 5]``, rows sum to 1.

    A map without anything gets a row of NaN.
    """
    inside = np.tensordot(maps.astype(np.float64), masks(maps.shape[-1], framing), axes=((1, 2), (1, 2)))
    total = inside.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, inside / np.where(total > 0, total, 1), np.nan))


def _box(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def _cover(outlines: Sequence[Polygon], size: int) -> NDArray[np.float64]:
    fine = np.any([_inside(outline, size * _FINE) for outline in outlines], axis=0)
    return np.asarray(fine.reshape(size, _FINE, size, _FINE).mean(axis=(1, 3)))


def _inside(outline: Polygon, side: int) -> NDArray[np.bool_]:
    """Which centres of ``side`` x ``side`` places lie in ``outline``: a ray to the right crosses it oddly often.

    Outlines that touch share no place.
    """
    places = (np.arange(side) + 0.5) / side
    inside = np.zeros((side, side), np.bool_)
    for (x1, y1), (x2, y2) in zip(outline, outline[1:] + outline[:1], strict=True):
        if y1 != y2:
            crosses = (y1 > places) != (y2 > places)
            at = x1 + (places - y1) * (x2 - x1) / (y2 - y1)
            inside ^= crosses[:, None] & (places < at[:, None])
    return inside


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
