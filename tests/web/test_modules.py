"""The page's modules in node give the numbers of the Python code they were ported from."""

import base64
import io
import json
import math
import shutil
import struct
import subprocess
from typing import Any

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image

from mien._emotions import UNSURE_COLOR, Emotion
from mien._face import Box, Detection, Face, KeyPoints, Reading
from mien._format import probability_percent
from mien._framing import FER2013
from mien.bundled import DEFAULT_MODEL
from mien.detect.candidates import Candidates, suppress
from mien.detect.tiles import REDUCING_GAP, _cover
from mien.extract import extract
from mien.infer import Classifier, find_model
from mien.overlay import heat
from mien.reader import Reader
from mien.report import Csv, JsonLines
from mien.video.association import Smoother
from support.encoded_images import encode, turned_webp
from support.golden_readings import GOLDEN, golden_image
from support.paths import ROOT, TESTS

PAGE = ROOT / "src" / "mien" / "serve" / "page"
# Since Pillow 13 a picture that loses more height than width is resized in the other order, which changes roundings.
SAME_ORDER = int(PIL.__version__.partition(".")[0]) >= 13

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="the page's modules are run in node")


def run(task: str, payload: Any) -> Any:
    asked = json.dumps({"task": task, "payload": payload})
    done = subprocess.run(
        ["node", TESTS / "web" / "modules.mjs"], input=asked, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def to_image_payload(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    return {"width": pixels.shape[1], "height": pixels.shape[0], "data": packed(pixels.tobytes())}


def test_images_are_resized_as_pillow_does_it() -> None:
    generator = np.random.default_rng(0)
    cases, expected = [], []
    for index in range(120):
        width, height = (int(v) for v in generator.integers(2, 240, 2))
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        x, y = generator.uniform(0, width / 2), generator.uniform(0, height / 2)
        part = (x, y, generator.uniform(x + 1, width), generator.uniform(y + 1, height))
        box = part if index % 2 else (0.0, 0.0, float(width), float(height))
        size = tuple(int(v) for v in generator.integers(1, 130, 2))
        factors = tuple(int(v) for v in generator.integers(1, 9, 2))
        image = Image.fromarray(pixels)
        resized = image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=REDUCING_GAP)
        expected.append((np.asarray(resized), np.asarray(image.reduce(factors))))
        cases.append(
            {"image": to_image_payload(pixels), "size": size, "box": box, "gap": REDUCING_GAP, "factors": factors}
        )
    for (resized, reduced), answers in zip(expected, run("resize", cases), strict=True):
        ours, blocks = (np.frombuffer(base64.b64decode(answer), np.uint8) for answer in answers)
        assert np.array_equal(blocks, reduced.ravel())
        off = np.abs(ours.astype(int) - resized.ravel().astype(int)).max()
        assert off == 0 if SAME_ORDER else off <= 2


def test_crops_are_cut_to_the_bit() -> None:
    generator = np.random.default_rng(1)
    pixels = golden_image("astronaut")
    cases, expected = [], []
    for index in range(60):
        scale, turn = float(generator.uniform(0.2, 3)), float(generator.uniform(-math.pi, math.pi))
        middle = generator.uniform(-40, 560, 2)

        def place(x: float, y: float, *, scale: float = scale, turn: float = turn, middle: Any = middle) -> Any:
            across, down = x * scale, y * scale
            cosine, sine = math.cos(turn), math.sin(turn)
            return (float(middle[0] + cosine * across - sine * down), float(middle[1] + sine * across + cosine * down))

        points = [place(-20, -20), place(20, -20), place(0, 5), place(0, 25), place(-40, -10), place(40, -10)]
        box = Box(*(float(v) for v in (*(middle - 45 * scale), *(middle + 45 * scale))))
        known = KeyPoints(*points) if index % 5 else None
        crops, to_image = extract(pixels, [Detection(box, 0.9, known)], size=48)
        face = Face(box, 0.9, known, None, 1.0, {}, np.zeros((1, 1, 1), np.float32), crops[0], to_image[0])
        expected.append((crops[0], to_image[0], face.quality))
        detection = {"box": list(box), "points": points if known else None}
        framing = json.loads(FER2013.to_json())
        cases.append({"image": to_image_payload(pixels), "detection": detection, "size": 48, "framing": framing})
    for (crop, to_image, quality), answer in zip(expected, run("extract", cases), strict=True):
        assert np.allclose(np.reshape(answer["toImage"], (2, 3)), to_image, rtol=0, atol=1e-9)
        assert np.array_equal(np.frombuffer(base64.b64decode(answer["crop"]), np.uint8), crop.ravel())
        assert answer["quality"] == pytest.approx(list(quality), abs=1e-9)


def test_candidates_are_merged_alike() -> None:
    generator = np.random.default_rng(2)
    cases, expected = [], []
    for count in (0, 1, 2, 30, 120):
        corners = generator.uniform(0, 200, (count, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(10, 60, (count, 2))], axis=1)
        points, scores = generator.uniform(0, 200, (count, 6, 2)), generator.uniform(0.3, 1, count)
        expected.append(suppress(Candidates(boxes, points, scores)))
        rows = zip(boxes.tolist(), points.tolist(), scores.tolist(), strict=True)
        cases.append([{"box": box, "points": place, "score": score} for box, place, score in rows])
    for wanted, answer in zip(expected, run("suppress", cases), strict=True):
        assert len(answer) == len(wanted)
        assert np.allclose([one["box"] for one in answer] or np.zeros((0, 4)), wanted.boxes, atol=1e-9)
        assert np.allclose([one["points"] for one in answer] or np.zeros((0, 6, 2)), wanted.points, atol=1e-9)


def test_tiles_start_at_the_same_places() -> None:
    cases = [(length, 512, 96, 16) for length in (1, 16, 100, 511, 512, 513, 900, 1000, 2048, 4999)]
    assert run("cover", cases) == [list(_cover(*case)) for case in cases]


def test_the_filter_forgets_at_any_frame_rate() -> None:
    values, seconds = [[0.0, 1.0]] + [[1.0, 0.0]] * 50, [index / 50 for index in range(51)]
    smoothed = run("smooth", {"values": values, "seconds": seconds, "constant": 0.5})
    assert smoothed[0] == [0.0, 1.0]
    assert math.isclose(smoothed[-1][0], 1 - math.exp(-2), abs_tol=1e-9)
    assert run("smooth", {"values": values, "seconds": seconds, "constant": 0})[1] == [1.0, 0.0]


def test_blurred_frames_weigh_less_as_in_python() -> None:
    values, qualities, seconds = [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], [0.9, 0.1, 0.4], [0.0, 0.1, 0.25]
    smoother = Smoother(0.5)
    expected = [smoother(np.array(v), s, q).tolist() for v, s, q in zip(values, seconds, qualities, strict=True)]
    task = {"values": values, "seconds": seconds, "constant": 0.5, "qualities": qualities}
    np.testing.assert_allclose(run("smooth", task), expected, atol=1e-12)


def test_the_threshold_depends_on_the_size_as_in_python() -> None:
    reader, sizes = Reader(DEFAULT_MODEL, abstain="card"), [5, 16, 18.5, 32, 47.9, 48, 300]
    pairs = list(reader.model.unsure_below.items())
    for size, (threshold, emotion) in zip(sizes, run("threshold", {"pairs": pairs, "sizes": sizes}), strict=True):
        assert threshold == pytest.approx(reader.threshold(size))
        assert emotion == ("sad" if reader.threshold(size) <= 0.55 else None)
    assert run("threshold", {"pairs": [], "sizes": [20]}) == [[0, "sad"]]
    assert run("threshold", {"pairs": [[0, 0.6]], "sizes": [20]}) == [[0.6, None]]


def test_the_metadata_of_a_model_file_is_read() -> None:
    path = find_model(DEFAULT_MODEL)
    (said,) = run("metadata", [str(path)])
    assert said == dict(Classifier(path).metadata)


def test_headers_tell_format_size_and_end() -> None:
    files, expected = [], []
    for name in ("PNG", "JPEG", "GIF", "BMP"):
        stream = io.BytesIO()
        Image.new("RGB", (61, 37), "red").save(stream, name)
        files.append(stream.getvalue())
        expected.append({"format": name, "width": 61, "height": 37, "isWhole": True})
    old = struct.pack("<2s4I4H", b"BM", 26 + 37 * 184, 0, 26, 12, 61, 37, 1, 24) + bytes(37 * 184)
    assert Image.open(io.BytesIO(old)).size == (61, 37)
    assert run("header", [packed(old)]) == [{"format": "BMP", "width": 61, "height": 37, "isWhole": True}]
    files += [files[0][:-20], files[1][:-20], b"text", b"", b"\x89PNG", b"\xff\xd8\xff", b"%PDF-1.4 " + bytes(99)]
    answers = run("header", [packed(content) for content in files])
    assert answers[:4] == expected
    assert [answer["isWhole"] for answer in answers[4:6]] == [False, False]
    assert [answer["format"] for answer in answers[6:]] == [None, None, None, "JPEG", None]


def test_the_orientation_of_webp_is_read_and_taken_away() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    files = [turned_webp(pixels, orientation) for orientation in range(1, 9)]
    damaged = [encode(pixels, "WEBP"), files[5][:-4], files[5][:20], files[5].replace(b"MM", b"XX")]
    answers = run("orientation", [packed(content) for content in files + damaged])
    assert [orientation for orientation, _ in answers[:8]] == list(range(1, 9))
    for orientation, content in answers[:8]:
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert image.getexif()[0x0112] == 1
            assert image.size == ((16, 9) if orientation < 5 else (9, 16))
    assert [orientation for orientation, _ in answers[8:]] == [1, 6, 1, 1]


def test_colours_are_those_of_mien() -> None:
    look = run("look", None)
    assert look["colors"] == {str(emotion): emotion.color for emotion in Emotion}
    assert look["unsure"] == UNSURE_COLOR
    assert np.abs(np.array(look["ramp"]) - heat(np.linspace(0, 1, 256))).max() <= 1
    assert look["percents"] == [probability_percent(value) for value in (0.001, 0.5, 0.999)]


def test_files_are_written_as_mien_writes_them() -> None:
    emotions = tuple(Emotion)[:7]
    faces = [{**face, "quality": _face(face, emotions).quality.to_dict()} for face in GOLDEN["several"]["faces"]]
    readings = [Reading(tuple(_face(face, emotions) for face in faces), 'a,"b".png', (9, 9))]
    names = ("c", "=1+1.png", "a;-2", "\uff0b1", "\u202egnp.\x1b[2J\n\x7f\U000e0041\ud800", "'", "\\")
    readings += [Reading((), name, (1, 1), note="1 face of a quality below 0.6 left out") for name in names]
    readings.append(Reading((), "d.txt", (0, 0), error="-not, a picture"))
    plain: list[dict[str, Any]] = [
        {"source": r.source, "error": r.error, "note": r.note, "faces": []} for r in readings
    ]
    plain[0]["faces"] = faces
    for reading, shown in zip(readings[:-1], plain, strict=False):  # what could not be read has no size
        shown["width"], shown["height"] = reading.size_wh
    text, table = run("save", {"readings": plain, "threshold": 0.9, "emotions": list(emotions)})
    lines, rows = io.StringIO(), io.StringIO()
    json_lines = JsonLines(lines)
    with Csv(rows, emotions) as sink:
        for reading in readings:
            json_lines.add(reading)
            sink.add(reading)
    assert json.loads(text) == [json.loads(line) for line in lines.getvalue().splitlines()]
    assert numbers(table) == numbers(rows.getvalue())
    assert "'=1+1.png" in table


def _face(said: dict[str, Any], emotions: tuple[Emotion, ...]) -> Face:
    probs = {emotion: said["probs"][str(emotion)] for emotion in emotions}
    best = max(probs, key=probs.__getitem__)
    nothing = np.zeros((7, 6, 6), np.float32)
    return Face(
        box=Box(*said["box"]),
        score=said["score"],
        points=KeyPoints(*map(tuple, said["points"])) if said.get("points") else None,
        emotion=best if probs[best] >= 0.9 else None,
        confidence=probs[best],
        probs=probs,
        maps=nothing,
        crop=np.zeros((48, 48), np.uint8),
        to_image=np.zeros((2, 3)),
    )


def numbers(table: str) -> list[list[Any]]:
    """Rows of CSV, numbers as numbers: 0.5 and 0.50 are the same."""
    import csv

    def cell(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    return [[cell(text) for text in row] for row in csv.reader(io.StringIO(table))]


def test_no_module_loads_anything_from_elsewhere() -> None:
    for path in PAGE.glob("*.*"):
        text = path.read_text("utf-8")
        assert "http://" not in text, path.name
        assert "https://" not in text, path.name
    page = (PAGE / "index.html").read_text("utf-8")
    assert "default-src 'none'" in page
    assert "unsafe-inline" not in page
    assert "<style" not in page
    assert " style=" not in page


def test_one_version_of_the_runtime_is_pinned_and_named() -> None:
    web = ROOT / "web"
    wanted = json.loads((web / "package.json").read_text("utf-8"))["dependencies"]["onnxruntime-web"]
    locked = json.loads((web / "package-lock.json").read_text("utf-8"))["packages"]
    assert locked["node_modules/onnxruntime-web"]["version"] == wanted
    assert f"onnxruntime-web@{wanted}" in (ROOT / "docs" / "how-to/page.md").read_text("utf-8")
    assert not [package for package, said in locked.items() if "resolved" in said], "no registry's address belongs here"
