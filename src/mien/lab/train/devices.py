"""What trains, and how several processes agree: one on each device, started by Fabric, torchrun or SLURM."""

import atexit
import ctypes
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from mien._errors import DeviceError, MienError

# What mallopt of the GNU C library calls them (malloc.h), and their values: large blocks come from the heap as small
# ones do, and its end stays where it is.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


_NEVER, _AHEAD = 2**31 - 1, 2**28  # bytes


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for its next allocation. Returns whether the C library can be told so."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library than GNU's
        return False
    told = [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, _NEVER), mallopt(_M_TOP_PAD, _AHEAD)]
    return all(told)


_WRONG = 2  # exit status of a process whose first one says what went wrong


@dataclass(frozen=True)
class Devices:
    """What trains: ``accelerator`` "cpu", "cuda", "mps" or "auto"; ``devices`` on each of ``nodes`` machines.

    On a processor a device is a process. Under torchrun, its own numbers of processes count.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1

    def launch(self, precision: str) -> Fabric:
        """The Fabric of these devices, its other processes started. Raises ``DeviceError`` for devices not there."""
        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # else it tells of every process
        devices, nodes = _started_by_torchrun() or (self.devices, self.nodes)
        several = devices * nodes > 1
        try:
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy=DDPStrategy(broadcast_buffers=False) if several else "auto",  # `agree` does it once an epoch
                precision=precision,  # type: ignore[arg-type]
            )
        except (ValueError, RuntimeError, TypeError) as error:
            cause = " ".join(str(error).split())
            raise DeviceError(f"{devices} x {self.accelerator!r} cannot be used: {cause}") from error
        fabric.launch()
        if several:
            atexit.register(_leave)
        if fabric.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        if fabric.device.type == "cpu":
            keep_freed_memory()
        return fabric


def is_first() -> bool:
    """Whether this process is the one that speaks and writes, as its launcher's environment says."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def together(fabric: Fabric, act: Callable[[], None]) -> None:
    """Let the first process act, the others wait; what it raises ends them all."""
    error: MienError | None = None
    if fabric.is_global_zero:
        try:
            act()
        except MienError as caught:
            error = caught
    error = fabric.broadcast(error)
    if error is not None:
        end_all(fabric, error)


def end_all(fabric: Fabric, error: MienError) -> NoReturn:
    """End every process, each of which calls this: the first raises ``error``, the others go without a word."""
    if fabric.is_global_zero:
        raise error
    raise SystemExit(_WRONG)


@torch.no_grad()
def agree(fabric: Fabric, nets: Iterable[nn.Module]) -> None:
    """Give all processes the mean of their batch-norm statistics, each of which has seen its own part of the faces."""
    buffers = [buffer for net in nets for buffer in net.buffers() if buffer.is_floating_point()]
    if fabric.world_size == 1 or not buffers:
        return
    means = fabric.all_reduce(torch.cat([buffer.flatten() for buffer in buffers]))
    assert isinstance(means, Tensor)
    parts = torch.split(means, [buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, parts, strict=True):
        buffer.copy_(mean.view_as(buffer))


def _leave() -> None:
    """Leave the group of processes; gloo's threads, when they outlive the interpreter, now and then abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _started_by_torchrun() -> tuple[int, int] | None:
    """Processes on each machine, and machines."""
    if not torch.distributed.is_torchelastic_launched():
        return None
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local
