"""The layout of the pages, measured in Chromium at the widths of a phone and a laptop, light and dark.

Those that need no torch are measured in each run, the reports of the lab in `make release-check`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mien
from mien.report.maps import MAP_PAGE, MapReport
from mien.video.timeline import Timeline
from support.browser import chromium, playing
from support.frame_results import ANGRY, FEAR, HAPPY, SAD, frame_result, gray_frame, tracked
from support.layout import problems_of_file
from support.paths import ROOT

ASTRONAUT = ROOT / "examples" / "astronaut.png"
BROKEN = """<!doctype html><html style="font: 16px sans-serif"><body style="background: rgb(20, 20, 22); color: #fff">
<p style="width: 2000px">A line that is wider than every screen</p>
<svg aria-label="drawing" width="300" height="100"><rect width="300" height="20" fill="gray"/>
<text x="10" y="50" fill="#fff" font-size="6">tiny</text>
<text x="10" y="80" fill="#fff" font-size="14">label A of a tick</text>
<text x="40" y="82" fill="#fff" font-size="14">label B</text>
<text x="180" y="50" fill="#111" font-size="14">black on black</text>
<text x="270" y="95" fill="#fff" font-size="14">too far</text></svg>
<svg aria-label="nothing" width="300" height="100"><text y="50" fill="#fff">only words</text></svg>
<img src="elsewhere.png" alt="missing"><canvas role="img" aria-label="blank" width="20" height="20"></canvas>
<details><summary>folded</summary>
<div class="axis"><span>0 s</span><span style="margin-left: -20px">10 s</span></div></details>
</body></html>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playing() as player, chromium(player) as opened:
        yield opened


def test_the_measurement_sees_what_is_broken(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.html").write_text(BROKEN)
    found = "\n".join(problems_of_file(browser, tmp_path / "broken.html"))
    for problem in (
        "390 pixels, light: the page is 20",
        "1280 pixels, dark: the page is 20",
        ": letters of 6.0 pixels: tiny",
        ": one label is over another: label A of a tick / label B",
        ": one label is over another: 0 s / 10 s",
        ": letters that are hardly seen: black on black",
        ": a label is cut off: too far",
        ": an empty plot: nothing",
        ": an empty plot: blank",
        ": an image that is not shown: missing",
        "console: Failed to load resource",
        "loads file:///",
    ):
        assert problem in found
    assert "drawing" not in found


def test_the_measurement_sees_an_empty_plot_and_close_ticks(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the lab is not installed")
    from mien.lab.html import ACCENT, new_plot, page, plot, section

    (empty, _), (full, axis) = new_plot(), new_plot()
    axis.plot([0, 1], [0, 1], color=ACCENT, label="drawn")
    axis.legend()
    axis.set_xticks([0, 0.01, 1], ["one tick", "its neighbour", "far"])
    plots = plot(empty, alt="without data") + plot(full, alt="with data")
    (tmp_path / "plots.html").write_text(page("Plots", [section("Two", plots)], lead="", provenance={}))
    found = {problem.partition(": ")[2] for problem in problems_of_file(browser, tmp_path / "plots.html")}
    assert found == {"an empty plot: without data", "one label is over another: one tick / its neighbour"}


def crowd() -> NDArray[np.uint8]:
    """Twenty small faces in two rows."""
    pixels = mien.Reader(detector="none").read(ASTRONAUT, keep_pixels=True).pixels
    assert pixels is not None
    image = np.full((216, 1048, 3), 96, np.uint8)
    for index in range(20):
        y, x = 8 + 104 * (index // 10), 8 + 104 * (index % 10)
        image[y : y + 96, x : x + 96] = pixels[4:196:2, 128:320:2]
    return image


def write_images(folder: Path) -> Path:
    """The page of `mien predict`: one face, a crowd, an image without faces, a broken one."""
    (folder / "broken.png").write_bytes(b"no image")
    reader = mien.Reader(abstain="card")
    images = [ASTRONAUT, crowd(), np.zeros((90, 120, 3), np.uint8), folder / "broken.png"]
    with mien.Html(folder / "images.html", title="What mien read", model=reader.describe()) as page:
        for reading in reader.read_many(images, keep_pixels=True):
            page.add(reading)
    return folder / "images.html"


def write_maps(folder: Path) -> Path:
    """The page of `mien explain` for images."""
    reader = mien.Reader()
    with MapReport(folder, about=reader.describe()) as report:
        for image in (ASTRONAUT, crowd()):
            report.add(reader.read(image, keep_pixels=True))
    return folder / MAP_PAGE


def write_timeline(folder: Path) -> Path:
    """The page of `mien track`: half a minute of two people, and six more who pass by."""
    timeline = Timeline(title="faces in a video of a long name, taken on the first day.mp4", facts={"model": "mien-1"})
    for index in range(300):
        part = index / 300
        emotion = HAPPY if part < 0.5 else SAD if part < 0.53 else ANGRY if part < 0.56 else FEAR  # peaks side by side
        faces = [tracked(emotion=emotion, probability=0.9 - abs(part - 0.5))]
        if 0.25 <= part < 0.5 or part >= 0.75:
            faces.append(tracked((100, 10, 150, 60), ANGRY, number=2))
        passing = [number for number in range(3, 9) if number / 10 <= part < number / 10 + 0.02]
        faces += [tracked((0, 60, 40, 100), None, number=number, probability=0.3) for number in passing]
        timeline.add(frame_result(index, index / 10, *faces), gray_frame(60 + index % 100))
    timeline.write(folder / "timeline.html")
    return folder / "timeline.html"


@pytest.mark.parametrize("write", [write_images, write_maps, write_timeline])
def test_pages_of_images_and_videos_are_whole(write: Callable[[Path], Path], browser: Any, tmp_path: Path) -> None:
    assert problems_of_file(browser, write(tmp_path)) == []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with drawn faces in the form of FER-2013."""
    pytest.importorskip("torch", reason="the lab is not installed")
    from support.fer2013_files import parquet_columns, write_parquet
    from support.synthetic_faces import cartoon_set

    folder = tmp_path_factory.mktemp("data")
    write_parquet(folder / "faces.parquet", parquet_columns(cartoon_set()))
    return folder


@pytest.mark.parametrize(
    "words",
    [
        "evaluate mien-0 --data faces.parquet",
        pytest.param("compare mien-0 mien-1 --data faces.parquet", marks=pytest.mark.release),
        pytest.param("explain mien-0 --data faces.parquet", marks=pytest.mark.release),
        pytest.param("stress mien-0 --data faces.parquet", marks=pytest.mark.release),
        pytest.param("audit faces.parquet", marks=pytest.mark.release),
    ],
    ids=lambda words: words.partition(" ")[0],
)
def test_reports_of_the_lab_are_whole(words: str, data: Path, browser: Any) -> None:
    from support.cli import mien_here

    command = words.partition(" ")[0]
    done = mien_here(*words.split(), "--out", command, cwd=data)
    assert done.returncode == 0, done.stderr
    assert problems_of_file(browser, data / command / "report.html") == []
