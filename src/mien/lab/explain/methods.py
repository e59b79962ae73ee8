"""Saliency maps of any net of the lab: which places of a face raise the logit of a class.

    map                    the maps of the exported file: class activation maps (CAM), or HiResCAM plus a constant
    grad-cam               Selvaraju et al., ICCV 2017
    grad-cam++             Chattopadhyay et al., WACV 2018
    hires-cam              Draelos & Carin, arXiv:2011.08891
    integrated-gradients   Sundararajan et al., ICML 2017, through Captum

Maps are signed: positive places raise the logit, negative places lower it. The rectifier of the papers is applied
later, by plots and attention shares.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mien._emotions import Emotion
from mien._errors import ImageError, MienError, MissingExtraError, ModelError, checked, require_integer
from mien._face import Face, Reading
from mien._progress import Progress, no_progress
from mien._suggest import nearest_words, require_known
from mien.decode import Source, decode, name_of
from mien.detect import Detector
from mien.extract import extract
from mien.lab.export.onnx import hires_maps
from mien.lab.inference import normalise
from mien.lab.models import Model
from mien.lab.nets import Net
from mien.lab.train.run import Trained

METHODS = ("map", "grad-cam", "grad-cam++", "hires-cam", "integrated-gradients")
_BY_GRADIENT = METHODS[1:4]  # the methods that weigh the activations of a layer
FEATURES_LAYER = "features"  # the first half of every net of mien
_STEPS = 32  # of integrated gradients
_CHUNK = 256  # faces predicted at once: bounds the memory for the maps of all classes

_Maps = NDArray[np.float32]
_Crops = NDArray[np.uint8]


@checked
def saliency_maps(
    net: Trained | nn.Module,
    images: _Crops | Tensor,
    target: int | Sequence[int] | NDArray[np.integer],
    *,
    method: str = "grad-cam",
    layer: str = FEATURES_LAYER,
    size: int = 0,
    steps: int = _STEPS,
    batch_size: int = 64,
    progress: Progress = no_progress,
) -> _Maps:
    """Compute the saliency map of one class for every image.

    Args:
        net: A trained run, or a net in eval mode.
        images: Grey faces, uint8 ``[N, S, S]``.
        target: Index of the class: one for all images, or ``[N]``.
        method: One of ``METHODS``.
        layer: Dotted name of a module of the net that returns ``[N, K, h, w]``; for ``map`` and integrated gradients
            only the default.
        size: Side in pixels of the net's input; 0 for that of the run, or of ``images`` for a net.
        steps: Steps of integrated gradients, whose path starts at the mean grey of the training faces.
        batch_size: Number of images in one pass.
        progress: Called with the number of images done.

    Returns:
        float32 ``[N, h, w]``: places of ``layer``; for integrated gradients pixels of the input.

    Raises:
        MienError: If the method or a target is unknown.
        ModelError: If the layer is unknown or returns no places.

    Example:
        >>> from mien.lab import nets
        >>> net = nets.build("lenet", channels=1, classes=7).eval()
        >>> saliency_maps(net, np.zeros((2, 48, 48), np.uint8), [3, 5], method="hires-cam").shape
        (2, 2, 2)
    """
    for name, value, lowest in (("size", size, 0), ("steps", steps, 1), ("batch_size", batch_size, 1)):
        require_integer(name, value, lowest=lowest)
    if isinstance(net, Trained):
        size = size or net.recipe.data.size
        net = net.net
    pixels, classes = torch.as_tensor(images), torch.as_tensor(np.asarray(target)).long()
    if classes.ndim == 0:
        classes = classes.expand(len(pixels))
    if classes.shape != (len(pixels),):
        found = list(classes.shape)
        raise MienError(f"target is one class, or one for each of the {len(pixels)} images, not {found}")
    compute = _choose(net, method, layer, steps)
    device = next(net.parameters()).device
    maps = []
    for start in range(0, len(pixels), batch_size):
        part = slice(start, start + batch_size)
        inputs = normalise(pixels[part].to(device).unsqueeze(1).float() / 255, size or pixels.shape[-1])
        maps.append(compute(inputs, classes[part].to(device)).detach().float().cpu().numpy())
        progress("maps", min(start + batch_size, len(pixels)), len(pixels))
    return np.concatenate(maps) if maps else np.zeros((0, 1, 1), np.float32)


def _choose(net: nn.Module, method: str, layer: str, steps: int) -> Callable[[Tensor, Tensor], Tensor]:
    require_known("method", method, METHODS, MienError)
    if net.training:
        raise ModelError("the net is in training mode, in which its outputs change; call net.eval() first")
    if method in _BY_GRADIENT:
        return lambda x, classes: _by_gradient(net, x, classes, layer, method)
    if layer != FEATURES_LAYER:
        raise MienError(f"{method} has no layer to choose; leave it out, or choose one of {', '.join(_BY_GRADIENT)}")
    if method == "map":
        return lambda x, classes: _as_exported(net, x, classes)
    return lambda x, classes: _integrated(net, x, classes, steps)


def _by_gradient(net: nn.Module, x: Tensor, classes: Tensor, layer: str, method: str) -> Tensor:
    with _activations(net, layer) as activations:
        logits = net(x)
        if len(activations) != 1:
            raise ModelError(f"layer {layer!r} runs {len(activations)} times in one pass; choose one that runs once")
        _require_classes(logits, classes)
        # In eval mode the logits of an image do not depend on other images: one pass computes all gradients.
        (gradients,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), activations)
    values = activations[0].detach()
    return (_weights(method, values, gradients) * values).sum(dim=1)


@contextmanager
def _activations(net: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """The outputs of ``layer`` as leaves of the graph, so that no gradient is computed below it."""
    outputs: list[Tensor] = []

    def hook(_: nn.Module, __: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ModelError(f"layer {layer!r} returns {shape}, without places; choose one that returns [N,K,h,w]")
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()  # later layers may work in place, which a leaf does not allow

    handle = _module(net, layer).register_forward_hook(hook)
    try:
        with torch.enable_grad():
            yield outputs
    finally:
        handle.remove()


def _module(net: nn.Module, layer: str) -> nn.Module:
    known = [name for name, _ in net.named_modules() if name]
    if layer not in known:
        near = nearest_words(layer, known, n=3)
        listed = ", ".join(near or known[:8])
        raise ModelError(f"the net has no layer {layer!r}; {'similar are' if near else 'it has'} {listed}")
    return net.get_submodule(layer)


def _require_classes(logits: Tensor, classes: Tensor) -> None:
    wrong = classes[(classes < 0) | (classes >= logits.shape[1])]
    if len(wrong):
        raise MienError(f"target is class {int(wrong[0])}; the net has {logits.shape[1]}, counted from 0")


def _weights(method: str, activations: Tensor, gradients: Tensor) -> Tensor:
    """The weights of the activations ``[N, K, h, w]``: one for each place, or one for each channel."""
    if method == "hires-cam":
        return gradients
    if method == "grad-cam":
        return gradients.mean(dim=(2, 3), keepdim=True)
    # Equation 19 of Grad-CAM++; for exp(logit), its second and third derivatives are powers of the first.
    below = 2 * gradients.square() + activations.sum(dim=(2, 3), keepdim=True) * gradients.pow(3)
    shares = torch.where(below == 0, 0.0, gradients.square() / torch.where(below == 0, 1.0, below))
    return (shares * gradients.clamp(min=0)).sum(dim=(2, 3), keepdim=True)


@torch.no_grad()
def _as_exported(net: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    if not isinstance(net, Net):
        raise ModelError("the method map needs a net with the two halves features and head")
    maps = hires_maps(net.head, net.features(x))
    _require_classes(maps, classes)
    return maps[torch.arange(len(x), device=x.device), classes]


def _integrated(net: nn.Module, x: Tensor, classes: Tensor, steps: int) -> Tensor:
    """The mean gradient along the path from mean grey, times the path; it sums to the difference of the logits."""
    try:
        from captum.attr import IntegratedGradients
    except ModuleNotFoundError as error:
        raise MissingExtraError("captum", "lab") from error
    _require_classes(net(x[:1]), classes)  # Captum's own message about a wrong class does not name it
    attribution: Tensor = IntegratedGradients(net).attribute(
        x, torch.zeros_like(x), target=classes, n_steps=steps, internal_batch_size=64
    )
    return attribution.sum(dim=1)


@dataclass(frozen=True, eq=False)
class Explainer:
    """A model with the method that explains it.

    Attributes:
        model: An ONNX file, which allows the method ``map`` only, or a run.
        method: One of ``METHODS``.
        layer: As for ``saliency_maps``.

    Raises:
        MienError: If the method is unknown.
        ModelError: If the model does not allow the method or the layer.
    """

    model: Model
    method: str = "map"
    layer: str = FEATURES_LAYER

    def __post_init__(self) -> None:
        """Check method and layer before any face is read."""
        require_known("method", self.method, METHODS, MienError)
        if self.model.trained is None and (self.method != "map" or self.layer != FEATURES_LAYER):
            wanted = self.method if self.method != "map" else f"layer {self.layer!r}"
            raise ModelError(
                f"{wanted} needs the torch net of a run, and {self.model.name} is an ONNX file; "
                "explain the run, or use the method map"
            )
        if self.model.trained is not None:
            _choose(self.model.trained.net, self.method, self.layer, _STEPS)
            _module(self.model.trained.net, self.layer)

    def predict(self, crops: _Crops, *, progress: Progress = no_progress) -> NDArray[np.float32]:
        """Predict the probabilities of faces.

        Args:
            crops: Grey faces, uint8 ``[N, S, S]``.
            progress: Called with the number of faces done.

        Returns:
            float32 ``[N, C]``.
        """
        parts = [np.zeros((0, len(self.model.emotions)), np.float32)]
        for start in range(0, len(crops), _CHUNK):
            parts.append(self.model(crops[start : start + _CHUNK])[0])
            progress("predictions", min(start + _CHUNK, len(crops)), len(crops))
        return np.concatenate(parts)

    def maps(self, crops: _Crops, targets: NDArray[np.int64], *, progress: Progress = no_progress) -> _Maps:
        """Compute the map of one class for every face.

        Args:
            crops: Grey faces, uint8 ``[N, S, S]``.
            targets: Indices of the classes ``[N]``.
            progress: Called with the number of faces done.

        Returns:
            Signed maps, float32 ``[N, h, w]``.

        Raises:
            ModelError: If the model has no maps, or its maps have fewer than four places.
        """
        trained = self.model.trained
        if trained is not None:
            maps = saliency_maps(trained, crops, targets, method=self.method, layer=self.layer, progress=progress)
        else:
            parts = [np.zeros((0, 1, 1), np.float32)] if not len(crops) else []
            for start in range(0, len(crops), _CHUNK):
                part = slice(start, start + _CHUNK)
                of_all = self.model(crops[part])[1]
                if of_all is None:
                    raise ModelError(
                        f"{self.model.name} has no maps; explain a run, or an ONNX file that mien exported"
                    )
                parts.append(of_all[np.arange(len(of_all)), targets[part]])
                progress("maps", min(start + _CHUNK, len(crops)), len(crops))
            maps = np.concatenate(parts)
        height, width = maps.shape[1:]
        if len(maps) and height * width < 4:
            raise ModelError(
                f"{self.model.name}: its map has only {height}x{width} places; choose an earlier layer, or "
                "integrated-gradients"
            )
        return maps

    def read_images(
        self, sources: Iterable[Source], emotions: Sequence[Emotion], detector: Detector
    ) -> Generator[Reading, None, None]:
        """Read images as ``mien.Reader`` does, with the maps of this method.

        Args:
            sources: The images.
            emotions: Emotions whose maps are computed, in addition to the most probable one of each face. All other
                maps of a face are zero, because each needs a pass of its own.
            detector: The face detector.

        Yields:
            One reading per image, with its pixels. An image that cannot be read gives a reading with an error.
        """
        for source in sources:
            try:
                image = decode(source)
            except ImageError as error:
                yield Reading((), name_of(source), (0, 0), error=str(error))
                continue
            detections = detector(image.pixels)
            crops, to_image = extract(image.pixels, detections, size=self.model.size)
            faces, known = [], self.model.emotions
            for detection, crop, matrix, row in zip(detections, crops, to_image, self.predict(crops), strict=True):
                probs = dict(zip(known, row.tolist(), strict=True))
                top = known[int(row.argmax())]
                targets = np.array([known.index(emotion) for emotion in dict.fromkeys([top, *emotions])])
                chosen = self.maps(np.repeat(crop[None], len(targets), axis=0), targets)
                maps = np.zeros((len(known), *chosen.shape[1:]), np.float32)
                maps[targets] = chosen
                box, score, points = detection.box, detection.score, detection.points
                faces.append(Face(box, score, points, top, probs[top], probs, maps, crop, matrix))
            height, width = image.pixels.shape[:2]
            yield Reading(tuple(faces), image.source, (width, height), image.note, pixels=image.pixels)
