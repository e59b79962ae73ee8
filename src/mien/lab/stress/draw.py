"""Chance that belongs to a face: its noise is the same alone and among others, for every model and every batch."""

from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Generators = Sequence[Generator]
Floats = NDArray[np.float32]


def generators(seed: int, name: str, rows: Sequence[int]) -> list[Generator]:
    """A generator for each of ``rows`` (rows of the data set, 0 or more), made of ``seed``, the spoiling's ``name``.

    The strength is not part of it: a stronger noise is the same noise, stronger.
    """
    key = crc32(name.encode())
    return [np.random.default_rng([seed, key, int(row)]) for row in rows]


def each(faces: Generators, draw: Callable[[Generator], NDArray[np.floating]]) -> Floats:
    """What ``draw`` gives for every face, stacked: float32 ``[N, ...]``."""
    return np.stack([draw(generator) for generator in faces]).astype(np.float32)


def to_pixels(values: NDArray[np.floating]) -> Images:
    """Grey levels of any kind as uint8, rounded, cut at black and white."""
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)
