"""Runs of `mien predict`, in this process or in its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

from mien.__main__ import app
from support.paths import ROOT

EXAMPLE = str(ROOT / "examples" / "astronaut.png")
Draw = Callable[..., np.ndarray]


def start(tiny: Path, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """The real program in its own process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120"}
    command = [sys.executable, "-m", "mien", "predict", "--model", str(tiny), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **{**pipes, **options})


def runner(tiny: Path) -> Callable[..., Result]:
    """`mien predict` with the model ``tiny`` in this process."""

    def run(*arguments: object, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, ["predict", "--model", str(tiny), *map(str, arguments)], input=stdin)

    return run


def make_album(folder: Path, draw_face: Draw) -> Path:
    """A folder of five pictures in three folders, and files that are none."""
    for index, name in enumerate(("b.png", "a.jpg", "sub/c.webp", "sub/deep/d.bmp", "e.JPEG")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_face(64, seed=index)).save(path)
    for name in ("notes.txt", ".hidden.png", ".cache/f.png", "sub/g.mien.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not for reading")
    return folder
