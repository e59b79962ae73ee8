"""The audio of written videos: copied if possible, in sync; broken audio does not stop a video."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="videos need PyAV, which the video extra brings")

from mien.video import open_source
from support.annotated_videos import audio_of, frames_of, write_annotated, write_source_video


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., Path]:
    return lambda name, codec, **how: write_source_video(tmp_path / name, codec, **how)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.avi", "libmp3lame")])
def test_audio_is_copied_byte_for_byte(tmp_path: Path, make_source: Callable[..., Path], name: str, codec: str) -> None:
    source = make_source(name, codec)
    writer = write_annotated(tmp_path / "video.mp4", np.arange(50) / 25, source=source)
    (before, old), (after, new) = audio_of(source)[0], audio_of(tmp_path / "video.mp4")[0]
    assert before == after
    assert [data for _, data in new] == [data for _, data in old]
    np.testing.assert_allclose([t for t, _ in new], [t for t, _ in old], atol=2e-3)
    assert len(new) > 50
    assert writer.note is None


def test_audio_of_a_broadcast_loses_only_its_headers(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    source = make_source("a.ts", "aac")
    write_annotated(tmp_path / "video.mp4", np.arange(50) / 25, source=source)
    old, new = audio_of(source)[0][1], audio_of(tmp_path / "video.mp4")[0][1]
    assert [data for _, data in new] == [data[7:] for _, data in old]  # 7 bytes: the header of ADTS


def test_audio_that_mp4_players_lack_becomes_aac(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    source = make_source("a.mov", "pcm_s16le")
    writer = write_annotated(tmp_path / "video.mp4", np.arange(50) / 25, source=source)
    codec, packets = audio_of(tmp_path / "video.mp4")[0]
    assert codec == "aac"
    assert packets[-1][0] == pytest.approx(1.96, abs=0.05)
    assert writer.note == "the sound (pcm_s16le) is re-encoded as AAC, which players of MP4 know"
    with av.open(str(tmp_path / "video.mp4")) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    frequencies = np.abs(np.fft.rfft(samples[4800:52_800]))
    assert frequencies.argmax() == pytest.approx(440, abs=2)


@pytest.mark.parametrize(("rate", "becomes"), [(8_000, "aac"), (11_025, "aac"), (16_000, "mp3")])
def test_mp3_of_a_rate_that_mp4_does_not_hold_becomes_aac(
    tmp_path: Path, make_source: Callable[..., Path], rate: int, becomes: str
) -> None:
    source = make_source("a.avi", "libmp3lame", rate=rate)
    write_annotated(tmp_path / "video.mp4", np.arange(50) / 25, source=source)
    assert audio_of(tmp_path / "video.mp4")[0][0] == becomes


def test_every_audio_stream_is_copied(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    source = make_source("a.mkv", "aac", tones=2)
    write_annotated(tmp_path / "video.mp4", np.arange(50) / 25, source=source)
    old, new = audio_of(source), audio_of(tmp_path / "video.mp4")
    assert [[data for _, data in packets] for _, packets in new] == [[d for _, d in packets] for _, packets in old]
    assert len(new) == 2


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_audio_may_end_before_or_after_the_video(
    tmp_path: Path, make_source: Callable[..., Path], seconds: float
) -> None:
    source = make_source("a.mp4", "aac", seconds=seconds)
    write_annotated(tmp_path / "video.mp4", np.arange(50) / 25, source=source)
    assert [d for _, d in audio_of(tmp_path / "video.mp4")[0][1]] == [d for _, d in audio_of(source)[0][1]]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_the_audio_of_a_shortened_video_is_shortened(
    tmp_path: Path, make_source: Callable[..., Path], name: str
) -> None:
    source = make_source(name, "aac")
    write_annotated(tmp_path / "video.mp4", np.arange(20) / 25, source=source)
    times = [seconds for seconds, _ in audio_of(tmp_path / "video.mp4")[0][1]]
    assert 0.65 < times[-1] < 0.8


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_sound_before_the_first_frame_is_kept_in_sync(
    tmp_path: Path, make_source: Callable[..., Path], name: str
) -> None:
    source, out = make_source(name, "aac", video_start=1.0), tmp_path / "video.mp4"
    with open_source(source) as frames:
        seconds = [frame.seconds for frame in frames]
    write_annotated(out, seconds, source=source)
    with av.open(str(source)) as container:
        zero = container.start_time / 1e6
        wanted = [frame.time - zero for frame in container.decode(video=0)]
    assert wanted[0] == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose([seconds, [at for at, _ in frames_of(out)]], [wanted] * 2, atol=2e-3)
    old, new = audio_of(source)[0][1], audio_of(out)[0][1]
    header = 7 if name == "a.ts" else 0  # of ADTS
    assert [data for _, data in new] == [data[header:] for _, data in old]
    np.testing.assert_allclose([at for at, _ in new], [at - zero for at, _ in old], atol=2e-3)


def test_a_video_without_audio_and_a_missing_source(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    silent = make_source("a.mp4", None)
    assert write_annotated(tmp_path / "one.mp4", [0, 0.04], source=silent).note is None
    gone = write_annotated(tmp_path / "two.mp4", [0, 0.04], source=tmp_path / "gone.mp4")
    assert "the sound of" in str(gone.note)
    assert len(frames_of(tmp_path / "two.mp4")) == 2


def test_broken_audio_does_not_stop_the_video(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    source = make_source("a.ts", "aac")
    data = bytearray(source.read_bytes())
    generator = np.random.default_rng(0)
    for place in generator.integers(2000, len(data), 300):
        data[place] ^= 255
    source.write_bytes(data)
    write_annotated(tmp_path / "video.mp4", np.arange(50) / 25, source=source)
    assert len(frames_of(tmp_path / "video.mp4")) == 50
    assert audio_of(tmp_path / "video.mp4")[0][0] == "aac"
