"""What the tests of mien predict share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = str(ROOT / "examples" / "astronaut.png")
Draw = Callable[..., np.ndarray]


def start(tiny: Path, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """The real program in its own process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120"}
    command = [sys.executable, "-m", "mien", "predict", "--model", str(tiny), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **{**pipes, **options})
