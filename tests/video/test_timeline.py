"""The HTML timeline of a video: its tracks, accessibility, and bounded size."""

import base64
import io
import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from mien._emotions import SEVEN
from mien._errors import OutputError
from mien.video.timeline import Timeline
from support.frame_results import ANGRY, HAPPY, SAD, frame_result, gray_frame, tracked
from support.paths import PICTURES


def filled(seconds: float = 4.0, *, rate: float = 20, title: str = "video.mp4") -> Timeline:
    """Track 1 is happy, then sad; track 2 is angry in the second and fourth quarter; track 3 lasts half a second."""
    timeline = Timeline(title=title, facts={"model": "mien-0 <int8>"})
    count = round(seconds * rate)
    for index in range(count):
        part = index / count
        faces = [tracked(emotion=HAPPY if part < 0.5 else SAD, probability=0.5 + 0.4 * (part % 0.5))]
        if 0.25 <= part < 0.5 or part >= 0.75:
            faces.append(tracked((100, 10, 150, 60), ANGRY, number=2))
        if 0.3 <= part < 0.3 + 0.5 / seconds:
            faces.append(tracked((0, 60, 40, 100), None, number=3, probability=0.3))
        timeline.add(frame_result(index, index / rate, *faces), gray_frame(60 + index % 100))
    return timeline


def page_of(timeline: Timeline, tmp_path: Path, **settings: bool) -> str:
    timeline.write(tmp_path / "page.html", **settings)
    return (tmp_path / "page.html").read_text("utf-8")


def article(page: str, number: int) -> str:
    found = re.search(rf'<article [^>]*id="track-{number}".*?</article>', page, re.DOTALL)
    assert found is not None
    return found[0]


def test_the_page_shows_times_and_emotions_of_each_track(tmp_path: Path) -> None:
    page = page_of(filled(), tmp_path)
    assert "<dt>tracks</dt><dd>3</dd>" in page
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
    assert second.count("<path") == 2 * len(SEVEN)  # two parts with a gap between them
    assert ">away<" in second
    assert len(re.findall(r'<li class="e-\w+"><figure><img', first)) == 2
    assert 'id="track-3"' not in page
    assert "1 track in sight for less than a second" in page
    assert "unsure throughout" in page


def test_thumbnails_on_the_page_are_jpeg_files(tmp_path: Path) -> None:
    page = page_of(filled(), tmp_path)
    images = [base64.b64decode(data) for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)]
    assert len(images) >= 5
    for data in images:
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
    """Collects the elements that are still open, and the ids."""

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


def test_a_video_without_faces_and_without_frames(tmp_path: Path) -> None:
    empty = Timeline(title="nothing")
    assert "No face was found" in page_of(empty, tmp_path)
    for index in range(5):
        empty.add(frame_result(index, index / 10), gray_frame())
    page = page_of(empty, tmp_path)
    assert "No face was found" in page
    assert "<dt>frames</dt><dd>5</dd>" in page


def test_a_single_frame(tmp_path: Path) -> None:
    timeline = Timeline(title="one")
    timeline.add(frame_result(0, 0.0, tracked()), gray_frame())
    assert "1 track in sight for less than a second" in page_of(timeline, tmp_path)


def test_an_interrupted_page_says_so(tmp_path: Path) -> None:
    assert "Interrupted" in page_of(filled(), tmp_path, partial=True)
    assert "Interrupted" not in page_of(filled(), tmp_path)


def test_a_brief_track_in_a_long_video_has_its_own_axis(tmp_path: Path) -> None:
    timeline = Timeline(title="long")
    for index in range(600):
        faces = [tracked()] + ([tracked((100, 10, 150, 60), SAD, number=2)] if 300 <= index < 320 else [])
        timeline.add(frame_result(index, index / 10, *faces), gray_frame())
    page = page_of(timeline, tmp_path)
    assert "only the part of the video" in article(page, 2)
    assert "only the part of the video" not in article(page, 1)
    assert re.findall(r"<i>(0:[\d.]+)</i>", article(page, 2))[0] == "0:30.0"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        filled().write(tmp_path / "none" / "page.html")
    with pytest.raises(OutputError, match="is a folder"):
        filled().write(tmp_path)


def test_size_and_memory_do_not_grow_with_the_video(tmp_path: Path) -> None:
    import tracemalloc

    sizes = {}
    tracemalloc.start()
    for count in (500, 2000):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        timeline = Timeline(title="long")
        for index in range(count):
            timeline.add(frame_result(index, index * 0.5, tracked(number=1 + index // 100)), gray_frame())
        sizes[count] = (len(page_of(timeline, tmp_path)), tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    assert sizes[2000][0] < 1.1 * (20 / 5) * sizes[500][0]  # four times as many tracks
    assert sizes[2000][1] < 12.5e6


def test_the_readout_works_by_pointer_and_keyboard_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="this test needs playwright")
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no Chromium here")
    filled().write(tmp_path / "page.html")
    with playwright.sync_playwright() as context:
        chromium = context.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": 390, "height": 800})
        messages: list[str] = []
        page.on("console", lambda message: messages.append(message.text))
        page.goto((tmp_path / "page.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        curve = page.locator("#track-1 .slices")
        curve.scroll_into_view_if_needed()
        area = curve.bounding_box()
        page.mouse.move(area["x"] + 0.25 * area["width"], area["y"] + 0.5 * area["height"])
        shown = page.locator("#track-1 .slices span:visible")
        assert re.fullmatch(r"0:01\.\d happy \d\d %", " ".join(shown.all_inner_texts()))
        page.mouse.move(0, 0)
        curve.locator("input").first.focus()
        for _ in range(60):
            page.keyboard.press("ArrowRight")
        assert re.fullmatch(r"0:0[23]\.\d sad \d\d %.*", " ".join(shown.all_inner_texts()))
        chromium.close()
    assert messages == []


@pytest.mark.skipif(not PICTURES.is_dir(), reason=f"the test videos are not here ({PICTURES})")
def test_a_real_video_has_one_track(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos need PyAV, which the video extra brings")
    from mien import Reader
    from mien.video import Tracker
    from mien.video.sources import open_source

    tracker, timeline = Tracker(Reader()), Timeline(title="film-1")
    with open_source(PICTURES / "film-1.mp4") as frames:
        for frame in itertools.islice(frames, 60):
            timeline.add(tracker.step(frame.pixels, frame.seconds), frame.pixels)
    page = page_of(timeline, tmp_path)
    assert "seen from 0:00." in page
    assert page.count("<article") >= 1
