"""The page's camera in a real browser: tracked, disconnected, stuck, refused. All tests use one page: to load it takes
most of their time."""

import csv
import io
import json
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from support.browser import Visit, build, camera_video, chromium, playing, serving, wait_until
from support.layout import problems_of

# Keeps every camera that the page was given, for `live` to count those that are still on.
WATCH = """() => {
    window.given = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        window.given.push(await ask(wanted));
        return window.given.at(-1);
    };
}"""
LIVE = "() => given.flatMap((stream) => stream.getTracks()).filter(({ readyState }) => readyState === 'live').length"

# Four small faces, then a large one, then the large one alone; the tracks that have curves after each.
CURVES = """async () => {
    const { Curves } = await import("./curves.mjs");
    const root = document.createElement("div");
    const curves = new Curves(root);
    const face = (id, side) => ({ id, probs: { happy: 0.7, sad: 0.3 }, box: [0, 0, side, side] });
    const old = [1, 2, 3, 4].map((id) => face(id, 50));
    const shown = () => [...root.querySelectorAll("figcaption")].map(({ textContent }) => textContent);
    const steps = [];
    const add = (faces, ...seconds) => { for (const at of seconds) curves.add(faces, at); steps.push(shown()); };
    add(old, 0, 1);
    add([...old, face(5, 55)], 2);  // hardly larger: the curves stay as they are
    add([...old, face(5, 200)], 3, 4);
    add([face(5, 200)], 20);
    add([face(5, 200)], 40);
    add([], 80);
    return { steps, children: root.childElementCount };
}"""
# How many pixels are drawn over the video; a box and its label have fewer than 5000.
MAP_PIXELS = """(() => {
    const overlay = document.getElementById("over");
    const context = new OffscreenCanvas(overlay.width, overlay.height).getContext("2d", { willReadFrequently: true });
    context.drawImage(overlay, 0, 0);
    const { data } = context.getImageData(0, 0, overlay.width, overlay.height);
    return data.filter((value, at) => at % 4 === 3 && value > 0).length;
})()"""

# A server that takes five seconds for a frame, one after another, of which only the newest waits; its clock is 20 times
# as fast. Whether each frame had a result.
SLOW_SERVER = """async () => {
    const { Server } = await import("./server.mjs");
    const kept = { setTimeout, WebSocket, now: performance.now };
    const [wait, now] = [setTimeout.bind(window), performance.now.bind(performance)];
    window.setTimeout = (task, milliseconds) => wait(task, milliseconds / 20);
    performance.now = () => 20 * now();
    window.WebSocket = class {
        constructor() {
            Object.assign(this, { received: 0, newest: null, isBusy: false });
            wait(() => this.onopen());
        }
        send() {
            this.newest = this.received++;
            if (!this.isBusy) this.read();
        }
        read() {
            const received = this.newest;
            [this.newest, this.isBusy] = [null, true];
            setTimeout(() => {
                this.isBusy = false;
                this.onmessage({ data: JSON.stringify({ received, faces: [], size_wh: [1, 1] }) });
                if (this.newest !== null) this.read();
            }, 5000);
        }
    };
    const [server, results] = [new Server(location.href), []];
    for (let frame = 0; frame < 10; frame++) {
        results.push(await server.frame(await createImageBitmap(new ImageData(1, 1)), 0, { smooth: 0 }));
    }
    Object.assign(window, { setTimeout: kept.setTimeout, WebSocket: kept.WebSocket });
    performance.now = kept.now;
    return results.map((result) => result !== null);
}"""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serving(build()) as address:
        yield address


@pytest.fixture(scope="module")
def opened(site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    path = camera_video(tmp_path_factory.mktemp("video") / "camera.mjpeg")
    flags = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={path}")
    with playing() as player, chromium(player, *flags) as browser:
        visit = Visit(browser, site).ready()
        visit.page.evaluate(WATCH)
        yield visit
        visit.close()


@pytest.fixture
def visit(opened: Visit) -> Iterator[Visit]:
    """The page with its camera allowed and off, without errors, and with no camera given so far."""
    opened.context.grant_permissions(["camera"])
    opened.page.evaluate("() => { window.given = []; }")
    yield opened
    if opened.page.locator("#stop").is_visible():
        opened.page.click("#stop")
    while opened.page.locator("#errors button").count():
        opened.page.locator("#errors button").first.click()


def test_a_refused_camera_shows_an_error(visit: Visit) -> None:
    """The first test: a camera that was on before remains on the page, turned off."""
    visit.context.clear_permissions()
    visit.page.click("#start")
    visit.page.locator("#errors p", has_text="Allow it for this page").wait_for()
    assert visit.page.locator("#camera").is_hidden()


def test_the_camera_is_tracked(visit: Visit) -> None:
    page = visit.page
    page.click("#start")
    page.locator("#tracks li").wait_for()
    page.locator("#rate", has_text="frames a second").wait_for()
    page.locator("#tracks .name", has_text="happy").wait_for()
    assert page.get_by_role("button", name="Track 1 happy").count() == 1  # screen readers get the visible label
    assert page.locator("#curves .timeline").count() == 1
    assert page.locator("#curves .legend li").count() == 7
    assert page.locator("#curves .axis span").all_text_contents() == ["30 s ago", "20 s", "10 s", "now"]
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
    assert list(problems_of(page)) == []
    page.click("#stop")
    assert page.locator("#announcement").text_content() == "The camera is off."
    page.click("#start")
    page.locator("#tracks li").wait_for()


def test_the_largest_faces_in_view_have_curves(visit: Visit) -> None:
    found = visit.page.evaluate(CURVES)
    tracks = [[int(name.split()[1]) for name in step] for step in found["steps"]]
    assert tracks[:2] == [[1, 2, 3, 4], [1, 2, 3, 4]]
    assert len(tracks[2]) == len(tracks[3]) == 4
    assert 5 in tracks[2]
    assert 5 in tracks[3]
    assert tracks[4:] == [[5], []]
    assert found["children"] == 0


def test_a_slow_server_has_results(visit: Visit) -> None:
    results = visit.page.evaluate(SLOW_SERVER)
    assert len(results) == 10
    assert results[-1]


def test_no_face_is_pointed_at_after_a_stop(visit: Visit) -> None:
    page = visit.page
    page.click("#start")
    page.hover(".track-name")
    wait_until(page, f"{MAP_PIXELS} > 5000")
    page.evaluate("() => document.getElementById('stop').click()")
    page.mouse.move(5, 5)
    page.locator("#start").press("Enter")
    page.locator("#tracks li").wait_for()
    assert page.evaluate(MAP_PIXELS) < 5000


def test_one_camera_is_opened_however_often_it_is_started(visit: Visit) -> None:
    page = visit.page
    page.evaluate("() => { for (let k = 0; k < 3; k++) document.getElementById('start').click(); }")
    page.locator("#tracks li").wait_for()
    assert page.evaluate("() => given.length") == 1
    page.click("#stop")
    assert page.evaluate(LIVE) == 0
    assert page.locator("#errors p").count() == 0


def test_a_disconnected_camera_shows_an_error(visit: Visit) -> None:
    page = visit.page
    page.click("#start")
    page.locator("#tracks li").wait_for()
    page.evaluate(
        "() => { const [track] = given[0].getTracks(); track.stop(); track.dispatchEvent(new Event('ended')); }"
    )
    page.locator("#errors p", has_text="disconnected").wait_for()
    assert page.locator("#stage").is_hidden()


def test_a_camera_that_is_no_longer_allowed_shows_an_error(visit: Visit) -> None:
    visit.page.click("#start")
    visit.page.locator("#tracks li").wait_for()
    visit.context.clear_permissions()
    visit.page.locator("#errors p", has_text="no longer allowed").wait_for()


def test_a_camera_that_does_not_play_is_turned_off(visit: Visit) -> None:
    page = visit.page
    page.evaluate("() => { video.play = () => Promise.reject(new DOMException('no', 'AbortError')); }")
    page.click("#start")
    page.locator("#errors p", has_text="did not start").wait_for()
    assert page.evaluate("() => given.length") == 1
    assert page.evaluate(LIVE) == 0
    page.evaluate("() => { delete video.play; }")
