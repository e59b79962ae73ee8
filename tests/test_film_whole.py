"""Films that are written appear whole or not at all, and play in a browser."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mien._errors import MienError, OutputError
from mien.stream.film import FilmWriter
from support.annotated_videos import frames_of, gray, sound_of, write_film, write_source
from support.frame_results import SIZE, moment

av = pytest.importorskip("av", reason="films need PyAV, which the video extra brings")


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., Path]:
    return lambda name, codec, **how: write_source(tmp_path / name, codec, **how)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_written_before_the_end_can_be_played(
    tmp_path: Path, make_source: Callable[..., Path], error: type[BaseException]
) -> None:
    source = make_source("a.mp4", "aac")
    out = tmp_path / "film.mp4"
    with pytest.raises(error), FilmWriter(out, source=source, size_wh=SIZE, rate=25) as writer:  # noqa: PT012
        for index in range(20):
            writer.write(gray(100), moment(index, index / 25))
        raise error
    assert len(frames_of(out)) == 20
    assert 0.6 < sound_of(out)[0][1][-1][0] < 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "film.mp4"]


def test_the_old_film_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    out.write_bytes(b"old")
    with FilmWriter(out, source=None, size_wh=SIZE, rate=25) as writer:
        writer.write(gray(100), moment(0, 0))
        assert out.read_bytes() == b"old"
    assert len(frames_of(out)) == 1


def test_without_a_frame_there_is_no_film(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", [])
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        write_film(tmp_path / "none" / "film.mp4", [0])
    with pytest.raises(OutputError, match="is a folder"):
        write_film(tmp_path, [0])
    with pytest.raises(MienError, match="at least one pixel"):
        FilmWriter(tmp_path / "film.mp4", source=None, size_wh=(0, 10), rate=25)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
def test_a_full_disk_is_one_line() -> None:
    with pytest.raises(OutputError, match=r"^/dev/full: the film cannot be written \(.*\); free space"):
        write_film(Path("/dev/full"), np.arange(400) / 25)


def test_chromium_plays_it(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    browser = shutil.which("chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="this test needs playwright")
    if browser is None:
        pytest.skip("there is no Chromium here")
    source = make_source("a.mp4", "aac")
    write_film(tmp_path / "film.mp4", np.arange(50) / 25, source=source)
    with playwright.sync_playwright() as context:
        chromium = context.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.goto((tmp_path / "film.mp4").as_uri())
        if not page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.64001f\"')"):
            pytest.skip("this Chromium has no H.264")
        page.evaluate(
            "v => new Promise(done => { v.onended = done; v.muted = true; v.play(); })", page.query_selector("video")
        )
        told = page.evaluate(
            "(v => [v.videoWidth, v.videoHeight, v.duration, v.error])(document.querySelector('video'))"
        )
        chromium.close()
    assert told == [160, 120, pytest.approx(2, abs=0.1), None]
