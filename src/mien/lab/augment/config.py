"""The section ``[augment]`` of a recipe and its limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mien._errors import RecipeError

FILLS = ("border", "zeros", "reflection")  # repeat the edge, black, mirror
RESAMPLES = ("bilinear", "bicubic")  # soft and fast, sharp
CROPS = (0, 5, 10)
_SHARES = ("flip", "brightness", "blur_noise_share", "jpeg", "random_erasing", "min_crop_area")
# The values of each key, as ``check_values`` takes them; beyond the largest strengths no face is left.
_LIMITS: Mapping[str, str | tuple[Any, ...]] = {
    **{"padding_mode": FILLS, "interpolation": RESAMPLES, "n_crops": CROPS},
    **dict.fromkeys((*_SHARES, "shrink", "shrink_softness"), "[0, 1]"),
    **{"rotate": "[0, 360]", "shift": "[0, 1]", "scale": "[0, 10]", "shear": "[0, 10]", "brightness_shift": "[0, 1]"},
    **{"contrast": "[0, 10]", "gamma": "[0, 10]", "blur": "[0, 100]", "noise": "[0, 1]", "mixup": "[0, 1000]"},
    **{"cutmix": "[0, 1000]", "shrink_to": "[1, inf)", "zoom": "[0, 1)", "crop_fraction": "(0, 1]"},
}
_GEOMETRY = ("flip", "rotate", "shift", "scale", "zoom", "shear", "min_crop_area", "n_crops")


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Strengths of the augmentation; 0 switches a step off. "up to" means uniform between minus and plus the value.

    The colour jitter of a grey image is ``brightness``, ``contrast`` and ``brightness_shift``: a grey image has no hue
    and no saturation.
    """

    flip: float = 0.5  # share of mirrored images
    rotate: float = 0.0  # degrees, up to
    shift: float = 0.0  # share of the side, up to
    scale: float = 0.0  # factor, log-uniform in 1/(1+scale) .. 1+scale
    zoom: float = 0.0  # visible share of the side, drawn for each axis, uniform in 1-zoom .. 1+zoom
    shear: float = 0.0  # horizontal shear factor, up to: the tangent of the angle (0.4 rad: 0.4228, 25 degrees: 0.4663)
    min_crop_area: float = 0.0  # smallest share of the area in a random crop (aspect 3/4 .. 4/3), resized to full size
    n_crops: int = 0  # 5: the centre or a corner, equally often; 10: the same, half of them mirrored whatever flip is
    crop_fraction: float = 0.875  # share of the side in each of these crops, resized to full size
    brightness: float = 0.0  # factor, uniform in 1-brightness .. 1+brightness
    brightness_shift: float = 0.0  # added to images in 0..1, up to
    contrast: float = 0.0  # factor about the image's mean, log-uniform in 1/(1+contrast) .. 1+contrast
    gamma: float = 0.0  # exponent, log-uniform in 1/(1+gamma) .. 1+gamma
    blur: float = 0.0  # pixels, largest standard deviation of a Gaussian
    noise: float = 0.0  # largest standard deviation of added Gaussian noise, for images in 0..1
    blur_noise_share: float = 1.0  # share of images with blur and noise
    jpeg: float = 0.0  # share of images with JPEG compression
    jpeg_quality: tuple[float, float] = (10.0, 60.0)  # lowest and highest JPEG quality, 1 to 100, drawn uniformly
    random_erasing: float = 0.0  # share of images with an erased rectangle
    erasing_area: tuple[float, float] = (0.02, 0.2)  # smallest and largest area of the rectangle as share of the image
    mixup: float = 0.0  # alpha of the Beta distribution (Zhang et al., ICLR 2018)
    cutmix: float = 0.0  # alpha of CutMix (Yun et al., ICCV 2019); with mixup, each face gets one of both at random
    shrink: float = 0.0  # share of faces that are shrunk and enlarged again, after mixing
    shrink_to: float = 16.0  # pixels, the smallest side; drawn from this one and three up to that of the image
    shrink_softness: float = 0.0  # probability that is spread over all classes for a face shrunk to nothing; for one
    # shrunk to a share of its side, this times the rest
    padding_mode: str = "border"  # pixels outside of the image: border (repeat the edge), zeros (black) or reflection
    interpolation: str = "bilinear"  # or "bicubic", which preserves most of the detail that "bilinear" blurs

    @property
    def has_geometry(self) -> bool:
        """Whether any step moves pixels."""
        return any(getattr(self, key) > 0 for key in _GEOMETRY)


# As far as the boxes of a detector move from frame to frame.
JITTER = AugmentConfig(flip=0, rotate=3, shift=0.04, scale=0.04)


def check_values(section: object, limits: Mapping[str, str | tuple[Any, ...]], where: str) -> None:
    """Check the values of a section of a recipe.

    Args:
        section: The section, a dataclass.
        limits: Key -> the allowed values; or an interval as ``"(0, 1]"``, for a number and for each number of a table.
        where: Text before the key in error messages.

    Raises:
        RecipeError: A value is not valid; the message names its key.
    """
    for key, limit in limits.items():
        value = getattr(section, key)
        if not isinstance(limit, str):
            if value not in limit:
                raise RecipeError(f"{where}{key} is one of {', '.join(map(str, limit))}, not {value!r}")
            continue
        low, high = map(float, limit[1:-1].split(","))
        for name, number in value.items() if isinstance(value, Mapping) else ((key, value),):
            is_edge = (number == low and limit[0] == "(") or (number == high and limit[-1] == ")")
            if is_edge or not low <= number <= high:
                full = key if name == key else f"{key}.{name}"
                raise RecipeError(f"{where}{full} is in {limit}, not {number}")


def check_augment(strengths: AugmentConfig, where: str) -> None:
    """Check the values of a section ``[augment]``.

    Args:
        strengths: The section.
        where: Its place, for error messages.

    Raises:
        RecipeError: A value is not valid; the message names its key.
    """
    check_values(strengths, _LIMITS, f"{where}.")
    if strengths.min_crop_area > 0 and strengths.n_crops > 0:
        raise RecipeError(f"{where}: min_crop_area and n_crops both crop the face; leave one at 0")
    quality, area = strengths.jpeg_quality, strengths.erasing_area
    if len(quality) != 2 or not 1 <= quality[0] <= quality[1] <= 100:
        raise RecipeError(f"{where}.jpeg_quality is a lowest and a highest quality, 1 to 100, not {list(quality)}")
    if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
        raise RecipeError(f"{where}.erasing_area is a smallest and a largest share of the image, not {list(area)}")
