"""The tracker: identities, smoothing, detection schedule, tables, a scene with ground truth, bounded memory."""

import csv
import importlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mien
from mien import Box, ImageError, KeyPoints, MienError, SourceError
from mien._face import Detection
from mien.reader import Reader
from mien.video import FrameResult, Tracker, open_source
from mien.video.association import center_of, iou
from support.paths import PICTURES, ROOT
from support.videos import head_of, walk

RATE = 25.0
Pixels = NDArray[np.uint8]


def step_through(
    tracker: Tracker, frames: Sequence[Pixels], *, rate: float = RATE, start: int = 0
) -> list[FrameResult]:
    return [tracker.step(frame, (start + i) / rate) for i, frame in enumerate(frames)]


def ids(results: Sequence[FrameResult]) -> list[tuple[int, ...]]:
    return [tuple(face.track_id for face in result.faces) for result in results]


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def head(astronaut: Pixels) -> Pixels:
    return head_of(astronaut)


@pytest.mark.parametrize("every", [1, 3, 8])
def test_a_face_that_walks_keeps_its_id_and_its_box(reader: Reader, head: Pixels, every: int) -> None:
    places = [(20 + 6 * i, 60 + round(15 * np.sin(i / 4))) for i in range(36)]
    results = step_through(Tracker(reader, every=every), walk(head, places))
    assert set(ids(results)) == {(1,)}
    assert [result.index for result in results] == list(range(36))
    truth = Tracker(reader, every=1).step(walk(head, [places[0]])[0], 0.0).faces[0].box
    for result, (x, y) in zip(results, places, strict=True):
        face = result.faces[0]
        wanted = center_of(Box(*(v + d for v, d in zip(truth, (x - 20, y - 60) * 2, strict=True))))
        assert np.hypot(*np.subtract(center_of(face.box), wanted)) < 0.12 * truth.width
        assert face.detected
        assert sum(face.probs.values()) == pytest.approx(1)
        assert sum(face.face.probs.values()) == pytest.approx(1, abs=1e-4)
        assert face.confidence == max(face.probs.values())
        assert face.emotion == face.top
        assert face.face.crop.shape == (48, 48)
    assert results[-1].size_wh == (480, 270)


def test_smoothing_steadies_the_readings_and_keeps_the_raw_ones(reader: Reader, head: Pixels) -> None:
    generator = np.random.default_rng(0)
    frames = walk(head, [(100, 60)] * 30)
    noisy = [np.clip(f + generator.normal(0, 25, f.shape), 0, 255).astype(np.uint8) for f in frames]
    smooth, raw = (step_through(Tracker(reader, smooth=s), noisy) for s in (0.5, 0.0))

    def mean_change(values: list[list[float]]) -> float:
        return float(np.abs(np.diff(np.array(values), axis=0)).sum(axis=1).mean() / 2)

    smoothed = [list(m.faces[0].probs.values()) for m in smooth]
    kept = [list(m.faces[0].face.probs.values()) for m in smooth]
    assert kept == [list(m.faces[0].face.probs.values()) for m in raw], "smoothing does not touch the raw readings"
    assert [list(m.faces[0].probs.values()) for m in raw] == kept, "a time constant of 0 shows them"
    assert mean_change(smoothed) < 0.3 * mean_change(kept)


def test_a_face_that_leaves_is_held_and_one_that_returns_late_is_new(reader: Reader, head: Pixels) -> None:
    there, gone = walk(head, [(100, 60)])[0], walk(head, [(900, 60)])[0]
    results = step_through(Tracker(reader, forget=0.5), [there] * 5 + [gone] * 8 + [there] * 5 + [gone] * 20 + [there])
    assert ids(results[:5]) == [(1,)] * 5
    held = [result.faces for result in results[5:13]]
    assert [len(faces) for faces in held] == [1] * 5 + [0] * 3, "0.2 s at 25 frames a second"
    assert not any(face.detected for faces in held for face in faces)
    assert (1,) in ids(results[13:17]), "found again within its time"
    assert ids(results)[-1] in ((), (2,)), "expired by now; the whole frame is searched on every third frame"
    later = step_through(Tracker(reader, forget=0.5), [there] * 3 + [gone] * 20 + [there] * 4)
    assert ids(later)[-1] == (2,)


class MinimalDetector:
    """A minimal detector of a user: a function without a name and without a search of a region."""

    def __init__(self, reader: Reader) -> None:
        self.find, self.seen = reader.detector, list[tuple[int, ...]]()

    def __call__(self, pixels: Pixels) -> list[Detection]:
        self.seen.append(pixels.shape)
        return self.find(pixels)


def test_a_minimal_detector_searches_crops(reader: Reader, head: Pixels) -> None:
    own = MinimalDetector(reader)
    results = step_through(Tracker(Reader(detector=own), every=5), walk(head, [(20 + 8 * i, 60) for i in range(20)]))
    assert set(ids(results)) == {(1,)}
    assert own.seen.count((270, 480, 3)) == 4
    assert max(shape[1] for shape in own.seen if shape != (270, 480, 3)) < 200
    distance = results[-1].faces[0].face.box.x1 - results[0].faces[0].face.box.x1
    assert distance == pytest.approx(8 * 19, abs=8)


def test_a_region_search_finds_what_a_full_search_finds_also_at_the_edges(reader: Reader, head: Pixels) -> None:
    near = reader.detector.near  # type: ignore[attr-defined]
    for place in ((100, 60), (-20, -10), (360, 150)):
        frame = walk(head, [place])[0]
        (found,) = reader.detector(frame)
        shifted = Box(*(v + 0.3 * found.box.width for v in found.box))
        (again,) = near(frame, shifted)
        assert iou(found.box, again.box) > 0.75
        assert np.hypot(*np.subtract(again.points.right_eye, found.points.right_eye)) < 0.1 * found.box.width
    for beyond in (Box(-500, -500, -400, -400), Box(900, 50, 1000, 150), Box(5, 5, 5, 5)):
        assert near(frame, beyond) == []


def test_two_faces_keep_their_ids_in_any_order_of_size(reader: Reader, astronaut: Pixels) -> None:
    near, far = head_of(astronaut, 150), head_of(astronaut, 90)
    left = walk(near, [(10 + 2 * i, 50) for i in range(20)])
    frames = []
    for i, frame in enumerate(left):
        both = frame.copy()
        both[80:170, 360 - 2 * i : 450 - 2 * i] = far
        frames.append(both)
    results = step_through(Tracker(reader), frames)
    assert set(ids(results)) == {(1, 2)}
    for before, after in zip(results[0].faces, results[-1].faces, strict=True):  # both are sorted by id
        assert after.box.width == pytest.approx(before.box.width, rel=0.1)
    assert {round(face.box.width, -1) for face in results[-1].faces} == {60, 40}


def test_fifty_faces_are_tracked(reader: Reader, astronaut: Pixels) -> None:
    head = head_of(astronaut, 110)
    frames = []
    for shift in (0, 3, 6, 9):
        frame = np.full((720, 1280, 3), 90, np.uint8)
        for row in range(5):
            for column in range(10):
                y, x = 25 + 138 * row, 5 + shift + 126 * column
                frame[y : y + 110, x : x + 110] = head
        frames.append(frame)
    results = step_through(Tracker(reader), frames)
    assert [len(result.faces) for result in results] == [50] * 4
    assert set(ids(results)) == {tuple(range(1, 51))}
    for number in range(50):
        distance = center_of(results[-1].faces[number].face.box)[0] - center_of(results[0].faces[number].face.box)[0]
        assert distance == pytest.approx(9, abs=3)


def test_a_video_without_a_face(reader: Reader) -> None:
    results = step_through(Tracker(reader), [np.full((90, 120, 3), 80, np.uint8)] * 5)
    assert ids(results) == [()] * 5
    assert results[0].to_dict() == {"frame": 0, "seconds": 0.0, "faces": []}


def test_without_a_detector_each_frame_is_one_face(head: Pixels) -> None:
    results = step_through(Tracker(Reader(detector="none"), every=5), [head] * 7)
    assert set(ids(results)) == {(1,)}
    assert results[-1].faces[0].face.box == Box(0, 0, 150, 150)


def test_unsure_is_decided_by_the_smoothed_reading(head: Pixels) -> None:
    result = step_through(Tracker(Reader(abstain=1.0)), walk(head, [(100, 60)]))[0]
    assert result.faces[0].emotion is None
    assert result.to_dict()["faces"][0]["emotion"] is None
    assert "unsure" in repr(result)


def test_a_frame_of_another_size_ends_all_tracks(reader: Reader, head: Pixels) -> None:
    tracker = Tracker(reader)
    one = step_through(tracker, walk(head, [(100, 60)] * 3))
    other = step_through(tracker, walk(head, [(100, 60)] * 3, size_wh=(400, 300)), start=3)
    assert (ids(one)[-1], ids(other)[0]) == ((1,), (2,))
    assert other[0].size_wh == (400, 300)


def test_wrong_arguments_are_refused(reader: Reader) -> None:
    for wrong in ({"every": 0}, {"smooth": -1.0}, {"forget": float("nan")}):
        with pytest.raises(MienError):
            Tracker(reader, **wrong)  # type: ignore[arg-type]
    tracker, frame = Tracker(reader), np.zeros((40, 40, 3), np.uint8)
    tracker.step(frame, 1.0)
    tracker.step(frame, 1.0)
    with pytest.raises(MienError, match="frames must be in order of time"):
        tracker.step(frame, 0.5)
    for wrong_frame in (frame[..., 0], frame.astype(np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ImageError, match="a frame is RGB uint8"):
            tracker.step(wrong_frame, 2.0)


class ScriptedDetector:
    """A detector that returns given scores and boxes, one list for each frame."""

    name = "places"

    def __init__(self, script: Sequence[Sequence[tuple[float, Box]]]) -> None:
        self.script, self.frame, self.searches = script, -1, 0

    def __call__(self, _: Pixels) -> list[Detection]:
        self.searches += 1
        return [detection(score, box) for score, box in self.script[self.frame]]

    def near(self, _: Pixels, box: Box) -> list[Detection]:
        return [detection(s, b) for s, b in self.script[self.frame] if iou(b, box) > 0]

    def run(self, tracker: Tracker, frames: Sequence[Pixels], *, rate: float = RATE) -> list[FrameResult]:
        results = []
        for self.frame, pixels in enumerate(frames):
            results.append(tracker.step(pixels, self.frame / rate))
        return results


def detection(score: float, box: Box) -> Detection:
    def at(x: float, y: float) -> tuple[float, float]:
        return box.x1 + x * box.width, box.y1 + y * box.height

    return Detection(box, score, KeyPoints(at(0.3, 0.35), at(0.7, 0.35), at(0.5, 0.55), at(0.5, 0.8)))


def test_a_cut_to_a_frame_of_another_size_has_the_new_size(reader: Reader) -> None:
    tracker = Tracker(reader)
    tracker.step(np.zeros((119, 159, 3), np.uint8), 0.0)
    # The sampling grids of both sizes have the same shape, so the frames are compared and a cut is found.
    assert tracker.step(np.full((120, 160, 3), 255, np.uint8), 0.04).size_wh == (160, 120)


def noise(seed: int, *, size_wh: tuple[int, int] = (160, 120)) -> Pixels:
    """Coarse random colours, so that a crop of them correlates only with itself."""
    coarse = np.random.default_rng(seed).integers(0, 255, (size_wh[1] // 10, size_wh[0] // 10, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 10, axis=0), 10, axis=1)


def test_a_cut_starts_new_tracks_and_a_flash_does_not() -> None:
    box = Box(50, 30, 110, 90)
    places = ScriptedDetector([[(0.95, box)]] * 20)
    scene = noise(1)
    for other in (noise(2), np.ascontiguousarray(scene[::-1, ::-1])):  # other colours, and the same colours elsewhere
        results = places.run(Tracker(Reader(detector=places)), [scene] * 8 + [other] * 8)
        assert ids(results) == [(1,)] * 8 + [(2,)] * 8
    bright = (scene // 2 + 127).astype(np.uint8)
    places = ScriptedDetector([[(0.95, box)]] * 20)
    results = places.run(Tracker(Reader(detector=places)), [scene] * 8 + [bright] * 8)
    assert set(ids(results)) == {(1,)}


def test_the_whole_frame_is_searched_on_each_nth_frame_and_when_a_face_is_lost() -> None:
    box, frames = Box(50, 30, 110, 90), [noise(1)] * 20
    for every, searches in ((1, 20), (4, 5), (7, 3)):
        places = ScriptedDetector([[(0.95, box)]] * 20)
        places.run(Tracker(Reader(detector=places), every=every), frames)
        assert places.searches == searches
    places = ScriptedDetector([[(0.95, box)]] * 3 + [[]] * 17)
    places.run(Tracker(Reader(detector=places), every=100), frames)
    assert places.searches == 2, "the first frame, and once when the face was lost"


def test_a_brief_false_positive_gets_no_id() -> None:
    box, frames = Box(50, 30, 110, 90), [noise(1)] * 30
    face = (0.95, Box(0, 30, 40, 70))
    weak = ScriptedDetector([[face]] * 4 + [[face, (0.67, box)]] + [[face, (0.52, box)]] * 12 + [[face]] * 13)
    assert set(ids(weak.run(Tracker(Reader(detector=weak), every=1), frames))) == {(1,)}
    steady = ScriptedDetector([[face]] * 4 + [[face, (0.67, box)]] * 26)
    results = steady.run(Tracker(Reader(detector=steady), every=1), frames)
    assert ids(results)[-1] == (1, 2), "a weak detection that lasts is confirmed"
    assert ids(results)[5] == (1,)
    sure = ScriptedDetector([[face]] * 4 + [[face, (0.9, box)]] * 26)
    assert ids(sure.run(Tracker(Reader(detector=sure), every=1), frames))[4] == (1, 2)


def test_faces_of_single_images_are_confirmed_at_once() -> None:
    places = ScriptedDetector([[(0.66, Box(50, 30, 110, 90))]] * 5)
    results = places.run(Tracker(Reader(detector=places)), [noise(1)] * 5, rate=1)
    assert set(ids(results)) == {(1,)}


def test_a_result_is_plain_json_with_both_readings(reader: Reader, head: Pixels) -> None:
    result = step_through(Tracker(reader), walk(head, [(100, 60)] * 2))[1]
    plain = json.loads(json.dumps(result.to_dict()))
    (face,) = plain["faces"]
    assert list(plain) == ["frame", "seconds", "faces"]
    assert list(face) == ["track_id", "detected", "box", "emotion", "confidence", "probs", "raw"]
    assert face["raw"] == result.faces[0].face.to_dict()
    assert (plain["frame"], plain["seconds"], face["track_id"]) == (1, 0.04, 1)


def test_json_lines_csv_and_parquet_have_the_same_values(reader: Reader, head: Pixels, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    from mien.video.outputs import FrameCsv, FrameJsonLines, FrameParquet

    frames = walk(head, [(100, 60)] * 4 + [(900, 60)] * 8)
    results = step_through(Tracker(reader), frames)
    lines, table, file = (tmp_path / name for name in ("a.jsonl", "a.csv", "a.parquet"))
    emotions = reader.model.emotions
    with FrameJsonLines(lines) as one, FrameCsv(table, emotions) as other, FrameParquet(file, emotions) as third:
        sinks = (one, other, third)
        for result in results:
            for sink in sinks:
                sink.add(result)
    plain = [json.loads(line) for line in lines.read_text().splitlines()]
    assert plain == [result.to_dict() for result in results]
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["frame"] for row in rows] == [str(i) for i in range(12)], "a frame without a face has a row, too"
    assert (rows[0]["track_id"], rows[-1]["track_id"]) == ("1", "")
    face = plain[2]["faces"][0]
    assert float(rows[2]["happy"]) == face["probs"]["happy"]
    assert float(rows[2]["raw_happy"]) == face["raw"]["probs"]["happy"]
    assert [float(rows[2][c]) for c in ("x1", "y1", "x2", "y2")] == face["box"]
    columns = parquet.read_table(file).to_pydict()
    assert list(columns) == list(rows[0])
    assert columns["happy"][2] == pytest.approx(face["probs"]["happy"])
    assert columns["track_id"][-1] is None
    assert columns["detected"][0] is True


def test_track_is_a_generator_that_cleans_up(head: Pixels, tmp_path: Path) -> None:
    pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')
    from support.videos import write_video

    path = write_video(tmp_path / "video.mp4", walk(head, [(100 + 2 * i, 60) for i in range(30)]), np.arange(30) / 30)
    results = mien.track(path, keep_pixels=True)
    assert not frame_threads(), "no thread runs before the first result"
    first = next(results)
    assert first.faces
    assert first.pixels is not None
    assert first.pixels.shape == (270, 480, 3)
    assert frame_threads()
    results.close()
    assert not frame_threads()
    path.unlink()
    assert set(ids(list(mien.track(_folder(tmp_path, head), rate=5, smooth=0)))) == {(1,)}
    with pytest.raises(SourceError, match="no such video"):
        mien.track(path)


def frame_threads() -> list[str]:
    """Names of the threads that decode frames; other tests of the process may have left threads of their own."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mien-frames")]


def _folder(tmp_path: Path, head: Pixels) -> Path:
    from PIL import Image

    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(walk(head, [(100 + 5 * i, 60) for i in range(4)])):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(("rate", "every"), [pytest.param(30.0, 5, marks=pytest.mark.release), (12.0, 2)])
def test_each_face_keeps_one_id_in_a_scene_with_ground_truth(reader: Reader, rate: float, every: int) -> None:
    """Faces enter, leave and cross; one is occluded for 1.4 seconds; one is visible for half a second."""
    tracker = Tracker(reader, every=every)
    numbers: dict[int, set[int]] = {}
    wanted = found = 0
    for pixels, seconds, truth in scene_video(rate).frames():
        result = tracker.step(pixels, seconds)
        for true in truth:
            if true["visible"] < 0.7:
                continue
            wanted += 1
            best = max(result.faces, key=lambda face: iou(face.box, Box(*true["box"])), default=None)
            if best is not None and iou(best.box, Box(*true["box"])) >= 0.3:
                found += 1
                numbers.setdefault(true["face"], set()).add(best.track_id)
    assert {face: len(given) for face, given in numbers.items()} == {1: 1, 2: 1, 3: 1, 4: 1}
    assert len(set.union(*numbers.values())) == 4
    assert found / wanted > 0.95


def scene_video(rate: float) -> Any:
    return importlib.import_module("make_video").Video(size_wh=(640, 360), rate=rate)


def real_video(name: str) -> Path:
    pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')
    path = Path(os.environ.get("MIEN_PICTURES", PICTURES)) / name
    if not path.is_file():
        pytest.skip(f"{name} is not here: it may not be shipped (looked in {path.parent})")
    return path


@pytest.mark.parametrize("name", ["film-1.mp4", "film-2.mp4"])
def test_a_real_video_of_one_person_has_one_track(name: str) -> None:
    results = list(itertools.islice(mien.track(real_video(name)), 60))
    assert set(ids(results)) == {(1,)}
    assert all(face.detected for result in results for face in result.faces)


def test_a_cut_between_two_real_videos_starts_a_new_track(reader: Reader) -> None:
    """Two people of the same size, each in the middle of the image."""
    one, other = ([f.pixels for f in itertools.islice(open_source(real_video(f"video-{n}.mp4")), 20)] for n in (1, 2))
    results = step_through(Tracker(reader), [*one[:10], *other, *one[10:]])
    assert ids(results) == [(1,)] * 10 + [(2,)] * 20 + [(3,)] * 10


@pytest.mark.release
@pytest.mark.timeout(3600)
def test_the_benchmark_runs_and_memory_does_not_grow(tmp_path: Path) -> None:
    pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')
    report = tmp_path / "track.json"
    command = [
        sys.executable,
        ROOT / "benchmarks" / "track.py",
        "--size",
        "320x180",
        "--frames",
        20000,  # memory grows in the first 6,500
        "--json",
        report,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=environment)
    measured = json.loads(report.read_text())
    assert [row["frames"] for row in measured["speed"]] == [20000] * 3
    assert all(row["memory_growth_mb"] < 8 for row in measured["speed"])
    assert measured["tracking"][1]["id_switches"] == 0
    assert measured["tracking"][1]["recall"] > 0.95
