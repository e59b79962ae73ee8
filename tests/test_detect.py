"""Detectors on pictures: every size and angle, crowds and nobody."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mien._errors import ModelError
from mien._face import Box, Detection
from mien.detect import Detector, open_detector
from support.detector_images import Pixels, at, gradient, pasted, share

FACE = (172, 74, 276, 178)  # where the astronaut's face lies in the example, in pixels
EYES = ((203, 104), (245, 105))


@pytest.fixture(scope="module")
def detector() -> Detector:
    return open_detector("blazeface")


def test_astronaut_is_one_face(detector: Detector, astronaut: Pixels) -> None:
    before = astronaut.copy()
    faces = detector(astronaut)
    assert detector.name == "blazeface"
    assert len(faces) == 1
    assert faces[0].score > 0.8
    assert share(faces[0].box, FACE) > 0.7
    np.testing.assert_array_equal(astronaut, before)


def test_key_points_lie_on_eyes_nose_and_mouth(detector: Detector, astronaut: Pixels) -> None:
    points = detector(astronaut)[0].points
    assert points is not None
    np.testing.assert_allclose([points.right_eye, points.left_eye], EYES, atol=6)
    assert points.right_eye[0] < points.nose[0] < points.left_eye[0]
    assert points.right_eye[1] < points.nose[1] < points.mouth[1]
    assert points.right_ear is not None
    assert points.left_ear is not None
    assert points.right_ear[0] < points.right_eye[0]
    assert points.left_ear[0] > points.left_eye[0]


@pytest.mark.parametrize("scale", [0.25, 0.4, 1.7, 4.0])
def test_found_at_every_scale(detector: Detector, astronaut: Pixels, scale: float) -> None:
    side = round(512 * scale)
    faces = detector(np.asarray(Image.fromarray(astronaut).resize((side, side), Image.Resampling.LANCZOS)))
    assert len(faces) == 1
    assert share(faces[0].box, tuple(v * scale for v in FACE)) > 0.6


@pytest.mark.parametrize("degrees", [-35, -15, 15, 35])
def test_found_when_rotated(detector: Detector, astronaut: Pixels, degrees: float) -> None:
    largest = detector(np.asarray(Image.fromarray(astronaut).rotate(degrees)))[0]
    radians, center = np.radians(degrees), np.array([256, 256])
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    assert largest.points is not None
    found = np.array([largest.points.right_eye, largest.points.left_eye])
    np.testing.assert_allclose(found, (np.array(EYES) - center) @ turn.T + center, atol=10)


@pytest.mark.parametrize("place", [(1980, 1490), (500, 505), (3925, 2925), (0, 0)])
def test_40_pixels_in_12_megapixels(detector: Detector, astronaut: Pixels, place: tuple[int, int]) -> None:
    x, y = place
    faces = detector(pasted(gradient(4000, 3000), at(astronaut, 40), x, y))
    assert len(faces) == 1
    expected = tuple(v * 40 / 104 + offset for v, offset in zip((40, 40, 144, 144), (x, y, x, y), strict=True))
    assert share(faces[0].box, expected) > 0.6


def test_40_pixels_in_noise(detector: Detector, astronaut: Pixels) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1600, 3)).astype(np.uint8)
    assert [round(f.box.width / 40) for f in detector(pasted(noise, at(astronaut, 40), 700, 300))] == [1]


@pytest.mark.parametrize("x", range(270, 410, 20))
def test_one_face_across_the_border_of_two_tiles(astronaut: Pixels, x: int) -> None:
    # 1,500 pixels at 16/24 are three tiles; the second begins at 300, the first ends at 400, this face is 40 wide.
    faces = open_detector(min_face=24)(pasted(gradient(1500, 400), at(astronaut, 60), round(x * 1.5), 120))
    assert len(faces) == 1
    assert faces[0].box.width == pytest.approx(60, rel=0.25)


def test_two_faces_largest_first(detector: Detector, astronaut: Pixels) -> None:
    picture = pasted(pasted(gradient(800, 400), at(astronaut, 70), 40, 120), at(astronaut, 140), 420, 60)
    widths = [f.box.width for f in detector(picture)]
    np.testing.assert_allclose(widths, [140, 70], rtol=0.25)


def test_a_face_that_fills_the_picture(detector: Detector, astronaut: Pixels) -> None:
    x1, y1, x2, y2 = FACE
    tight = Image.fromarray(astronaut[y1 - 12 : y2 + 12, x1 - 12 : x2 + 12]).convert("L").resize((48, 48))
    faces = detector(np.asarray(tight.convert("RGB")))
    assert len(faces) == 1
    assert share(faces[0].box, (4.5, 4.5, 43.5, 43.5)) > 0.6


@pytest.mark.parametrize("shade", [0, 127, 255])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (48, 48), (10, 5000), (5000, 10), (720, 1280)])
def test_no_face_in_a_flat_picture(detector: Detector, shape: tuple[int, int], shade: int) -> None:
    assert detector(np.full((*shape, 3), shade, np.uint8)) == []


def test_no_face_in_noise(detector: Detector) -> None:
    assert detector(np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)) == []


def test_pixels_that_are_not_contiguous(detector: Detector, astronaut: Pixels) -> None:
    view = astronaut[:, ::-1]
    mirrored = detector(view)
    assert mirrored == detector(view.copy())
    assert share(mirrored[0].box, (512 - FACE[2], FACE[1], 512 - FACE[0], FACE[3])) > 0.7


def test_small_background_faces_need_min_face(detector: Detector, astronaut: Pixels) -> None:
    picture = pasted(pasted(gradient(1000, 700), at(astronaut, 250), 500, 150), at(astronaut, 32), 100, 300)
    assert len(detector(picture)) == 1
    assert [round(f.box.width, -1) for f in open_detector(min_face=24)(picture)][1:] == [30]


def test_a_crowd_behind_a_close_face_is_found(detector: Detector, astronaut: Pixels) -> None:
    picture = pasted(gradient(1400, 800), at(astronaut, 150), 600, 480)
    for index in range(18):
        picture = pasted(picture, at(astronaut, 40), 20 + index % 9 * 150, 60 + index // 9 * 150)
    faces = detector(picture)
    assert faces[0].box.width == pytest.approx(150, rel=0.25)
    assert len(faces) == 19


def test_threshold_cuts(detector: Detector, astronaut: Pixels) -> None:
    score = detector(astronaut)[0].score
    assert open_detector(threshold=min(0.999, score + 0.05))(astronaut) == []
    assert len(open_detector(threshold=0.3)(astronaut)) >= 1


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"name": "haar"}, "unknown detector 'haar'; mien knows blazeface, yunet, none"),
        ({"threshold": 0.0}, "between 0 and 1"),
        ({"threshold": float("nan")}, "between 0 and 1"),
        ({"min_face": 0}, "8 or more"),
        ({"min_face": float("nan")}, "8 or more"),
        ({"providers": ["abacus"]}, "abacus"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], cause: str) -> None:
    with pytest.raises(ModelError, match=cause):
        open_detector(**settings)  # type: ignore[arg-type]


def test_none_answers_the_whole_picture() -> None:
    whole = open_detector("none")
    assert whole(np.zeros((30, 40, 3), np.uint8)) == [Detection(Box(0, 0, 40, 30), 1.0, None)]
    assert whole.name == "none"


def test_threads_get_the_same_answers(detector: Detector, astronaut: Pixels) -> None:
    pictures = [np.roll(astronaut, 8 * shift, axis=1) for shift in range(8)]
    alone = [detector(p) for p in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector, pictures)) == alone
