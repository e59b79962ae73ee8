"""Noisy cues: what a sensor adds to a face."""

import numpy as np
from scipy.ndimage import convolve

from mien.lab.stress.draw import Floats, Generators, Images, each, to_pixels

# What a demosaicing adds of its neighbours to a missing colour: bilinear, green at every second photosite.
_GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_RED_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as pictures turn grey


def gaussian_noise(images: Images, sigma: float, generators: Generators) -> Images:
    """Independent normal noise of ``sigma`` grey levels in every pixel."""
    return to_pixels(images + np.float32(sigma) * _normal(images, generators))


def shot_noise(images: Images, photons: float, generators: Generators) -> Images:
    """Poisson noise of light that brings ``photons`` to a white pixel."""
    counts = [g.poisson(image * (photons / 255)) for image, g in zip(images, generators, strict=True)]
    return to_pixels(np.stack(counts) * (255 / photons))


def camera_noise(images: Images, sigma: float, generators: Generators) -> Images:
    """Noise of a colour camera: ``sigma`` grey levels at a photosite, spread by the demosaicing of a Bayer pattern.

    Neighbouring pixels share photosites, so the noise has grain, unlike ``gaussian_noise``.
    """
    noise = np.float32(sigma) * _normal(images, generators)
    side = images.shape[-1]
    row, column = np.indices((side, side)) % 2
    masks = (row + column == 0, row + column == 1, row + column == 2)  # red, green, blue
    kernels = (_RED_BLUE, _GREEN, _RED_BLUE)
    grain = sum(
        weight * convolve(noise * mask, kernel[None], mode="mirror")
        for weight, mask, kernel in zip(_LUMA, masks, kernels, strict=True)
    )
    return to_pixels(images + grain)


def _normal(images: Images, generators: Generators) -> Floats:
    return each(generators, lambda g: g.standard_normal(images.shape[1:], np.float32))
