"""A small labelled set of cartoon faces that a net can learn in seconds."""

import copy
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from mien._emotions import SEVEN
from mien.lab.data import FaceSet

PER_SPLIT = (196, 70, 70)  # Training, PublicTest, PrivateTest


def cartoon_set(*, seed: int = 0, votes: bool = True, per_split: tuple[int, int, int] = PER_SPLIT) -> FaceSet:
    """Faces whose number of teeth is the class, from none to six, drawn with jitter and noise."""
    return copy.deepcopy(_drawn_set(seed, votes, per_split))


@cache
def _drawn_set(seed: int, votes: bool, per_split: tuple[int, int, int]) -> FaceSet:
    generator = np.random.default_rng(seed)
    count = sum(per_split)
    labels = np.arange(count) % len(SEVEN)
    images = np.stack([_draw(int(label), generator) for label in labels])
    ballots = np.zeros((count, 10), np.uint8)
    column = np.array([4, 5, 6, 1, 3, 2, 0])[
        labels
    ]  # FER+ order: neutral, happiness, surprise, sadness, anger, disgust, fear
    ballots[np.arange(count), column] = 8
    ballots[:, 0] += 2
    return FaceSet(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels.astype(np.int64)),
        votes=torch.from_numpy(ballots) if votes else None,
        usage=torch.from_numpy(np.repeat(np.arange(3), per_split).astype(np.int64)),
        rows=torch.arange(count),
        pixels_from_jpeg=torch.zeros(count, dtype=torch.bool),
        emotions=SEVEN,
        sha256="0" * 64,
        source="cartoons",
    )


def _draw(label: int, generator: np.random.Generator) -> np.ndarray:
    canvas = Image.new("L", (48, 48), 60)
    draw = ImageDraw.Draw(canvas)
    x, y = generator.integers(-2, 3, 2)
    draw.ellipse((7 + x, 4 + y, 41 + x, 47 + y), fill=190)
    for eye in (16, 32):
        draw.ellipse((eye - 3 + x, 17 + y, eye + 3 + x, 21 + y), fill=30)
    # From none to six teeth: a texture that survives small shifts, flips and pooling.
    draw.rectangle((13 + x, 28 + y, 35 + x, 42 + y), fill=20)
    for tooth in range(label):
        left = 14 + x + 4 * tooth
        draw.rectangle((left, 28 + y, left + 1, 42 + y), fill=250)
    noisy = np.asarray(canvas) + generator.normal(0, 6, (48, 48))
    return noisy.clip(0, 255).astype(np.uint8)


def cartoon_folder(root: Path, faces: FaceSet | None = None) -> Path:
    """The folder ``root`` with the images of ``faces``, by default 84, in a folder for each emotion."""
    faces = cartoon_set(per_split=(84, 0, 0)) if faces is None else faces
    for number, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        folder = root / SEVEN[int(label)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{number}.png")
    return root
