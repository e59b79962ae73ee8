"""Curves, times and thumbnails of tracks: bounded in size and correct at any length."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from mien.video.statistics import MAX_BINS, MAX_TRACKS, ProbabilityCurve, Thumbnails, VideoStatistics
from mien.video.timeline import areas, axis, band, clock, duration, slices, values_text
from support.frame_results import ANGRY, HAPPY, SAD, frame_result, gray_frame, tracked


def test_a_curve_keeps_means_and_gaps() -> None:
    curve = ProbabilityCurve(10.0, 2)
    for index in range(100):
        if not 40 <= index < 60:
            at = 10 + index / 20
            curve.add(at, at + 0.05, [1.0, 0.0] if index < 50 else [0.25, 0.75])
    samples = curve.samples(10)
    assert (samples.start, samples.step, len(samples.means)) == (10.0, pytest.approx(0.5), 10)
    assert samples.start + samples.step * len(samples.means) == pytest.approx(15)
    np.testing.assert_allclose(samples.means[:4], [[1, 0]] * 4)
    assert np.isnan(samples.means[4:6]).all()
    np.testing.assert_allclose(samples.means[6:], [[0.25, 0.75]] * 4)


def test_a_curve_weighs_by_time_at_any_rate() -> None:
    curve = ProbabilityCurve(0.0, 1)
    curve.add(0.0, 3.0, [1.0])  # one slow frame
    for index in range(100):
        curve.add(3 + index / 100, 3 + (index + 1) / 100, [0.0])
    assert curve.samples(1).means[0, 0] == pytest.approx(0.75)
    np.testing.assert_allclose(curve.samples(4).means[:, 0], [1, 1, 1, 0], atol=1e-9)


def test_a_curve_of_hours_stays_small_and_right() -> None:
    curve = ProbabilityCurve(5.0, 3)
    generator = np.random.default_rng(0)
    values = generator.dirichlet([1, 1, 1], 20_000)
    for index, probs in enumerate(values):
        curve.add(5 + 0.5 * index, 5.5 + 0.5 * index, probs.tolist())
    assert curve.bin_seconds == pytest.approx(0.1 * 2**6)
    samples = curve.samples(MAX_BINS)
    assert len(samples.means) <= MAX_BINS
    held = np.repeat(values, 5, axis=0)  # by tenths of a second
    per_sample = round(samples.step / 0.1)
    whole = len(held) // per_sample
    expected = held[: whole * per_sample].reshape(whole, per_sample, 3).mean(axis=1)
    np.testing.assert_allclose(samples.means[:whole], expected, atol=1e-6)
    assert curve._sums.shape[0] <= MAX_BINS
    np.testing.assert_allclose(samples.means.sum(axis=1), 1)


def test_a_curve_without_time_has_no_sample() -> None:
    curve = ProbabilityCurve(1.0, 2)
    curve.add(1.0, 1.0, [0.5, 0.5])
    assert len(curve.samples(10).means) == 0


def test_a_frame_counts_until_the_next_one() -> None:
    statistics = VideoStatistics()
    for index, (seconds, emotion) in enumerate([(0.0, HAPPY), (0.5, HAPPY), (2.0, SAD), (2.1, SAD)]):
        statistics.add(frame_result(index, seconds, tracked(emotion=emotion)))
    statistics.finish()
    (track,) = statistics
    assert track.shares == {HAPPY: pytest.approx(2.0), SAD: pytest.approx(0.2)}
    assert (track.first, track.last) == (0.0, pytest.approx(2.2))
    assert track.seconds == pytest.approx(2.2)


def test_a_pause_of_the_camera_is_not_counted_as_time_in_sight() -> None:
    statistics = VideoStatistics()
    for index, seconds in enumerate([0.0, 0.1, 500.0, 500.1]):
        statistics.add(frame_result(index, seconds, tracked()))
    statistics.finish()
    (track,) = statistics
    assert track.seconds == pytest.approx(2.3)


def test_a_crowd_passing_by_is_bounded_and_counted() -> None:
    statistics = VideoStatistics()
    for index in range(1000):
        passing = [tracked(number=2 + index // 2)]
        statistics.add(frame_result(index, index / 10, tracked(), *passing))
    statistics.finish()
    kept = list(statistics)
    assert len(kept) == MAX_TRACKS
    assert kept[0].track_id == 1
    assert statistics.count == 501
    assert statistics.merged == 501 - MAX_TRACKS
    assert sum(track.seconds for track in kept) == pytest.approx(100 + 0.2 * (MAX_TRACKS - 1), abs=0.3)


def test_a_crowd_all_at_once_is_bounded_and_counted_once() -> None:
    statistics = VideoStatistics()
    crowd = [tracked(number=i + 1) for i in range(100)]
    for index in range(30):
        assert len(statistics.add(frame_result(index, index / 10, *crowd))) == MAX_TRACKS
    assert (statistics.count, statistics.merged) == (100, 100 - MAX_TRACKS)
    assert [track.track_id for track in statistics] == list(range(1, MAX_TRACKS + 1))


def test_thumbnails_show_the_highest_probabilities() -> None:
    thumbnails = Thumbnails()
    pixels = np.zeros((120, 160, 3), np.uint8)
    for index, (emotion, probability) in enumerate(
        [(HAPPY, 0.5), (HAPPY, 0.9), (HAPPY, 0.6), (SAD, 0.7), (SAD, 0.95), (ANGRY, 0.4)]
    ):
        face = tracked((50, 40, 90, 80), emotion, probability=probability)
        thumbnails.consider(face, float(index), pixels + 40 * index)
    peaks = thumbnails.peaks(2)
    assert [(p.seconds, p.emotion, p.probability) for p in peaks] == [(1.0, HAPPY, 0.9), (4.0, SAD, 0.95)]
    with Image.open(io.BytesIO(base64.b64decode(peaks[1].uri.partition(",")[2]))) as image:
        assert image.format == "JPEG"
        assert abs(np.asarray(image).astype(int) - 160).max() < 3
    assert [p.emotion for p in thumbnails.peaks(9)] == [HAPPY, SAD, ANGRY]


def test_thumbnails_leave_out_faces_that_are_cut_missed_or_unsure() -> None:
    thumbnails = Thumbnails()
    for face in (tracked((-40, 30, 30, 100)), tracked(detected=False), tracked((500, 500, 600, 600))):
        thumbnails.consider(face, 0.0, gray_frame())
    assert thumbnails.portrait is None
    thumbnails.consider(tracked(emotion=None), 1.0, gray_frame())
    assert thumbnails.portrait is not None
    assert thumbnails.peaks(5) == []


def test_a_slow_rise_does_not_replace_the_thumbnail_in_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    import mien.video.statistics as module

    taken = []
    original = module._cut_thumbnail
    monkeypatch.setattr(module, "_cut_thumbnail", lambda *arguments: taken.append(1) or original(*arguments))
    thumbnails = Thumbnails()
    for index in range(300):
        thumbnails.consider(tracked(probability=0.5 + index / 1000), index / 30, gray_frame())
    assert len(taken) < 40
    assert thumbnails.peaks(1)[0].probability == pytest.approx(0.799, abs=0.02)


def test_areas_are_stacked_and_broken_where_the_track_is_away() -> None:
    curve = ProbabilityCurve(0.0, 3)
    curve.add(0.0, 1.0, [0.25, 0.75, 0])
    curve.add(2.0, 3.0, [0.5, 0.5, 1])
    paths = re.findall(r'<path class="e-(\w+)" d="([^"]+)"', areas(curve.samples(30), (HAPPY, SAD), 0.0, 4.0))
    assert [name for name, _ in paths] == ["sad", "happy", "sad", "happy"]
    spans = [[int(x) for x in re.findall(r"[ML ](\d+) \d+", path)] for _, path in paths]
    assert (min(spans[0]), max(spans[0])) == (0, 500)
    assert (min(spans[2]), max(spans[2])) == (1000, 1500)
    heights = [min(int(y) for y in re.findall(r"\d+ (\d+)", path)) for _, path in paths]
    assert heights == [0, 150, 0, 100]


def test_bands_show_the_most_probable_emotion() -> None:
    curve = ProbabilityCurve(0.0, 3)
    curve.add(0.0, 1.0, [0.75, 0.25, 0])
    curve.add(1.0, 1.5, [0.1, 0.9, 0])
    curve.add(2.5, 3.0, [0.4, 0.6, 1])
    curve.add(3.0, 4.0, [0.1, 0.9, 0])
    rects = re.findall(r'class="e-(\w+)" x="(\d+)" width="(\d+)"', band(curve.samples(40), (HAPPY, SAD), 0.0, 4.0))
    assert rects == [("happy", "0", "500"), ("sad", "500", "250"), ("unsure", "1250", "250"), ("sad", "1500", "500")]


@pytest.mark.parametrize(
    ("span", "first", "last"),
    [
        ((0, 12), "0:00", "0:12"),
        ((0, 0.5), "0:00.0", "0:00.5"),
        ((0, 7200), "0:00", "2:00:00"),
        ((61, 66), "1:01", "1:06"),
    ],
)
def test_axes_have_round_times(span: tuple[float, float], first: str, last: str) -> None:
    texts = re.findall(r"<i>([^<]+)</i>", axis(*span))
    assert 3 <= len(texts) <= 8
    assert (texts[0], texts[-1]) == (first, last)


def test_formats_of_times_and_values() -> None:
    assert [clock(s) for s in (0, 4.24, 59.96, 61, 3661, -1)] == [
        "0:00.0",
        "0:04.2",
        "1:00.0",
        "1:01.0",
        "1:01:01",
        "0:00.0",
    ]
    assert [duration(s) for s in (0.44, 12.3, 59.7, 200, 3723)] == [
        "0.4 s",
        "12 s",
        "1:00 min",
        "3:20 min",
        "1:02:03 h",
    ]
    assert values_text((HAPPY, SAD, ANGRY), np.array([0.05, 0.8, 0.15, 0])) == "sad 80 %, angry 15 %"
    assert values_text((HAPPY, SAD), np.array([0.999, 0.001, 0])) == "happy > 99 %"


def test_the_readout_has_every_sample() -> None:
    curve = ProbabilityCurve(0.0, 3)
    curve.add(0.0, 1.0, [0.75, 0.25, 0])
    curve.add(2.0, 3.0, [0.25, 0.75, 1])
    texts = re.findall(r"<b>([\d:.]+)</b> ([^<]+)<", slices(curve.samples(3), (HAPPY, SAD), "at-1", 0.0, 3.0))
    assert texts == [("0:00.5", "happy 75 %, sad 25 %"), ("0:01.5", "away"), ("0:02.5", "unsure: sad 75 %, happy 25 %")]
