"""Does a map depend on what the network learned? Randomised weights, from the head down (Adebayo et al., NeurIPS 2018).

Layer after layer, from the classifier to the first, the weights of the network are shuffled within their layer, which
keeps how they are distributed and loses what was learned. After each stage the maps of the same faces and classes are
compared with those before, by Spearman's rank correlation of their places. A map that stays alike shows the face, not
the network.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from mien._errors import ModelError
from mien.infer import Classifier
from mien.lab.explain.attention import bootstrap_means, interval
from mien.lab.explain.look import Looker
from mien.lab.model import Model

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
