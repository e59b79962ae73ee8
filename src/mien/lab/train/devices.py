"""Devices of a training, with one process a device, started by Fabric, torchrun or SLURM."""

import atexit
import ctypes
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from mien._errors import DeviceError, MienError
from mien._signals import ending_while_waiting

# After which a process that does not answer is lost, as on a machine without power. One that ends is lost at once.
# torchrun waits as long for machines that are started later.
_ANSWER_SECONDS = 600.0
# Parameters of mallopt in the GNU C library (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
NO_BF16 = "this device has no bf16 instructions; the net is trained in fp32"  # said where a recipe wants bf16
# Names in torch.cpu.get_capabilities of the instructions with which oneDNN computes in bf16, on x86 and on ARM.
_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "avx10_2", "bf16", "sve_bf16")


@dataclass(frozen=True)
class Devices:
    """The devices that train. On a processor, a device is a process.

    Attributes:
        accelerator: ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``.
        devices: Devices on each machine; under torchrun its number of processes applies instead.
        nodes: Number of machines.

    Example:
        >>> Devices("cpu").launch("32-true").device
        device(type='cpu')
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1

    def precision(self, wanted: str) -> str:
        """Return the precision in which this machine trains.

        Args:
            wanted: The precision of the recipe.

        Returns:
            ``"32-true"`` in place of ``"bf16-mixed"`` on a device without bf16 instructions; else ``wanted``.

        Example:
            >>> Devices("cpu").precision("32-true")
            '32-true'
        """
        kind = self.accelerator
        if kind == "auto":
            found = torch.accelerator.current_accelerator(check_available=True)
            kind = found.type if found else "cpu"
        return computed_precision(wanted, kind)

    def launch(self, precision: str) -> Fabric:
        """Start the other processes and return the Fabric of this one.

        Args:
            precision: A precision of Lightning Fabric, such as ``"bf16-mixed"``; see ``Devices.precision``.

        Returns:
            A launched Fabric.

        Raises:
            DeviceError: The devices do not exist or cannot be used.
        """
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # else it reports every process
        devices, nodes = self.devices, self.nodes
        if torch.distributed.is_torchelastic_launched():
            devices = int(os.environ["LOCAL_WORLD_SIZE"])
            nodes = int(os.environ["WORLD_SIZE"]) // devices
        _check_numbers(devices, nodes)
        several = devices * nodes > 1
        try:
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=devices,
                num_nodes=nodes,
                # Buffers are averaged once an epoch, by average_buffers.
                strategy=DDPStrategy(broadcast_buffers=False, timeout=timedelta(seconds=_ANSWER_SECONDS))
                if several
                else "auto",
                precision=self.precision(precision),  # type: ignore[arg-type]
            )
        except (ValueError, RuntimeError, TypeError) as error:
            cause = " ".join(str(error).split())
            raise DeviceError(f"{devices} x {self.accelerator!r} cannot be used: {cause}") from error
        _check_address(fabric, nodes)
        with ending_with_others(several=several):
            fabric.launch()
        if several:
            atexit.register(_leave_group)
        if fabric.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        if fabric.device.type == "cpu":
            keep_freed_memory()
        return fabric


def computed_precision(wanted: str, kind: str) -> str:
    """Return the precision in which a device computes.

    Without bf16 instructions PyTorch emulates them: with AVX2 it takes 12 to 18 times as long as fp32.

    Args:
        wanted: ``"bf16-mixed"`` or ``"32-true"``.
        kind: Type of the device, as in ``torch.device``.

    Returns:
        ``"32-true"`` in place of ``"bf16-mixed"`` on a processor or CUDA device without bf16 instructions.
    """
    if wanted != "bf16-mixed" or kind not in ("cpu", "cuda"):
        return wanted
    if kind == "cuda":
        has_bf16 = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found = torch.cpu.get_capabilities()
        has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        has_bf16 = has_onednn and any(found.get(name) for name in _BF16_INSTRUCTIONS)
    return wanted if has_bf16 else "32-true"


def is_first_process() -> bool:
    """Return whether this process prints and writes, according to the environment of its launcher."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@contextmanager
def ending_with_others(*, several: bool) -> Iterator[None]:
    """End this process if another one of the training has ended or does not answer: the first of a machine with a line.

    A signal ends it as well while it waits for the others.

    Args:
        several: Whether the training has other processes.

    Yields:
        ``None``; the block runs.

    Raises:
        DeviceError: A process is lost, and this one is the first of its machine.
        SystemExit: A process is lost.
    """
    try:
        with ending_while_waiting() if several else nullcontext():
            yield
    except RuntimeError as error:  # of gloo, which has no class of its own; NCCL and the store have
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise SystemExit(2) from None
        cure = "start all of them again: the same commands resume after the last checkpoint"
        raise DeviceError(f"another process of this training has ended or does not answer; {cure}") from error


def _check_numbers(devices: int, nodes: int) -> None:
    """Raise ``DeviceError`` if the environment gives this process a number that the training does not have."""
    for name, count, counted in (
        ("NODE_RANK", nodes, "--nodes"),
        ("LOCAL_RANK", devices, "--processes"),
        ("RANK", devices * nodes, "--processes times --nodes"),
    ):
        value = os.environ.get(name, "0")
        if not (value.isdecimal() and int(value) < count):
            cause = f"the variable {name} is {value!r}, but {counted} is {count}, so it must be from 0 to {count - 1}"
            raise DeviceError(f"{cause}; set or remove it, and give the same options on all machines")


def _check_address(fabric: Fabric, nodes: int) -> None:
    """Raise ``DeviceError`` if nothing says where the first of several machines is, which would be waited for."""
    environment = getattr(fabric.strategy, "cluster_environment", None)
    if nodes == 1 or not isinstance(environment, LightningEnvironment):
        return
    port = os.environ.get("MASTER_PORT", "")
    if not os.environ.get("MASTER_ADDR") or not (port.isdecimal() and 0 < int(port) < 2**16):
        cure = "start it with torchrun, or set MASTER_ADDR and MASTER_PORT (a number) to those of the first machine"
        raise DeviceError(f"--nodes {nodes}: nothing says where the first machine is; {cure}")


def require_same(fabric: Fabric, values: Mapping[str, str]) -> None:
    """End a process that was started with other values than the first one. Every process calls this.

    Args:
        fabric: The Fabric of this process.
        values: The values by their names; one that is missing is the default.

    Raises:
        DeviceError: A value differs.
    """
    first = fabric.broadcast(dict(values))
    for name in sorted(first.keys() | values.keys()):
        mine, other = values.get(name, "the default"), first.get(name, "the default")
        if mine != other:
            cure = "start the same command on the same data on all machines"
            raise DeviceError(f"{name} is {mine} on this machine and {other} on the first one; {cure}")


def run_on_first(fabric: Fabric, action: Callable[[], None]) -> None:
    """Run an action in the first process while the others wait. Every process calls this.

    Args:
        fabric: The Fabric of this process.
        action: The action; a ``MienError`` that it raises ends all processes.
    """
    error: MienError | None = None
    if fabric.is_global_zero:
        try:
            action()
        except MienError as caught:
            error = caught
    error = fabric.broadcast(error)
    if error is not None:
        stop_all(fabric, error)


def stop_all(fabric: Fabric, error: MienError) -> NoReturn:
    """End every process, each of which calls this: the first raises the error, the others exit silently.

    Args:
        fabric: The Fabric of this process.
        error: The error.
    """
    if fabric.is_global_zero:
        raise error
    raise SystemExit(2)


@torch.no_grad()
def average_buffers(fabric: Fabric, nets: Iterable[nn.Module]) -> None:
    """Replace the batch-norm statistics of all processes by their mean, as each process trains on its own faces.

    Args:
        fabric: The Fabric of this process.
        nets: The nets whose buffers are averaged in place.
    """
    buffers = [buffer for net in nets for buffer in net.buffers() if buffer.is_floating_point()]
    if fabric.world_size == 1 or not buffers:
        return
    means = fabric.all_reduce(torch.cat([buffer.flatten() for buffer in buffers]))
    assert isinstance(means, Tensor)
    parts = torch.split(means, [buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, parts, strict=True):
        buffer.copy_(mean.view_as(buffer))


def keep_freed_memory() -> bool:
    """Make this process reuse the memory that it frees.

    By default the GNU C library returns large tensors to the system, which takes a fifth to a third of the time of a
    step.

    Returns:
        Whether the C library supports it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library than GNU's
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1), mallopt(_M_TOP_PAD, 2**28)])  # bytes


def _leave_group() -> None:
    """Leave the group of processes: gloo's threads sometimes abort an interpreter that ends before them."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
