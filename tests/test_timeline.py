"""The page of a film: curves that are right at any length, faces at their height, shares of time, safe to open."""

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from followed import SIZE, moment, tracked
from mien import Emotion
from mien._emotions import SEVEN
from mien._errors import OutputError
from mien.stream.chart import areas, axis, band, clock, duration, slices, values_text
from mien.stream.curves import MOST_BINS, Curve
from mien.stream.people import MOST_PEOPLE, People
from mien.stream.thumbnails import Thumbnails
from mien.stream.timeline import Timeline

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT.parent / "shared" / "pictures"
HAPPY, SAD, ANGRY = Emotion.HAPPY, Emotion.SAD, Emotion.ANGRY


def picture(value: int = 120) -> NDArray[np.uint8]:
    return np.full((SIZE[1], SIZE[0], 3), value, np.uint8)


def filled(seconds: float = 4.0, *, rate: float = 20, title: str = "film.mp4") -> Timeline:
    """Person 1 happy, then sad; person 2 angry in the second and fourth quarter; person 3 for a moment."""
    timeline = Timeline(title=title, facts={"model": "mien-0 <int8>"})
    count = round(seconds * rate)
    for index in range(count):
        part = index / count
        faces = [tracked(emotion=HAPPY if part < 0.5 else SAD, probability=0.5 + 0.4 * (part % 0.5))]
        if 0.25 <= part < 0.5 or part >= 0.75:
            faces.append(tracked((100, 10, 150, 60), ANGRY, number=2))
        if 0.3 <= part < 0.3 + 0.5 / seconds:
            faces.append(tracked((0, 60, 40, 100), None, number=3, probability=0.3))
        timeline.add(moment(index, index / rate, *faces), picture(60 + index % 100))
    return timeline


def page_of(timeline: Timeline, tmp_path: Path, **settings: bool) -> str:
    timeline.write(tmp_path / "page.html", **settings)
    return (tmp_path / "page.html").read_text("utf-8")


def article(page: str, number: int) -> str:
    found = re.search(rf'<article [^>]*id="person-{number}".*?</article>', page, re.DOTALL)
    assert found is not None
    return found[0]


# -- curves ------------------------------------------------------------------------------------------------------------


def test_a_curve_keeps_means_and_gaps() -> None:
    curve = Curve(10.0, 2)
    for index in range(100):
        if not 40 <= index < 60:
            at = 10 + index / 20
            curve.add(at, at + 0.05, [1.0, 0.0] if index < 50 else [0.25, 0.75])
    samples = curve.samples(10)
    assert (samples.start, samples.step, len(samples.means)) == (10.0, pytest.approx(0.5), 10)
    assert samples.end == pytest.approx(15)
    np.testing.assert_allclose(samples.means[:4], [[1, 0]] * 4)
    assert np.isnan(samples.means[4:6]).all()
    np.testing.assert_allclose(samples.means[6:], [[0.25, 0.75]] * 4)


def test_a_curve_weighs_by_time_at_any_rate() -> None:
    curve = Curve(0.0, 1)
    curve.add(0.0, 3.0, [1.0])  # one slow frame
    for index in range(100):
        curve.add(3 + index / 100, 3 + (index + 1) / 100, [0.0])
    assert curve.samples(1).means[0, 0] == pytest.approx(0.75)
    np.testing.assert_allclose(curve.samples(4).means[:, 0], [1, 1, 1, 0], atol=1e-9)


def test_a_curve_of_hours_stays_small_and_right() -> None:
    curve = Curve(5.0, 3)
    generator = np.random.default_rng(0)
    values = generator.dirichlet([1, 1, 1], 20_000)
    for index, probs in enumerate(values):
        curve.add(5 + 0.5 * index, 5.5 + 0.5 * index, probs.tolist())
    assert curve.bin_seconds == pytest.approx(0.1 * 2**6)
    samples = curve.samples(MOST_BINS)
    assert len(samples.means) <= MOST_BINS
    held = np.repeat(values, 5, axis=0)  # by tenths of a second
    per_sample = round(samples.step / 0.1)
    whole = len(held) // per_sample
    expected = held[: whole * per_sample].reshape(whole, per_sample, 3).mean(axis=1)
    np.testing.assert_allclose(samples.means[:whole], expected, atol=1e-6)
    assert curve._sums.shape[0] <= MOST_BINS
    np.testing.assert_allclose(samples.means.sum(axis=1), 1)


def test_a_curve_without_time_has_no_sample() -> None:
    curve = Curve(1.0, 2)
    curve.add(1.0, 1.0, [0.5, 0.5])
    assert len(curve.samples(10).means) == 0


# -- people ------------------------------------------------------------------------------------------------------------


def test_a_frame_stands_until_the_next_one() -> None:
    people = People()
    for index, (seconds, emotion) in enumerate([(0.0, HAPPY), (0.5, HAPPY), (2.0, SAD), (2.1, SAD)]):
        people.add(moment(index, seconds, tracked(emotion=emotion)))
    people.finish()
    (person,) = people
    assert person.shares == {HAPPY: pytest.approx(2.0), SAD: pytest.approx(0.2)}
    assert (person.first, person.last) == (0.0, pytest.approx(2.2))
    assert person.seconds == pytest.approx(2.2)


def test_a_pause_of_the_camera_is_not_counted_as_time_in_sight() -> None:
    people = People()
    for index, seconds in enumerate([0.0, 0.1, 500.0, 500.1]):
        people.add(moment(index, seconds, tracked()))
    people.finish()
    (person,) = people
    assert person.seconds == pytest.approx(2.3)


def test_a_crowd_passing_by_is_bounded_and_counted() -> None:
    people = People()
    for index in range(1000):
        passing = [tracked(number=2 + index // 2)]
        people.add(moment(index, index / 10, tracked(), *passing))
    people.finish()
    kept = list(people)
    assert len(kept) == MOST_PEOPLE
    assert kept[0].id == 1
    assert people.count == 501
    assert people.merged == 501 - MOST_PEOPLE
    assert people.merged_seconds == pytest.approx(0.2)
    assert sum(person.seconds for person in kept) == pytest.approx(100 + 0.2 * (MOST_PEOPLE - 1), abs=0.3)


def test_a_crowd_all_at_once_is_bounded_and_counted_once() -> None:
    people = People()
    crowd = [tracked(number=i + 1) for i in range(100)]
    for index in range(30):
        assert len(people.add(moment(index, index / 10, *crowd))) == MOST_PEOPLE
    assert (people.count, people.merged) == (100, 100 - MOST_PEOPLE)
    assert [person.id for person in people] == list(range(1, MOST_PEOPLE + 1))


# -- thumbnails --------------------------------------------------------------------------------------------------------


def test_thumbnails_are_the_moments_of_the_highest_probability() -> None:
    thumbnails = Thumbnails()
    pixels = np.zeros((120, 160, 3), np.uint8)
    for index, (emotion, probability) in enumerate(
        [(HAPPY, 0.5), (HAPPY, 0.9), (HAPPY, 0.6), (SAD, 0.7), (SAD, 0.95), (ANGRY, 0.4)]
    ):
        face = tracked((50, 40, 90, 80), emotion, probability=probability)
        thumbnails.consider(face, float(index), pixels + 40 * index)
    peaks = thumbnails.peaks(2)
    assert [(p.seconds, p.emotion, p.probability) for p in peaks] == [(1.0, HAPPY, 0.9), (4.0, SAD, 0.95)]
    with Image.open(io.BytesIO(peaks[1].jpeg)) as image:
        assert image.format == "JPEG"
        assert abs(np.asarray(image).astype(int) - 160).max() < 3
    assert [p.emotion for p in thumbnails.peaks(9)] == [HAPPY, SAD, ANGRY]


def test_thumbnails_leave_out_faces_that_are_cut_missed_or_unsure() -> None:
    thumbnails = Thumbnails()
    for face in (tracked((-40, 30, 30, 100)), tracked(seen=False), tracked((500, 500, 600, 600))):
        thumbnails.consider(face, 0.0, picture())
    assert thumbnails.portrait is None
    thumbnails.consider(tracked(emotion=None), 1.0, picture())
    assert thumbnails.portrait is not None
    assert thumbnails.peaks(5) == []


def test_a_slow_rise_is_not_a_picture_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    import mien.stream.thumbnails as module

    taken = []
    original = module._take
    monkeypatch.setattr(module, "_take", lambda *arguments: taken.append(1) or original(*arguments))
    thumbnails = Thumbnails()
    for index in range(300):
        thumbnails.consider(tracked(probability=0.5 + index / 1000), index / 30, picture())
    assert len(taken) < 40
    assert thumbnails.peaks(1)[0].probability == pytest.approx(0.799, abs=0.02)


# -- drawings ----------------------------------------------------------------------------------------------------------


def test_areas_are_stacked_and_broken_where_someone_is_away() -> None:
    curve = Curve(0.0, 3)
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
    curve = Curve(0.0, 3)
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


def test_times_as_people_say_them() -> None:
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


def test_the_read_out_tells_every_moment() -> None:
    curve = Curve(0.0, 3)
    curve.add(0.0, 1.0, [0.75, 0.25, 0])
    curve.add(2.0, 3.0, [0.25, 0.75, 1])
    told = re.findall(r"<b>([\d:.]+)</b> ([^<]+)<", slices(curve.samples(3), (HAPPY, SAD), "at-1", 0.0, 3.0))
    assert told == [("0:00.5", "happy 75 %, sad 25 %"), ("0:01.5", "away"), ("0:02.5", "unsure: sad 75 %, happy 25 %")]


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_tells_who_was_seen_when_and_how(tmp_path: Path) -> None:
    page = page_of(filled(), tmp_path)
    assert "<dt>people</dt><dd>3</dd>" in page
    assert "<dt>frames</dt><dd>80</dd>" in page
    assert "<dt>long</dt><dd>4.0 s</dd>" in page
    first, second = article(page, 1), article(page, 2)
    assert "seen from 0:00.0 to 0:04.0" in first
    assert re.findall(r'scope="row">(\w+)</th><td class="fill">.*?</td><td>(\d+)', first) == [
        ("happy", "50"),
        ("sad", "50"),
    ]
    assert re.findall(r'scope="row">(\w+)</th><td class="fill">.*?</td><td>(\d+)', second) == [("angry", "100")]
    assert "2.0 s in sight" in second
    assert second.count("<path") == 2 * len(SEVEN)  # two stretches with a gap between
    assert ">away<" in second
    assert len(re.findall(r'<li class="e-\w+"><figure><img', first)) == 2
    assert 'id="person-3"' not in page
    assert "1 person in sight for less than a second" in page
    assert "unsure throughout" in page


def test_thumbnails_on_the_page_are_pictures(tmp_path: Path) -> None:
    page = page_of(filled(), tmp_path)
    pictures = [base64.b64decode(data) for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)]
    assert len(pictures) >= 5
    for data in pictures:
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (160, 160)


def test_the_page_loads_nothing_runs_nothing_and_says_it_is_private(tmp_path: Path) -> None:
    evil = "<script>alert(\"1\")</script> & 'co'"
    page = page_of(filled(title=evil), tmp_path)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert "<script" not in page
    assert "mien-0 &lt;int8&gt;" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "This page shows faces" in page
    assert "$" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_the_page_is_whole_html_with_unique_ids(tmp_path: Path) -> None:
    page = page_of(filled(), tmp_path)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(checker.ids)


class Checker(HTMLParser):
    """Keeps the elements that are still open, and the ids."""

    VOID = ("meta", "img", "input", "br", "path", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"


def test_a_film_without_faces_and_without_frames(tmp_path: Path) -> None:
    empty = Timeline(title="nothing")
    assert "No face was found" in page_of(empty, tmp_path)
    for index in range(5):
        empty.add(moment(index, index / 10), picture())
    page = page_of(empty, tmp_path)
    assert "No face was found" in page
    assert "<dt>frames</dt><dd>5</dd>" in page


def test_a_single_frame(tmp_path: Path) -> None:
    timeline = Timeline(title="one")
    timeline.add(moment(0, 0.0, tracked()), picture())
    assert "1 person in sight for less than a second" in page_of(timeline, tmp_path)


def test_an_interrupted_page_says_so(tmp_path: Path) -> None:
    assert "Interrupted" in page_of(filled(), tmp_path, partial=True)
    assert "Interrupted" not in page_of(filled(), tmp_path)


def test_someone_seen_briefly_in_a_long_film_gets_an_own_axis(tmp_path: Path) -> None:
    timeline = Timeline(title="long")
    for index in range(600):
        faces = [tracked()] + ([tracked((100, 10, 150, 60), SAD, number=2)] if 300 <= index < 320 else [])
        timeline.add(moment(index, index / 10, *faces), picture())
    page = page_of(timeline, tmp_path)
    assert "only the part of the film" in article(page, 2)
    assert "only the part of the film" not in article(page, 1)
    assert re.findall(r"<i>(0:[\d.]+)</i>", article(page, 2))[0] == "0:30.0"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        filled().write(tmp_path / "none" / "page.html")
    with pytest.raises(OutputError, match="is a folder"):
        filled().write(tmp_path)


def test_size_and_memory_do_not_grow_with_the_film(tmp_path: Path) -> None:
    import tracemalloc

    sizes = {}
    tracemalloc.start()
    for count in (1000, 4000):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        timeline = Timeline(title="long")
        for index in range(count):
            timeline.add(moment(index, index * 0.5, tracked(number=1 + index // 100)), picture())
        sizes[count] = (len(page_of(timeline, tmp_path)), tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    assert sizes[4000][0] < 1.1 * (40 / 10) * sizes[1000][0]  # as many times the people
    assert sizes[4000][1] < 25e6


def test_in_a_browser_it_reads_out_by_pointer_and_keyboard(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="this test needs playwright")
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no Chromium here")
    filled().write(tmp_path / "page.html")
    with playwright.sync_playwright() as context:
        chromium = context.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": 390, "height": 800})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto((tmp_path / "page.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        curve = page.locator("#person-1 .slices")
        curve.scroll_into_view_if_needed()
        area = curve.bounding_box()
        page.mouse.move(area["x"] + 0.25 * area["width"], area["y"] + 0.5 * area["height"])
        shown = page.locator("#person-1 .slices span:visible")
        assert re.fullmatch(r"0:01\.\d happy \d\d %", " ".join(shown.all_inner_texts()))
        page.mouse.move(0, 0)
        curve.locator("input").first.focus()
        for _ in range(60):
            page.keyboard.press("ArrowRight")
        assert re.fullmatch(r"0:0[23]\.\d sad \d\d %.*", " ".join(shown.all_inner_texts()))
        chromium.close()
    assert said == []


@pytest.mark.skipif(not PICTURES.is_dir(), reason=f"the films for trials are not here ({PICTURES})")
def test_a_real_film_has_its_person(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="films need PyAV, which the video extra brings")
    from mien import Reader
    from mien.stream import Tracker
    from mien.stream.source import open_source

    tracker, timeline = Tracker(Reader()), Timeline(title="film-1")
    with open_source(PICTURES / "film-1.mp4") as frames:
        for frame in frames:
            timeline.add(tracker.step(frame.pixels, frame.seconds), frame.pixels)
    page = page_of(timeline, tmp_path)
    assert "seen from 0:00." in page
    assert page.count("<article") >= 1
