"""Provenance of results: the command, commit, data and machine that every result records."""

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from mien._errors import DataError
from mien._measure import processor

_INNER_PATH = re.compile(r"(?<=[=\"'\[{, ])(?:/|[A-Za-z]:[\\/])[^\"'\]},]*")  # of --data=/a/b and ["/a/b"]
_NO_CODE = (":(top,exclude)results", ":(top,exclude)docs")  # what commands write there changes no result


def provenance(data_sha256: str, note: str | None = None) -> dict[str, str]:
    """Return the provenance of a result.

    Args:
        data_sha256: Hash of the data set.
        note: What was assumed of the data set or left out of it; ``None`` where nothing was.

    Returns:
        Command, commit, hash of the data and the note on it, machine, versions of Python and torch, and the date (UTC).
    """
    program = Path(sys.argv[0])
    folder = program.resolve().parent.name
    # Scripts of the checkout are named as they are called from its root.
    start = ["python", f"{folder}/{program.name}"] if folder in ("benchmarks", "tools") else ["mien"]
    return {
        "command": shlex.join(start + [_without_folders(word) for word in sys.argv[1:]]),
        "commit": commit(),
        "data_sha256": data_sha256,
        **({"data_note": note} if note else {}),
        "machine": machine(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # torch.load refuses its class, TorchVersion
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _without_folders(word: str) -> str:
    """An argument with only the last part of each absolute path in it, for privacy."""
    if Path(word).is_absolute():
        return f".../{Path(word).name}"
    return _INNER_PATH.sub(lambda found: f".../{Path(found[0]).name}", word)


def commit() -> str:
    """Return the commit of this code's checkout, with ``+`` if tracked files outside of results/ and docs/ differ.

    Returns:
        The value of ``$MIEN_COMMIT`` if it is set, for a copy of the checkout without its history; else the commit, or
        ``none`` for an installed package.
    """
    named = os.environ.get("MIEN_COMMIT")
    head = named or _git("rev-parse", "--short=12", "HEAD")
    if named or not head:
        return head or "none"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *_NO_CODE)
    return head + ("+" if changed else "")


def require_commit() -> None:
    """Check that a figure that is looked at once can be computed again: the code is that of a commit.

    Raises:
        DataError: If tracked files of the checkout outside of results/ and docs/ have been changed.
    """
    if (found := commit()).endswith("+"):
        cause = f"the code differs from its commit {found[:-1]}, so the figures could not be computed again"
        raise DataError(f"PrivateTest is not evaluated: {cause}; commit or undo the changes first")


def machine() -> str:
    """Return the name of the accelerator, or else of the processor, and the number of usable cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{torch.cuda.get_device_name() if torch.cuda.is_available() else processor()}, {cores} cores"


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
