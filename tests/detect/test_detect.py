"""Detectors at every size and angle, on crowds and without faces; the parts of the detector by arithmetic."""

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mien import Reader
from mien._download import cache_folder
from mien._errors import MienError, ModelError
from mien._face import Box, Detection, KeyPoints, Pixels
from mien.detect import DETECTORS, Detector, open_detector, tiles
from mien.detect.blazeface import (
    INPUT_SIDE,
    LEVEL_STEP,
    MODEL,
    TRACE_WIDTH,
    anchor_centers,
    decode_outputs,
    finer_scale,
    is_superseded,
)
from mien.detect.candidates import Candidates, overlaps, suppress
from mien.detect.tiles import Pyramid, cut, letterbox, split
from support.paths import ROOT


def share(box: Box, expected: tuple[float, ...]) -> float:
    """Intersection over union."""
    return float(overlaps(np.array(box), np.array([expected]))[0][0])


def at(astronaut: Pixels, width: float) -> Image.Image:
    """The astronaut's head and shoulders, so small that the face is ``width`` pixels wide."""
    head = Image.fromarray(astronaut).crop((132, 34, 316, 218))
    side = round(184 * width / 104)
    return head.resize((side, side), Image.Resampling.LANCZOS)


def pasted(background: Pixels, face: Image.Image, x: int, y: int) -> Pixels:
    image = Image.fromarray(background)
    image.paste(face, (x, y))
    return np.asarray(image)


def gradient(width: int, height: int) -> Pixels:
    rows, columns = np.linspace(0, 80, height)[:, None], np.linspace(40, 150, width)[None]
    return np.repeat((rows + columns).astype(np.uint8)[:, :, None], 3, axis=2)


FACE = (172, 74, 276, 178)  # the place of the astronaut's face in the example, in pixels
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


def test_key_points_are_on_eyes_nose_and_mouth(detector: Detector, astronaut: Pixels) -> None:
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
    image = pasted(pasted(gradient(800, 400), at(astronaut, 70), 40, 120), at(astronaut, 140), 420, 60)
    widths = [f.box.width for f in detector(image)]
    np.testing.assert_allclose(widths, [140, 70], rtol=0.25)


def test_a_face_that_fills_the_image(detector: Detector, astronaut: Pixels) -> None:
    x1, y1, x2, y2 = FACE
    tight = Image.fromarray(astronaut[y1 - 12 : y2 + 12, x1 - 12 : x2 + 12]).convert("L").resize((48, 48))
    faces = detector(np.asarray(tight.convert("RGB")))
    assert len(faces) == 1
    assert share(faces[0].box, (4.5, 4.5, 43.5, 43.5)) > 0.6


@pytest.mark.parametrize("shade", [0, 127, 255])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (48, 48), (10, 5000), (5000, 10), (720, 1280)])
def test_no_face_in_a_flat_image(detector: Detector, shape: tuple[int, int], shade: int) -> None:
    assert detector(np.full((*shape, 3), shade, np.uint8)) == []


def test_no_face_in_noise(detector: Detector) -> None:
    assert detector(np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)) == []


def test_pixels_that_are_not_contiguous(detector: Detector, astronaut: Pixels) -> None:
    view = astronaut[:, ::-1]
    mirrored = detector(view)
    assert mirrored == detector(view.copy())
    assert share(mirrored[0].box, (512 - FACE[2], FACE[1], 512 - FACE[0], FACE[3])) > 0.7


def test_small_background_faces_need_min_face(detector: Detector, astronaut: Pixels) -> None:
    image = pasted(pasted(gradient(1000, 700), at(astronaut, 250), 500, 150), at(astronaut, 32), 100, 300)
    assert len(detector(image)) == 1
    assert [round(f.box.width, -1) for f in open_detector(min_face=24)(image)][1:] == [30]


def test_a_crowd_behind_a_close_face_is_found(detector: Detector, astronaut: Pixels) -> None:
    image = pasted(gradient(1400, 800), at(astronaut, 150), 600, 480)
    for index in range(18):
        image = pasted(image, at(astronaut, 40), 20 + index % 9 * 150, 60 + index // 9 * 150)
    faces = detector(image)
    assert faces[0].box.width == pytest.approx(150, rel=0.25)
    assert len(faces) == 19
    few = open_detector(max_faces=3)(image)
    assert len(few) == 3
    assert {face.box for face in few} <= {face.box for face in faces}


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


def test_none_returns_the_whole_image() -> None:
    whole = open_detector("none")
    assert whole(np.zeros((30, 40, 3), np.uint8)) == [Detection(Box(0, 0, 40, 30), 1.0, None)]
    assert whole.name == "none"


def test_threads_get_the_same_detections(detector: Detector, astronaut: Pixels) -> None:
    images = [np.roll(astronaut, 8 * shift, axis=1) for shift in range(8)]
    alone = [detector(p) for p in images]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector, images)) == alone


def test_anchors_of_the_original_input() -> None:
    expected = [((x + 0.5) * 8, (y + 0.5) * 8) for y in range(16) for x in range(16) for _ in range(2)]
    expected += [((x + 0.5) * 16, (y + 0.5) * 16) for y in range(8) for x in range(8) for _ in range(6)]
    assert len(expected) == 896
    np.testing.assert_array_equal(anchor_centers(np.arange(896), INPUT_SIDE, INPUT_SIDE), expected)


def test_anchors_of_a_long_input_follow_its_rows() -> None:
    fine, coarse = 2 * (32 // 8) * (64 // 8), 6 * (32 // 16) * (64 // 16)
    centers = anchor_centers(np.arange(fine + coarse), 32, 64)
    np.testing.assert_array_equal(centers[fine - 1], [60, 28])
    np.testing.assert_array_equal(centers[[fine, fine + 6, -1]], [[8, 8], [24, 8], [56, 24]])


def test_decode_adds_the_anchor() -> None:
    offsets, scores = np.zeros((2, 896, 16), np.float32), np.zeros((2, 896), np.float32)
    scores[1, 33], offsets[1, 33] = 0.9, [1, 2, 20, 30, *range(12)]
    found, tile = decode_outputs(offsets, scores, (128, 128, 3), 0.5)
    assert tile.tolist() == [1]
    np.testing.assert_allclose(found.boxes, [[5 - 10 - 4 + 4, 14 - 15, 15, 29]])  # anchor (4, 12)
    np.testing.assert_allclose(found.points[0, :2], [[4, 13], [6, 15]])


@pytest.mark.parametrize("size_wh", [(1280, 720), (37, 90), (128, 128), (1, 1), (5000, 10)])
def test_letterbox_and_back(size_wh: tuple[int, int]) -> None:
    tile = letterbox(Pyramid(np.full((*size_wh[::-1], 3), (255, 0, 0), np.uint8)), INPUT_SIDE)
    assert tile.pixels.shape == (INPUT_SIDE, INPUT_SIDE, 3)
    red = np.argwhere(tile.pixels[:, :, 0] == 255)
    (top, left), (bottom, right) = red.min(axis=0), red.max(axis=0) + 1
    corners = Candidates(np.array([[left, top, right, bottom]], float), np.zeros((1, 6, 2)), np.ones(1))
    box = corners.to_image(scale=tile.scale, x=tile.x, y=tile.y).boxes[0]
    np.testing.assert_allclose(box, [0, 0, *size_wh], atol=1.01 / tile.scale)


@pytest.mark.parametrize("size", [(300, 700), (256, 257), (40, 1000), (1, 1), (511, 512)])
def test_split_covers_every_pixel_and_every_square_of_the_overlap(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(1, 256, (*size, 3)).astype(np.uint8)
    tiles = list(split(Pyramid(image), 1.0, side=256, overlap=64, multiple=16))
    whole = np.zeros(size, bool)  # where a face of 64 pixels may begin and be inside one tile
    for tile in tiles:
        x, y = int(tile.x), int(tile.y)
        part = image[y : y + 256, x : x + 256][: tile.pixels.shape[0], : tile.pixels.shape[1]]
        np.testing.assert_array_equal(tile.pixels[: part.shape[0], : part.shape[1]], part)
        assert max(tile.pixels.shape) <= 256
        assert tile.pixels.shape[0] % 16 == tile.pixels.shape[1] % 16 == 0
        whole[y : y + max(1, part.shape[0] - 63), x : x + max(1, part.shape[1] - 63)] = True
    assert whole[: max(1, size[0] - 63), : max(1, size[1] - 63)].all()


def test_cut_beyond_the_border_is_black_and_in_place() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    tile = cut(Pyramid(image), np.array([0.0, 100.0]), 64, 128)
    assert (tile.x, tile.y, tile.scale) == (-32, 68, 2)
    expected = np.zeros((128, 128), np.uint8)
    expected[:64, 64:] = 200
    np.testing.assert_array_equal(tile.pixels[:, :, 0], expected)


def test_a_tile_does_not_depend_on_the_last_bits_of_its_place(astronaut: NDArray[np.uint8]) -> None:
    tiles = [cut(Pyramid(astronaut), np.array([220.3, 110.6]) + off, 90.7 + off, 96) for off in (0, 1e-5, -1e-5)]
    assert len({(tile.x, tile.y, tile.scale, tile.pixels.tobytes()) for tile in tiles}) == 1


@pytest.mark.parametrize("size_wh", [(1279, 721), (640, 1000), (4001, 30)])
def test_coarse_versions_from_the_reduced_copy_are_those_of_the_image(size_wh: tuple[int, int]) -> None:
    wide, high = size_wh
    coarse = 256 / max(size_wh)
    waves = np.sin(np.arange(wide) * coarse / 16)[None, :, None] + np.cos(np.arange(high) * coarse / 12)[:, None, None]
    image = (127 + 60 * waves * np.array([1, -1, 0.5])).astype(np.uint8)
    direct, reduced = Pyramid(image), Pyramid(image, coarse=coarse)
    for scale in (coarse / 3, coarse, 1.4 * coarse):
        whole = [np.asarray(pyramid.at(scale)).astype(int) for pyramid in (direct, reduced)]
        assert whole[0].shape == whole[1].shape
        assert np.abs(whole[0] - whole[1]).max() <= 5  # of 255; half a pixel to the side makes 8
    center, width = np.array([wide * 0.6, high * 0.3]), 120 / coarse
    tiles = [cut(pyramid, center, width, 96) for pyramid in (direct, reduced)]
    assert tiles[0][1:] == tiles[1][1:]
    assert np.abs(tiles[0].pixels.astype(int) - tiles[1].pixels).max() <= 2


@pytest.mark.parametrize("size_wh", [(900, 700), (333, 800), (4000, 50)])
def test_a_large_image_is_resized_in_parts_like_a_small_one(
    size_wh: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (*size_wh[::-1], 3)).astype(np.uint8)
    coarse = 256 / max(size_wh)
    whole = Pyramid(pixels, coarse=coarse)
    monkeypatch.setattr(tiles, "_WHOLE_PIXELS", 0)
    monkeypatch.setattr(tiles, "_PART_SIDE", 64)
    parts = Pyramid(pixels, coarse=coarse)
    for scale in (0.05, 0.3, 0.6, 1.0, 1.5):
        np.testing.assert_array_equal(whole.at(scale), parts.at(scale))
    for width in generator.uniform(10, 2 * min(size_wh), 50):
        center = generator.uniform(0, size_wh)
        expected, found = (cut(pyramid, center, width, 96).pixels.astype(int) for pyramid in (whole, parts))
        assert np.abs(expected - found).max() <= 1  # Pillow chooses the first axis by the shape of what it gets


@pytest.mark.parametrize(("width", "score", "expected"), [(27, 0.4, False), (30, 0.4, True), (30, 0.95, False)])
def test_a_finer_level_supersedes_traces_it_detects_well(width: float, score: float, expected: bool) -> None:
    trace = Candidates(np.array([[0, 0, 2 * width, 2 * width]]), np.zeros((1, 6, 2)), np.array([score]))
    assert is_superseded(trace, 0.5).tolist() == [expected]


@pytest.mark.parametrize("min_face", [60, 100])
def test_the_smallest_face_is_of_the_whole_image_also_in_half_of_its_pixels(min_face: int) -> None:
    head, side = Image.open(ROOT / "examples" / "astronaut.png"), 7 * min_face  # the face is a fifth of the head
    canvas = Image.new("RGB", (3000, 2600), (96, 96, 96))
    canvas.paste(head.resize((2000, 2000)), (0, 600))
    canvas.paste(head.resize((side, side)), (2990 - side, 10))
    detector = open_detector(min_face=min_face)
    assert len(detector(np.asarray(canvas))) > 1
    assert detector.close_faces(np.asarray(canvas.reduce(2))) is None  # type: ignore[attr-defined]


def test_levels_become_finer_until_the_smallest_face_leaves_a_trace() -> None:
    scales = [0.05]
    while (scale := finer_scale(scales[-1], smallest=24)) > 0:
        scales.append(scale)
    assert scales[-1] * 24 == pytest.approx(TRACE_WIDTH)
    assert all(1.25 < after / before <= 1.25 * LEVEL_STEP for before, after in pairwise(scales))
    assert finer_scale(1.0, smallest=24) == 0


def test_overlaps_of_pairs_are_those_of_single_boxes() -> None:
    one, other = random_candidates(0).boxes, random_candidates(1).boxes
    pairs = np.stack(overlaps(one, other), axis=1)
    np.testing.assert_allclose(pairs, [plain_overlaps(*each) for each in zip(one, other, strict=True)])


@pytest.mark.parametrize("part", [0.3, 0.5, 0.7, 0.9])
def test_a_face_as_wide_as_most_of_the_image_is_found(detector: Detector, astronaut: Pixels, part: float) -> None:
    side = round(104 / part)
    left, top = (round((a + b) / 2 - side / 2) for a, b in ((FACE[0], FACE[2]), (FACE[1], FACE[3])))
    face = np.asarray(Image.fromarray(astronaut).crop((left, top, left + side, top + side)).resize((900, 900)))
    faces = detector(face)
    assert faces[0].box.width == pytest.approx(900 * part, rel=0.25)


def random_candidates(seed: int, count: int = 60) -> Candidates:
    generator = np.random.default_rng(seed)
    corners, sizes = generator.uniform(0, 200, (count, 2)), generator.uniform(5, 60, (count, 2))
    scores = generator.permutation(np.linspace(0.3, 1, count))
    return Candidates(np.concatenate([corners, corners + sizes], axis=1), np.zeros((count, 6, 2)), scores)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_against_brute_force(seed: int) -> None:
    candidates = random_candidates(seed)
    left = sorted(range(len(candidates)), key=lambda i: -candidates.scores[i])
    expected = []
    while left:
        best = candidates.boxes[left[0]]
        pairs = {i: plain_overlaps(best, candidates.boxes[i]) for i in left}
        group = [i for i in left if pairs[i][0] >= 0.3]
        weights = candidates.scores[group] / candidates.scores[group].sum()
        expected.append((candidates.scores[left[0]], *(weights @ candidates.boxes[group])))
        left = [i for i in left if pairs[i][0] < 0.3 and pairs[i][1] < 0.6]
    kept = suppress(candidates)
    np.testing.assert_allclose(np.column_stack([kept.scores, kept.boxes]), expected)


def plain_overlaps(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """Intersection over union, and over the smaller, by plain arithmetic."""
    wide = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    high = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    one, two = ((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return wide * high / (one + two - wide * high), wide * high / min(one, two)


def test_half_a_face_gives_way_to_the_whole() -> None:
    boxes = np.array([[10, 10, 60, 60], [10, 10, 35, 60], [100, 10, 150, 60]], float)
    kept = suppress(Candidates(boxes, np.zeros((3, 6, 2)), np.array([0.9, 0.8, 0.7])))
    assert len(kept) == 2
    assert kept.boxes[1, 0] == 100


def test_suppression_of_nothing_and_of_empty_boxes() -> None:
    none = Candidates(np.zeros((0, 4)), np.zeros((0, 6, 2)), np.zeros(0))
    assert len(suppress(none)) == 0
    empty = Candidates(np.ones((2, 4)), np.zeros((2, 6, 2)), np.ones(2))
    assert len(suppress(empty)) == 2


def test_bundled_files_belong_together() -> None:
    folder = MODEL.parent
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert digest in (folder / "card.md").read_text(encoding="utf-8")
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert "mediapipe-0.10.21" in (folder / "NOTICE").read_text(encoding="utf-8")


@pytest.fixture
def yunet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Detector:
    name = "face_detection_yunet_2023mar.onnx"
    places = (ROOT.parent / "shared" / "models" / name, cache_folder() / name)
    found = next((p for p in places if p.is_file()), None)
    if found is None:
        pytest.skip(f"YuNet's file is not here (looked for {' and '.join(map(str, places))})")
    shutil.copy(found, tmp_path)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    return open_detector("yunet")


def test_yunet_agrees_with_blazeface(yunet: Detector, detector: Detector, astronaut: Pixels) -> None:
    (ours,), (theirs,) = detector(astronaut), yunet(astronaut)
    assert share(theirs.box, ours.box) > 0.6
    assert ours.points is not None
    assert theirs.points is not None
    np.testing.assert_allclose(theirs.points[:4], ours.points[:4], atol=8)
    assert theirs.points.right_ear is None


def test_yunet_finds_small_faces_in_large_images(yunet: Detector, astronaut: Pixels) -> None:
    faces = yunet(pasted(gradient(3000, 1200), at(astronaut, 40), 1490, 600))
    assert len(faces) == 1
    assert faces[0].box.width == pytest.approx(40, rel=0.3)


@pytest.mark.parametrize("shape", [(1, 1), (10, 3000), (480, 640)])
def test_yunet_finds_nothing_in_an_empty_image(yunet: Detector, shape: tuple[int, int]) -> None:
    assert yunet(np.full((*shape, 3), 90, np.uint8)) == []


def test_every_detector_is_documented() -> None:
    assert DETECTORS == ("blazeface", "yunet", "none")
    assert all(name in (open_detector.__doc__ or "").lower() for name in DETECTORS)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_of_numpy_of_a_detector_become_json(astronaut: NDArray[np.uint8], kind: type) -> None:
    own = Reader().read(astronaut).faces[0]
    points = KeyPoints(*(tuple(map(kind, point)) for point in filter(None, own.points or ())))

    def detect(_: object) -> list[Detection]:
        return [Detection(Box(*map(kind, own.box)), kind(1), points)]

    reading = Reader(detector=detect).read(astronaut)  # type: ignore[arg-type]
    assert json.loads(json.dumps(reading.to_dict()))["faces"][0]["score"] == 1


@pytest.mark.parametrize(("corner", "score", "message"), [(1e200, 1.0, "finite numbers"), (9, None, "the score None")])
def test_what_no_detector_may_return_is_one_clear_line(corner: float, score: Any, message: str) -> None:
    with pytest.raises(MienError, match=message):
        Reader(detector=lambda _: [Detection(Box(0, 0, corner, 9), score, None)]).read(np.zeros((9, 9, 3), np.uint8))  # type: ignore[arg-type]
