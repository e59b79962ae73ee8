"""Light: too much, too little, too flat."""

import numpy as np

from mien.lab.stress.draw import Generators, Images, each, to_pixels

_DARK_NOISE = 4.0  # grey levels: the noise of a sensor that has little light to read


def brighter(images: Images, added: float, _: Generators) -> Images:
    """``added`` (share of white) on every pixel; what passes white is lost."""
    return to_pixels(images + np.float32(255 * added))


def low_light(images: Images, gamma: float, generators: Generators) -> Images:
    """Dark by ``gamma``, level ** gamma on 0..1, and with the noise of the dark: normal, 4 grey levels."""
    noise = each(generators, lambda g: g.standard_normal(images.shape[1:], np.float32))
    return to_pixels(255 * (images / np.float32(255)) ** np.float32(gamma) + _DARK_NOISE * noise)


def low_contrast(images: Images, factor: float, _: Generators) -> Images:
    """Every level's distance from the face's mean times ``factor``, in whole grey levels again."""
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    return to_pixels(mean + factor * (images - mean))
