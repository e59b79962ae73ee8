"""Maps of any net of the lab: which places of a face speak for a class.

    map                    the maps of the exported file: class activation maps, or HiResCAM and an even rest
    grad-cam               Selvaraju et al., ICCV 2017
    grad-cam++             Chattopadhyay et al., WACV 2018
    hires-cam              Draelos & Carin, arXiv:2011.08891
    integrated-gradients   Sundararajan et al., ICML 2017, through Captum

All explain the logit of one class. Their sign is kept: what is positive speaks for the class, what is negative against
it. The rectifier with which the papers end is left to those who draw.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mien._errors import MienError, MissingExtraError, ModelError
from mien.lab.export.onnx import hires_maps
from mien.lab.inference import normalise
from mien.lab.models import Model
from mien.lab.nets import Net
from mien.lab.train.run import Trained

METHODS = ("map", "grad-cam", "grad-cam++", "hires-cam", "integrated-gradients")


LAYER = "features"  # what every net of mien calls its first half


STEPS = 32  # of the path that integrated gradients sums over


Maps = NDArray[np.float32]


Classes = int | Sequence[int] | NDArray[np.integer]


# Activations and their gradients [N, K, h, w] -> map [N, h, w].
Weigh = Callable[[Tensor, Tensor], Tensor]


def explain(
    trained_or_net: Trained | nn.Module,
    images: NDArray[np.uint8] | Tensor,
    target: Classes,
    *,
    method: str = "grad-cam",
    layer: str = LAYER,
    size: int = 0,
    steps: int = STEPS,
    batch: int = 64,
    report: Callable[[int], None] = lambda _: None,
) -> Maps:
    """The map of class ``target`` (one for all, or ``[N]``) for each of ``images``, uint8 ``[N, S, S]`` grey.

    Returns float32 ``[N, h, w]``: places of the features, or of ``layer``, a dotted name of a module of the net that
    answers ``[N, K, h, w]``; for integrated gradients, pixels of the input. ``size`` is the side that the net sees in
    pixels, by default that of the run, of a bare net that of ``images``. ``steps`` are those of integrated gradients,
    whose path begins at the mean grey of the training faces. ``batch`` images run at once, and ``report`` hears how
    many are done. The net must be in eval mode.

    Raises ``MienError`` for an unknown method and wrong targets, ``ModelError`` for a layer that is not there or has no
    places.
    """
    net = trained_or_net.net if isinstance(trained_or_net, Trained) else trained_or_net
    if isinstance(trained_or_net, Trained):
        size = size or trained_or_net.recipe.data.size
    pixels = torch.as_tensor(images)
    classes = _targets(target, len(pixels))
    explainer = _choose(net, method, layer, steps)
    device = next(net.parameters()).device
    maps = []
    for start in range(0, len(pixels), batch):
        part = slice(start, start + batch)
        seen = normalise(pixels[part].to(device).unsqueeze(1).float() / 255, size or pixels.shape[-1])
        maps.append(explainer(seen, classes[part].to(device)).detach().float().cpu().numpy())
        report(min(start + batch, len(pixels)))
    return np.concatenate(maps) if maps else np.zeros((0, 1, 1), np.float32)


def check_method(net: nn.Module, method: str, layer: str) -> None:
    """Raise what ``explain`` would for a ``method`` and a ``layer`` that ``net`` does not have, at no cost."""
    _choose(net, method, layer, STEPS)
    _module(net, layer)


def _targets(target: Classes, count: int) -> Tensor:
    classes = torch.as_tensor(np.asarray(target)).long()
    classes = classes.expand(count) if classes.ndim == 0 else classes
    if classes.shape != (count,):
        raise MienError(f"target names one class, or one for each of the {count} images, not {list(classes.shape)}")
    return classes


def _choose(net: nn.Module, method: str, layer: str, steps: int) -> Callable[[Tensor, Tensor], Tensor]:
    if net.training:
        raise ModelError("the net is in training mode, in which its answers change; call net.eval() first")
    if method in _WEIGH:
        return lambda x, classes: _by_gradient(net, x, classes, layer, _WEIGH[method])
    if layer != LAYER:
        raise MienError(f"{method} has no layer to choose; leave it out, or take one of {', '.join(_WEIGH)}")
    if method == "map":
        return lambda x, classes: _as_exported(net, x, classes)
    if method == "integrated-gradients":
        return lambda x, classes: _integrated(net, x, classes, steps)
    near = get_close_matches(method, METHODS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise MienError(f"unknown method {method!r}{hint} (there are: {', '.join(METHODS)})")


def _by_gradient(net: nn.Module, x: Tensor, classes: Tensor, layer: str, weigh: Weigh) -> Tensor:
    with _watched(net, layer) as seen:
        logits = net(x)
        if len(seen) != 1:
            raise ModelError(f"layer {layer!r} runs {len(seen)} times in one pass; choose one that runs once")
        # In eval mode no image's logit depends on another image: the gradient of the sum is that of each.
        (gradients,) = torch.autograd.grad(_chosen(logits, classes).sum(), seen)
    return weigh(seen[0].detach(), gradients)


@contextmanager
def _watched(net: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """The answers of ``layer``, as the begin of all gradients: what lies below it costs none."""
    seen: list[Tensor] = []

    def watch(_: nn.Module, __: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ModelError(f"layer {layer!r} answers {shape}, which has no places; choose one that answers [N,K,h,w]")
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # what follows may work in place, which a leaf does not allow

    handle = _module(net, layer).register_forward_hook(watch)
    try:
        with torch.enable_grad():
            yield seen
    finally:
        handle.remove()


def _module(net: nn.Module, layer: str) -> nn.Module:
    known = [name for name, _ in net.named_modules() if name]
    if layer not in known:
        near = get_close_matches(layer, known, n=3)
        raise ModelError(
            f"the net has no layer {layer!r}; {'near are ' if near else 'it has '}{', '.join(near or known[:8])}"
        )
    return net.get_submodule(layer)


def _chosen(logits: Tensor, classes: Tensor) -> Tensor:
    _check_classes(logits, classes)
    return logits.gather(1, classes[:, None]).squeeze(1)


def _check_classes(logits: Tensor, classes: Tensor) -> None:
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
        raise MienError(f"target names class {int(classes.max())}; the net has {logits.shape[1]}, counted from 0")


def _grad_cam(features: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1)


def _hires_cam(features: Tensor, gradients: Tensor) -> Tensor:
    return (gradients * features).sum(dim=1)


def _grad_cam_plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    """Equation 19 of the paper; its second and third derivatives are powers of the first for exp(logit)."""
    total = features.sum(dim=(2, 3), keepdim=True)
    below = 2 * gradients.square() + total * gradients.pow(3)
    shares = torch.where(below == 0, 0.0, gradients.square() / torch.where(below == 0, 1.0, below))
    weights = (shares * gradients.clamp(min=0)).sum(dim=(2, 3), keepdim=True)
    return (weights * features).sum(dim=1)


_WEIGH: dict[str, Weigh] = {"grad-cam": _grad_cam, "grad-cam++": _grad_cam_plus_plus, "hires-cam": _hires_cam}


@torch.no_grad()
def _as_exported(net: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    if not isinstance(net, Net):
        raise ModelError("only nets of two halves, features and head, have the maps of an exported file")
    maps = hires_maps(net.head, net.features(x))
    _check_classes(maps, classes)
    return maps[torch.arange(len(x), device=x.device), classes]


def _integrated(net: nn.Module, x: Tensor, classes: Tensor, steps: int) -> Tensor:
    """The gradient's mean along the way from mean grey, times the way: its sum is the logit less that of mean grey."""
    try:
        from captum.attr import IntegratedGradients
    except ModuleNotFoundError as error:
        raise MissingExtraError("captum", "lab") from error
    _check_classes(net(x[:1]), classes)  # Captum's own complaint about a wrong class names none
    attribution: Tensor = IntegratedGradients(net).attribute(
        x, torch.zeros_like(x), target=classes, n_steps=steps, internal_batch_size=64
    )
    return attribution.sum(dim=1)


Crops = NDArray[np.uint8]


Targets = NDArray[np.int64]


_CHUNK = 256  # faces read at once: the maps of all classes are held for no more


@dataclass(frozen=True, eq=False)
class Looker:
    """``model`` as ``method`` explains it; ``layer`` and ``steps`` as for ``explain``."""

    model: Model
    method: str = "map"
    layer: str = LAYER
    steps: int = STEPS

    def __post_init__(self) -> None:
        """Raises ``MienError`` for a method or layer that is unknown, or that this model does not allow."""
        if self.method not in METHODS:
            raise MienError(f"unknown method {self.method!r} (there are: {', '.join(METHODS)})")
        if self.model.trained is None and self.method != "map":
            raise ModelError(needs_run(self.method, self.model.name))
        if self.model.trained is None and self.layer != LAYER:
            raise MienError(f"{self.model.name} is an ONNX file, whose layers are hidden; name a run to choose --layer")
        if self.model.trained is not None:
            check_method(self.model.trained.net, self.method, self.layer)

    def read(self, crops: Crops, report: Callable[[int], None] = lambda _: None) -> NDArray[np.float32]:
        """Probabilities float32 ``[N, C]`` of ``crops`` uint8 ``[N, S, S]``."""
        parts = [np.zeros((0, len(self.model.emotions)), np.float32)]
        for start in range(0, len(crops), _CHUNK):
            parts.append(self.model(crops[start : start + _CHUNK])[0])
            report(min(start + _CHUNK, len(crops)))
        return np.concatenate(parts)

    def maps(self, crops: Crops, targets: Targets, report: Callable[[int], None] = lambda _: None) -> Maps:
        """Maps float32 ``[N, h, w]``, signed, of class ``targets`` ``[N]``. Raises ``ModelError`` where it has none."""
        if self.model.trained is not None:
            maps = explain(
                self.model.trained,
                crops,
                targets,
                method=self.method,
                layer=self.layer,
                steps=self.steps,
                report=report,
            )
        else:
            maps = self._of_file(crops, targets, report)
        if len(maps) and maps.shape[1] * maps.shape[2] < 4:
            height, width = maps.shape[1:]
            raise ModelError(
                f"{self.model.name}: its map has {height}x{width} places, which say nothing; "
                "choose a --layer before it, or integrated-gradients"
            )
        return maps

    def _of_file(self, crops: Crops, targets: Targets, report: Callable[[int], None]) -> Maps:
        parts = []
        for start in range(0, len(crops), _CHUNK):
            part = slice(start, start + _CHUNK)
            maps = self.model(crops[part])[1]
            if maps is None:
                raise ModelError(f"{self.model.name} gives no maps; a run or a file of mien's contract does")
            parts.append(maps[np.arange(len(maps)), targets[part]])
            report(min(start + _CHUNK, len(crops)))
        return np.concatenate(parts) if parts else np.zeros((0, 1, 1), np.float32)


def needs_run(method: str, name: str) -> str:
    """What is said where gradients are asked of an ONNX file."""
    return (
        f"{method} needs the gradients of a run's torch net, and {name} is an ONNX file; "
        "name a run (--model runs/NAME), or take --method map"
    )
