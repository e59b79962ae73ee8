"""Corruptions do what their names say, compared with reference libraries."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.filters import gaussian
from skimage.transform import rotate

from mien import Reader
from mien._errors import DataError
from mien.lab.robustness.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    Corruption,
    CorruptionKind,
    choose_corruptions,
    corruption_generators,
    motion_kernel,
)
from mien.lab.robustness.plots import example_face
from support.brightness_classifier import BY_NAME
from support.paths import ROOT
from support.synthetic_faces import cartoon_set

each_corruption = pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Real pixels and drawn ones: the astronaut and cartoons, uint8 [24, 48, 48]."""
    drawn = cartoon_set(per_split=(12, 0, 0)).images.numpy()
    return np.concatenate([np.repeat(example_face()[None], 12, axis=0), drawn])


def corrupt(corruption: Corruption, images: NDArray[np.uint8], severity: int, seed: int = 0) -> NDArray[np.uint8]:
    return corruption(images, severity, corruption_generators(seed, corruption.name, range(len(images))))


@each_corruption
def test_corruptions_preserve_shape_and_input_and_grow_with_severity(
    corruption: Corruption, images: NDArray[np.uint8]
) -> None:
    before = images.copy()
    corrupted = [corrupt(corruption, images, severity) for severity in SEVERITIES]
    assert all(each.dtype == np.uint8 and each.shape == images.shape for each in corrupted)
    assert np.array_equal(images, before)
    distances = [((each.astype(float) - images) ** 2).mean() for each in corrupted]
    assert distances[0] > 0
    assert all(np.diff(distances) > 0), distances


@each_corruption
def test_a_corrupted_face_depends_only_on_itself_and_its_seed(
    corruption: Corruption, images: NDArray[np.uint8]
) -> None:
    together = corrupt(corruption, images, 3)
    assert np.array_equal(together, corrupt(corruption, images, 3))
    alone = [
        corruption(images[at : at + 1], 3, corruption_generators(0, corruption.name, [at]))[0]
        for at in range(len(images))
    ]
    assert np.array_equal(together, np.stack(alone))
    chance = not np.array_equal(together, corrupt(corruption, images, 3, seed=1))
    assert chance == (
        corruption.kind in (CorruptionKind.NOISY, CorruptionKind.FRAMING)
        or corruption.name in ("motion-blur", "low-light")
    )


@each_corruption
@pytest.mark.parametrize("side", [33, 96])
def test_faces_of_other_sizes_are_corrupted_too(corruption: Corruption, side: int) -> None:
    face = np.asarray(Image.fromarray(example_face()).resize((side, side)))
    corrupted = corrupt(corruption, np.repeat(face[None], 3, axis=0), 5)
    assert corrupted.shape == (3, side, side)
    assert not np.array_equal(corrupted[0], face)


def test_no_faces_give_no_faces() -> None:
    assert CORRUPTIONS[0](np.zeros((0, 48, 48), np.uint8), 1, []).shape == (0, 48, 48)


@pytest.mark.parametrize(
    ("images", "severity", "count", "says"),
    [
        (np.zeros((2, 48, 48), np.uint8), 6, 2, "severity is 1 to 5"),
        (np.zeros((2, 48, 48), np.float32), 1, 2, "takes uint8"),
        (np.zeros((2, 48, 40), np.uint8), 1, 2, "takes uint8"),
        (np.zeros((2, 48, 48), np.uint8), 1, 3, "as many generators"),
    ],
)
def test_wrong_input_is_refused(images: NDArray[np.uint8], severity: int, count: int, says: str) -> None:
    with pytest.raises(DataError, match=says):
        CORRUPTIONS[0](images, severity, corruption_generators(0, "x", range(count)))


def test_blur_equals_scikit_image() -> None:
    face = example_face()
    for severity, sigma in zip(SEVERITIES, BY_NAME["gaussian-blur"].amounts, strict=True):
        wanted = gaussian(face, sigma, mode="nearest", preserve_range=True)
        assert np.abs(corrupt(BY_NAME["gaussian-blur"], face[None], severity)[0] - wanted).max() <= 0.51


def test_rotation_equals_scikit_image() -> None:
    face = example_face()
    turned = corrupt(BY_NAME["rotation"], face[None], 3)[0].astype(float)
    to_sides = [rotate(face, sign * 25, order=1, mode="edge", preserve_range=True) for sign in (1, -1)]
    assert min(np.abs(turned - wanted).max() for wanted in to_sides) <= 1


def test_a_shift_of_whole_pixels_moves_pixels() -> None:
    class East:
        def uniform(self, low: float, _high: float) -> float:
            return low  # angle 0: along the columns

    face = example_face()
    moved = BY_NAME["shift"].apply(face[None], 6 / 48, [East()])[0]  # type: ignore[list-item]
    assert np.array_equal(moved[:, 6:], face[:, :-6])
    assert (moved[:, :6] == face[:, :1]).all()


def test_jpeg_and_low_resolution_equal_pillow() -> None:
    face = Image.fromarray(example_face())
    stream = io.BytesIO()
    face.save(stream, "JPEG", quality=10)
    assert np.array_equal(corrupt(BY_NAME["jpeg"], example_face()[None], 4)[0], np.asarray(Image.open(stream)))
    small = face.resize((16, 16), Image.Resampling.BOX).resize((48, 48), Image.Resampling.BICUBIC)
    assert np.array_equal(corrupt(BY_NAME["low-resolution"], example_face()[None], 3)[0], np.asarray(small))


def test_noise_has_the_spread_of_the_table() -> None:
    grey = np.full((200, 48, 48), 128, np.uint8)
    noise = {name: corrupt(BY_NAME[name], grey, 3).astype(float) - 128 for name in ("gaussian-noise", "camera-noise")}
    assert noise["gaussian-noise"].std() == pytest.approx(20, rel=0.02)
    # Light of 50 photons a white pixel: the variance of a level is the level times 255 / 50.
    assert corrupt(BY_NAME["shot-noise"], grey, 3).astype(float).var() == pytest.approx(128 * 255 / 50, rel=0.03)
    neighbours = {name: (each[:, :, 1:] * each[:, :, :-1]).mean() / each.var() for name, each in noise.items()}
    assert abs(neighbours["gaussian-noise"]) < 0.02
    assert neighbours["camera-noise"] > 0.2


def test_motion_has_the_length_of_the_table() -> None:
    for angle in (0, 0.4, np.pi / 2):
        kernel = motion_kernel(9, angle)
        assert kernel.sum() == pytest.approx(1)
        y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
        spread = (kernel * (x**2 + y**2)).sum()
        assert spread == pytest.approx(9**2 / 12, rel=0.12)  # of an even line, and the width of its pixels


def test_patches_cover_the_parts_in_their_names() -> None:
    """The strongest patch covers the eyes or the mouth of the portrait where mien's detector finds them."""
    portrait = np.asarray(Image.open(ROOT / "examples" / "astronaut.png").convert("RGB"))
    face = Reader().read(portrait).faces[0]
    assert np.array_equal(face.crop, example_face())
    matrix = np.linalg.inv(np.vstack([face.to_image, [0, 0, 1]]))
    points = {name: (matrix @ [*getattr(face.points, name), 1])[:2] for name in ("right_eye", "left_eye", "mouth")}
    right, left, mouth = "right_eye", "left_eye", "mouth"
    covered = {  # and what stays visible; the mouth is on the middle line, half of it on either side
        "cover-eyes": ((right, left), (mouth,)),
        "cover-mouth": ((mouth,), (right, left)),
        "cover-left": ((right,), (left,)),
        "cover-right": ((left,), (right,)),
        "glasses": ((right, left), (mouth,)),
        "mask": ((mouth,), (right, left)),
    }
    for name, (hidden, shown) in covered.items():
        corrupted = corrupt(BY_NAME[name], face.crop[None], 5)[0]
        for point_name in (*hidden, *shown):
            x, y = points[point_name]
            around = np.s_[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2]
            assert (np.ptp(corrupted[around]) == 0) == (point_name in hidden), (name, point_name)
            assert np.array_equal(corrupted[around], face.crop[around]) == (point_name in shown), (name, point_name)


def test_names_and_kinds_choose_corruptions() -> None:
    assert choose_corruptions([]) == CORRUPTIONS
    assert [each.name for each in choose_corruptions(["jpeg", "noisy"])] == [
        "gaussian-noise",
        "shot-noise",
        "camera-noise",
        "jpeg",
    ]
    with pytest.raises(DataError, match="did you mean 'glasses'"):
        choose_corruptions(["glases"])
