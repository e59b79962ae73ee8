"""The audio of written videos: copied if possible, in sync, and never an obstacle."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="films need PyAV, which the video extra brings")

from support.annotated_videos import frames_of, sound_of, write_film, write_source


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., Path]:
    return lambda name, codec, **how: write_source(tmp_path / name, codec, **how)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.avi", "libmp3lame")])
def test_sound_is_copied_byte_for_byte(tmp_path: Path, make_source: Callable[..., Path], name: str, codec: str) -> None:
    source = make_source(name, codec)
    writer = write_film(tmp_path / "film.mp4", np.arange(50) / 25, source=source)
    (before, old), (after, new) = sound_of(source)[0], sound_of(tmp_path / "film.mp4")[0]
    assert before == after
    assert [data for _, data in new] == [data for _, data in old]
    np.testing.assert_allclose([t for t, _ in new], [t for t, _ in old], atol=2e-3)
    assert len(new) > 50
    assert writer.note is None


def test_sound_of_a_broadcast_loses_only_its_wrapping(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    source = make_source("a.ts", "aac")
    write_film(tmp_path / "film.mp4", np.arange(50) / 25, source=source)
    old, new = sound_of(source)[0][1], sound_of(tmp_path / "film.mp4")[0][1]
    assert [data for _, data in new] == [data[7:] for _, data in old]  # 7 bytes: the header of ADTS


def test_sound_that_mp4_players_do_not_know_becomes_aac(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    source = make_source("a.mov", "pcm_s16le")
    writer = write_film(tmp_path / "film.mp4", np.arange(50) / 25, source=source)
    codec, packets = sound_of(tmp_path / "film.mp4")[0]
    assert codec == "aac"
    assert packets[-1][0] == pytest.approx(1.96, abs=0.05)
    assert writer.note == "the sound (pcm_s16le) is re-encoded as AAC, which players of MP4 know"
    with av.open(str(tmp_path / "film.mp4")) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    frequencies = np.abs(np.fft.rfft(sound[4800:52_800]))
    assert frequencies.argmax() == pytest.approx(440, abs=2)


def test_every_stream_of_sound_is_kept(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    source = make_source("a.mkv", "aac", tones=2)
    write_film(tmp_path / "film.mp4", np.arange(50) / 25, source=source)
    old, new = sound_of(source), sound_of(tmp_path / "film.mp4")
    assert [[data for _, data in packets] for _, packets in new] == [[d for _, d in packets] for _, packets in old]
    assert len(new) == 2


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_sound_may_end_before_or_after_the_pictures(
    tmp_path: Path, make_source: Callable[..., Path], seconds: float
) -> None:
    source = make_source("a.mp4", "aac", seconds=seconds)
    write_film(tmp_path / "film.mp4", np.arange(50) / 25, source=source)
    assert [d for _, d in sound_of(tmp_path / "film.mp4")[0][1]] == [d for _, d in sound_of(source)[0][1]]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_the_sound_of_a_film_that_is_cut_short_is_cut_too(
    tmp_path: Path, make_source: Callable[..., Path], name: str
) -> None:
    source = make_source(name, "aac")
    write_film(tmp_path / "film.mp4", np.arange(20) / 25, source=source)
    times = [seconds for seconds, _ in sound_of(tmp_path / "film.mp4")[0][1]]
    assert 0.65 < times[-1] < 0.8


def test_sound_keeps_its_place_beside_pictures_that_start_late(
    tmp_path: Path, make_source: Callable[..., Path]
) -> None:
    source = make_source("a.mkv", "aac", picture_start=1.0)
    write_film(tmp_path / "film.mp4", np.arange(50) / 25, source=source)
    old = {data: seconds for seconds, data in sound_of(source)[0][1]}
    new = sound_of(tmp_path / "film.mp4")[0][1]
    assert len(new) > 40
    assert all(seconds == pytest.approx(old[data] - 1.0, abs=2e-3) for seconds, data in new)


def test_a_film_without_sound_and_a_source_that_is_gone(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    silent = make_source("a.mp4", None)
    assert write_film(tmp_path / "one.mp4", [0, 0.04], source=silent).note is None
    gone = write_film(tmp_path / "two.mp4", [0, 0.04], source=tmp_path / "gone.mp4")
    assert "the sound of" in str(gone.note)
    assert len(frames_of(tmp_path / "two.mp4")) == 2


def test_broken_sound_does_not_stop_the_film(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    source = make_source("a.ts", "aac")
    data = bytearray(source.read_bytes())
    generator = np.random.default_rng(0)
    for place in generator.integers(2000, len(data), 300):
        data[place] ^= 255
    source.write_bytes(data)
    write_film(tmp_path / "film.mp4", np.arange(50) / 25, source=source)
    assert len(frames_of(tmp_path / "film.mp4")) == 50
    assert sound_of(tmp_path / "film.mp4")[0][0] == "aac"
