"""Every way in which faces are spoilt, and what its five strengths mean. The one place of these numbers."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from zlib import crc32

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform, convolve, gaussian_filter

from mien._errors import DataError
from mien._framing import FER2013
from mien.lab.data.faceset import nearest

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


_Floats = NDArray[np.float64]


_EYES = (np.array(FER2013.right_eye), np.array(FER2013.left_eye))


_EYE_LINE = float((_EYES[0][1] + _EYES[1][1]) / 2)


_MIDDLE = float((_EYES[0][0] + _EYES[1][0]) / 2)


_EYE_DISTANCE = float(np.linalg.norm(_EYES[1] - _EYES[0]))  # as are all lengths here: shares of the side


_JAW = (0.42, 0.48)  # half axes of a mask's outline, about the middle of the crop


_FINE = 4  # points a pixel and direction, so that edges are smooth


_DARK, _WHITE = 20, 210  # grey levels of tinted glass and of a mask


def cover_eyes(images: Images, height: float, _: Generators) -> Images:
    """A bar over both eyes and the bridge, ``height`` eye distances high, of the face's mean grey."""
    bar = _box(_MIDDLE, _EYE_LINE, 2.3 * _EYE_DISTANCE, height * _EYE_DISTANCE)
    return _covered(images, _coverage(images, bar), _mean(images))


def cover_mouth(images: Images, width: float, _: Generators) -> Images:
    """A patch over the mouth, ``width`` eye distances wide and 0.6 times as high, of the face's mean grey."""
    patch = _box(FER2013.mouth[0], FER2013.mouth[1], width * _EYE_DISTANCE, 0.6 * width * _EYE_DISTANCE)
    return _covered(images, _coverage(images, patch), _mean(images))


def cover_left(images: Images, share: float, _: Generators) -> Images:
    """``share`` of the width from the left of the picture (the subject's right), of the face's mean grey."""
    return _covered(images, _coverage(images, lambda x, _y: x < share), _mean(images))


def cover_right(images: Images, share: float, _: Generators) -> Images:
    """``share`` of the width from the right of the picture (the subject's left), of the face's mean grey."""
    return _covered(images, _coverage(images, lambda x, _y: x > 1 - share), _mean(images))


def glasses(images: Images, tint: float, _: Generators) -> Images:
    """Dark glasses: frame, bridge and temples opaque, both lenses with a ``tint`` of 0 (clear) to 1 (black)."""
    lenses, rims = _coverage(images, _lenses(1.0)), _coverage(images, _lenses(1.18))
    bars = _coverage(
        images, lambda x, y: (abs(y - _EYE_LINE + 0.02) < 0.012) & (abs(x - _MIDDLE) < 1.25 * _EYE_DISTANCE)
    )
    frame = np.maximum(rims, bars)
    return _covered(images, np.maximum(frame - lenses, 0) + tint * lenses, _DARK)


def mask(images: Images, top: float, _: Generators) -> Images:
    """A light mask from the chin up to ``top`` (share of the side from above), higher over the nose than beside it."""

    def inside(x: _Floats, y: _Floats) -> NDArray[np.bool_]:
        across = (x - _MIDDLE) / _JAW[0]
        jaw = across**2 + ((y - 0.5) / _JAW[1]) ** 2 < 1
        return jaw & (y > top + 0.10 * across**2)

    return _covered(images, _coverage(images, inside), _WHITE)


def _lenses(size: float) -> Callable[[_Floats, _Floats], NDArray[np.bool_]]:
    half = 0.40 * _EYE_DISTANCE * size, 0.31 * _EYE_DISTANCE * size

    def inside(x: _Floats, y: _Floats) -> NDArray[np.bool_]:
        away = [((x - eye[0]) / half[0]) ** 4 + ((y - eye[1] - 0.01) / half[1]) ** 4 for eye in _EYES]
        return np.asarray(np.minimum(*away) < 1)

    return inside


def _box(x0: float, y0: float, width: float, height: float) -> Callable[[_Floats, _Floats], NDArray[np.bool_]]:
    return lambda x, y: np.asarray((abs(x - x0) < width / 2) & (abs(y - y0) < height / 2))


def _coverage(images: Images, inside: Callable[[_Floats, _Floats], NDArray[np.bool_]]) -> _Floats:
    """Share of every pixel that lies ``inside`` (of x and y as shares of the side): ``[S, S]`` in 0..1."""
    side = images.shape[-1]
    at = (np.arange(side * _FINE) + 0.5) / (side * _FINE)
    fine = inside(*np.meshgrid(at, at))
    return np.asarray(fine.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3)))


def _mean(images: Images) -> _Floats:
    return np.asarray(images.mean(axis=(1, 2), keepdims=True, dtype=np.float64))


def _covered(images: Images, cover: _Floats, grey: _Floats | float) -> Images:
    return to_pixels(images * (1 - cover) + grey * cover)


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


_Matrix = NDArray[np.float64]


def rotation(images: Images, degrees: float, generators: Generators) -> Images:
    """Turned by ``degrees`` about the middle, to a side of chance for every face."""
    return _moved(images, [_turn(math.radians(degrees) * _sign(g)) for g in generators])


def shift(images: Images, share: float, generators: Generators) -> Images:
    """Moved by ``share`` of the side, in a direction of chance for every face."""
    way = share * images.shape[-1]
    angles = [g.uniform(0, 2 * math.pi) for g in generators]
    moves = [np.array([math.sin(angle), math.cos(angle)]) * way for angle in angles]
    return _moved(images, [np.eye(2)] * len(images), moves)


def scale(images: Images, factor: float, generators: Generators) -> Images:
    """Larger or smaller by ``factor`` about the middle, by chance for every face."""
    return _moved(images, [np.eye(2) * factor ** _sign(g) for g in generators])


def _moved(images: Images, matrices: Sequence[_Matrix], moves: Sequence[_Matrix] | None = None) -> Images:
    """Bilinear: each pixel from where its ``matrix`` about the middle, then its move (rows, columns), put it."""
    middle = (images.shape[-1] - 1) / 2
    shown = []
    for index, (image, matrix) in enumerate(zip(images.astype(np.float32), matrices, strict=True)):
        back = middle + (moves[index] if moves else 0)
        offset = middle - matrix @ np.broadcast_to(back, 2)
        shown.append(affine_transform(image, matrix, offset, order=1, mode="nearest"))
    return to_pixels(np.stack(shown))


def _turn(angle: float) -> _Matrix:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _sign(generator: np.random.Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


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


STRENGTHS = (1, 2, 3, 4, 5)


class Kind(StrEnum):
    """What a spoiling takes away. Noisy and partial cues are those that document 002 asks to evaluate."""

    NOISY = "noisy cues"
    DETAIL = "lost detail"
    LIGHT = "light"
    FRAMING = "framing"
    PARTIAL = "partial cues"


@dataclass(frozen=True, slots=True)
class Spoiling:
    """One way of spoiling a face.

    ``amounts`` are the values of its strengths 1..5 in ``unit``; ``does`` says in words what happens; ``change`` does
    it to images uint8 ``[N, S, S]`` for one amount, with a generator for every face.
    """

    name: str
    kind: Kind
    unit: str
    amounts: tuple[float, float, float, float, float]
    does: str
    change: Callable[[Images, float, Generators], Images]

    def __call__(self, images: Images, strength: int, generators: Generators) -> Images:
        """Spoilt faces, uint8 ``[N, S, S]``; ``images`` stay as they are. ``strength`` is 1..5.

        A face depends on its own pixels and its own generator alone. Raises ``DataError`` for what is no such input.
        """
        if strength not in STRENGTHS:
            raise DataError(f"{self.name}: strength is one of 1 to 5, not {strength}")
        if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1] != images.shape[2]:
            raise DataError(f"{self.name} spoils uint8 [N, S, S], not {images.dtype} {list(images.shape)}")
        if len(generators) != len(images):
            raise DataError(f"{self.name}: {len(images)} faces need as many generators, not {len(generators)}")
        return self.change(images, self.amounts[strength - 1], generators) if len(images) else images.copy()


SPOILINGS: tuple[Spoiling, ...] = (
    Spoiling("gaussian-noise", Kind.NOISY, "grey levels of standard deviation", (5, 10, 20, 30, 45),
             "normal noise, independent in every pixel", gaussian_noise),
    Spoiling("shot-noise", Kind.NOISY, "photons a white pixel", (250, 100, 50, 25, 12),
             "Poisson noise of little light", shot_noise),
    Spoiling("camera-noise", Kind.NOISY, "grey levels at a photosite", (10, 20, 35, 50, 75),
             "noise of a colour camera, spread by the demosaicing of a Bayer pattern", camera_noise),
    Spoiling("gaussian-blur", Kind.DETAIL, "pixels of 48, standard deviation", (0.5, 1.0, 1.5, 2.0, 3.0),
             "out of focus", gaussian_blur),
    Spoiling("motion-blur", Kind.DETAIL, "pixels of 48", (3, 5, 7, 10, 14),
             "a straight move in a direction of chance", motion_blur),
    Spoiling("jpeg", Kind.DETAIL, "JPEG quality", (50, 30, 18, 10, 5),
             "compressed by libjpeg", jpeg),
    Spoiling("low-resolution", Kind.DETAIL, "pixels a side", (32, 24, 16, 12, 8),
             "a face far away: area average down, bicubic up", low_resolution),
    Spoiling("brighter", Kind.LIGHT, "share of white added", (0.1, 0.2, 0.3, 0.4, 0.5),
             "too much light; what passes white is lost", brighter),
    Spoiling("low-light", Kind.LIGHT, "gamma", (1.5, 2.0, 2.75, 3.5, 5.0),
             "dark, with the noise of the dark (4 grey levels)", low_light),
    Spoiling("low-contrast", Kind.LIGHT, "of the contrast is left", (0.6, 0.4, 0.25, 0.15, 0.08),
             "every level nearer to the mean, in whole grey levels", low_contrast),
    Spoiling("rotation", Kind.FRAMING, "degrees", (8, 15, 25, 35, 50),
             "turned to a side of chance", rotation),
    Spoiling("shift", Kind.FRAMING, "of the side", (0.05, 0.1, 0.15, 0.2, 0.25),
             "moved in a direction of chance", shift),
    Spoiling("scale", Kind.FRAMING, "times larger or smaller", (1.1, 1.2, 1.35, 1.5, 1.75),
             "too near or too far, by chance", scale),
    Spoiling("cover-eyes", Kind.PARTIAL, "eye distances high", (0.15, 0.3, 0.45, 0.65, 0.9),
             "a grey bar over both eyes, in the end over the brows", cover_eyes),
    Spoiling("cover-mouth", Kind.PARTIAL, "eye distances wide", (0.4, 0.7, 1.0, 1.3, 1.6),
             "a grey patch over the mouth", cover_mouth),
    Spoiling("cover-left", Kind.PARTIAL, "of the width", (0.1, 0.2, 0.3, 0.4, 0.5),
             "grey from the left of the picture, the subject's right, in the end half of the face", cover_left),
    Spoiling("cover-right", Kind.PARTIAL, "of the width", (0.1, 0.2, 0.3, 0.4, 0.5),
             "grey from the right of the picture, the subject's left, in the end half of the face", cover_right),
    Spoiling("glasses", Kind.PARTIAL, "of the light is kept out by the lenses", (0.2, 0.4, 0.6, 0.8, 1.0),
             "glasses with a dark frame, from tinted to black", glasses),
    Spoiling("mask", Kind.PARTIAL, "of the height is free above its middle", (0.84, 0.74, 0.66, 0.58, 0.5),
             "a light mask from the chin, in the end over mouth and nose", mask),
)  # fmt: skip


def choose(names: Sequence[str]) -> tuple[Spoiling, ...]:
    """The spoilings called ``names``, or of the kinds called so (all of them for none), in the order of the table.

    Raises ``DataError`` naming the nearest.
    """
    known = {spoiling.name for spoiling in SPOILINGS} | {_short(spoiling.kind) for spoiling in SPOILINGS}
    for name in names:
        if name not in known:
            listed = ", ".join(spoiling.name for spoiling in SPOILINGS)
            kinds = ", ".join(_short(kind) for kind in Kind)
            raise DataError(f"no spoiling {name!r}{nearest(name, known)}; there are {listed}; or a kind: {kinds}")
    return tuple(s for s in SPOILINGS if not names or s.name in names or _short(s.kind) in names)


def _short(kind: Kind) -> str:
    return kind.split()[0]
