"""The device and the threads with which the lab runs models, set by a command for all that it opens."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch

from mien._errors import DeviceError
from mien.infer import Classifier

NET_DEVICES = ("auto", "cpu", "cuda", "mps")


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
