"""Annotated films: every frame at its time, the sound untouched, playable whatever happens; and what is drawn."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from followed import SIZE, moment, tracked
from mien import Emotion
from mien._emotions import SEVEN
from mien._errors import MienError, OutputError
from mien.overlay import UNSURE_COLOR
from mien.stream.film import FilmWriter
from mien.stream.paint import Painter

av = pytest.importorskip("av", reason="films need PyAV, which the video extra brings")

PICTURES = Path(__file__).resolve().parent.parent.parent / "shared" / "pictures"


def gray(value: int, size_wh: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.full((size_wh[1], size_wh[0], 3), value, np.uint8)


def write_film(path: Path, times: Sequence[float], *, source: Path | None = None, **settings: Any) -> FilmWriter:
    size_wh = settings.pop("size_wh", SIZE)
    with FilmWriter(path, source=source, size_wh=size_wh, rate=settings.pop("rate", 25)) as writer:
        for index, seconds in enumerate(times):
            writer.write(gray(20 + 4 * (index % 50), size_wh), moment(index, seconds, size_wh=size_wh))
    return writer


def frames_of(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def sound_of(path: Path) -> list[tuple[str, list[tuple[float, bytes]]]]:
    """Codec and packets (time in seconds, bytes) of every stream of sound."""
    with av.open(str(path)) as container:
        streams = list(container.streams.audio)
        packets = [packet for packet in container.demux(streams) if packet.size]
        return [
            (
                stream.codec_context.codec.canonical_name,
                [(float(p.pts * p.time_base), bytes(p)) for p in packets if p.stream_index == stream.index],
            )
            for stream in streams
        ]


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a small film with pictures of 2 seconds and a tone; returns its path."""

    def make(name: str, codec: str | None, *, tones: int = 1, seconds: float = 2.0, picture_start: float = 0.0) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", 25, width=64, height=48, options={"preset": "ultrafast"})
            sounds = [container.add_stream(codec, 48_000, layout="stereo") for _ in range(tones if codec else 0)]
            writers = [tone(container, stream, 440 * (i + 1)) for i, stream in enumerate(sounds)]
            for writer in writers:
                next(writer)
            for index in range(50):
                frame = av.VideoFrame.from_ndarray(gray(5 * index, (64, 48)), "rgb24")
                frame.pts, frame.time_base = index * 40 + round(1000 * picture_start), Fraction(1, 1000)
                container.mux(video.encode(frame))
                for writer in writers:
                    writer.send(min((index + 1) / 25, seconds))
            container.mux(video.encode())
            for writer, stream in zip(writers, sounds, strict=True):
                writer.send(seconds)
                container.mux(stream.encode())
        return path

    return make


def tone(container: Any, stream: Any, hertz: float) -> Iterator[None]:
    done = 0
    while True:
        until = yield
        while done + 1024 <= until * 48_000:
            wave = 0.2 * np.sin(2 * np.pi * hertz * np.arange(done, done + 1024) / 48_000)
            frame = av.AudioFrame.from_ndarray(np.repeat(wave[None].astype(np.float32), 2, 0), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, done, Fraction(1, 48_000)
            container.mux(stream.encode(frame))
            done += 1024


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_every_frame_comes_back_at_its_time(tmp_path: Path) -> None:
    times = np.cumsum([0, 0.04, 0.02, 0.1, 0.033, 0.5, 0.001, 1.0, 0.04, 0.04]).tolist()
    write_film(tmp_path / "film.mp4", times)
    frames = frames_of(tmp_path / "film.mp4")
    np.testing.assert_allclose([seconds for seconds, _ in frames], times, atol=1e-4)
    for index, (_, pixels) in enumerate(frames):
        assert pixels.shape == (120, 160, 3)
        assert abs(pixels.astype(int) - (20 + 4 * index)).mean() < 2


def test_browsers_can_play_it_from_the_first_bytes(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", np.arange(50) / 25)
    data = (tmp_path / "film.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "film.mp4")) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert video.duration * video.time_base == pytest.approx(2, abs=0.05)


def test_colors_survive(tmp_path: Path) -> None:
    colors = [(229, 72, 77), (63, 127, 208), (242, 176, 30), (20, 160, 40)]
    with FilmWriter(tmp_path / "film.mp4", source=None, size_wh=SIZE, rate=25) as writer:
        for index, color in enumerate(colors):
            writer.write(np.broadcast_to(np.uint8(color), (120, 160, 3)), moment(index, index / 25))
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == 1  # BT.709, as players read it
        shown = [f.reformat(format="rgb24", src_colorspace="itu709").to_ndarray() for f in container.decode(video=0)]
    for color, pixels in zip(colors, shown, strict=True):
        np.testing.assert_allclose(pixels.mean(axis=(0, 1)), color, atol=4)


@pytest.mark.parametrize(("size_wh", "stored"), [((161, 121), (162, 122)), ((160, 121), (160, 122)), ((3, 5), (4, 6))])
def test_odd_sizes_get_one_more_pixel(tmp_path: Path, size_wh: tuple[int, int], stored: tuple[int, int]) -> None:
    write_film(tmp_path / "film.mp4", [0, 0.04], size_wh=size_wh)
    _, pixels = frames_of(tmp_path / "film.mp4")[0]
    assert (pixels.shape[1], pixels.shape[0]) == stored
    assert abs(pixels.astype(int) - 20).max() < 6


def test_frames_of_another_size_are_fitted_in(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "film.mp4", source=None, size_wh=SIZE, rate=25) as writer:
        writer.write(gray(200), moment(0, 0))
        writer.write(gray(200, (120, 160)), moment(1, 0.04, size_wh=(120, 160)))
    _, turned = frames_of(tmp_path / "film.mp4")[1]
    assert turned.shape == (120, 160, 3)
    assert abs(turned[:, 70:90].astype(int) - 200).mean() < 6
    assert turned[:, :25].mean() < 10
    assert turned[:, -25:].mean() < 10


def test_equal_times_and_strange_rates(tmp_path: Path) -> None:
    for rate in (0.0, float("nan"), 1e9, Fraction(30000, 1001)):
        write_film(tmp_path / "film.mp4", [0, 0, 0, 0.04], rate=rate)
        assert len(frames_of(tmp_path / "film.mp4")) == 4


def test_a_camera_counts_from_its_first_frame(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", [1000.0, 1000.04, 1000.2])
    np.testing.assert_allclose([t for t, _ in frames_of(tmp_path / "film.mp4")], [0, 0.04, 0.2], atol=1e-4)


# -- sound -------------------------------------------------------------------------------------------------------------


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
    assert writer.note == "the sound (pcm_s16le) is encoded anew as AAC, which players of MP4 know"
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


# -- ends --------------------------------------------------------------------------------------------------------------


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


# -- what is drawn -----------------------------------------------------------------------------------------------------


def rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color[1:]))


def test_a_face_gets_box_label_and_bars() -> None:
    pixels = gray(128, (640, 360))
    pixels.flags.writeable = False
    face = tracked((200, 100, 350, 250))
    drawn = Painter().paint(pixels, moment(0, 0, face, size_wh=(640, 360)))
    assert (pixels == 128).all()
    yellow = (drawn == rgb(Emotion.HAPPY.color)).all(axis=-1)
    assert yellow[175, 200]  # the left side of the box
    assert yellow[102:248, 340:352].any()  # its right side
    assert yellow[70:100, 240:320].sum() > 200  # the label above it
    bars = drawn[100:250, 360:520]
    assert (bars.mean(axis=2) < 110).mean() > 0.4  # the dark ground of the bars
    lengths = {e: (bars == rgb(e.color)).all(axis=-1).sum(axis=1).max() for e in SEVEN}
    assert lengths[Emotion.HAPPY] > 8 * lengths[Emotion.SAD] > 0


def test_unsure_and_missed_faces_look_different() -> None:
    pixels = gray(128)
    sure, unsure = tracked((40, 40, 120, 110)), tracked((40, 40, 120, 110), None)
    missed = tracked((40, 40, 120, 110), seen=False)
    images = [Painter().paint(pixels, moment(0, 0, face)) for face in (sure, unsure, missed)]
    left = [image[42:108, 40] for image in images]
    assert {tuple(color) for color in left[0].tolist()} == {rgb(Emotion.HAPPY.color)}
    assert {tuple(color) for color in left[1].tolist()} == {rgb(UNSURE_COLOR), (10, 10, 12)}
    assert abs(left[2].astype(int) - left[0]).mean() > 20


@pytest.mark.parametrize(
    "box", [(-50, -50, 20, 20), (140, 100, 300, 300), (-10, -10, 170, 130), (500, 500, 600, 600), (30, 30, 31, 30.5)]
)
def test_faces_over_the_edge_are_drawn_as_far_as_they_go(box: tuple[float, float, float, float]) -> None:
    drawn = Painter().paint(gray(90), moment(0, 0, tracked(box)))
    assert drawn.shape == (120, 160, 3)


def test_labels_of_a_crowd_do_not_cover_each_other() -> None:
    generator = np.random.default_rng(3)
    corners = generator.uniform(0, 560, (50, 2)) * [1, 0.55]
    faces = [tracked((x, y, x + 60, y + 60), number=i + 1) for i, (x, y) in enumerate(corners)]
    painter = Painter()
    for index in range(3):
        drawn = painter.paint(gray(90, (640, 360)), moment(index, index / 25, *faces, size_wh=(640, 360)))
    assert (drawn != 90).any()


def test_letters_keep_their_size_while_a_face_trembles() -> None:
    painter = Painter()
    heights = set()
    for index in range(20):
        box = (200, 150, 300 + 3 * (index % 2), 250 + 3 * (index % 2))
        drawn = painter.paint(gray(90, (640, 360)), moment(index, index / 25, tracked(box), size_wh=(640, 360)))
        heights.add(int((drawn[:150, 205] != 90).any(axis=-1).sum()))
    assert len(heights) == 1


@pytest.mark.skipif(not PICTURES.is_dir(), reason=f"the films for trials are not here ({PICTURES})")
def test_a_real_film_keeps_its_frames_and_times(tmp_path: Path) -> None:
    from mien import Reader
    from mien.stream import Tracker
    from mien.stream.source import open_source

    source, out = PICTURES / "film-1.mp4", tmp_path / "film.mp4"
    tracker, times, faces = Tracker(Reader()), [], 0
    with (
        open_source(source) as frames,
        FilmWriter(out, source=source, size_wh=(596, 336), rate=frames.rate or 25) as writer,
    ):
        for frame in frames:
            followed = tracker.step(frame.pixels, frame.seconds)
            writer.write(frame.pixels, followed)
            times.append(frame.seconds)
            faces += len(followed.faces)
    np.testing.assert_allclose([seconds for seconds, _ in frames_of(out)], times, atol=1e-4)
    assert faces > 0.9 * len(times)
