"""Crops at the edge of what there is: beyond the picture, of tiny pictures, of boxes and eyes that say nothing."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mien._errors import MienError
from mien._face import Box, Detection
from mien.extract import extract
from support.detections import UPRIGHT, framed, whole


def test_the_edge_goes_on_outside_of_the_picture(astronaut: NDArray[np.uint8]) -> None:
    padded = np.pad(astronaut, ((300, 300), (300, 300), (0, 0)), mode="edge")
    for centre, side, angle in (((10, 20), 120, 0), ((500, 505), 200, 25), ((20, 250), 140, 10), ((-150, 100), 90, 5)):
        crops, _ = extract(astronaut, [framed(centre, side, angle)], size=48, framing=UPRIGHT)
        moved = framed((centre[0] + 300, centre[1] + 300), side, angle)
        expected, _ = extract(padded, [moved], size=48, framing=UPRIGHT)
        difference = np.abs(crops[0].astype(int) - expected[0])
        assert difference.max() <= 12  # outside, the outermost block of averaged pixels goes on
        assert difference.mean() < 1


def test_far_outside_and_absurdly_large_boxes_are_cut_in_bounded_memory(astronaut: NDArray[np.uint8]) -> None:
    far = Detection(Box(1e7, 1e7, 1e7 + 100, 1e7 + 100), 1.0, None)
    crops, _ = extract(astronaut, [far, whole(1e7, 1e7), framed((0, 0), 1e7, 33)], size=48)
    assert (crops[0] == np.asarray(Image.fromarray(astronaut).convert("L"))[-1, -1]).all()
    assert crops.shape == (3, 48, 48)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_tiny_pictures(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 77, np.uint8)
    height, width = shape
    crops, _ = extract(picture, [whole(width, height), framed((0.5, 0.5), 1, 40), framed((0, 0), 500)], size=48)
    assert (crops == 77).all()


def test_no_detections_give_empty_arrays(astronaut: NDArray[np.uint8]) -> None:
    crops, to_image = extract(astronaut, [], size=48)
    assert (crops.shape, crops.dtype) == ((0, 48, 48), np.uint8)
    assert (to_image.shape, to_image.dtype) == ((0, 2, 3), np.float64)


@pytest.mark.parametrize("eye", [(100.0, 90.0), (math.nan, math.nan), (math.inf, 3.0)])
def test_eyes_that_say_nothing_leave_the_box(eye: tuple[float, float], astronaut: NDArray[np.uint8]) -> None:
    good = framed((120, 110), 80)
    assert good.points is not None
    useless = [good.points._replace(right_eye=eye, left_eye=eye), good.points._replace(mouth=(0.0, math.inf))]
    crops, to_image = extract(astronaut, [Detection(good.box, 1.0, points) for points in (None, *useless)], size=48)
    for other in (1, 2):
        np.testing.assert_array_equal(crops[0], crops[other])
        np.testing.assert_array_equal(to_image[0], to_image[other])


def test_an_empty_box_still_gives_a_crop(astronaut: NDArray[np.uint8]) -> None:
    good = framed((120, 110), 80)
    for points in (None, good.points):
        crops, to_image = extract(astronaut, [Detection(Box(50, 50, 50, 50), 1.0, points)], size=48)
        assert crops.shape == (1, 48, 48)
        assert np.isfinite(to_image).all()


def test_a_box_that_is_no_number_is_refused(astronaut: NDArray[np.uint8]) -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(MienError, match="finite"):
            extract(astronaut, [Detection(Box(0, 0, bad, 10), 1.0, None)], size=48)
