"""Every way in which faces are spoilt, and what its five strengths mean. The one place of these numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mien._errors import DataError
from mien.lab.data.columns import nearest
from mien.lab.stress import cover, detail, light, move, noise
from mien.lab.stress.draw import Generators, Images

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
             "normal noise, independent in every pixel", noise.gaussian_noise),
    Spoiling("shot-noise", Kind.NOISY, "photons a white pixel", (250, 100, 50, 25, 12),
             "Poisson noise of little light", noise.shot_noise),
    Spoiling("camera-noise", Kind.NOISY, "grey levels at a photosite", (10, 20, 35, 50, 75),
             "noise of a colour camera, spread by the demosaicing of a Bayer pattern", noise.camera_noise),
    Spoiling("gaussian-blur", Kind.DETAIL, "pixels of 48, standard deviation", (0.5, 1.0, 1.5, 2.0, 3.0),
             "out of focus", detail.gaussian_blur),
    Spoiling("motion-blur", Kind.DETAIL, "pixels of 48", (3, 5, 7, 10, 14),
             "a straight move in a direction of chance", detail.motion_blur),
    Spoiling("jpeg", Kind.DETAIL, "JPEG quality", (50, 30, 18, 10, 5),
             "compressed by libjpeg", detail.jpeg),
    Spoiling("low-resolution", Kind.DETAIL, "pixels a side", (32, 24, 16, 12, 8),
             "a face far away: area average down, bicubic up", detail.low_resolution),
    Spoiling("brighter", Kind.LIGHT, "share of white added", (0.1, 0.2, 0.3, 0.4, 0.5),
             "too much light; what passes white is lost", light.brighter),
    Spoiling("low-light", Kind.LIGHT, "gamma", (1.5, 2.0, 2.75, 3.5, 5.0),
             "dark, with the noise of the dark (4 grey levels)", light.low_light),
    Spoiling("low-contrast", Kind.LIGHT, "of the contrast is left", (0.6, 0.4, 0.25, 0.15, 0.08),
             "every level nearer to the mean, in whole grey levels", light.low_contrast),
    Spoiling("rotation", Kind.FRAMING, "degrees", (8, 15, 25, 35, 50),
             "turned to a side of chance", move.rotation),
    Spoiling("shift", Kind.FRAMING, "of the side", (0.05, 0.1, 0.15, 0.2, 0.25),
             "moved in a direction of chance", move.shift),
    Spoiling("scale", Kind.FRAMING, "times larger or smaller", (1.1, 1.2, 1.35, 1.5, 1.75),
             "too near or too far, by chance", move.scale),
    Spoiling("cover-eyes", Kind.PARTIAL, "eye distances high", (0.15, 0.3, 0.45, 0.65, 0.9),
             "a grey bar over both eyes, in the end over the brows", cover.cover_eyes),
    Spoiling("cover-mouth", Kind.PARTIAL, "eye distances wide", (0.4, 0.7, 1.0, 1.3, 1.6),
             "a grey patch over the mouth", cover.cover_mouth),
    Spoiling("cover-left", Kind.PARTIAL, "of the width", (0.1, 0.2, 0.3, 0.4, 0.5),
             "grey from the left of the picture, the subject's right, in the end half of the face", cover.cover_left),
    Spoiling("cover-right", Kind.PARTIAL, "of the width", (0.1, 0.2, 0.3, 0.4, 0.5),
             "grey from the right of the picture, the subject's left, in the end half of the face", cover.cover_right),
    Spoiling("glasses", Kind.PARTIAL, "of the light is kept out by the lenses", (0.2, 0.4, 0.6, 0.8, 1.0),
             "glasses with a dark frame, from tinted to black", cover.glasses),
    Spoiling("mask", Kind.PARTIAL, "of the height is free above its middle", (0.84, 0.74, 0.66, 0.58, 0.5),
             "a light mask from the chin, in the end over mouth and nose", cover.mask),
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
