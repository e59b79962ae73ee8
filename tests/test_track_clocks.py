"""Time and sound in films whose frames are broken or whose clock starts anew."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

import av

from mien.__main__ import app
from mien.stream import open_source
from support.videos import break_packets, shades, write_film


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["track", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_sound_and_time_stay_in_place_where_the_first_frames_are_broken(tmp_path: Path) -> None:
    """What comes before the first whole frame takes its time all the same."""
    path = write_film(tmp_path / "film.mkv", shades(20), [i / 25 for i in range(20)], codec="mjpeg")
    break_packets(path, range(5))
    with open_source(path) as frames:
        given = [frame.seconds for frame in frames]
    assert given == pytest.approx([i / 25 for i in range(5, 20)], abs=2e-3)


def test_a_clock_that_starts_anew_goes_on(tmp_path: Path) -> None:
    """Recordings of broadcasts, one put behind the other: the second one's clock starts where the first one's did."""
    path = write_film(tmp_path / "film.ts", shades(40), [i / 10 for i in range(40)])
    twice = tmp_path / "twice.ts"
    twice.write_bytes(2 * path.read_bytes())
    with open_source(twice) as frames:
        given = [frame.seconds for frame in frames]
    assert len(given) == 80
    assert given == sorted(given)
    assert 7.4 <= given[-1] <= 8.0


def test_sound_goes_on_with_the_clock_that_starts_anew(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film.ts"), "w") as container:
        pictures, sound = container.add_stream("libx264", 10), container.add_stream("aac", 48000, layout="mono")
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        for number, picture in enumerate(shades(40)):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 48000, 4800 * number
            container.mux(sound.encode(tone))
        container.mux(pictures.encode())
        container.mux(sound.encode())
    twice = tmp_path / "twice.ts"
    twice.write_bytes(2 * (tmp_path / "film.ts").read_bytes())
    code, _, err = run(twice, "--video", tmp_path / "out.mp4")
    assert (code, err) == (0, "")
    with av.open(str(tmp_path / "out.mp4")) as container:
        ends = [float(stream.duration * stream.time_base) for stream in container.streams]
    assert ends == pytest.approx([8.0, 8.0], abs=0.4)
