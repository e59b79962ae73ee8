"""Inference of a trained net: normalisation, prediction in batches, and test-time augmentation (TTA).

``runtime`` sets the device and the threads for all models that a command opens.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien._errors import DataError, DeviceError
from mien._suggest import require_known
from mien.infer import Classifier

# Mean and standard deviation of the pixels of FER-2013 Training, in 0..1 (measured: 0.5077, 0.2550).
MEAN, STD = 0.508, 0.255

# The kinds of test-time augmentation: name -> the views of a face whose probabilities are averaged.
TTA = {
    "none": "the face as it is",
    "flip": "each face and its mirror image, averaged",
    "six": "each face as it is, an eleventh larger and a thirteenth smaller, with their mirror images, averaged",
    "ten": "five crops and their mirror images, averaged",
}
NET_DEVICES = ("auto", "cpu", "cuda", "mps")


@torch.no_grad()
def predict(net: nn.Module, images: Tensor, size: int, *, batch_size: int = 512) -> Tensor:
    """Compute the logits of a net for grey faces.

    Args:
        net: A net in eval mode that takes float ``[N, 1, size, size]``.
        images: uint8 ``[N, S, S]``.
        size: Side in pixels of the faces that the net takes; other faces are resized.
        batch_size: Faces in one forward pass.

    Returns:
        float32 ``[N, C]`` on the device of the images.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 7))
        >>> predict(net, torch.zeros(3, 48, 48, dtype=torch.uint8), 16).shape
        torch.Size([3, 7])
    """
    device = next(net.parameters(), images).device
    parts = [net(normalise(x.to(device).unsqueeze(1).float() / 255, size)) for x in torch.split(images, batch_size)]
    return torch.cat(parts).float().to(images.device)


def predict_tta(net: nn.Module, images: Tensor, size: int, tta: str) -> Tensor:
    """Compute logits whose softmax is the mean of the probabilities over the views of each face.

    Args:
        net: As for ``predict``.
        images: uint8 ``[N, S, S]``.
        size: Side in pixels of the faces that the net takes.
        tta: A key of ``TTA``.

    Returns:
        float32 ``[N, C]``: logits for ``"none"``, else logarithms of unnormalised mean probabilities.
    """
    logits = [predict(net, view.squeeze(1), size) for view in tta_views(images.unsqueeze(1), tta)]
    return logits[0] if len(logits) == 1 else torch.stack([each.log_softmax(1) for each in logits]).logsumexp(0)


def normalise(images: Tensor, size: int) -> Tensor:
    """Resize faces and scale their pixels to mean 0 and variance 1 over the training set.

    Every net is trained with this normalisation, and every exported graph contains it.

    Args:
        images: float ``[N, 1, S, S]`` in 0..1.
        size: Side of the resized faces in pixels.

    Returns:
        float ``[N, 1, size, size]`` in channels-last layout.
    """
    if images.shape[-1] != size:
        images = F.interpolate(images, size=size, mode="bicubic", align_corners=False)
    return ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def tta_views(images: Tensor, tta: str) -> list[Tensor]:
    """Return the views of faces that test-time augmentation averages.

    The ten views are the crops of the four corners and of the centre and their mirror images (Krizhevsky et al.,
    NeurIPS 2012). The six views are the face, its centre, the face with a border that repeats its edge, and their
    mirror images. After resizing, they show the face in three sizes.

    Args:
        images: ``[N, 1, S, S]`` of any type.
        tta: A key of ``TTA``.

    Returns:
        One tensor ``[N, 1, V, V]`` for each view. Views differ in their side V and must be resized.

    Raises:
        DataError: ``tta`` is unknown.
    """
    require_known("test-time augmentation", tta, TTA, DataError)
    side = images.shape[-1]
    crop, border = round(side * 11 / 12), round(side / 24)  # 44 and 2 of 48 pixels
    first = (side - crop) // 2
    centre = images[:, :, first : first + crop, first : first + crop]
    views = [images]
    if tta == "six":
        index = torch.arange(-border, side + border, device=images.device).clamp(0, side - 1)
        views = [images, centre, images[:, :, index][:, :, :, index]]
    elif tta == "ten":
        ends = (slice(None, crop), slice(side - crop, None))
        views = [*(images[:, :, rows, columns] for rows in ends for columns in ends), centre]
    return views if tta == "none" else [mirrored for view in views for mirrored in (view, view.flip(3))]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where models run.

    Attributes:
        device: The device of nets of torch: ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``.
        providers: The execution providers of ONNX files, first choice first.
        threads: Threads of ONNX files; 0: one for each core.
    """

    device: str = "cpu"
    providers: tuple[str, ...] = ("cpu",)
    threads: int = 1

    def torch_device(self) -> str:
        """Return the device of nets of torch.

        Returns:
            ``"cpu"``, ``"cuda"`` or ``"mps"``.

        Raises:
            DeviceError: Torch cannot use it.
        """
        backends = {"cuda": torch.cuda, "mps": torch.backends.mps}
        here = [*(name for name, backend in backends.items() if backend.is_available()), "cpu"]
        if self.device not in (*here, "auto"):
            raise DeviceError(f"torch cannot use {self.device!r} here; name one of {', '.join(here)}")
        return here[0] if self.device == "auto" else self.device

    def open_classifier(self, path: Path) -> Classifier:
        """Open an ONNX file of the contract.

        Args:
            path: The file.

        Returns:
            The classifier.

        Raises:
            ModelError: The file cannot be used, or the providers are not here.
        """
        return Classifier(path, threads=self.threads, providers=self.providers)


_CURRENT: ContextVar[Runtime | None] = ContextVar("_CURRENT", default=None)


def current_runtime() -> Runtime:
    """Return the runtime of the innermost ``runtime`` block; outside of any, one thread of the processor.

    Returns:
        The runtime.

    Example:
        >>> current_runtime().device
        'cpu'
    """
    return _CURRENT.get() or Runtime()


@contextmanager
def runtime(device: str, providers: Sequence[str], threads: int | None) -> Iterator[None]:
    """Run the models that are opened in a block on a device, with a number of threads.

    Args:
        device: The device of nets of torch, ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``; ``"cpu"`` for any other.
        providers: The execution providers of ONNX files.
        threads: Threads; 0: one for each core; ``None``: one for ONNX files, and those of torch as they are.

    Yields:
        ``None``; the block runs.
    """
    at = device if device in NET_DEVICES else "cpu"
    before = torch.get_num_threads()
    token = _CURRENT.set(Runtime(at, tuple(providers), 1 if threads is None else threads))
    torch.set_num_threads(before if threads is None else threads or os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _CURRENT.reset(token)
