"""Written videos: frame times, colours, boxes and labels, complete files only, playable in a browser."""

import itertools
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="videos need PyAV, which the video extra brings")

from mien import Emotion
from mien._emotions import SEVEN, UNSURE_COLOR
from mien._errors import MienError, OutputError
from mien.video.video_writer import FrameAnnotator, VideoWriter
from support.annotated_videos import audio_of, frames_of, write_annotated, write_source_video
from support.frame_results import SIZE, frame_result, gray_frame, tracked
from support.paths import PICTURES


def test_every_frame_is_stored_at_its_time(tmp_path: Path) -> None:
    times = np.cumsum([0, 0.04, 0.02, 0.1, 0.033, 0.5, 0.001, 1.0, 0.04, 0.04]).tolist()
    write_annotated(tmp_path / "video.mp4", times)
    frames = frames_of(tmp_path / "video.mp4")
    np.testing.assert_allclose([seconds for seconds, _ in frames], times, atol=1e-4)
    for index, (_, pixels) in enumerate(frames):
        assert pixels.shape == (120, 160, 3)
        assert abs(pixels.astype(int) - (20 + 4 * index)).mean() < 2


def test_browsers_can_play_it_from_the_first_bytes(tmp_path: Path) -> None:
    write_annotated(tmp_path / "video.mp4", np.arange(50) / 25)
    data = (tmp_path / "video.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "video.mp4")) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert video.duration * video.time_base == pytest.approx(2, abs=0.05)


def test_colors_survive(tmp_path: Path) -> None:
    colors = [(229, 72, 77), (63, 127, 208), (242, 176, 30), (20, 160, 40)]
    with VideoWriter(tmp_path / "video.mp4", source=None, size_wh=SIZE, rate=25) as writer:
        for index, color in enumerate(colors):
            writer.write(np.broadcast_to(np.uint8(color), (120, 160, 3)), frame_result(index, index / 25))
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == 1  # BT.709, as players read it
        shown = [f.reformat(format="rgb24", src_colorspace="itu709").to_ndarray() for f in container.decode(video=0)]
    for color, pixels in zip(colors, shown, strict=True):
        np.testing.assert_allclose(pixels.mean(axis=(0, 1)), color, atol=4)


@pytest.mark.parametrize(("size_wh", "stored"), [((161, 121), (162, 122)), ((160, 121), (160, 122)), ((3, 5), (4, 6))])
def test_odd_sizes_get_one_more_pixel(tmp_path: Path, size_wh: tuple[int, int], stored: tuple[int, int]) -> None:
    write_annotated(tmp_path / "video.mp4", [0, 0.04], size_wh=size_wh)
    _, pixels = frames_of(tmp_path / "video.mp4")[0]
    assert (pixels.shape[1], pixels.shape[0]) == stored
    assert abs(pixels.astype(int) - 20).max() < 6


def test_frames_of_another_size_are_scaled_to_fit(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "video.mp4", source=None, size_wh=SIZE, rate=25) as writer:
        writer.write(gray_frame(200), frame_result(0, 0))
        writer.write(gray_frame(200, (120, 160)), frame_result(1, 0.04, size_wh=(120, 160)))
    _, turned = frames_of(tmp_path / "video.mp4")[1]
    assert turned.shape == (120, 160, 3)
    assert abs(turned[:, 70:90].astype(int) - 200).mean() < 6
    assert turned[:, :25].mean() < 10
    assert turned[:, -25:].mean() < 10


def test_equal_times_and_invalid_rates(tmp_path: Path) -> None:
    for rate in (0.0, float("nan"), 1e9, Fraction(30000, 1001)):
        write_annotated(tmp_path / "video.mp4", [0, 0, 0, 0.04], rate=rate)
        assert len(frames_of(tmp_path / "video.mp4")) == 4


def test_a_camera_counts_from_its_first_frame(tmp_path: Path) -> None:
    write_annotated(tmp_path / "video.mp4", [1000.0, 1000.04, 1000.2])
    np.testing.assert_allclose([t for t, _ in frames_of(tmp_path / "video.mp4")], [0, 0.04, 0.2], atol=1e-4)


def rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color[1:]))


def test_a_face_gets_box_label_and_bars() -> None:
    pixels = gray_frame(128, (640, 360))
    pixels.flags.writeable = False
    face = tracked((200, 100, 350, 250))
    drawn = FrameAnnotator().annotate(pixels, frame_result(0, 0, face, size_wh=(640, 360)))
    assert (pixels == 128).all()
    yellow = (drawn == rgb(Emotion.HAPPY.color)).all(axis=-1)
    assert yellow[175, 200]  # the left side of the box
    assert yellow[102:248, 340:352].any()  # its right side
    assert yellow[70:100, 240:320].sum() > 200  # the label above it
    bars = drawn[100:250, 360:520]
    assert (bars.mean(axis=2) < 110).mean() > 0.4  # the dark background of the bars
    lengths = {e: (bars == rgb(e.color)).all(axis=-1).sum(axis=1).max() for e in SEVEN}
    assert lengths[Emotion.HAPPY] > 8 * lengths[Emotion.SAD] > 0


def test_unsure_and_missed_faces_look_different() -> None:
    pixels = gray_frame(128)
    sure, unsure = tracked((40, 40, 120, 110)), tracked((40, 40, 120, 110), None)
    missed = tracked((40, 40, 120, 110), detected=False)
    images = [FrameAnnotator().annotate(pixels, frame_result(0, 0, face)) for face in (sure, unsure, missed)]
    left = [image[42:108, 40] for image in images]
    assert {tuple(color) for color in left[0].tolist()} == {rgb(Emotion.HAPPY.color)}
    assert {tuple(color) for color in left[1].tolist()} == {rgb(UNSURE_COLOR), (10, 10, 12)}
    assert abs(left[2].astype(int) - left[0]).mean() > 20


@pytest.mark.parametrize(
    "box", [(-50, -50, 20, 20), (140, 100, 300, 300), (-10, -10, 170, 130), (500, 500, 600, 600), (30, 30, 31, 30.5)]
)
def test_faces_over_the_edge_are_clipped(box: tuple[float, float, float, float]) -> None:
    drawn = FrameAnnotator().annotate(gray_frame(90), frame_result(0, 0, tracked(box)))
    assert drawn.shape == (120, 160, 3)


def test_labels_of_a_crowd_do_not_cover_each_other() -> None:
    generator = np.random.default_rng(3)
    corners = generator.uniform(0, 560, (50, 2)) * [1, 0.55]
    faces = [tracked((x, y, x + 60, y + 60), number=i + 1) for i, (x, y) in enumerate(corners)]
    annotator = FrameAnnotator()
    for index in range(3):
        drawn = annotator.annotate(
            gray_frame(90, (640, 360)), frame_result(index, index / 25, *faces, size_wh=(640, 360))
        )
    assert (drawn != 90).any()


def test_font_sizes_do_not_follow_the_jitter_of_a_box() -> None:
    annotator = FrameAnnotator()
    heights = set()
    for index in range(20):
        box = (200, 150, 300 + 3 * (index % 2), 250 + 3 * (index % 2))
        drawn = annotator.annotate(
            gray_frame(90, (640, 360)), frame_result(index, index / 25, tracked(box), size_wh=(640, 360))
        )
        heights.add(int((drawn[:150, 205] != 90).any(axis=-1).sum()))
    assert len(heights) == 1


@pytest.mark.skipif(not PICTURES.is_dir(), reason=f"the test videos are not here ({PICTURES})")
def test_a_real_video_keeps_its_frames_and_times(tmp_path: Path) -> None:
    from mien import Reader
    from mien.video import Tracker
    from mien.video.sources import open_source

    source, out = PICTURES / "film-1.mp4", tmp_path / "video.mp4"
    tracker, times, faces = Tracker(Reader()), [], 0
    with (
        open_source(source) as frames,
        VideoWriter(out, source=source, size_wh=(596, 336), rate=frames.rate or 25) as writer,
    ):
        for frame in itertools.islice(frames, 60):
            result = tracker.step(frame.pixels, frame.seconds)
            writer.write(frame.pixels, result)
            times.append(frame.seconds)
            faces += len(result.faces)
    np.testing.assert_allclose([seconds for seconds, _ in frames_of(out)], times, atol=1e-4)
    assert faces > 0.9 * len(times)


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., Path]:
    return lambda name, codec, **how: write_source_video(tmp_path / name, codec, **how)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_frames_written_before_an_error_can_be_played(
    tmp_path: Path, make_source: Callable[..., Path], error: type[BaseException]
) -> None:
    source = make_source("a.mp4", "aac")
    out = tmp_path / "video.mp4"
    with pytest.raises(error), VideoWriter(out, source=source, size_wh=SIZE, rate=25) as writer:  # noqa: PT012
        for index in range(20):
            writer.write(gray_frame(100), frame_result(index, index / 25))
        raise error
    assert len(frames_of(out)) == 20
    assert 0.6 < audio_of(out)[0][1][-1][0] < 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "video.mp4"]


def test_the_old_video_remains_until_the_new_one_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "video.mp4"
    out.write_bytes(b"old")
    with VideoWriter(out, source=None, size_wh=SIZE, rate=25) as writer:
        writer.write(gray_frame(100), frame_result(0, 0))
        assert out.read_bytes() == b"old"
    assert len(frames_of(out)) == 1


def test_without_a_frame_there_is_no_video(tmp_path: Path) -> None:
    write_annotated(tmp_path / "video.mp4", [])
    assert list(tmp_path.iterdir()) == []


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        write_annotated(tmp_path / "none" / "video.mp4", [0])
    with pytest.raises(OutputError, match="is a folder"):
        write_annotated(tmp_path, [0])
    with pytest.raises(MienError, match="at least one pixel"):
        VideoWriter(tmp_path / "video.mp4", source=None, size_wh=(0, 10), rate=25)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
def test_a_full_disk_is_an_error_in_one_line() -> None:
    with pytest.raises(OutputError, match=r"^/dev/full: the video cannot be written \(.*\); free space"):
        write_annotated(Path("/dev/full"), np.arange(400) / 25)


def test_chromium_plays_it(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    browser = shutil.which("chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="this test needs playwright")
    if browser is None:
        pytest.skip("there is no Chromium here")
    source = make_source("a.mp4", "aac")
    write_annotated(tmp_path / "video.mp4", np.arange(50) / 25, source=source)
    with playwright.sync_playwright() as context:
        chromium = context.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.goto((tmp_path / "video.mp4").as_uri())
        if not page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.64001f\"')"):
            pytest.skip("this Chromium has no H.264")
        page.evaluate(
            "v => new Promise(done => Object.assign(v, { onended: done, muted: true, playbackRate: 4 }).play())",
            page.query_selector("video"),
        )
        properties = page.evaluate(
            "(v => [v.videoWidth, v.videoHeight, v.duration, v.error])(document.querySelector('video'))"
        )
        chromium.close()
    assert properties == [160, 120, pytest.approx(2, abs=0.1), None]
