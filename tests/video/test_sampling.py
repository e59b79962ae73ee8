"""Frames that are sampled by rate, start and end: the same pixels as those of the whole video, with less decoding."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mien.video.sources
from mien import MienError, SourceError
from mien.video import open_source

av = pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

COUNT, RATE = 100, 20
WAYS: list[dict[str, float]] = [
    {"fps": 1},
    {"fps": 3, "start": 1.13, "end": 4},
    {"start": 2.5, "end": 3},
    {"fps": 50},
    {"start": 0.45},
]


@pytest.fixture(scope="module", params=["mp4", "mkv", "avi", "ts", "open.mp4", "open.mkv"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of a moving pattern, with a key frame each half second and frames that refer to later ones.

    In "open" ones, frames that are shown before a key frame refer to the frames on both sides of it.
    """
    path = tmp_path_factory.mktemp("sampling") / f"a.{request.param}"
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if request.param == "open.mkv" else "libx264", RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"g": "10", "bf": "2"}
        if request.param != "open.mkv":
            stream.options |= {"sc_threshold": "0", "x264-params": f"open-gop={int(request.param == 'open.mp4')}"}
        for index in range(COUNT):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, index, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def expected(frames: list[tuple[float, Any]], way: dict[str, float]) -> Iterator[tuple[float, Any]]:
    """The first frame at or after each sampled time."""
    time = start = way.get("start", 0)
    for seconds, pixels in frames:
        if seconds >= way.get("end", 99) - 1e-4:
            return
        if seconds >= time - 1e-4:
            yield seconds, pixels
            if "fps" in way:
                time = start + (int((seconds - start + 1e-4) * way["fps"]) + 1) / way["fps"]


def delivered(source: Path, **way: float) -> list[tuple[float, Any]]:
    with open_source(source, **way) as frames:
        return [(frame.seconds, frame.pixels) for frame in frames]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_sampled_frames_are_those_of_the_whole_video(video: Path, way: dict[str, float]) -> None:
    found, wanted = delivered(video, **way), [*expected(delivered(video), way)]
    assert [seconds for seconds, _ in found] == pytest.approx([seconds for seconds, _ in wanted])
    assert len(wanted) >= 5
    assert all((one == other).all() for (_, one), (_, other) in zip(found, wanted, strict=True))


@pytest.mark.parametrize("longest", [0, 3, 25])
def test_a_video_of_few_key_frames_is_sampled_without_holding_it(
    video: Path, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mien.video.sources, "_LONGEST_GROUP", longest)
    way = {"fps": 3.0, "start": 0.7}
    found, wanted = delivered(video, **way), [*expected(delivered(video), way)]
    assert [seconds for seconds, _ in found] == pytest.approx([seconds for seconds, _ in wanted])
    assert all((one == other).all() for (_, one), (_, other) in zip(found, wanted, strict=True))


def test_only_the_packets_that_are_needed_are_decoded(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0

    def counted() -> Iterator[Any]:
        nonlocal decoded
        for packet in packets():
            decoded += packet.size > 0
            yield packet

    with open_source(video, fps=1, start=1) as frames:
        packets = frames._packets  # type: ignore[attr-defined]
        monkeypatch.setattr(frames, "_packets", counted)
        assert len(list(frames)) == 4
    most = 60 if "open" in video.name else 12
    assert decoded <= most if video.suffix in (".mp4", ".mkv") else decoded == COUNT


def test_a_folder_reads_only_the_images_that_are_sampled(tmp_path: Path) -> None:
    for index in range(20):
        Image.new("L", (8, 8), index).save(tmp_path / f"{index}.png")
    found = delivered(tmp_path, rate=10, fps=2, start=0.5, end=1.6)
    assert [(round(seconds, 3), int(pixels[0, 0, 0])) for seconds, pixels in found] == [(0.5, 5), (1.0, 10), (1.5, 15)]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"start": 3, "end": 2}, "the end, 2 s, is not after the start, 3 s; choose a later one"),
        ({"start": -1}, r"start \(seconds\) is -1"),
    ],
)
def test_wrong_spans_are_refused(tmp_path: Path, way: dict[str, float], message: str) -> None:
    with pytest.raises(MienError, match=message):
        open_source(tmp_path, **way)


def test_a_start_behind_the_end_is_an_error(video: Path) -> None:
    with pytest.raises(
        SourceError, match=r"ends after 4\.9\d? s, before the start; choose an earlier one|ends after 5\.0 s"
    ):
        delivered(video, start=60)


@pytest.mark.parametrize("way", [{"start": 0.21, "end": 0.24}, {"start": 0.21, "end": 0.24, "fps": 5}])
def test_a_time_between_two_frames_is_named(video: Path, tmp_path: Path, way: dict[str, float]) -> None:
    for index in range(2):
        Image.new("L", (8, 8), index).save(tmp_path / f"{index}.png")
    for source, rate in ((video, 25), (tmp_path, 1)):
        with pytest.raises(SourceError, match=r": no frame between 0\.21 s and 0\.24 s; choose other times"):
            delivered(source, rate=rate, **way)


def test_a_start_behind_the_last_packet_is_no_damage(video: Path) -> None:
    with pytest.raises(SourceError, match=r"no frame between 60 s and its end|before the start"):
        delivered(video, start=60, fps=1)
