"""Faithfulness of saliency maps: deletion AUC and insertion AUC, and the model parameter randomisation test.

Deletion removes the most salient pixels first. With a faithful map the probability falls fast: a low AUC is better.
Insertion restores these pixels first: a high AUC is better (Petsiuk et al., RISE, BMVC 2018). The order of the map is
compared with random maps of the same size and with a blob at the centre of the crop.

The randomisation test shuffles the weights of a model from the last layer to the first. A map that does not change is
independent of what the model has learned (Adebayo et al., NeurIPS 2018).
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.stats import rankdata

from mien._errors import MienError, ModelError
from mien._progress import Progress, no_progress
from mien._suggest import require_known
from mien.infer import Classifier
from mien.lab.explain.attention import bootstrap_means, upsample
from mien.lab.explain.methods import Explainer
from mien.lab.export.onnx import read_metadata, write_metadata
from mien.lab.models import Model
from mien.lab.significance import percentile_interval
from mien.lab.train.run import Trained

_Crops = NDArray[np.uint8]
_Floats = NDArray[np.float64]
_Targets = NDArray[np.int64]
_Maps = NDArray[np.float32]
_Predict = Callable[[_Crops], NDArray[np.float32]]
_Item = TypeVar("_Item")

BASELINES = {
    "blur": "the face after a Gaussian blur of an eighth of its side",
    "mean": "the mean grey of the face",
}
ORDERS = ("map", "random", "centre")
CURVE_POINTS = 13  # 0, 1/12, ... 1 of all pixels
RANDOMISATION_STAGES = 8  # at most: one layer, or several layers of a deep net together
_BLUR = 1 / 8  # standard deviation, of the crop's side


def faithfulness(
    predict: _Predict,
    crops: _Crops,
    targets: _Targets,
    maps: _Maps,
    *,
    baseline: str = "blur",
    seed: int = 0,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Compute deletion and insertion curves and the areas under them (AUC).

    Args:
        predict: Crops -> probabilities ``[N, C]``.
        crops: Grey faces, uint8 ``[N, S, S]``.
        targets: The classes whose probability is measured, ``[N]``.
        maps: Signed saliency maps, float32 ``[N, h, w]``.
        baseline: What replaces a removed pixel: one of ``BASELINES``.
        seed: Seed of random maps, ties and bootstrap.
        progress: Called with the number of curve points done.

    Returns:
        For ``deletion`` and ``insertion`` and each of ``ORDERS`` the mean ``curve``, the ``auc`` from 0 to 1 with its
        95 % bootstrap interval over faces, and for the map its paired ``differences`` to the other orders.

    Raises:
        MienError: If the baseline is unknown.
    """
    require_known("baseline", baseline, BASELINES, MienError)
    empty, side = baseline_images(crops, baseline), crops.shape[-1]
    noise = np.random.default_rng(seed).standard_normal(maps.shape).astype(np.float32)
    squared = np.square(np.arange(side) - (side - 1) / 2)
    centre = np.broadcast_to(-(squared[:, None] + squared), (len(maps), side, side))
    importance = {"map": upsample(maps, side), "random": upsample(noise, side), "centre": centre}
    curves: dict[str, dict[str, _Floats]] = {"deletion": {}, "insertion": {}}
    done, total = 0, len(ORDERS) * len(curves)
    for order, values in importance.items():
        ranks = pixel_ranks(values, seed)
        for kind, start, end in (("deletion", crops, empty), ("insertion", empty, crops)):
            curves[kind][order] = _curve(predict, start, end, ranks, targets)
            done += 1
            progress("deletion and insertion", done, total)
    content: dict[str, Any] = {
        "faces": len(crops),
        "baseline": BASELINES[baseline],
        "fractions": np.linspace(0, 1, CURVE_POINTS).tolist(),
    }
    for kind, by_order in curves.items():
        areas = {order: area_under_curve(curve) for order, curve in by_order.items()}
        content[kind] = {order: _summary(curve, areas, order, seed) for order, curve in by_order.items()}
    return content


def baseline_images(crops: _Crops, baseline: str) -> _Crops:
    """Return what replaces removed pixels.

    Args:
        crops: Grey faces, uint8 ``[N, S, S]``.
        baseline: One of ``BASELINES``.

    Returns:
        uint8 ``[N, S, S]``.
    """
    if baseline == "mean":
        means = crops.mean(axis=(1, 2)).round().astype(np.uint8)
        return np.broadcast_to(means[:, None, None], crops.shape).copy()
    blur = ImageFilter.GaussianBlur(_BLUR * crops.shape[-1])
    return np.stack([np.asarray(Image.fromarray(crop).filter(blur)) for crop in crops])


def area_under_curve(curves: _Floats) -> _Floats:
    """Return the area under each curve, by trapezoids.

    Args:
        curves: ``[..., P]``, at evenly spaced fractions from 0 to 1.

    Returns:
        ``[...]``.
    """
    return np.asarray((curves[..., 1:] + curves[..., :-1]).mean(axis=-1) / 2)


def pixel_ranks(importance: NDArray[np.floating], seed: int) -> NDArray[np.int64]:
    """Rank the pixels of each image by falling importance.

    Args:
        importance: ``[N, S, S]``.
        seed: Seed for the order of equal pixels.

    Returns:
        Ranks from 0, ``[N, S, S]``.
    """
    flat = importance.reshape(len(importance), -1)
    chance = np.random.default_rng(seed).random(flat.shape)
    order = np.lexsort((chance, -flat), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks.reshape(importance.shape)


def _curve(predict: _Predict, start: _Crops, end: _Crops, ranks: NDArray[np.int64], targets: _Targets) -> _Floats:
    """The probability ``[N, CURVE_POINTS]`` while pixels change from ``start`` to ``end`` in the order of ``ranks``."""
    pixels = ranks.shape[1] * ranks.shape[2]
    curve = np.empty((len(start), CURVE_POINTS))
    for point, fraction in enumerate(np.linspace(0, 1, CURVE_POINTS)):
        probs = predict(np.where(ranks < fraction * pixels, end, start))
        curve[:, point] = probs[np.arange(len(start)), targets]
    return curve


def _summary(curve: _Floats, areas: Mapping[str, _Floats], order: str, seed: int) -> dict[str, Any]:
    others = [other for other in areas if other != order] if order == "map" else []
    columns = np.stack([areas[order], *(areas[order] - areas[other] for other in others)], axis=1)
    draws = bootstrap_means(columns, seed=seed)
    return {
        "curve": curve.mean(axis=0).tolist(),
        "auc": float(columns[:, 0].mean()),
        "interval": percentile_interval(draws[:, 0]),
        "differences": {
            other: {"difference": float(columns[:, i].mean()), "interval": percentile_interval(draws[:, i])}
            for i, other in enumerate(others, start=1)
        },
    }


def randomisation_test(
    explainer: Explainer, crops: _Crops, targets: _Targets, *, seed: int = 0, progress: Progress = no_progress
) -> dict[str, Any]:
    """Shuffle the weights from the last layer to the first, and correlate the maps with those of the trained model.

    Args:
        explainer: The model and its method. It is not changed.
        crops: Grey faces, uint8 ``[N, S, S]``.
        targets: The classes that the maps explain, ``[N]``.
        seed: Seed of the shuffles and the bootstrap.
        progress: Called with the number of stages done.

    Returns:
        By stage the ``layers`` that are shuffled in it, the mean rank ``correlation`` with its 95 % interval over
        faces, and the number of ``flat_maps``, which have no correlation.

    Raises:
        ModelError: If the file of the model does not contain its weights.
    """
    model = explainer.model
    before, stages = explainer.maps(crops, targets), []
    shuffled = _shuffle_net(model, model.trained, seed) if model.trained is not None else _shuffle_file(model, seed)
    for number, count, layers, changed in shuffled:
        correlations = rank_correlation(before, replace(explainer, model=changed).maps(crops, targets))
        known = correlations[np.isfinite(correlations)]
        stage: dict[str, Any] = {"layers": layers, "correlation": None, "interval": None}
        if len(known):
            draws = bootstrap_means(known[:, None], seed=seed)
            stage |= {"correlation": float(known.mean()), "interval": percentile_interval(draws[:, 0])}
        stages.append(stage | {"flat_maps": len(correlations) - len(known)})
        progress("randomisation test", number, count)
    return {"faces": len(crops), "stages": stages}


def rank_correlation(first: _Maps, second: _Maps) -> _Floats:
    """Compute Spearman's rank correlation of pairs of maps.

    Args:
        first: ``[N, h, w]``.
        second: ``[N, h, w]``.

    Returns:
        ``[N]``, from -1 to 1; NaN where a map is flat.
    """
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    one, other = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.asarray(np.where(scale > 0, (one * other).sum(axis=1) / np.where(scale > 0, scale, 1), np.nan))


def randomisation_stages(layers: Sequence[_Item]) -> list[list[_Item]]:
    """Group layers into stages: the last one alone, the others evenly.

    Args:
        layers: At least one layer, first layer first.

    Returns:
        At most ``RANDOMISATION_STAGES`` groups, last layer first.
    """
    last_first = list(reversed(layers))
    count = min(RANDOMISATION_STAGES - 1, len(last_first) - 1)
    edges = np.linspace(1, len(last_first), count + 1).round().astype(int)
    return [last_first[:1], *(last_first[a:b] for a, b in pairwise(edges))]


# After each stage: its number, the number of stages, the layers that were shuffled in it, and the model.
_Stage = tuple[int, int, list[str], Model]


@torch.no_grad()
def _shuffle_net(model: Model, trained: Trained, seed: int) -> Iterator[_Stage]:
    net = copy.deepcopy(trained.net)
    generator = torch.Generator().manual_seed(seed)
    layers = [(name, layer) for name, layer in net.named_modules() if list(layer.parameters(recurse=False))]
    stages = randomisation_stages(layers)
    for number, stage in enumerate(stages, start=1):
        for _, layer in stage:
            for weights in layer.parameters(recurse=False):
                order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
                weights.copy_(weights.flatten()[order].view_as(weights))
        changed = replace(model, trained=replace(trained, net=net))
        yield number, len(stages), [name for name, _ in stage], changed


def _shuffle_file(model: Model, seed: int) -> Iterator[_Stage]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(model.path))
    tensors, layers = {tensor.name: tensor for tensor in graph.graph.initializer}, _weights_by_layer(graph.graph)
    if len(layers) < 2:
        raise ModelError("the file does not contain its weights: no randomisation test; explain the run instead")
    generator, stages = np.random.default_rng(seed), randomisation_stages(list(layers.items()))
    with TemporaryDirectory(prefix="mien-randomisation-") as folder:
        for number, stage in enumerate(stages, start=1):
            for _, parts in stage:
                orders: dict[int, NDArray[np.int64]] = {}  # one for the low and the high bytes of a layer
                for tensor in (tensors[part] for part in parts):
                    values = numpy_helper.to_array(tensor)
                    order = orders.setdefault(values.size, generator.permutation(values.size))
                    shuffled = values.ravel()[order].reshape(values.shape)
                    tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
            path = Path(folder) / f"{number}.onnx"
            write_metadata(graph, path, read_metadata(graph))
            changed = replace(model, path=path, predict=Classifier(path).__call__)
            yield number, len(stages), [name for name, _ in stage], changed


def _weights_by_layer(graph: Any) -> dict[str, tuple[str, ...]]:
    """The layers of an ONNX graph that have weights, in its order: name -> tensors that the weights are computed from.

    Nodes without an input that depends on the image, such as those that decode weights, belong to the layer after them.
    """
    known: dict[str, tuple[str, ...]] = {  # constant -> the weights in it
        tensor.name: (tensor.name,) if len(tensor.dims) >= 2 and np.prod(tensor.dims) > 1 else ()
        for tensor in graph.initializer
    }
    layers = {}
    for node in graph.node:
        parts = tuple(dict.fromkeys(part for name in node.input for part in known.get(name, ())))
        if all(name in known for name in node.input if name):
            known |= dict.fromkeys(node.output, parts)
        elif parts:
            layers[parts[0].removesuffix(".high")] = parts
    return layers
