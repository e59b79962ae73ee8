"""The page's camera in a real browser: tracked, refused, absent."""

import csv
import io
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.browser import Visit, build, camera_video, chromium, playing, serving


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serving(build()) as address:
        yield address


@pytest.fixture(scope="module")
def player() -> Iterator[Any]:
    with playing() as opened:
        yield opened


@pytest.fixture(scope="module")
def browser(player: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = camera_video(tmp_path_factory.mktemp("video") / "camera.mjpeg")
    flags = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={path}")
    with chromium(player, *flags) as opened:
        yield opened


def test_the_camera_is_tracked(browser: Any, site: str) -> None:
    visit = Visit(browser, site, permissions=["camera"]).ready()
    page = visit.page
    page.click("#start")
    page.locator("#tracks li").wait_for()
    page.locator("#rate", has_text="frames a second").wait_for()
    page.locator("#tracks .name", has_text="happy").wait_for()
    assert page.get_by_role("button", name="Track 1 happy").count() == 1  # screen readers get the visible label
    assert page.locator("#curves .timeline").count() == 1
    plain = page.locator("#tracks .value").all_text_contents()
    assert len(plain) == 7
    page.locator(".track-name").focus()
    assert Image.open(io.BytesIO(visit.saved("#snap"))).size == (640, 480)
    page.wait_for_timeout(1500)
    lines = [json.loads(line) for line in visit.saved("#camera-json").decode().splitlines()]
    assert len(lines) >= 4
    assert [line["frame"] for line in lines] == list(range(len(lines)))
    assert all(one["seconds"] < two["seconds"] for one, two in pairwise(lines))
    ids = {face["track_id"] for line in lines for face in line["faces"]}
    assert ids == {1}
    boxes = np.array([face["box"] for line in lines for face in line["faces"]])
    assert np.ptp(boxes[:, 0]) < 60  # it sways by 32 pixels
    rows = list(csv.DictReader(io.StringIO(visit.saved("#camera-csv").decode())))
    assert float(rows[0]["happy"]) > 0.5
    page.click("#stop")
    assert page.locator("#announcement").text_content() == "The camera is off."
    page.click("#start")
    page.locator("#tracks li").wait_for()
    visit.close()


def test_a_refused_camera_shows_an_error(browser: Any, site: str) -> None:
    visit = Visit(browser, site).ready()
    visit.page.click("#start")
    visit.page.locator("#errors p", has_text="Allow it for this page").wait_for()
    assert visit.page.locator("#camera").is_hidden()
    visit.close()


def test_a_missing_camera_shows_an_error(player: Any, site: str) -> None:
    with chromium(player) as browser:
        visit = Visit(browser, site, permissions=["camera"]).ready()
        visit.page.click("#start")
        visit.page.locator("#errors p", has_text="No camera was found").wait_for()
        visit.close()
