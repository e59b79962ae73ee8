"""The table of corruptions: ways of degrading a face, each at the severities 1 to 5.

The vocabulary is that of ImageNet-C (Hendrycks and Dietterich, ICLR 2019). ``CORRUPTIONS`` holds every number. A
corruption is one function and one row of that table.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from zlib import crc32

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform, convolve, gaussian_filter

from mien._errors import DataError, checked
from mien._framing import FER2013
from mien._suggest import require_known

_Images = NDArray[np.uint8]
_Floats = NDArray[np.float32]
_Grid = NDArray[np.float64]
_Generators = Sequence[Generator]
_Inside = Callable[[_Grid, _Grid], NDArray[np.bool_]]  # x and y as fractions of the side -> which points are covered

SEVERITIES = (1, 2, 3, 4, 5)


class CorruptionKind(StrEnum):
    """What a corruption takes away. Document 002 asks for an evaluation under noisy and partial cues."""

    NOISY = "noisy cues"
    DETAIL = "lost detail"
    LIGHT = "light"
    FRAMING = "framing"
    PARTIAL = "partial cues"


@dataclass(frozen=True, slots=True)
class Corruption:
    """One way of corrupting faces.

    Attributes:
        name: Its name. The random numbers depend on it.
        kind: What it takes away.
        unit: The unit of ``amounts``.
        amounts: The amount at each of the severities 1 to 5.
        description: What it does, in a few words.
        apply: The function: images uint8 ``[N, S, S]``, one amount, one generator per face -> images of that shape.
    """

    name: str
    kind: CorruptionKind
    unit: str
    amounts: tuple[float, float, float, float, float]
    description: str
    apply: Callable[[_Images, float, _Generators], _Images]

    def __call__(self, images: _Images, severity: int, generators: _Generators) -> _Images:
        """Corrupt faces. A result depends only on the face's pixels and its generator.

        Args:
            images: Faces, uint8 ``[N, S, S]``. They are not changed.
            severity: 1 (weak) to 5 (strong).
            generators: One generator per face, from ``corruption_generators``.

        Returns:
            The corrupted faces, uint8 ``[N, S, S]``.

        Raises:
            DataError: The severity, the shape of the images or the number of generators is wrong.

        Example:
            >>> face = np.full((1, 48, 48), 200, np.uint8)
            >>> CORRUPTIONS[0](face, 3, corruption_generators(0, "gaussian-noise", [0])).shape
            (1, 48, 48)
        """
        if severity not in SEVERITIES:
            raise DataError(f"{self.name}: severity is 1 to 5, not {severity}")
        if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1] != images.shape[2]:
            raise DataError(f"{self.name} takes uint8 [N, S, S], not {images.dtype} {list(images.shape)}")
        if len(generators) != len(images):
            raise DataError(f"{self.name}: {len(images)} faces need as many generators, not {len(generators)}")
        return self.apply(images, self.amounts[severity - 1], generators) if len(images) else images.copy()


def corruption_generators(seed: int, name: str, rows: Sequence[int]) -> list[Generator]:
    """Return one random generator per face.

    The severity is not part of the seed: a higher severity of noise is the same noise with a larger amplitude.

    Args:
        seed: Seed of the test, at least 0.
        name: Name of the corruption.
        rows: Row of each face in its data set, from 0.

    Returns:
        As many generators as there are rows.
    """
    key = crc32(name.encode())
    return [np.random.default_rng([seed, key, int(row)]) for row in rows]


# Noise


def _gaussian_noise(images: _Images, sigma: float, generators: _Generators) -> _Images:
    """Independent normal noise in every pixel, ``sigma`` in grey levels."""
    return _to_pixels(images + np.float32(sigma) * _standard_normal(images, generators))


def _shot_noise(images: _Images, photons: float, generators: _Generators) -> _Images:
    """Poisson noise of light that brings ``photons`` to a white pixel."""
    counts = [g.poisson(image * (photons / 255)) for image, g in zip(images, generators, strict=True)]
    return _to_pixels(np.stack(counts) * (255 / photons))


# The weights of bilinear demosaicing: each missing colour is the mean of its neighbours on the Bayer pattern.
_GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_RED_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def _camera_noise(images: _Images, sigma: float, generators: _Generators) -> _Images:
    """Noise of a colour sensor, ``sigma`` grey levels per photosite, smoothed by demosaicing of a Bayer pattern.

    Neighbouring pixels share photosites, so that this noise is correlated, unlike ``_gaussian_noise``.
    """
    noise = np.float32(sigma) * _standard_normal(images, generators)
    row, column = np.indices(images.shape[1:]) % 2
    sites = (row + column == 0, row + column == 1, row + column == 2)  # red, green, blue
    kernels = (_RED_BLUE, _GREEN, _RED_BLUE)
    grain = sum(
        weight * convolve(noise * site, kernel[None], mode="mirror")
        for weight, site, kernel in zip(_LUMA, sites, kernels, strict=True)
    )
    return _to_pixels(images + grain)


# Lost detail

_REFERENCE_SIDE = 48  # pixels: lengths in pixels refer to crops of this side


def _gaussian_blur(images: _Images, sigma: float, _: _Generators) -> _Images:
    """Gaussian blur with standard deviation ``sigma``: out of focus."""
    width = sigma * images.shape[-1] / _REFERENCE_SIDE
    return _to_pixels(gaussian_filter(images.astype(np.float32), (0, width, width), mode="nearest"))


def _motion_blur(images: _Images, length: float, generators: _Generators) -> _Images:
    """Straight motion over ``length`` pixels in a random direction for every face."""
    length = length * images.shape[-1] / _REFERENCE_SIDE
    kernels = [motion_kernel(length, g.uniform(0, math.pi)) for g in generators]
    pairs = zip(images.astype(np.float32), kernels, strict=True)
    return _to_pixels(np.stack([convolve(image, kernel, mode="nearest") for image, kernel in pairs]))


def motion_kernel(length: float, angle: float) -> _Floats:
    """Return the kernel of straight motion.

    Args:
        length: Length of the motion in pixels.
        angle: Its direction in radians.

    Returns:
        float32 with odd sides and sum 1, even along the line.
    """
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


def _jpeg(images: _Images, quality: float, _: _Generators) -> _Images:
    """Grey JPEG of libjpeg's ``quality``, written and read by Pillow."""
    decoded = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=int(quality))
        decoded.append(np.asarray(Image.open(stream)))
    return np.stack(decoded)


def _low_resolution(images: _Images, side: float, _: _Generators) -> _Images:
    """Down to ``side`` pixels (area average) and up again (bicubic), by Pillow: a face far away."""
    full, small = images.shape[-1], min(int(side), images.shape[-1])
    down = (Image.fromarray(image).resize((small, small), Image.Resampling.BOX) for image in images)
    return np.stack([np.asarray(image.resize((full, full), Image.Resampling.BICUBIC)) for image in down])


# Light

_DARK_NOISE = 4.0  # grey levels, standard deviation: noise of a sensor in low light


def _brighter(images: _Images, added: float, _: _Generators) -> _Images:
    """``added`` (fraction of white) on every pixel, clipped at white."""
    return _to_pixels(images + np.float32(255 * added))


def _low_light(images: _Images, gamma: float, generators: _Generators) -> _Images:
    """Level ** ``gamma`` on levels from 0 to 1, plus normal noise of ``_DARK_NOISE``."""
    noise = _standard_normal(images, generators)
    return _to_pixels(255 * (images / np.float32(255)) ** np.float32(gamma) + _DARK_NOISE * noise)


def _low_contrast(images: _Images, factor: float, _: _Generators) -> _Images:
    """Every level's distance from the face's mean times ``factor``, rounded to whole grey levels."""
    mean = _mean_grey(images)
    return _to_pixels(mean + factor * (images - mean))


# Framing


def _rotation(images: _Images, degrees: float, generators: _Generators) -> _Images:
    """Rotation by ``degrees`` about the centre, left or right at random."""
    angles = [math.radians(degrees) * _random_sign(g) for g in generators]
    turns = [np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) for a in angles]
    return _transform(images, turns)


def _shift(images: _Images, fraction: float, generators: _Generators) -> _Images:
    """Shift by ``fraction`` of the side in a random direction."""
    length = fraction * images.shape[-1]
    angles = [g.uniform(0, 2 * math.pi) for g in generators]
    shifts = [np.array([math.sin(angle), math.cos(angle)]) * length for angle in angles]
    return _transform(images, [np.eye(2)] * len(images), shifts)


def _scale(images: _Images, factor: float, generators: _Generators) -> _Images:
    """Larger or smaller by ``factor`` about the centre, at random."""
    return _transform(images, [np.eye(2) * factor ** _random_sign(g) for g in generators])


def _transform(images: _Images, matrices: Sequence[_Grid], shifts: Sequence[_Grid] | None = None) -> _Images:
    """Bilinear resampling: ``matrices`` ``[2, 2]`` act about the centre, ``shifts`` are rows and columns in pixels."""
    centre = (images.shape[-1] - 1) / 2
    moved = []
    for index, (image, matrix) in enumerate(zip(images.astype(np.float32), matrices, strict=True)):
        offset = centre - matrix @ np.broadcast_to(centre + (shifts[index] if shifts else 0), 2)
        moved.append(affine_transform(image, matrix, offset, order=1, mode="nearest"))
    return _to_pixels(np.stack(moved))


def _random_sign(generator: Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


# Partial cues. All lengths are fractions of the side.

_EYES = (np.array(FER2013.right_eye), np.array(FER2013.left_eye))
_EYE_LINE = float((_EYES[0][1] + _EYES[1][1]) / 2)
_MIDDLE = float((_EYES[0][0] + _EYES[1][0]) / 2)
_EYE_DISTANCE = float(np.linalg.norm(_EYES[1] - _EYES[0]))
_JAW = (0.42, 0.48)  # half axes of the outline of a mask, about the centre of the crop
_SUBPIXELS = 4  # points per pixel and direction, for smooth edges
_DARK, _LIGHT = 20, 210  # grey levels of tinted glass and of a mask


def _cover(part: str, images: _Images, size: float, _: _Generators) -> _Images:
    """Paint a rectangle over a part of every face in its mean grey.

    ``size`` is the height of a bar over both ``eyes`` or the width of a patch over the ``mouth`` in eye distances, or
    the fraction of the width from the ``left`` or ``right`` edge of the image.
    """
    x0, y0, width, height = {
        "eyes": (_MIDDLE, _EYE_LINE, 2.3 * _EYE_DISTANCE, size * _EYE_DISTANCE),
        "mouth": (*FER2013.mouth, size * _EYE_DISTANCE, 0.6 * size * _EYE_DISTANCE),
        "left": (0, 0.5, 2 * size, 2),
        "right": (1, 0.5, 2 * size, 2),
    }[part]
    cover = _coverage(images, lambda x, y: (abs(x - x0) < width / 2) & (abs(y - y0) < height / 2))
    return _blend(images, cover, _mean_grey(images))


def _glasses(images: _Images, tint: float, _: _Generators) -> _Images:
    """Glasses: frame, bridge and temples are opaque, the lenses have a ``tint`` from 0 (clear) to 1 (black)."""
    lenses, rims = _coverage(images, _lenses(1.0)), _coverage(images, _lenses(1.18))
    bars = _coverage(
        images, lambda x, y: (abs(y - _EYE_LINE + 0.02) < 0.012) & (abs(x - _MIDDLE) < 1.25 * _EYE_DISTANCE)
    )
    frame = np.maximum(rims, bars)
    return _blend(images, np.maximum(frame - lenses, 0) + tint * lenses, _DARK)


def _mask(images: _Images, top: float, _: _Generators) -> _Images:
    """A light mask from the chin up to ``top`` (fraction of the side from above), higher over the nose."""

    def inside(x: _Grid, y: _Grid) -> NDArray[np.bool_]:
        across = (x - _MIDDLE) / _JAW[0]
        jaw = across**2 + ((y - 0.5) / _JAW[1]) ** 2 < 1
        return jaw & (y > top + 0.10 * across**2)

    return _blend(images, _coverage(images, inside), _LIGHT)


def _lenses(size: float) -> _Inside:
    half = 0.40 * _EYE_DISTANCE * size, 0.31 * _EYE_DISTANCE * size

    def inside(x: _Grid, y: _Grid) -> NDArray[np.bool_]:
        radii = [((x - eye[0]) / half[0]) ** 4 + ((y - eye[1] - 0.01) / half[1]) ** 4 for eye in _EYES]
        return np.asarray(np.minimum(*radii) < 1)

    return inside


def _coverage(images: _Images, inside: _Inside) -> _Grid:
    """The fraction of every pixel that is ``inside``: ``[S, S]`` from 0 to 1."""
    side = images.shape[-1]
    at = (np.arange(side * _SUBPIXELS) + 0.5) / (side * _SUBPIXELS)
    fine = inside(*np.meshgrid(at, at))
    return np.asarray(fine.reshape(side, _SUBPIXELS, side, _SUBPIXELS).mean(axis=(1, 3)))


def _blend(images: _Images, cover: _Grid, grey: _Grid | float) -> _Images:
    return _to_pixels(images * (1 - cover) + grey * cover)


def _mean_grey(images: _Images) -> _Grid:
    return np.asarray(images.mean(axis=(1, 2), keepdims=True, dtype=np.float64))


def _standard_normal(images: _Images, generators: _Generators) -> _Floats:
    return np.stack([g.standard_normal(images.shape[1:], np.float32) for g in generators])


def _to_pixels(values: NDArray[np.floating]) -> _Images:
    """Grey levels as uint8, rounded and clipped to 0..255."""
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)


_NOISY, _DETAIL, _LIGHTING, _FRAMING, _PARTIAL = CorruptionKind
CORRUPTIONS: tuple[Corruption, ...] = (
    Corruption("gaussian-noise", _NOISY, "grey levels of standard deviation", (5, 10, 20, 30, 45),
               "normal noise, independent in every pixel", _gaussian_noise),
    Corruption("shot-noise", _NOISY, "photons per white pixel", (250, 100, 50, 25, 12),
               "Poisson noise of little light", _shot_noise),
    Corruption("camera-noise", _NOISY, "grey levels per photosite", (10, 20, 35, 50, 75),
               "noise of a colour camera after demosaicing of a Bayer pattern", _camera_noise),
    Corruption("gaussian-blur", _DETAIL, "pixels of 48, standard deviation", (0.5, 1.0, 1.5, 2.0, 3.0),
               "out of focus", _gaussian_blur),
    Corruption("motion-blur", _DETAIL, "pixels of 48", (3, 5, 7, 10, 14),
               "straight motion in a random direction", _motion_blur),
    Corruption("jpeg", _DETAIL, "JPEG quality", (50, 30, 18, 10, 5),
               "compressed by libjpeg", _jpeg),
    Corruption("low-resolution", _DETAIL, "pixels per side", (32, 24, 16, 12, 8),
               "a face far away: area average down, bicubic up", _low_resolution),
    Corruption("brighter", _LIGHTING, "fraction of white added", (0.1, 0.2, 0.3, 0.4, 0.5),
               "too much light, clipped at white", _brighter),
    Corruption("low-light", _LIGHTING, "gamma", (1.5, 2.0, 2.75, 3.5, 5.0),
               "dark, with sensor noise of 4 grey levels", _low_light),
    Corruption("low-contrast", _LIGHTING, "fraction of the contrast that remains", (0.6, 0.4, 0.25, 0.15, 0.08),
               "every level nearer to the mean, in whole grey levels", _low_contrast),
    Corruption("rotation", _FRAMING, "degrees", (8, 15, 25, 35, 50),
               "rotated to the left or to the right at random", _rotation),
    Corruption("shift", _FRAMING, "fraction of the side", (0.05, 0.1, 0.15, 0.2, 0.25),
               "shifted in a random direction", _shift),
    Corruption("scale", _FRAMING, "times larger or smaller", (1.1, 1.2, 1.35, 1.5, 1.75),
               "too near or too far, at random", _scale),
    Corruption("cover-eyes", _PARTIAL, "eye distances high", (0.15, 0.3, 0.45, 0.65, 0.9),
               "a grey bar over both eyes; at severity 5 also over the brows", partial(_cover, "eyes")),
    Corruption("cover-mouth", _PARTIAL, "eye distances wide", (0.4, 0.7, 1.0, 1.3, 1.6),
               "a grey patch over the mouth", partial(_cover, "mouth")),
    Corruption("cover-left", _PARTIAL, "fraction of the width", (0.1, 0.2, 0.3, 0.4, 0.5),
               "grey from the left of the image (the subject's right), up to half of the face",
               partial(_cover, "left")),
    Corruption("cover-right", _PARTIAL, "fraction of the width", (0.1, 0.2, 0.3, 0.4, 0.5),
               "grey from the right of the image (the subject's left), up to half of the face",
               partial(_cover, "right")),
    Corruption("glasses", _PARTIAL, "fraction of the light absorbed by the lenses", (0.2, 0.4, 0.6, 0.8, 1.0),
               "glasses with a dark frame, from tinted to black", _glasses),
    Corruption("mask", _PARTIAL, "fraction of the height that stays free in the middle", (0.84, 0.74, 0.66, 0.58, 0.5),
               "a light mask from the chin; at severity 5 over mouth and nose", _mask),
)  # fmt: skip


@checked
def choose_corruptions(names: Sequence[str]) -> tuple[Corruption, ...]:
    """Choose corruptions by name or by kind.

    Args:
        names: Names of corruptions, or the first word of a kind (``noisy``, ``lost``, ``light``, ``framing``,
            ``partial``). Empty: all corruptions.

    Returns:
        The chosen corruptions in the order of ``CORRUPTIONS``.

    Raises:
        DataError: A name is unknown. The message suggests the nearest one.

    Example:
        >>> [corruption.name for corruption in choose_corruptions(["jpeg", "framing"])]
        ['jpeg', 'rotation', 'shift', 'scale']
    """
    kinds = {kind: kind.split()[0] for kind in CorruptionKind}
    known = [corruption.name for corruption in CORRUPTIONS]
    for name in names:
        require_known("corruption or kind", name, (*known, *kinds.values()), DataError)
    return tuple(c for c in CORRUPTIONS if not names or c.name in names or kinds[c.kind] in names)
