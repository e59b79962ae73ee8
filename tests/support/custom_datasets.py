"""Custom data sets of drawn faces, as folders and tables."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import SEVEN
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet, Split
from mien.lab.recipe import Recipe

Draw = Callable[..., np.ndarray]


def recipe(*overrides: str) -> Recipe:
    return recipes.load("mien-0", ["train.batch_size=4", *overrides])


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fill(folder: Path, names: Sequence[str], draw: Draw, *, count: int = 8, seed: int = 0, size: int = 60) -> Path:
    """``count`` drawn faces in every folder of ``names``, all different."""
    for number, name in enumerate(names):
        for face in range(count):
            put(folder / name / f"{face}.png", draw(size, seed=seed + 1000 * number + face))
    return folder


def sizes(faces: FaceSet) -> list[int]:
    return [len(faces.split(split)) for split in Split]


def table(folder: Path, draw: Draw, lines: Sequence[str], *, name: str = "faces.csv") -> Path:
    for number in range(40):
        put(folder / "images" / f"{number}.png", draw(50, seed=number))
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def lines_of(header: str, row: str, count: int = 35) -> list[str]:
    splits = ["train", "train", "train", "val", "test"]
    cells = [{"n": n, "emotion": SEVEN[n % 7], "split": splits[n // 7], "person": f"p{n}"} for n in range(count)]
    return [header, *(row.format(**cell) for cell in cells)]
