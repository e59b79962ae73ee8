"""Attention by region of the face: align faces, divide their maps among regions, and evaluate claims about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from mien._emotions import Emotion
from mien._framing import FER2013, Fraction
from mien._progress import Progress, no_progress
from mien.detect import Detector
from mien.lab.significance import percentile_interval

_Floats = NDArray[np.float64]
_Polygon = tuple[Fraction, ...]

# Pixels: a crop is enlarged and placed on a grey canvas with this border, so that the detector finds its face.
ALIGNMENT_SIDE, ALIGNMENT_BORDER = 192, 104
_MIN_WIDTH = 0.4  # of the crop's side: a smaller detection is not the face of the crop
_MAX_STRETCH = 2.0  # in one direction: beyond it the key points are wrong, or the face is in full profile

REGIONS = ("brows", "eyes", "nose", "mouth", "rest")
_SUBPIXELS = 8  # points per pixel and direction, for the part of a pixel inside a region

# Document 000: "eyes for surprise, mouth for happiness".
CLAIMS = ((Emotion.SURPRISE, "eyes"), (Emotion.HAPPY, "mouth"))
_MIN_CLAIM_FACES = 10  # of an emotion; a claim is not evaluated on fewer
_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class FaceAlignment:
    """Where the key points of N faces are.

    Attributes:
        affine: float64 ``[N, 2, 3]``, from places ``(x, y, 1)`` of the framing to places of the crop, in fractions of
            the side; NaN where no key points were found.
        found: bool ``[N]``.
    """

    affine: _Floats
    found: NDArray[np.bool_]


def identity_alignment(count: int) -> FaceAlignment:
    """Return the alignment of faces that are already framed.

    Args:
        count: Number of faces.

    Returns:
        Identity maps, all found.
    """
    return FaceAlignment(np.tile(np.eye(2, 3), (count, 1, 1)), np.ones(count, np.bool_))


def align_faces(crops: NDArray[np.uint8], detector: Detector, *, progress: Progress = no_progress) -> FaceAlignment:
    """Fit an affine map to eyes, nose and mouth of every face (least squares).

    Args:
        crops: Grey faces, uint8 ``[N, S, S]``.
        detector: Finds the key points.
        progress: Called with the number of faces done.

    Returns:
        The alignment. A face is not found if the detector finds none of the crop's size, or if the map would stretch
        it by more than a factor of two.
    """
    affine = np.full((len(crops), 2, 3), np.nan)
    wanted = np.column_stack([[FER2013.right_eye, FER2013.left_eye, FER2013.nose, FER2013.mouth], np.ones(4)])
    inside = slice(ALIGNMENT_BORDER, ALIGNMENT_BORDER + ALIGNMENT_SIDE)
    for index, crop in enumerate(crops):
        canvas = np.full((ALIGNMENT_SIDE + 2 * ALIGNMENT_BORDER,) * 2, round(float(crop.mean())), np.uint8)
        enlarged = Image.fromarray(crop).resize((ALIGNMENT_SIDE, ALIGNMENT_SIDE), Image.Resampling.BICUBIC)
        canvas[inside, inside] = np.asarray(enlarged)
        faces = detector(np.repeat(canvas[..., None], 3, axis=2))
        if faces and faces[0].points is not None and faces[0].box.width >= _MIN_WIDTH * ALIGNMENT_SIDE:
            points = (np.array(faces[0].points[:4], np.float64) - ALIGNMENT_BORDER) / ALIGNMENT_SIDE
            affine[index] = np.linalg.lstsq(wanted, points, rcond=None)[0].T
        progress("face alignment", index + 1, len(crops))
    found = np.isfinite(affine).all(axis=(1, 2))
    linear = affine[found, :, :2]
    stretch = np.linalg.svd(linear, compute_uv=False)
    moderate = (stretch <= _MAX_STRETCH).all(axis=1) & (stretch >= 1 / _MAX_STRETCH).all(axis=1)
    found[found] = moderate & (np.linalg.det(linear) > 0)
    affine[~found] = np.nan
    return FaceAlignment(affine, found)


def warp_to_framing(maps: NDArray[np.floating] | NDArray[np.uint8], affine: _Floats) -> NDArray[np.float32]:
    """Resample maps or faces into the framing (bilinear).

    Args:
        maps: ``[N, S, S]``.
        affine: float64 ``[N, 2, 3]``, as in ``FaceAlignment``.

    Returns:
        float32 ``[N, S, S]``; 0 outside of a crop.
    """
    if not len(maps):  # torch makes no empty grid
        return np.zeros(maps.shape, np.float32)
    # torch counts places from -1 to 1: p = 2 q - 1.
    theta = affine.copy()
    theta[:, :, 2] = 2 * affine[:, :, 2] + affine[:, :, 0] + affine[:, :, 1] - 1
    source = torch.from_numpy(np.ascontiguousarray(maps, np.float32)).unsqueeze(1)
    grid = F.affine_grid(torch.from_numpy(theta).float(), list(source.shape), align_corners=False)
    return np.asarray(F.grid_sample(source, grid, align_corners=False).squeeze(1).numpy())


def region_polygons() -> dict[str, tuple[_Polygon, ...]]:
    """Return the outlines of the named regions, for a neutral face. The box of the mouth has room for an open mouth.

    Returns:
        By region, polygons with corners ``(x, y)`` in fractions of the side. The region ``rest`` has none.
    """
    right, left, nose, mouth = FER2013.right_eye, FER2013.left_eye, FER2013.nose, FER2013.mouth
    middle, level = (right[0] + left[0]) / 2, (right[1] + left[1]) / 2
    bridge, wings, root, base = 0.045, 0.105, level - 0.02, nose[1] + 0.07
    return {
        "brows": tuple(_rectangle(x - 0.135, y - 0.19, x + 0.135, y - 0.06) for x, y in (right, left)),
        "eyes": tuple(_rectangle(x - 0.115, y - 0.06, x + 0.115, y + 0.06) for x, y in (right, left)),
        "nose": (((middle - bridge, root), (middle + bridge, root), (nose[0] + wings, base), (nose[0] - wings, base)),),
        "mouth": (_rectangle(mouth[0] - 0.175, mouth[1] - 0.09, mouth[0] + 0.175, mouth[1] + 0.12),),
    }


def _rectangle(x1: float, y1: float, x2: float, y2: float) -> _Polygon:
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


@cache
def region_masks(size: int) -> _Floats:
    """Return the part of each pixel that belongs to each of ``REGIONS``.

    Args:
        size: Side in pixels.

    Returns:
        ``[5, size, size]`` from 0 to 1, read-only; the regions sum to 1 in every pixel.
    """
    named = []
    for outlines in region_polygons().values():
        fine = np.any([_inside(outline, size * _SUBPIXELS) for outline in outlines], axis=0)
        named.append(fine.reshape(size, _SUBPIXELS, size, _SUBPIXELS).mean(axis=(1, 3)))
    masks = np.stack([*named, 1 - np.sum(named, axis=0)])
    masks.flags.writeable = False
    return masks


def _inside(outline: _Polygon, side: int) -> NDArray[np.bool_]:
    """Which of ``side`` x ``side`` points are in ``outline``: a ray to the right crosses it an odd number of times."""
    points = (np.arange(side) + 0.5) / side
    inside = np.zeros((side, side), np.bool_)
    for (x1, y1), (x2, y2) in zip(outline, outline[1:] + outline[:1], strict=True):
        if y1 != y2:
            crosses = (y1 > points) != (y2 > points)
            at = x1 + (points - y1) * (x2 - x1) / (y2 - y1)
            inside ^= crosses[:, None] & (points < at[:, None])
    return inside


def region_shares(maps: NDArray[np.floating]) -> _Floats:
    """Compute the share of each of ``REGIONS`` in the sum of each map.

    Args:
        maps: ``[N, S, S]``, at least 0.

    Returns:
        ``[N, 5]``; rows sum to 1, and are NaN for maps that are 0 everywhere.
    """
    sums = np.tensordot(maps.astype(np.float64), region_masks(maps.shape[-1]), axes=((1, 2), (1, 2)))
    total = sums.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, sums / np.where(total > 0, total, 1), np.nan))


def max_region_shares(grid: tuple[int, int], side: int) -> dict[str, float]:
    """Return the share of each named region for a coarse map that covers exactly this region.

    Args:
        grid: Rows and columns of the map.
        side: Side of the crop in pixels.

    Returns:
        By region, a share from 0 to 1. With a share near 1, a region can be distinguished from its neighbours.
    """
    masks = torch.from_numpy(region_masks(side)[:-1].copy()).unsqueeze(1)
    coarse = F.adaptive_avg_pool2d(masks, grid).squeeze(1).float().numpy()
    return dict(zip(REGIONS[:-1], np.diagonal(region_shares(upsample(coarse, side))).tolist(), strict=True))


def upsample(maps: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Enlarge maps (bilinear, between the centres of places).

    Args:
        maps: float32 ``[N, h, w]``.
        side: Side in pixels.

    Returns:
        float32 ``[N, side, side]``.
    """
    if not len(maps):
        return np.zeros((0, side, side), np.float32)
    wide = F.interpolate(torch.from_numpy(maps).unsqueeze(1), size=(side, side), mode="bilinear", align_corners=False)
    return np.asarray(wide.squeeze(1).numpy())


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of N aligned faces.

    Attributes:
        maps: Positive parts of the maps in the framing, float32 ``[N, S, S]``, each with sum 1.
        shares: By region, ``[N, 5]``; rows sum to 1.
        chance: The shares of a map that is constant over the crop, ``[N, 5]``.
        targets: The class that each map explains, ``[N]``.
        mask: Which of the given faces these are, bool.
    """

    maps: NDArray[np.float32]
    shares: _Floats
    chance: _Floats
    targets: NDArray[np.int64]
    mask: NDArray[np.bool_]


def measure_attention(
    maps: NDArray[np.float32], targets: NDArray[np.int64], alignment: FaceAlignment, side: int
) -> Attention:
    """Measure the attention by region. Every face has the same weight, however confident its prediction is.

    Args:
        maps: Signed maps, float32 ``[N, h, w]``.
        targets: The class that each map explains, ``[N]``.
        alignment: Where the key points of the faces are.
        side: Side of the crops in pixels.

    Returns:
        The attention. Faces without alignment, and maps without a positive place, are left out.
    """
    found = alignment.found
    affine = alignment.affine[found]
    # Set negative places to 0 before upsampling, as the papers do. Afterwards, a weakly positive place among negative
    # ones would shrink to a few pixels, which would then have the weight of a whole map.
    positive = warp_to_framing(upsample(np.maximum(maps[found], 0), side), affine)
    total = positive.sum(axis=(1, 2), dtype=np.float64)
    some = total > 0
    positive = (positive[some] / total[some, None, None]).astype(np.float32)
    constant = warp_to_framing(np.ones((int(some.sum()), side, side), np.float32), affine[some])
    mask = found.copy()
    mask[found] = some
    return Attention(positive, region_shares(positive), region_shares(constant), targets[mask], mask)


def attention_by_emotion(
    attention: Attention, correct: NDArray[np.bool_], emotions: Sequence[Emotion], *, seed: int = 0
) -> dict[str, Any]:
    """Average the attention of the faces of each predicted emotion, with 95 % bootstrap intervals.

    Args:
        attention: The attention of the faces.
        correct: Which predictions are correct, bool ``[N]``.
        emotions: The emotions of the model.
        seed: Seed of the bootstrap.

    Returns:
        By emotion, the number of ``faces``, how many are ``correct``, and by region its ``share``, the ``chance`` and
        their ratio (``relative``).
    """
    table = {}
    for index, emotion in enumerate(emotions):
        rows = attention.targets == index
        if rows.any():
            share, chance = attention.shares[rows], attention.chance[rows]
            draws, draws_chance = _bootstrap(share, chance, seed)
            means, means_chance = share.mean(axis=0), chance.mean(axis=0)
            regions = {
                region: {
                    "share": float(means[i]),
                    "interval": percentile_interval(draws[:, i]),
                    "chance": float(means_chance[i]),
                    "relative": float(means[i] / means_chance[i]),
                    "relative_interval": percentile_interval(draws[:, i] / draws_chance[:, i]),
                }
                for i, region in enumerate(REGIONS)
            }
            table[str(emotion)] = {"faces": int(rows.sum()), "correct": int(correct[rows].sum()), "regions": regions}
    return table


def _bootstrap(share: _Floats, chance: _Floats, seed: int) -> tuple[_Floats, _Floats]:
    both = bootstrap_means(np.concatenate([share, chance], axis=1), seed=seed)
    return both[:, : len(REGIONS)], both[:, len(REGIONS) :]


def evaluate_claims(attention: Attention, emotions: Sequence[Emotion], *, seed: int = 0) -> list[dict[str, Any]]:
    """Evaluate each of ``CLAIMS``: three questions, each decided by a 95 % interval, and a verdict.

    Args:
        attention: The attention of the faces.
        emotions: The emotions of the model. Claims about other emotions are left out.
        seed: Seed of the bootstrap.

    Returns:
        One dictionary per claim.
    """
    claims = []
    for emotion, region in CLAIMS:
        if emotion in emotions:
            rows = attention.targets == emotions.index(emotion)
            claim = {"document": "000", "emotion": str(emotion), "region": region, "faces": int(rows.sum())}
            claims.append(claim | _evaluate_claim(attention, rows, REGIONS.index(region), seed))
    return claims


def _evaluate_claim(attention: Attention, rows: NDArray[np.bool_], place: int, seed: int) -> dict[str, Any]:
    if min(rows.sum(), (~rows).sum()) < _MIN_CLAIM_FACES:
        return {"verdict": "not measured", "reason": f"fewer than {_MIN_CLAIM_FACES} faces to compare"}
    share, chance = _bootstrap(attention.shares[rows], attention.chance[rows], seed)
    relative = share / chance
    means = attention.shares[rows].mean(axis=0) / attention.chance[rows].mean(axis=0)
    rival = max((i for i in range(len(REGIONS) - 1) if i != place), key=lambda i: float(means[i]))
    others = bootstrap_means(attention.shares[~rows], seed=seed + 1)
    difference = attention.shares[rows].mean(axis=0) - attention.shares[~rows].mean(axis=0)
    over_chance = percentile_interval(relative[:, place])
    over_rival = percentile_interval(relative[:, place] - relative[:, rival])
    over_others = percentile_interval(share[:, place] - others[:, place])
    answers = over_chance[0] > 1, over_rival[0] > 0, over_others[0] > 0
    # A region near the centre is above chance for every emotion: this alone does not support a claim about one.
    part = answers[0] and answers[2]
    return {
        "relative": float(means[place]),
        "relative_interval": over_chance,
        "rival": REGIONS[rival],
        "over_rival": float(means[place] - means[rival]),
        "over_rival_interval": over_rival,
        "over_other_emotions": float(difference[place]),
        "over_other_emotions_interval": over_others,
        "more_than_chance": answers[0],
        "more_than_any_other_region": answers[1],
        "more_than_for_other_emotions": answers[2],
        "verdict": "holds" if all(answers) else "holds in part" if part else "does not hold",
    }


def bootstrap_means(values: _Floats, *, seed: int = 0) -> _Floats:
    """Return the means of bootstrap samples of rows (Efron, 1979).

    Args:
        values: ``[N, K]``.
        seed: Seed of the draws.

    Returns:
        ``[2000, K]``.
    """
    count = len(values)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    return np.asarray(times @ values / count)
