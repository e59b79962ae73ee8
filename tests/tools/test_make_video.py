"""The test video: deterministic, with correct ground truth, its faces detected and read."""

import importlib
import json
import types
from pathlib import Path

import numpy as np
import pytest

from mien import Emotion, Reader


@pytest.fixture(scope="module")
def tool() -> types.ModuleType:
    return importlib.import_module("make_video")


@pytest.fixture(scope="module")
def reader() -> Reader:
    """With the model for which the expressions were made."""
    return Reader("mien-0")


def by_role(faces: list[dict[str, object]]) -> dict[object, dict[str, object]]:
    return {face["role"]: face for face in faces}


def test_the_video_is_deterministic(tool: types.ModuleType) -> None:
    one, other = (tool.Video(size_wh=(320, 180)) for _ in range(2))
    for seconds in (0.0, 5.1, 11.0):
        np.testing.assert_array_equal(one.draw(seconds), other.draw(seconds))
        assert one.truth(seconds) == other.truth(seconds)
    assert np.abs(one.draw(0.0).astype(int) - one.draw(5.1)).max() > 100


def test_times_are_regular_or_vary(tool: types.ModuleType) -> None:
    even = np.diff(tool.Video(seconds=2, rate=25).times())
    assert len(even) == 49
    np.testing.assert_allclose(even, 0.04, atol=1e-5)
    varied = np.diff(tool.Video(seconds=2, rate=25, variable=True).times())
    assert varied.min() == pytest.approx(0.02, abs=1e-4)
    assert varied.max() == pytest.approx(0.08, abs=1e-4)
    assert varied.mean() == pytest.approx(0.04, abs=2e-3)


def test_faces_enter_leave_and_occlude_each_other(tool: types.ModuleType) -> None:
    video = tool.Video(size_wh=(640, 360))
    seen = {seconds: by_role(video.truth(seconds)) for seconds in np.arange(0, 12, 0.1)}
    counts = [len(faces) for faces in seen.values()]
    assert set(counts) == {1, 2, 3}
    assert all(faces["host"]["face"] == 1 for faces in seen.values())
    walker = [faces["walker"]["visible"] for faces in seen.values() if "walker" in faces]
    assert max(walker) == 1
    assert min(walker[10:-10]) < 0.3  # behind the host
    flash = [seconds for seconds, faces in seen.items() if "flash" in faces]
    assert 0.4 < max(flash) - min(flash) < 1


def test_a_face_of_the_next_scene_has_a_new_number(tool: types.ModuleType) -> None:
    video = tool.Video(seconds=24, size_wh=(320, 180))
    first, second = by_role(video.truth(3.0)), by_role(video.truth(15.0))
    assert first["host"]["face"] == second["host"]["face"] == 1
    assert first["walker"]["face"] != second["walker"]["face"]
    assert first["walker"]["box"] == second["walker"]["box"]
    assert {face["role"] for face in tool.Video(seconds=12, faces=1).truth(3.0)} == {"host"}


@pytest.mark.parametrize(
    ("seconds", "emotions"),
    [
        (1.0, {"host": Emotion.HAPPY}),
        (3.5, {"host": Emotion.HAPPY, "walker": Emotion.ANGRY, "visitor": Emotion.SURPRISE}),
        (5.6, {"host": Emotion.SURPRISE}),
        (8.0, {"host": Emotion.HAPPY, "walker": Emotion.HAPPY}),
        (10.2, {"host": Emotion.ANGRY}),
        (11.0, {"flash": Emotion.HAPPY}),
    ],
)
def test_faces_are_at_their_true_positions_and_are_read(
    tool: types.ModuleType, reader: Reader, seconds: float, emotions: dict[str, Emotion]
) -> None:
    video = tool.Video()
    faces = reader.read(video.draw(seconds)).faces
    truth = by_role(video.truth(seconds))
    for role, emotion in emotions.items():
        box = truth[role]["box"]
        shares = [overlap(box, face.box) for face in faces]
        best = int(np.argmax(shares))
        assert shares[best] > 0.6
        assert faces[best].emotion == emotion
    assert all(max(overlap(other["box"], face.box) for other in truth.values()) > 0.5 for face in faces)


def overlap(one: list[float], other: tuple[float, ...]) -> float:
    """Intersection over union."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def test_the_file_has_video_audio_and_ground_truth(
    tool: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    av = pytest.importorskip("av", reason="videos need PyAV, which the video extra brings")
    out = tmp_path / "video.mp4"
    tool.main(["--out", str(out), "--seconds", "2", "--size", "320x180", "--rate", "20", "--audio", "--variable"])
    assert "40 frames" in capsys.readouterr().out
    truth = json.loads(out.with_suffix(".json").read_text("utf-8"))
    assert truth["size"] == [320, 180]
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, [frame["seconds"] for frame in truth["frames"]], atol=1e-4)
    with av.open(str(out)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert 1.8 < len(samples) / 48_000 < 2.1
    assert 0.15 < np.abs(samples).max() < 0.3


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_rotated_video_is_shown_upright(tool: types.ModuleType, tmp_path: Path, degrees: int) -> None:
    av = pytest.importorskip("av", reason="videos need PyAV, which the video extra brings")
    video = tool.Video(seconds=0.2, size_wh=(320, 180), rate=10)
    out = tmp_path / "video.mp4"
    tool.make_video(out, video, rotate=degrees)
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
        shown = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    assert shown.shape == (180, 320, 3)
    assert np.abs(shown.astype(int) - video.draw(0.0)).mean() < 6
    assert (frame.rotation % 360) == degrees


def test_odd_sizes_are_refused(tool: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool.main(["--out", str(tmp_path / "video.mp4"), "--size", "321x180"])
    assert "even numbers" in capsys.readouterr().err
