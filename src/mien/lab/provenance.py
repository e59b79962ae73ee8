"""Where a figure comes from: the command, commit, data and machine that every result carries."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from mien._measure import processor


def provenance(data_sha256: str) -> dict[str, str]:
    """Command line, commit of the checkout, data hash, machine, versions and time (UTC), as plain strings."""
    return {
        "command": shlex.join([*_program(sys.argv[0]), *map(_portable, sys.argv[1:])]),
        "commit": commit(),
        "data_sha256": data_sha256,
        "machine": machine(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a TorchVersion would not load again
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _program(script: str) -> list[str]:
    """``mien``, but of a script in ``benchmarks/`` or ``tools/`` how it is called from the root of the checkout."""
    path = Path(script)
    folder = path.resolve().parent.name
    return ["python", f"{folder}/{path.name}"] if folder in ("benchmarks", "tools") else ["mien"]


def _portable(word: str) -> str:
    """A word of the command line; of an absolute path its last name alone, the rest is nobody else's business."""
    return f".../{Path(word).name}" if Path(word).is_absolute() else word


def commit() -> str:
    """The commit of the checkout this code lies in, with ``+`` when the tree differs from it.

    A copy of the tree on a machine without its history names its commit in ``MIEN_COMMIT``; an installed package says
    "none".
    """
    named = os.environ.get("MIEN_COMMIT")
    if named:
        return named
    here = Path(__file__).parent
    head = _git("rev-parse", "--short=12", "HEAD", at=here)
    return (
        "none" if not head else head + ("+" if _git("status", "--porcelain", "--untracked-files=no", at=here) else "")
    )


def machine() -> str:
    """One line: the accelerator if there is one, else the processor, and the cores in use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {cores} cores"
    return f"{processor()}, {cores} cores"


def _git(*words: str, at: Path) -> str:
    try:
        answer = subprocess.run(["git", "-C", str(at), *words], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
