"""The page served by `mien serve`: inference in the browser, or on the server without the runtime."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

pytest.importorskip("fastapi", reason="the server needs the serve extra")

from mien.bundled import BUNDLED, DEFAULT_MODEL
from mien.reader import Reader
from mien.serve import Limits, create_app
from mien.serve.auth import Access
from support.browser import WEB, Visit, build, camera_video, chromium, playing, wait_until
from support.encoded_images import encode, turned_webp
from support.http_server import RunningServer, serving
from support.onnx_models import write_model
from support.paths import ROOT

ASTRONAUT = ROOT / "examples" / "astronaut.png"
EXAMPLE: dict[str, Any] = {"name": "a.png", "mimeType": "image/png", "buffer": ASTRONAUT.read_bytes()}
PAGE = ROOT / "src" / "mien" / "serve" / "page"
STOP_WHILE_CONNECTING = """() => {
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(address) {
            super(address);
            window.sockets.push(this);
            document.getElementById("stop").click();
        }
    };
}"""
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def server(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server as an installed wheel has it: without the runtime."""
    with serving(create_app(reader, runtime=tmp_path_factory.mktemp("empty"))) as running:
        yield running


def test_every_file_of_the_page_comes_with_its_type(server: RunningServer) -> None:
    kinds = {".mjs": "text/javascript", ".css": "text/css", ".html": "text/html"}
    for path in PAGE.glob("*.*"):
        response = server.request(f"/{path.name}")
        assert (response.status, response.headers["content-type"].partition(";")[0]) == (200, kinds[path.suffix])
        assert response.body == path.read_bytes()
    assert server.request("/base.css").body == (PAGE.parent.parent / "_page.css").read_bytes()
    for address, name in (("blazeface-short-range", "blazeface-short-range"), ("classifier", DEFAULT_MODEL)):
        model = BUNDLED / name / "model.onnx"
        assert server.request(f"/models/{address}.onnx").body == model.read_bytes()


def test_the_page_reads_with_the_model_of_the_server(tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    shutil.copy(BUNDLED / "mien-0" / "model-fp32.onnx", own)
    with serving(create_app(Reader(str(own), abstain=0.4))) as server:
        assert server.request("/models/classifier.onnx").body == own.read_bytes()
        assert server.request("/site.json").json()["unsure_below"] == [[0, 0.4]]
    with serving(create_app(Reader("mien-0", precision="fp32"), access=Access(token="a-secret"))) as server:
        assert server.request("/models/classifier.onnx").body == own.read_bytes()
    card = {"name": "mien-0", "sizes": {"16": {"unsure_below": 0.9}}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    private, default = Reader(str(own), abstain="card"), Reader(abstain="card")
    assert private.model.unsure_below == {16: 0.9}
    with serving(create_app(private, access=Access(token="a-secret"))) as server:  # neither model nor card is public
        assert server.request("/models/classifier.onnx").body == (BUNDLED / DEFAULT_MODEL / "model.onnx").read_bytes()
        measured = [list(pair) for pair in default.model.unsure_below.items()]
        assert server.request("/site.json").json()["unsure_below"] == measured


def test_site_json_lists_what_is_available(server: RunningServer, reader: Reader, tmp_path: Path) -> None:
    assert server.request("/site.json").json() == {
        "server": True,
        "runtime": False,
        "token": False,
        "unsure_below": [[0, 0.0]],
        "min_quality": 0.0,
    }
    assert server.request(f"/runtime/{RUNTIME[0]}").status == 404
    for name in RUNTIME:
        (tmp_path / name).write_text("// runtime")
    with serving(create_app(reader, runtime=tmp_path)) as other:
        assert other.request("/site.json").json()["runtime"] is True
        assert other.request(f"/runtime/{RUNTIME[2]}").headers["content-type"] == "application/wasm"


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


def test_the_server_reads_for_the_page(server: RunningServer, reader: Reader, browser: Any) -> None:
    visit = Visit(browser, f"http://127.0.0.1:{server.port}/", permissions=["camera"])
    page = visit.page
    page.locator("#where", has_text="Images are sent to").wait_for()
    assert page.locator("#engines").is_hidden()
    assert "mien serve --runtime" in (page.locator("#model").text_content() or "")
    visit.read(EXAMPLE)
    assert saved_faces(visit) == [reader.read(ASTRONAUT).faces[0].to_dict()]
    page.locator("#cards .box").hover()
    page.click("#start")
    page.locator("#tracks .name", has_text="happy").wait_for()
    page.locator('#tracks [data-id="1"]').wait_for()
    page.locator("#rate", has_text="frames a second").wait_for()
    page.click("#stop")
    frames = [json.loads(line)["faces"] for line in visit.saved("#camera-json").splitlines()]
    assert min(face["score"] for faces in frames for face in faces) > 0.5
    visit.close()


def test_the_server_and_the_page_turn_an_image_alike(server: RunningServer, reader: Reader, browser: Any) -> None:
    visit = Visit(browser, f"http://127.0.0.1:{server.port}/")
    with Image.open(ASTRONAUT) as image:
        tall = image.convert("RGB").crop((0, 0, 400, 512))
    webp, exif, info = turned_webp(np.asarray(tall), 6), Image.Exif(), PngInfo()
    by_xmp = encode(tall, "JPEG", xmp=b'<rdf:Description tiff:Orientation="6"/>')
    exif[0x0112] = 6
    info.add_text("Raw profile type exif", f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n")
    for name, content in (("a.webp", webp), ("b.jpg", by_xmp)):
        visit.read({"name": name, "mimeType": "", "buffer": content})
        assert "400 × 512 pixels" in (visit.page.locator("#cards .about").last.text_content() or "")
    saved = [reading["faces"] for reading in json.loads(visit.saved("#save-json"))]
    assert saved == [[reader.read(content).faces[0].to_dict()] for content in (webp, by_xmp)]
    by_text = encode(tall, "PNG", pnginfo=info)  # not in a chunk for EXIF: browsers ignore it
    visit.read({"name": "c.png", "mimeType": "image/png", "buffer": by_text})
    visit.page.locator("#errors p", has_text="the server turns this image, this browser does not").wait_for()
    visit.close()


def test_the_page_leaves_out_the_faces_that_python_leaves_out(browser: Any) -> None:
    build()
    reader, blurred = Reader(min_quality=0.6), io.BytesIO()
    with Image.open(ASTRONAUT) as image:
        image.convert("RGB").filter(ImageFilter.GaussianBlur(5)).save(blurred, "PNG")
    expected = reader.read(blurred.getvalue())
    assert (expected.faces, expected.note) == ((), "1 face of a quality below 0.6 left out")
    with serving(create_app(reader, runtime=WEB / "node_modules" / "onnxruntime-web" / "dist")) as server:
        visit = Visit(browser, f"http://127.0.0.1:{server.port}/").ready()
        for where, text in (("browser", "in this browser"), ("server", "Images are sent to")):
            visit.page.check(f"#engine-{where}")
            visit.page.locator("#where", has_text=text).wait_for()
            visit.read({**EXAMPLE, "name": f"{where}.png", "buffer": blurred.getvalue()})
        for reading in json.loads(visit.saved("#save-json")):
            assert {**reading, "source": expected.source} == expected.to_dict()
        assert visit.page.locator("#cards .about", has_text=expected.note).count() == 2
        visit.close()


def test_a_frame_that_the_server_cannot_read_is_an_error(reader: Reader, browser: Any, tmp_path: Path) -> None:
    with serving(create_app(reader, limits=Limits(max_pixels=100_000), runtime=tmp_path)) as server:
        visit = Visit(browser, f"http://127.0.0.1:{server.port}/", permissions=["camera"])
        visit.page.click("#start")
        visit.page.locator("#errors p", has_text="640 x 480 pixels exceed the limit").wait_for()
        visit.close()


def test_a_file_above_the_limit_of_the_server_is_not_sent(reader: Reader, browser: Any, tmp_path: Path) -> None:
    with serving(create_app(reader, limits=Limits(max_bytes=2**18), runtime=tmp_path)) as server:
        visit = Visit(browser, f"http://127.0.0.1:{server.port}/")
        visit.page.locator("#where", has_text="Images are sent to").wait_for()
        visit.read({**EXAMPLE, "buffer": EXAMPLE["buffer"] + bytes(2**18)})
        visit.page.locator("#errors p", has_text="larger than the server's limit of 262,144 bytes").wait_for()
        assert server.metric('mien_requests_total{path="/v1/predict",status="413"}') == 0
        visit.close()


def test_a_camera_stopped_while_it_connects_leaves_no_stream(server: RunningServer, browser: Any) -> None:
    visit = Visit(browser, f"http://127.0.0.1:{server.port}/", permissions=["camera"])
    visit.page.evaluate(STOP_WHILE_CONNECTING)
    visit.page.locator("#where", has_text="Images are sent to").wait_for()
    visit.page.click("#start")
    wait_until(visit.page, "window.sockets.length === 1 && window.sockets[0].readyState === WebSocket.CLOSED")
    assert visit.page.locator("#errors p").count() == 0
    visit.close()


def test_a_missing_camera_shows_an_error(server: RunningServer, player: Any) -> None:
    with chromium(player) as browser:
        visit = Visit(browser, f"http://127.0.0.1:{server.port}/", permissions=["camera"])
        visit.page.click("#start")
        visit.page.locator("#errors p", has_text="No camera was found").wait_for()
        assert visit.page.locator("#camera").is_hidden()
        visit.close()


def test_with_the_runtime_the_page_reads_by_itself(reader: Reader, browser: Any) -> None:
    build()
    with serving(create_app(reader, runtime=WEB / "node_modules" / "onnxruntime-web" / "dist")) as server:
        visit = Visit(browser, f"http://127.0.0.1:{server.port}/").ready()
        visit.read(EXAMPLE)
        assert server.metric("mien_faces_total") == 0  # the server has seen nothing
        (alone,) = saved_faces(visit)
        visit.page.check("#engine-server")
        visit.page.locator("#where", has_text="Images are sent to").wait_for()
        visit.page.click("#clear")
        visit.read(EXAMPLE)
        (served,) = saved_faces(visit)
        assert server.metric("mien_faces_total") == 1
        assert all(abs(alone["probs"][name] - value) <= 1e-2 for name, value in served["probs"].items())
        visit.close()


def test_the_page_says_which_model_reads_in_which_mode(browser: Any) -> None:
    build()
    reader = Reader("mien-0", precision="fp32", detector="none", abstain=0.6)
    with serving(create_app(reader, runtime=WEB / "node_modules" / "onnxruntime-web" / "dist")) as server:
        visit = Visit(browser, f"http://127.0.0.1:{server.port}/").ready()
        says = visit.page.locator("#model")
        says.filter(has_text="mien-0, fp32").filter(has_text="blazeface").wait_for()
        assert visit.page.locator("#threshold-text").text_content() == "60 %"
        visit.page.check("#engine-server")
        says.filter(has_text="mien-0, fp32").filter(has_text="none").wait_for()
        visit.close()


def test_a_model_with_its_weights_in_a_second_file_is_named(browser: Any, tmp_path: Path) -> None:
    build()
    model, own = onnx.load(write_model(tmp_path / "model.onnx")), tmp_path / "own.onnx"
    onnx.save_model(model, own, save_as_external_data=True, location="own.data", size_threshold=100)
    reader = Reader(str(own))
    with serving(create_app(reader, runtime=WEB / "node_modules" / "onnxruntime-web" / "dist")) as server:
        visit = Visit(browser, f"http://127.0.0.1:{server.port}/")
        visit.page.locator("#errors p", has_text="save it as one file, or read on the server").wait_for()
        visit.page.check("#engine-server")
        visit.page.locator("#where", has_text="Images are sent to").wait_for()
        visit.read(EXAMPLE)
        assert saved_faces(visit) == [reader.read(ASTRONAUT).faces[0].to_dict()]
        visit.context.close()


def test_a_stopped_server_shows_errors(reader: Reader, browser: Any, tmp_path: Path) -> None:
    with serving(create_app(reader, runtime=tmp_path)) as server:
        port = server.port
        visit = Visit(browser, f"http://127.0.0.1:{port}/", permissions=["camera"])
        page = visit.page
        page.locator("#where", has_text="Images are sent to").wait_for()
        page.click("#start")
        page.locator("#tracks .name", has_text="happy").wait_for()
    page.locator("#errors p", has_text="Camera").wait_for()
    visit.read(EXAMPLE)
    page.locator("#errors p", has_text="is `mien serve` still running?").wait_for()
    page.context.close()


def test_the_page_asks_for_the_token(reader: Reader, browser: Any, tmp_path: Path) -> None:
    access = Access(token="a-secret")
    with serving(create_app(reader, access=access, runtime=tmp_path)) as server:
        visit = Visit(browser, f"http://127.0.0.1:{server.port}/", permissions=["camera"])
        page = visit.page
        page.locator("#where", has_text="needs its token").wait_for()
        page.keyboard.type("a-secret")
        page.keyboard.press("Enter")
        page.locator("#where", has_text="Images are sent to").wait_for()
        visit.read(EXAMPLE)
        assert len(saved_faces(visit)) == 1
        page.click("#start")
        page.locator("#tracks .name", has_text="happy").wait_for()
        page.click("#stop")
        visit.close()


def test_a_wrong_token_is_named(reader: Reader, browser: Any, tmp_path: Path) -> None:
    with serving(create_app(reader, access=Access(token="a-secret"), runtime=tmp_path)) as server:
        visit = Visit(browser, f"http://127.0.0.1:{server.port}/")
        page = visit.page
        for token, words in (("“a-secret”", "copy it again"), ("a-secret\u200b", "copy it again"), ("b", "wrong")):
            page.locator("#token").fill(token)
            page.keyboard.press("Enter")
            page.locator("#errors p", has_text=words).wait_for()
        page.locator("#token").fill("a-secret")
        page.keyboard.press("Enter")
        page.locator("#where", has_text="Images are sent to").wait_for()
        visit.context.close()


def saved_faces(visit: Visit) -> list[dict[str, Any]]:
    faces: list[dict[str, Any]] = json.loads(visit.saved("#save-json"))[0]["faces"]
    return faces
