"""All files of one run: streams and paths, nothing after an error, the size of the video from its first frame."""

import gc
import io
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien._errors import OutputError
from mien._output import is_own
from mien.reader import Reader
from mien.video import open_source
from mien.video.outputs import FrameCsv, FrameJsonLines, TrackMeans, TrackOutputs
from support.frame_results import SIZE, frame_result, gray_frame, tracked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one frame."""
    path = tmp_path / "frames"
    path.mkdir()
    Image.fromarray(gray_frame()).save(path / "0.png")
    return path


def test_tables_go_to_streams_and_files(folder: Path, tmp_path: Path) -> None:
    lines, reader = io.StringIO(), Reader()
    paths = {"csv": tmp_path / "a.csv", "html": tmp_path / "a.html"}
    with open_source(folder) as frames, TrackOutputs(frames, reader, jsonl=lines, **paths) as outputs:
        for index in range(3):
            outputs.add(frame_result(index, index / 25, tracked()), gray_frame())
        outputs.partial = True
    assert [json.loads(line)["frame"] for line in lines.getvalue().splitlines()] == [0, 1, 2]
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 4
    page = (tmp_path / "a.html").read_text()
    assert "Interrupted" in page
    assert reader.model.name in page
    assert outputs.notes == []


def test_after_an_error_no_table_and_no_page_appears(folder: Path, tmp_path: Path) -> None:
    frames = open_source(folder)
    outputs = TrackOutputs(frames, Reader(), csv=tmp_path / "a.csv", html=tmp_path / "a.html")
    with frames, pytest.raises(RuntimeError), outputs:  # noqa: PT012
        outputs.add(frame_result(0, 0.0), gray_frame())
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["mp4", "csv", "html"])
def test_a_path_that_cannot_be_written_is_reported_before_the_first_frame(
    folder: Path, tmp_path: Path, name: str
) -> None:
    frames, paths = open_source(folder), {name: tmp_path / "none" / "a"}
    outputs = TrackOutputs(frames, Reader(), jsonl=tmp_path / "a.jsonl", **paths)
    with frames, pytest.raises(OutputError, match="its folder does not exist"), outputs:
        raise AssertionError("the block must not start")
    assert list(tmp_path.iterdir()) == [folder]


def test_the_video_has_the_size_of_its_first_frame(folder: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="videos need PyAV, which the video extra brings")
    with open_source(folder) as frames, TrackOutputs(frames, Reader(), mp4=tmp_path / "a.mp4") as outputs:
        for index in range(2):
            outputs.add(frame_result(index, index / 25), gray_frame(90))
    with av.open(str(tmp_path / "a.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [(frame.shape[1], frame.shape[0]) for frame in decoded] == [SIZE] * 2
    assert np.abs(decoded[0].astype(int) - 90).mean() < 3


def test_means_over_a_long_time_do_not_keep_the_faces() -> None:
    means, result = TrackMeans((), 3600), frame_result(0, 0.0, tracked())
    means.add(result)
    face = weakref.ref(result.faces[0])
    del result
    gc.collect()
    assert face() is None
    assert [row["frames"] for row in means.finish()] == [1]


def test_an_array_without_a_face_may_be_replaced(tmp_path: Path) -> None:
    with FrameJsonLines(tmp_path / "a.json", array=True, aggregate=1) as lines:
        lines.add(frame_result(0, 0.0))
    assert (tmp_path / "a.json").read_text() == "[]\n"
    assert is_own(tmp_path / "a.json")


def test_ctrl_c_keeps_the_last_time_of_the_means(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), FrameCsv(tmp_path / "a.csv", (), aggregate=60) as table:  # noqa: PT012
        table.add(frame_result(0, 0.0, tracked()))
        raise KeyboardInterrupt
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 2
