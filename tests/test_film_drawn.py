"""What is drawn into films: boxes, labels and bars that can be read."""

from pathlib import Path

import numpy as np
import pytest

from mien import Emotion
from mien._emotions import SEVEN
from mien.overlay import UNSURE_COLOR
from mien.stream.film import FilmWriter
from mien.stream.paint import Painter
from support.annotated_videos import frames_of, gray
from support.frame_results import moment, tracked
from support.paths import PICTURES

av = pytest.importorskip("av", reason="films need PyAV, which the video extra brings")


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
