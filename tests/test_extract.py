"""Crops have the framing of the training faces for any size, angle and position, also at image edges."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mien._errors import MienError
from mien._face import Box, Detection, KeyPoints
from mien._framing import FER2013, Framing
from mien.detect import open_detector
from mien.extract import extract
from mien.infer import Classifier, find_model
from mien.reader import Reader

PLACE = 1 / 16  # pixels: faces are placed in steps of it
# FER-2013's framing without rotation, for tests that compare exact pixels.
UPRIGHT = replace(FER2013, tilt=0.0)


def whole(width: float, height: float) -> Detection:
    """A detection of the whole image, without key points."""
    return Detection(Box(0, 0, width, height), 1.0, None)


def framed(centre: tuple[float, float], side: float, angle: float = 0.0, framing: Framing = FER2013) -> Detection:
    """The exact detection of a face with a crop of this centre, side and angle (degrees, clockwise)."""
    cosine, sine = math.cos(math.radians(angle)) * side, math.sin(math.radians(angle)) * side

    def at(fraction: tuple[float, float]) -> tuple[float, float]:
        x, y = fraction[0] - 0.5, fraction[1] - 0.5
        return centre[0] + cosine * x - sine * y, centre[1] + sine * x + cosine * y

    x, y = at((0.5, 0.6))
    half = 0.42 * side
    points = KeyPoints(at(framing.right_eye), at(framing.left_eye), at(framing.nose), at(framing.mouth))
    return Detection(Box(x - half, y - half, x + half, y + half), 1.0, points)


Draw = Callable[..., NDArray[np.uint8]]


def rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def corners(to_image: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    return np.array([[0, 0, 1], [size, 0, 1], [size, size, 1], [0, size, 1]]) @ to_image.T


def test_a_face_framed_as_the_training_faces_comes_back_exactly(draw_face: Draw) -> None:
    face = draw_face(48, seed=3)
    for scale in (1, 2, 3):
        side = 48 * scale
        image = np.full((400, 500), 90, np.uint8)
        image[60 : 60 + side, 70 : 70 + side] = face.repeat(scale, 0).repeat(scale, 1)
        crops, to_image = extract(rgb(image), [framed((70 + side / 2, 60 + side / 2), side)], size=48)
        np.testing.assert_array_equal(crops[0], face)
        np.testing.assert_allclose(to_image[0], [[scale, 0, 70], [0, scale, 60]], atol=1e-9)


@pytest.mark.parametrize("side", [33, 70, 111, 215, 650])
def test_a_face_of_any_size_comes_back_nearly(draw_face: Draw, side: int) -> None:
    face = np.asarray(
        Image.fromarray(draw_face(48, seed=2)).resize((24, 24)).resize((48, 48), Image.Resampling.BICUBIC)
    )
    image = np.full((700, 720), 90, np.uint8)
    image[13 : 13 + side, 29 : 29 + side] = Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC)
    crops, _ = extract(rgb(image), [framed((29 + side / 2, 13 + side / 2), side)], size=48)
    assert np.abs(crops[0].astype(int) - face)[1:-1, 1:-1].mean() < 2.5


@pytest.mark.parametrize("angle", [30.0, -30.0, 90.0, 175.0])
def test_rotation_is_removed(draw_face: Draw, angle: float) -> None:
    face = draw_face(192, seed=1)
    image = np.full((400, 400), 60, np.uint8)
    image[104:296, 104:296] = face
    turned = np.asarray(Image.fromarray(image).rotate(-angle, Image.Resampling.BICUBIC, fillcolor=60))
    upright, _ = extract(rgb(image), [framed((200, 200), 192)], size=48)
    crops, to_image = extract(rgb(turned), [framed((200, 200), 192, angle)], size=48, framing=UPRIGHT)
    assert np.abs(crops[0].astype(int) - upright[0]).mean() < 2
    assert math.degrees(math.atan2(to_image[0, 1, 0], to_image[0, 0, 0])) == pytest.approx(angle, abs=0.02)


@pytest.mark.parametrize(
    ("angle", "removed"), [(0, 0), (14, 0), (-14, 0), (15.5, 0.5), (-25, -10), (90, 75), (-170, -155)]
)
def test_the_tilt_of_the_training_faces_stays(angle: float, removed: float) -> None:
    _, to_image = extract(np.zeros((300, 300, 3), np.uint8), [framed((150, 160), 100, angle)], size=48)
    assert math.degrees(math.atan2(to_image[0, 1, 0], to_image[0, 0, 0])) == pytest.approx(removed, abs=0.04)
    np.testing.assert_allclose(corners(to_image[0], 48).mean(axis=0), [150, 160], atol=PLACE)
    assert math.hypot(*to_image[0, :, 0]) == pytest.approx(100 / 48, abs=PLACE / 48)


def test_to_image_takes_the_corners_to_their_places() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    detections = [framed((200, 150), 100), framed((100, 120), 60, 90)]
    for size in (48, 64):
        _, to_image = extract(image, detections, size=size, framing=UPRIGHT)
        assert to_image.dtype == np.float64
        straight = [[150, 100], [250, 100], [250, 200], [150, 200]]
        turned = [[130, 90], [130, 150], [70, 150], [70, 90]]
        np.testing.assert_allclose(corners(to_image[0], size), straight, atol=1e-9)
        np.testing.assert_allclose(corners(to_image[1], size), turned, atol=1e-9)


def test_crop_and_to_image_agree_on_the_place_of_a_pixel() -> None:
    image = np.zeros((200, 200), np.uint8)
    image[83, 121] = 255  # centre at (121.5, 83.5)
    for angle in (0, 20, 140):
        crops, to_image = extract(rgb(image), [framed((110, 90), 70, angle)], size=70)
        weights = crops[0] / crops[0].sum(dtype=float)
        rows, columns = np.mgrid[:70, :70] + 0.5
        found = to_image[0] @ [(columns * weights).sum(), (rows * weights).sum(), 1]
        np.testing.assert_allclose(found, [121.5, 83.5], atol=0.15)


def test_the_framing_is_an_argument(draw_face: Draw) -> None:
    wide = Framing((0.4, 0.45), (0.6, 0.45), (0.5, 0.55), (0.5, 0.65))
    image = rgb(draw_face(200))
    _, to_image = extract(image, [framed((100, 100), 150, 12, wide)], size=50, framing=wide)
    np.testing.assert_allclose(corners(to_image[0], 50).mean(axis=0), [100, 100], atol=PLACE)
    assert math.hypot(*to_image[0, :, 0]) == pytest.approx(3, abs=PLACE / 50)


@pytest.mark.parametrize("side", [97, 144, 200, 480])
def test_shrinking_does_not_alias(side: int) -> None:
    checkerboard = (np.indices((side, side)).sum(axis=0) % 2 * 255).astype(np.uint8)
    crops, _ = extract(rgb(checkerboard), [whole(side, side)], size=48)
    assert np.abs(crops[0].astype(float) - 127.5)[1:-1, 1:-1].max() < 20
    middle = (np.arange(side) - side / 2 + 0.5) ** 2
    zone_plate = (127.5 + 127.5 * np.cos((middle[None] + middle[:, None]) * math.pi / side)).round().astype(np.uint8)
    crops, _ = extract(rgb(zone_plate), [whole(side, side)], size=48)
    smooth = np.asarray(Image.fromarray(zone_plate).resize((48, 48), Image.Resampling.HAMMING))
    rough = np.asarray(Image.fromarray(zone_plate).resize((48, 48), Image.Resampling.NEAREST))
    assert np.abs(crops[0].astype(int) - smooth).mean() < 10
    assert np.abs(rough.astype(int) - smooth).mean() > 40  # the result without antialiasing


def test_shrinking_is_close_to_pillows(astronaut: NDArray[np.uint8]) -> None:
    crops, _ = extract(astronaut, [whole(512, 512)], size=48)
    expected = np.asarray(Image.fromarray(astronaut).resize((48, 48), Image.Resampling.HAMMING).convert("L"))
    assert np.abs(crops[0].astype(int) - expected).mean() < 2


def test_grey_is_the_luma_of_bt601() -> None:
    for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (10, 200, 77)):
        image = np.full((60, 60, 3), color, np.uint8)
        crops, _ = extract(image, [whole(60, 60)], size=48)
        assert np.unique(crops).tolist() == [Image.new("RGB", (1, 1), color).convert("L").getpixel((0, 0))]


def test_without_points_the_box_is_the_crop(draw_face: Draw) -> None:
    face = draw_face(48, seed=5)
    crops, to_image = extract(rgb(face), [whole(48, 48)], size=48)
    np.testing.assert_array_equal(crops[0], face)
    np.testing.assert_array_equal(to_image[0], [[1, 0, 0], [0, 1, 0]])
    _, stretched = extract(np.zeros((30, 90, 3), np.uint8), [Detection(Box(10, 0, 40, 15), 1.0, None)], size=15)
    np.testing.assert_allclose(stretched[0], [[2, 0, 10], [0, 1, 0]])


def test_a_turned_head_keeps_its_size_by_its_mouth(astronaut: NDArray[np.uint8]) -> None:
    facing = framed((120, 110), 80, 15)
    assert facing.points is not None
    right, left = np.array(facing.points.right_eye), np.array(facing.points.left_eye)
    closer = facing.points._replace(left_eye=tuple(right + (left - right) / 3))
    _, to_image = extract(astronaut, [Detection(facing.box, 1.0, closer)], size=80)
    assert 0.8 < math.hypot(*to_image[0, :, 0]) < 1
    lower = facing.points._replace(mouth=(facing.points.mouth[0], facing.points.mouth[1] + 2))
    _, to_image = extract(astronaut, [Detection(facing.box, 1.0, lower)], size=80)
    assert math.hypot(*to_image[0, :, 0]) == pytest.approx(1)  # an open mouth does not change the size


def test_crops_do_not_depend_on_the_last_bits_of_key_points(astronaut: NDArray[np.uint8]) -> None:
    (face,) = open_detector()(astronaut)
    crop, to_image = extract(astronaut, [face], size=48)
    for change in (1e-5, -1e-5):
        moved = replace(face, points=KeyPoints(*((x + change, y - change) for x, y in face.points or ())))
        again, place = extract(astronaut, [moved], size=48)
        assert (again == crop).all()
        assert (place == to_image).all()


def test_the_same_input_gives_the_same_crops_and_stays_as_it_was(astronaut: NDArray[np.uint8]) -> None:
    detections = [framed((220, 120), 137.3, 11.1), whole(512, 512), framed((30, 500), 300, -70)]
    before = astronaut.copy()
    first, second = (extract(astronaut, detections, size=48) for _ in range(2))
    alone = [extract(astronaut, [detection], size=48)[0][0] for detection in detections]
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(first[0], alone)
    np.testing.assert_array_equal(astronaut, before)
    readonly = astronaut.copy()
    readonly.flags.writeable = False
    np.testing.assert_array_equal(extract(readonly, detections, size=48)[0], first[0])
    strided = np.flip(astronaut, axis=1).copy()[:, ::-1]
    np.testing.assert_array_equal(extract(strided, detections, size=48)[0], first[0])


def test_a_face_pasted_into_a_photograph_reads_as_the_original(
    astronaut: NDArray[np.uint8], fer2013_parquet: Path
) -> None:
    classifier, detector = Classifier(find_model("mien-0")), open_detector()
    photograph = Image.fromarray(astronaut).resize((1024, 1024))
    centre, side = (800, 700), 200
    originals, crops = [], []
    for face in some_faces(fer2013_parquet, 60):
        image = photograph.copy()
        corner = (centre[0] - side // 2, centre[1] - side // 2)
        image.paste(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC), corner)
        pixels = np.asarray(image)
        near = [found for found in detector(pixels) if math.dist(middle(found.box), centre) < 0.3 * side]
        if near:
            crop, _ = extract(pixels, near[:1], size=classifier.size, framing=classifier.framing)
            original, _ = extract(rgb(face), [whole(48, 48)], size=classifier.size)
            crops.append(crop[0])
            originals.append(original[0])
    assert len(crops) >= 30
    expected, found = (classifier(np.stack(batch))[0] for batch in (originals, crops))
    assert (expected.argmax(axis=1) == found.argmax(axis=1)).mean() >= 0.7
    assert np.abs(expected - found).sum(axis=1).mean() / 2 <= 0.25


def some_faces(parquet: Path, count: int) -> list[NDArray[np.uint8]]:
    """Faces of PublicTest, spread over the table."""
    pyarrow_parquet = pytest.importorskip("pyarrow.parquet", reason='pyarrow is not installed: pip install "mien[lab]"')
    table = pyarrow_parquet.read_table(parquet, columns=["image", "usage"], filters=[("usage", "=", "PublicTest")])
    chosen = np.linspace(0, table.num_rows - 1, count).astype(int)
    return [np.asarray(Image.open(io.BytesIO(table["image"][int(row)].as_py()))) for row in chosen]


def middle(box: Box) -> tuple[float, float]:
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def test_the_edge_is_repeated_outside_of_the_image(astronaut: NDArray[np.uint8]) -> None:
    padded = np.pad(astronaut, ((300, 300), (300, 300), (0, 0)), mode="edge")
    for centre, side, angle in (((10, 20), 120, 0), ((500, 505), 200, 25), ((20, 250), 140, 10), ((-150, 100), 90, 5)):
        crops, _ = extract(astronaut, [framed(centre, side, angle)], size=48, framing=UPRIGHT)
        moved = framed((centre[0] + 300, centre[1] + 300), side, angle)
        expected, _ = extract(padded, [moved], size=48, framing=UPRIGHT)
        difference = np.abs(crops[0].astype(int) - expected[0])
        assert difference.max() <= 12  # outside, the last block of averaged pixels is repeated
        assert difference.mean() < 1


def test_far_outside_and_absurdly_large_boxes_are_cut_in_bounded_memory(astronaut: NDArray[np.uint8]) -> None:
    far = Detection(Box(1e7, 1e7, 1e7 + 100, 1e7 + 100), 1.0, None)
    crops, _ = extract(astronaut, [far, whole(1e7, 1e7), framed((0, 0), 1e7, 33)], size=48)
    assert (crops[0] == np.asarray(Image.fromarray(astronaut).convert("L"))[-1, -1]).all()
    assert crops.shape == (3, 48, 48)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_tiny_images(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    height, width = shape
    crops, _ = extract(image, [whole(width, height), framed((0.5, 0.5), 1, 40), framed((0, 0), 500)], size=48)
    assert (crops == 77).all()


def test_no_detections_give_empty_arrays(astronaut: NDArray[np.uint8]) -> None:
    crops, to_image = extract(astronaut, [], size=48)
    assert (crops.shape, crops.dtype) == ((0, 48, 48), np.uint8)
    assert (to_image.shape, to_image.dtype) == ((0, 2, 3), np.float64)


@pytest.mark.parametrize("eye", [(100.0, 90.0), (math.nan, math.nan), (math.inf, 3.0)])
def test_unusable_eyes_leave_the_box(eye: tuple[float, float], astronaut: NDArray[np.uint8]) -> None:
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


def detecting(found: Detection) -> Reader:
    return Reader(detector=type("Fixed", (), {"name": "fixed", "__call__": lambda *_: [found]})())


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Detection(Box(40, 30, 20, 25), 0.9, None), "it must be x1, y1, x2, y2, the smaller first"),
        (Detection(Box(0, 0, 9, math.nan), 0.9, None), "its corners must be finite"),
        (Detection(Box(0, 0, 9, 9), math.nan, None), "the score nan; it must be a number from 0 to 1"),
    ],
)
def test_what_is_no_face_of_a_detector_is_refused(found: Detection, reason: str) -> None:
    with pytest.raises(MienError, match=reason):
        detecting(found).read(np.zeros((64, 64), np.uint8))


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_point_that_a_detector_did_not_find_is_null_in_json(missing: float) -> None:
    points = KeyPoints((20, 20), (40, 20), (missing, missing), (30, 40), None, (50, missing))
    reading = detecting(Detection(Box(10, 10, 50, 50), 0.9, points)).read(np.zeros((64, 64), np.uint8))
    found = json.loads(json.dumps(reading.to_dict(), allow_nan=False))["faces"][0]["points"]
    assert found["right_eye"] == [20, 20]
    assert (found["nose"], found["right_ear"], found["left_ear"]) == (None, None, None)
    assert reading.to_records()[0]["nose_x"] is None
