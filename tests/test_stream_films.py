"""The tracker on whole films: its lines and tables, a scene of known truth, real films, bounded memory."""

import csv
import importlib
import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mien
from mien import Box, SourceError
from mien.pipeline import Reader
from mien.stream import Tracker, open_source
from mien.stream.follow import overlap_of
from support.paths import PICTURES, ROOT
from support.tracker_steps import Pixels, ids, step_through
from support.videos import head_of, walk


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def head(astronaut: Pixels) -> Pixels:
    return head_of(astronaut)


def test_a_moment_is_plain_json_with_both_readings(reader: Reader, head: Pixels) -> None:
    moment = step_through(Tracker(reader), walk(head, [(100, 60)] * 2))[1]
    plain = json.loads(json.dumps(moment.to_dict()))
    (face,) = plain["faces"]
    assert list(plain) == ["frame", "seconds", "faces"]
    assert list(face) == ["id", "seen", "box", "emotion", "confidence", "probs", "raw"]
    assert face["raw"] == moment.faces[0].face.to_dict()
    assert (plain["frame"], plain["seconds"], face["id"]) == (1, 0.04, 1)


def test_lines_csv_and_parquet_say_the_same(reader: Reader, head: Pixels, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    from mien.stream.tables import MomentCsv, MomentLines, MomentParquet

    frames = walk(head, [(100, 60)] * 4 + [(900, 60)] * 8)
    moments = step_through(Tracker(reader), frames)
    lines, table, file = (tmp_path / name for name in ("a.jsonl", "a.csv", "a.parquet"))
    emotions = reader.model.emotions
    with lines.open("w") as one, table.open("w") as other, MomentParquet(file, emotions) as third:
        sinks = (MomentLines(one), MomentCsv(other, emotions), third)
        for moment in moments:
            for sink in sinks:
                sink.add(moment)
    plain = [json.loads(line) for line in lines.read_text().splitlines()]
    assert plain == [moment.to_dict() for moment in moments]
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["frame"] for row in rows] == [str(i) for i in range(12)], "a frame without a face has a row, too"
    assert (rows[0]["face"], rows[-1]["face"]) == ("1", "")
    said = plain[2]["faces"][0]
    assert float(rows[2]["happy"]) == said["probs"]["happy"]
    assert float(rows[2]["raw_happy"]) == said["raw"]["probs"]["happy"]
    assert [float(rows[2][c]) for c in ("x1", "y1", "x2", "y2")] == said["box"]
    columns = parquet.read_table(file).to_pydict()
    assert list(columns) == list(rows[0])
    assert columns["happy"][2] == pytest.approx(said["probs"]["happy"])
    assert columns["face"][-1] is None
    assert columns["seen"][0] is True


def test_track_is_a_generator_that_cleans_up(head: Pixels, tmp_path: Path) -> None:
    pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')
    from support.videos import write_film

    path = write_film(tmp_path / "film.mp4", walk(head, [(100 + 2 * i, 60) for i in range(30)]), np.arange(30) / 30)
    before = threading.active_count()
    moments = mien.track(path, keep_pixels=True)
    assert threading.active_count() == before, "nothing runs before the first moment is asked for"
    first = next(moments)
    assert first.faces
    assert first.pixels is not None
    assert first.pixels.shape == (270, 480, 3)
    moments.close()
    assert threading.active_count() == before
    path.unlink()
    assert set(ids(list(mien.track(_folder(tmp_path, head), fps=5, smooth=0)))) == {(1,)}
    with pytest.raises(SourceError, match="no such film"):
        mien.track(path)


def _folder(tmp_path: Path, head: Pixels) -> Path:
    from PIL import Image

    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(walk(head, [(100 + 5 * i, 60) for i in range(4)])):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(("rate", "every"), [(30.0, 5), (12.0, 2)])
def test_everybody_keeps_one_number_through_a_scene_with_a_known_truth(reader: Reader, rate: float, every: int) -> None:
    """Entering, leaving, crossing, 1.4 seconds behind somebody else, a face seen for half a second."""
    tracker = Tracker(reader, every=every)
    numbers: dict[int, set[int]] = {}
    wanted = found = 0
    for pixels, seconds, truth in scene_film(rate).frames():
        moment = tracker.step(pixels, seconds)
        for true in truth:
            if true["visible"] < 0.7:
                continue
            wanted += 1
            best = max(moment.faces, key=lambda face: overlap_of(face.box, Box(*true["box"])), default=None)
            if best is not None and overlap_of(best.box, Box(*true["box"])) >= 0.3:
                found += 1
                numbers.setdefault(true["face"], set()).add(best.id)
    assert {face: len(given) for face, given in numbers.items()} == {1: 1, 2: 1, 3: 1, 4: 1}
    assert len(set.union(*numbers.values())) == 4
    assert found / wanted > 0.95


def scene_film(rate: float) -> Any:
    return importlib.import_module("make_film").Film(size_wh=(640, 360), rate=rate)


def real_film(name: str) -> Path:
    pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')
    path = Path(os.environ.get("MIEN_PICTURES", PICTURES)) / name
    if not path.is_file():
        pytest.skip(f"{name} is not here: it may not be shipped (looked in {path.parent})")
    return path


@pytest.mark.parametrize("name", ["film-1.mp4", "film-2.mp4"])
def test_a_real_film_of_one_person_has_one_person(name: str) -> None:
    moments = list(itertools.islice(mien.track(real_film(name)), 150))
    assert set(ids(moments)) == {(1,)}
    assert all(face.seen for moment in moments for face in moment.faces)


def test_a_cut_between_two_real_films_makes_somebody_new(reader: Reader) -> None:
    """Two people, each in the middle of the picture and of the same size."""
    one, other = ([f.pixels for f in itertools.islice(open_source(real_film(f"film-{n}.mp4")), 20)] for n in (1, 2))
    moments = step_through(Tracker(reader), [*one[:10], *other, *one[10:]])
    assert ids(moments) == [(1,)] * 10 + [(2,)] * 20 + [(3,)] * 10


@pytest.mark.release
def test_the_benchmark_runs_and_memory_stays(tmp_path: Path) -> None:
    pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')
    report = tmp_path / "track.json"
    command = [
        sys.executable,
        ROOT / "benchmarks" / "track.py",
        "--size",
        "320x180",
        "--frames",
        2500,
        "--json",
        report,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=environment)
    said = json.loads(report.read_text())
    assert [row["frames"] for row in said["speed"]] == [2500] * 3
    assert all(row["memory_growth_mb"] < 8 for row in said["speed"])
    assert said["following"][1]["changes_of_number"] == 0
    assert said["following"][1]["found"] > 0.95
