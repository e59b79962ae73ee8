"""Readings of random faces, for the tests of outputs."""

from pathlib import Path

import numpy as np

from mien._emotions import SEVEN, Emotion
from mien._face import Box, Face, KeyPoints, Reading
from mien.report import Html, Parquet

POINTS = KeyPoints((7.5, 8.0), (17.5, 8.25), (12.0, 14.0), (12.0, 19.0), (2.0, 9.0))  # the left ear is not visible


def make_face(
    seed: int, *, sure: bool = True, emotions: tuple[Emotion, ...] = SEVEN, points: KeyPoints | None = None
) -> Face:
    generator = np.random.default_rng(seed)
    values = generator.dirichlet(np.full(len(emotions), 0.5))
    probs = dict(zip(emotions, map(float, values), strict=True))
    top = max(probs, key=probs.__getitem__)
    x, y = generator.uniform(5, 60, 2)
    maps = generator.normal(size=(len(emotions), 6, 6)).astype(np.float32)
    crop = generator.integers(0, 255, (48, 48), dtype=np.uint8)
    box = Box(x, y, x + 30, y + 36)
    return Face(box, 0.875, points, top if sure else None, probs[top], probs, maps, crop, np.eye(2, 3))


def make_reading(source: str = "a.jpg", *faces: Face, size: int = 100, note: str | None = None) -> Reading:
    pixels = np.full((size, size, 3), 180, np.uint8)
    return Reading(faces, source, (size, size), note=note, pixels=pixels)


def failed(source: str = "broken.jpg", error: str = "broken.jpg: cut off; copy it again") -> Reading:
    return Reading((), source, (0, 0), error=error)


def some_readings() -> list[Reading]:
    return [
        make_reading('größe 写真, "1".jpg', make_face(1, points=POINTS), make_face(2, sure=False)),
        make_reading("empty.png", note="animated, 3 frames: the first was read"),
        failed(),
    ]


def interrupt(sink: Html | Parquet) -> None:
    with sink:
        sink.add(make_reading("a.jpg", make_face(1)))
        raise KeyboardInterrupt


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
