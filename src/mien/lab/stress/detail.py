"""Lost detail: blur, compression, few pixels. Lengths are pixels of a face of 48, and grow with larger faces."""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter

from mien.lab.stress.draw import Generators, Images, to_pixels

SIDE = 48  # pixels a side, to which lengths refer


def gaussian_blur(images: Images, sigma: float, _: Generators) -> Images:
    """A Gaussian of standard deviation ``sigma``: out of focus."""
    width = sigma * images.shape[-1] / SIDE
    return to_pixels(gaussian_filter(images.astype(np.float32), (0, width, width), mode="nearest"))


def motion_blur(images: Images, length: float, generators: Generators) -> Images:
    """A straight move over ``length`` pixels while the picture is taken, in a direction of chance for every face."""
    length = length * images.shape[-1] / SIDE
    angles = [g.uniform(0, math.pi) for g in generators]
    pairs = zip(images.astype(np.float32), angles, strict=True)
    return to_pixels(np.stack([convolve(image, path(length, angle), mode="nearest") for image, angle in pairs]))


def path(length: float, angle: float) -> NDArray[np.float32]:
    """The kernel of a move over ``length`` pixels at ``angle`` radians: odd sides, sum 1, even along the line."""
    reach = math.ceil(length / 2)
    at = np.linspace(-length / 2, length / 2, 8 * math.ceil(length) + 1)
    kernel = np.zeros((2 * reach + 3, 2 * reach + 3), np.float32)
    y, x = reach + 1 + at * math.sin(angle), reach + 1 + at * math.cos(angle)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    for down in (0, 1):  # every point is shared among its four pixels
        for right in (0, 1):
            weight = abs(1 - down - (y - top)) * abs(1 - right - (x - left))
            np.add.at(kernel, (top + down, left + right), weight)
    return np.asarray(kernel / kernel.sum())


def jpeg(images: Images, quality: float, _: Generators) -> Images:
    """Through a grey JPEG of libjpeg's ``quality`` (1..95) and back, by Pillow."""
    return np.stack([_through_jpeg(image, int(quality)) for image in images])


def low_resolution(images: Images, side: float, _: Generators) -> Images:
    """Down to ``side`` pixels (area average) and up again (bicubic): a face far away. Pillow's own filters."""
    full, small = images.shape[-1], min(int(side), images.shape[-1])
    return np.stack(
        [
            np.asarray(
                Image.fromarray(image)
                .resize((small, small), Image.Resampling.BOX)
                .resize((full, full), Image.Resampling.BICUBIC)
            )
            for image in images
        ]
    )


def _through_jpeg(image: Images, quality: int) -> Images:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as picture:
        return np.asarray(picture)
