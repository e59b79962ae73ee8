"""Boxes, labels and maps drawn on images."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFont

from mien import overlay
from mien._emotions import SEVEN, UNSURE_COLOR, Emotion
from mien._face import Box, Face, Reading
from mien._format import probability_percent
from mien.overlay import annotate, enlarge, heat, map_over_crop, opacity

CROP = 48


def make_face(
    box: tuple[float, float, float, float],
    *,
    emotion: Emotion | None = Emotion.HAPPY,
    hot: tuple[int, int] = (2, 2),
    to_image: NDArray[np.float64] | None = None,
) -> Face:
    """A face with a map that is large in one cell (row, column) of 6 x 6, and a crop that covers its box."""
    x1, y1, x2, y2 = box
    maps = np.full((7, 6, 6), -1, np.float32)
    maps[:, hot[0], hot[1]] = 5
    probs = dict.fromkeys(SEVEN, 0.01) | {emotion or Emotion.SAD: 0.94}
    affine = np.array([[(x2 - x1) / CROP, 0, x1], [0, (y2 - y1) / CROP, y1]])
    crop = np.tile(np.linspace(60, 200, CROP).astype(np.uint8), (CROP, 1))
    to_image = affine if to_image is None else to_image
    return Face(Box(*box), 0.9, None, emotion, 0.94, probs, maps, crop, to_image)


def make_reading(pixels: NDArray[np.uint8], *faces: Face) -> Reading:
    return Reading(faces, "image.png", (pixels.shape[1], pixels.shape[0]))


def grey(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 128, np.uint8)


def rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


@pytest.mark.parametrize("maps", [False, True])
def test_annotate_returns_a_new_array_and_draws_the_box(astronaut: NDArray[np.uint8], maps: bool) -> None:
    before = astronaut.copy()
    reading = make_reading(astronaut, make_face((176, 62, 272, 180)))
    result = annotate(astronaut, reading, maps=maps)
    assert np.array_equal(astronaut, before)
    assert not np.shares_memory(result, astronaut)
    assert (result.shape, result.dtype) == (astronaut.shape, np.uint8)
    assert tuple(result[120, 176]) == tuple(result[180, 220]) == rgb(Emotion.HAPPY.color)
    assert np.array_equal(result[300:], astronaut[300:])  # far from the face nothing changes


def test_read_only_pixels_are_fine() -> None:
    pixels = grey(80, 80)
    pixels.flags.writeable = False
    assert (annotate(pixels, make_reading(pixels, make_face((20, 20, 60, 60))), maps=True) != pixels).any()


def test_no_face_changes_nothing(astronaut: NDArray[np.uint8]) -> None:
    assert np.array_equal(annotate(astronaut, make_reading(astronaut), maps=True), astronaut)


def test_unsure_has_its_own_colour_and_dashes() -> None:
    pixels = grey(200, 200)
    result = annotate(pixels, make_reading(pixels, make_face((50, 60, 150, 160), emotion=None)))
    left_edge = {tuple(int(v) for v in pixel) for pixel in result[60:160, 50]}
    assert {rgb(UNSURE_COLOR), rgb(overlay._INKS[0])} <= left_edge
    assert rgb(Emotion.NEUTRAL.color) not in left_edge


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (13, 17)])
@pytest.mark.parametrize("maps", [False, True])
def test_tiny_images(height: int, width: int, maps: bool) -> None:
    pixels = grey(height, width)
    for box in [(0, 0, width, height), (-50, -50, 500, 500), (0.2, 0.2, 0.4, 0.4), (900, 900, 950, 950)]:
        result = annotate(pixels, make_reading(pixels, make_face(box)), maps=maps)
        assert result.shape == pixels.shape


def test_a_huge_image_has_a_thick_box_and_a_large_label() -> None:
    pixels = grey(3000, 4000)
    result = annotate(pixels, make_reading(pixels, make_face((1500, 1000, 2300, 1900))))
    color = np.array(rgb(Emotion.HAPPY.color))
    thickness = (result[1800, 1490:1600] == color).all(axis=-1).sum()
    label_rows = (result[:990, 1510] == color).all(axis=-1).sum()
    assert 8 <= thickness <= 20
    assert label_rows > 120


@pytest.mark.parametrize(
    "box", [(0, 0, 60, 60), (340, 0, 400, 60), (0, 240, 60, 300), (340, 240, 400, 300), (-30, -30, 420, 330)]
)
def test_labels_stay_inside_the_image(box: tuple[float, float, float, float]) -> None:
    pixels = grey(300, 400)
    reading = make_reading(pixels, make_face(box))
    label = overlay._place_label(reading.faces[0], reading, (400, 300), [])
    assert label is not None
    assert 0 <= label.area.x1 < label.area.x2 <= 400
    assert 0 <= label.area.y1 < label.area.y2 <= 300


def test_labels_of_a_crowd_never_cover_each_other_and_small_faces_get_short_ones() -> None:
    pixels = grey(600, 800)
    faces = [make_face((x, y, x + 34, y + 40)) for y in range(20, 560, 60) for x in range(5, 760, 40)]
    reading, placed = make_reading(pixels, *faces), []
    labels = []
    for face in faces:
        if label := overlay._place_label(face, reading, (800, 600), placed):
            placed.append(label.area)
            labels.append(label)
    assert len(labels) > 0.9 * len(faces)
    assert {label.text for label in labels} == {"happy"}
    for index, area in enumerate(placed):
        assert not any(overlay.overlap(area, other) for other in placed[:index])


def test_faces_smaller_than_letters_get_no_label_in_a_crowd() -> None:
    pixels = grey(300, 900)
    crowd = make_reading(pixels, *[make_face((20 * i, 100, 20 * i + 12, 114)) for i in range(40)])
    alone = make_reading(pixels, make_face((20, 100, 32, 114)))
    assert overlay._place_label(crowd.faces[0], crowd, (900, 300), []) is None
    assert overlay._place_label(alone.faces[0], alone, (900, 300), []) is not None


@pytest.mark.parametrize("color", [*(e.color for e in Emotion), UNSURE_COLOR])
def test_label_ink_is_readable(color: str) -> None:
    low, high = sorted((overlay._luminance(color), overlay._luminance(overlay.ink(color))))
    assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.2, AA for text


def test_the_default_font_has_every_letter_of_a_label() -> None:
    font = ImageFont.load_default(20)
    missing = bytes(font.getmask("\uffff"))
    letters = (
        {c for e in Emotion for c in e} | set("unsure") | {c for v in range(101) for c in probability_percent(v / 100)}
    )
    assert not [c for c in letters - {" "} if bytes(font.getmask(c)) == missing]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "< 1 %"), (0.004, "< 1 %"), (0.93, "93 %"), (0.991, "99 %"), (0.999, "> 99 %")]
)
def test_confidence_is_never_0_or_100_percent(value: float, text: str) -> None:
    assert probability_percent(value) == text


def test_heat_grows_lighter_evenly() -> None:
    colors = heat(np.linspace(0, 1, 256))
    assert (colors.shape, colors.dtype) == ((256, 3), np.uint8)
    light = np.array([overlay._luminance("#{:02x}{:02x}{:02x}".format(*c)) for c in colors])
    perceived = np.cbrt(light)  # as L* is, but for the darkest values
    assert (np.diff(perceived[::4]) > 0).all()
    steps = np.diff(perceived[::16])
    assert steps.max() < 2.5 * steps.min()


def test_heat_takes_any_shape_and_values_outside() -> None:
    assert heat(np.zeros((4, 5), np.float32)).shape == (4, 5, 3)
    assert np.array_equal(heat(np.array([-1.0, 2.0])), heat(np.array([0.0, 1.0])))
    assert opacity(np.array([0.0]))[0] == 0
    assert 0.5 < opacity(np.array([1.0]))[0] < 1


def test_enlarged_maps_stay_in_range_and_in_place() -> None:
    small = np.zeros((6, 6), np.float32)
    small[1, 4] = 1
    large = enlarge(small, 96)
    assert large.shape == (96, 96)
    assert large.min() >= 0
    assert large.max() <= 1
    row, column = np.unravel_index(large.argmax(), large.shape)
    assert abs(row - 24) <= 2
    assert abs(column - 72) <= 2


def test_map_over_crop_is_hot_where_the_map_is() -> None:
    face = make_face((0, 0, 10, 10), hot=(1, 4))
    result = map_over_crop(face, Emotion.SAD, size=96)
    assert (result.shape, result.dtype) == ((96, 96, 3), np.uint8)
    plain = np.asarray(Image.fromarray(face.crop).resize((96, 96), Image.Resampling.BICUBIC).convert("RGB"))
    change = np.abs(result.astype(int) - plain).sum(axis=-1)
    assert change[24, 72] > 60
    assert change[80, 10] == 0


def test_map_without_evidence_leaves_the_crop_alone() -> None:
    face = make_face((0, 0, 10, 10))
    face.maps[:] = -1
    result = map_over_crop(face, size=CROP)
    assert np.array_equal(result, np.repeat(face.crop[..., None], 3, axis=-1))


def test_maps_turn_with_the_face() -> None:
    """A quarter turn: the upper right corner of the crop is at the lower right of the image."""
    turned = np.array([[0.0, -2.0, 148.0], [2.0, 0.0, 52.0]])  # crop (x, y) -> image (148 - 2y, 52 + 2x)
    face = make_face((52, 52, 148, 148), hot=(1, 4), to_image=turned)
    pixels = grey(200, 200)
    reading = make_reading(pixels, face)
    canvas = Image.fromarray(pixels)
    overlay._draw_maps(canvas, reading)
    change = np.abs(np.asarray(canvas).astype(int) - 128).sum(axis=-1)
    row, column = np.unravel_index(change.argmax(), change.shape)
    x, y = turned @ (36, 12, 1)  # the middle of cell (1, 4) in crop pixels
    assert abs(column - x) < 6
    assert abs(row - y) < 6
    assert change[:50].max() == 0
