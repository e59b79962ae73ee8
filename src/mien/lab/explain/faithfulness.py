"""Is what a map marks what the network needs? Deletion and insertion (Petsiuk et al., RISE, BMVC 2018).

Deletion takes the most marked pixels away first: the better the map, the faster the probability falls. Insertion gives
them back first, to a face without any: the better, the faster it rises. The order of the map stands against that of
random maps, as coarse as itself, and of a blob at the centre of the crop, where faces lie.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.stats import rankdata
from torch import nn

from mien._errors import MienError, ModelError
from mien.infer import Classifier
from mien.lab.explain.attention import bootstrap_means, enlarge, interval
from mien.lab.explain.methods import Looker
from mien.lab.models import Model

STAGES = 8  # of the cascade, at most: one layer, or several of a deep net together


Item = TypeVar("Item")


Maps = NDArray[np.float32]


def sanity(
    looker: Looker,
    crops: NDArray[np.uint8],
    targets: NDArray[np.int64],
    *,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda _, __: None,
) -> dict[str, Any]:
    """The mean rank correlation of maps after each stage of the cascade with those before, with 95 % intervals.

    ``report`` hears how many stages of how many are done.
    """
    before = looker.maps(crops, targets)
    stages = []
    for number, count, names, model in _cascade(looker.model, seed):
        alike = correlation(before, replace(looker, model=model).maps(crops, targets))
        known = alike[np.isfinite(alike)]
        stages.append({"layers": names, **_mean(known, seed), "without_a_map": len(alike) - len(known)})
        report(number, count)
    return {"faces": len(crops), "stages": stages}


def correlation(one: Maps, other: Maps) -> NDArray[np.float64]:
    """Spearman's rank correlation ``[N]`` of each map ``[N, h, w]`` with its other; NaN where one is flat."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (one, other)]
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return np.asarray(np.where(scale > 0, (first * second).sum(axis=1) / np.where(scale > 0, scale, 1), np.nan))


def staged(items: Sequence[Item]) -> list[list[Item]]:
    """``items``, last first, in at most ``STAGES`` groups: the last alone, the others as evenly as it goes."""
    last_first = list(reversed(items))
    count = min(STAGES - 1, len(last_first) - 1)
    edges = np.linspace(1, len(last_first), count + 1).round().astype(int)
    return [last_first[:1], *(last_first[a:b] for a, b in pairwise(edges))]


def _mean(values: NDArray[np.float64], seed: int) -> dict[str, Any]:
    if not len(values):
        return {"correlation": None, "interval": None}
    draws = bootstrap_means(values[:, None], seed=seed)
    return {"correlation": float(values.mean()), "interval": interval(draws[:, 0])}


Stage = tuple[int, int, list[str], Model]


def _cascade(model: Model, seed: int) -> Iterator[Stage]:
    """After each stage: its number, how many there are, the layers newly shuffled, and the model so far."""
    return _of_net(model, seed) if model.trained is not None else _of_file(model, seed)


def _of_net(model: Model, seed: int) -> Iterator[Stage]:
    assert model.trained is not None
    net = copy.deepcopy(model.trained.net)
    generator = torch.Generator().manual_seed(seed)
    layers = [(name, layer) for name, layer in net.named_modules() if list(layer.parameters(recurse=False))]
    stages = staged(layers)
    for number, stage in enumerate(stages, start=1):
        for _, layer in stage:
            _shuffle(layer, generator)
        changed = replace(model, trained=replace(model.trained, net=net))
        yield number, len(stages), [name for name, _ in stage], changed


@torch.no_grad()
def _shuffle(layer: nn.Module, generator: torch.Generator) -> None:
    for weights in layer.parameters(recurse=False):
        order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
        weights.copy_(weights.flatten()[order].view_as(weights))


def _of_file(model: Model, seed: int) -> Iterator[Stage]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(model.path))
    generator = np.random.default_rng(seed)
    stages = staged(_weights(graph))
    with TemporaryDirectory(prefix="mien-sanity-") as folder:
        for number, stage in enumerate(stages, start=1):
            for tensor in stage:
                values = numpy_helper.to_array(tensor)
                shuffled = generator.permutation(values.ravel()).reshape(values.shape)
                tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
            path = Path(folder) / f"{number}.onnx"
            path.write_bytes(graph.SerializeToString())
            changed = replace(model, path=path, answer=Classifier(path).__call__)
            yield number, len(stages), [tensor.name for tensor in stage], changed


def _weights(graph: Any) -> list[Any]:
    """The initialisers that are weights, in the order in which the graph uses them."""
    there = {tensor.name: tensor for tensor in graph.graph.initializer if len(tensor.dims) >= 2}
    used = dict.fromkeys(name for node in graph.graph.node for name in node.input if name in there)
    weights = [there[name] for name in used if np.prod(there[name].dims) > 1]
    if len(weights) < 2:
        raise ModelError("the file keeps its weights elsewhere: no sanity check; explain the run that it was made of")
    return weights


Crops = NDArray[np.uint8]


Floats = NDArray[np.float64]


Ranks = NDArray[np.int64]


Read = Callable[[Crops], NDArray[np.float32]]


BASELINES = {
    "blur": "the face itself under a Gaussian blur of an eighth of its side",
    "mean": "the mean grey of the face",
}


ORDERS = ("map", "random", "centre")


POINTS = 13  # of a curve: 0, 1/12, ... 1 of all pixels


_BLUR = 1 / 8  # standard deviation, of the crop's side


def faithfulness(
    read: Read,
    crops: Crops,
    targets: NDArray[np.int64],
    maps: NDArray[np.float32],
    *,
    baseline: str = "blur",
    seed: int = 0,
    report: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Curves and areas of the probability of class ``targets`` ``[N]`` for ``crops`` uint8 ``[N, S, S]``.

    ``read`` answers probabilities ``[N, C]``, ``maps`` ``[N, h, w]`` say what matters. Areas under the mean curves lie
    in 0..1; those of the map come with the paired difference to each other order, and 95 % bootstrap intervals over
    faces. ``report`` hears of every point that is done, of ``2 * len(ORDERS) * POINTS``.
    """
    if baseline not in BASELINES:
        raise MienError(f"unknown baseline {baseline!r} (there are: {', '.join(BASELINES)})")
    emptied = empty(crops, baseline)
    curves: dict[str, dict[str, Floats]] = {"deletion": {}, "insertion": {}}
    for number, (order, ranks) in enumerate(_orders(maps, crops.shape[-1], seed).items()):
        for second, (kind, start, end) in enumerate((("deletion", crops, emptied), ("insertion", emptied, crops))):
            done = (2 * number + second) * POINTS
            curves[kind][order] = _curve(read, start, end, ranks, targets, partial(_further, report, done))
    return {
        "faces": len(crops),
        "baseline": BASELINES[baseline],
        "fractions": np.linspace(0, 1, POINTS).tolist(),
        **{kind: _figures(by_order, seed) for kind, by_order in curves.items()},
    }


def empty(crops: Crops, baseline: str) -> Crops:
    """What stands in the place of removed pixels, uint8 ``[N, S, S]``; ``baseline`` is one of ``BASELINES``."""
    if baseline == "mean":
        means = crops.mean(axis=(1, 2)).round().astype(np.uint8)
        return np.broadcast_to(means[:, None, None], crops.shape).copy()
    blur = ImageFilter.GaussianBlur(_BLUR * crops.shape[-1])
    return np.stack([np.asarray(Image.fromarray(crop).filter(blur)) for crop in crops])


def area(curves: Floats) -> Floats:
    """The area under each curve ``[..., POINTS]`` over 0..1, by trapezoids."""
    return np.asarray((curves[..., 1:] + curves[..., :-1]).mean(axis=-1) / 2)


def rank(importance: NDArray[np.floating], seed: int) -> Ranks:
    """The place of each pixel in the order of falling ``importance`` ``[N, S, S]``, from 0; ties fall at random."""
    flat = importance.reshape(len(importance), -1)
    chance = np.random.default_rng(seed).random(flat.shape)
    order = np.lexsort((chance, -flat), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks.reshape(importance.shape)


def _orders(maps: NDArray[np.float32], side: int, seed: int) -> dict[str, Ranks]:
    noise = np.random.default_rng(seed).standard_normal(maps.shape).astype(np.float32)
    away = np.square(np.arange(side) - (side - 1) / 2)
    centre = np.broadcast_to(-(away[:, None] + away), (len(maps), side, side))
    importance = {"map": enlarge(maps, side), "random": enlarge(noise, side), "centre": centre}
    return {order: rank(values, seed) for order, values in importance.items()}


def _curve(
    read: Read, start: Crops, end: Crops, ranks: Ranks, targets: NDArray[np.int64], report: Callable[[int], None]
) -> Floats:
    """The probability ``[N, POINTS]`` on the way from ``start`` to ``end``, pixels following their ``ranks``."""
    pixels = ranks.shape[1] * ranks.shape[2]
    curve = np.empty((len(start), POINTS))
    for point, fraction in enumerate(np.linspace(0, 1, POINTS)):
        probs = read(np.where(ranks < fraction * pixels, end, start))
        curve[:, point] = probs[np.arange(len(start)), targets]
        report(point + 1)
    return curve


def _further(report: Callable[[int], None], before: int, done: int) -> None:
    report(before + done)


def _figures(curves: Mapping[str, Floats], seed: int) -> dict[str, Any]:
    areas = {order: area(curve) for order, curve in curves.items()}
    return {order: _of_order(curves[order], areas, order, seed) for order in curves}


def _of_order(curve: Floats, areas: Mapping[str, Floats], order: str, seed: int) -> dict[str, Any]:
    others = [other for other in areas if other != order] if order == "map" else []
    columns = np.stack([areas[order], *(areas[order] - areas[other] for other in others)], axis=1)
    draws = bootstrap_means(columns, seed=seed)
    return {
        "curve": curve.mean(axis=0).tolist(),
        "area": float(columns[:, 0].mean()),
        "interval": interval(draws[:, 0]),
        "less": {
            other: {"difference": float(columns[:, i].mean()), "interval": interval(draws[:, i])}
            for i, other in enumerate(others, start=1)
        },
    }
