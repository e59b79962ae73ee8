"""What a recipe says of its augmentation, and what it may say."""

from dataclasses import dataclass

from mien._errors import RecipeError

FILLS = ("border", "zeros", "reflection")  # edge repeated, black, mirrored
RESAMPLES = ("bilinear", "bicubic")  # soft and quick, sharp
CROPS = (0, 5, 10)


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Strengths; 0 switches a step off. "up to" means uniform between minus and plus the value.

    Colour jitter of a grey image is ``brightness``, ``contrast`` and ``brightness_shift``: hue and saturation do not
    exist.
    """

    flip: float = 0.5  # share of mirrored images
    rotate: float = 0.0  # degrees, up to
    shift: float = 0.0  # share of the side, up to
    scale: float = 0.0  # factor, log-uniform in 1/(1+scale) .. 1+scale
    zoom: float = 0.0  # share of the side that is seen, each axis on its own, uniform in 1-zoom .. 1+zoom
    shear: float = 0.0  # horizontal shear factor, up to: the tangent of the angle (0.4 rad: 0.4228, 25 degrees: 0.4663)
    min_crop_area: float = (
        0.0  # smallest share of the area that a random crop keeps (aspect 3/4 .. 4/3), shown at full size
    )
    n_crops: int = 0  # 5: the centre or a corner, equally often; 10: and, whatever flip says, half of them mirrored
    crop_fraction: float = 0.875  # share of the side that each of these crops keeps, shown at full size
    brightness: float = 0.0  # factor, uniform in 1-brightness .. 1+brightness
    brightness_shift: float = 0.0  # added, images being 0..1, up to
    contrast: float = 0.0  # factor about the image's mean, log-uniform in 1/(1+contrast) .. 1+contrast
    gamma: float = 0.0  # exponent, log-uniform in 1/(1+gamma) .. 1+gamma
    blur: float = 0.0  # pixels, largest standard deviation of a Gaussian
    noise: float = 0.0  # largest standard deviation of added Gaussian noise, images being 0..1
    blur_noise_share: float = 1.0  # share of images that get blur and noise at all
    jpeg: float = 0.0  # share of images that are compressed as JPEG
    jpeg_quality: tuple[float, float] = (10.0, 60.0)  # its quality, 1 to 100, uniform between these
    random_erasing: float = 0.0  # share of images with an erased rectangle
    erasing_area: tuple[float, float] = (0.02, 0.2)  # its area as share of the image
    mixup: float = 0.0  # alpha of the Beta distribution (Zhang et al., ICLR 2018)
    cutmix: float = 0.0  # alpha of CutMix (Yun et al., ICCV 2019); with mixup too, each face gets one of both by chance
    padding_mode: str = "border"  # what lies outside of the image: one of FILLS
    interpolation: str = "bilinear"  # between pixels; "bicubic" keeps most of the detail that "bilinear" blurs

    @property
    def moves(self) -> bool:
        """Whether pixels change their places at all."""
        moving = (
            self.flip,
            self.rotate,
            self.shift,
            self.scale,
            self.zoom,
            self.shear,
            self.min_crop_area,
            self.n_crops,
        )
        return any(value > 0 for value in moving)


def check_augment(strengths: AugmentConfig, where: str) -> None:
    """Raises ``RecipeError`` naming the key of ``where`` that has a value it cannot have."""
    for key, allowed in (("padding_mode", FILLS), ("interpolation", RESAMPLES), ("n_crops", CROPS)):
        if getattr(strengths, key) not in allowed:
            raise RecipeError(
                f"{where}.{key} is one of {', '.join(map(str, allowed))}, not {getattr(strengths, key)!r}"
            )
    for key in ("flip", "blur_noise_share", "jpeg", "random_erasing", "min_crop_area", "brightness"):
        if not 0 <= getattr(strengths, key) <= 1:
            raise RecipeError(f"{where}.{key} is between 0 and 1, not {getattr(strengths, key)}")
    moved, relit = ("rotate", "shift", "scale", "shear"), ("brightness_shift", "contrast", "gamma")
    for key in (*moved, *relit, "blur", "noise", "mixup", "cutmix"):
        if getattr(strengths, key) < 0:
            raise RecipeError(f"{where}.{key} is at least 0, not {getattr(strengths, key)}")
    _check_areas(strengths, where)


def _check_areas(strengths: AugmentConfig, where: str) -> None:
    if not 0 <= strengths.zoom < 1 or not 0 < strengths.crop_fraction <= 1:
        raise RecipeError(f"{where}: zoom is at least 0 and below 1, crop_fraction above 0 and at most 1")
    if strengths.min_crop_area > 0 and strengths.n_crops > 0:
        raise RecipeError(f"{where}: min_crop_area and n_crops both cut the face; leave one at 0")
    worst, best = (*strengths.jpeg_quality, 0.0, 0.0)[:2]
    if len(strengths.jpeg_quality) != 2 or not 1 <= worst <= best <= 100:
        raise RecipeError(
            f"{where}.jpeg_quality is a lowest and a highest quality, 1 to 100, not {list(strengths.jpeg_quality)}"
        )
    area = strengths.erasing_area
    if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
        raise RecipeError(f"{where}.erasing_area is a smallest and a largest share of the image, not {list(area)}")
