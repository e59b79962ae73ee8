"""The paths of `mien serve` over HTTP give the results of the reader."""

import base64
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.bundled import DEFAULT_MODEL
from mien.overlay import map_over_crop
from mien.serve import create_app
from support.encoded_images import encode
from support.http_server import Answer, Running, form, serving
from support.paths import ROOT


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def server(reader: Reader) -> Iterator[Running]:
    with serving(create_app(reader, threads=2)) as running:
        yield running


@pytest.fixture(scope="module")
def portrait(astronaut: np.ndarray) -> bytes:
    return encode(astronaut[::2, ::2])


@pytest.fixture(scope="module")
def blank() -> bytes:
    return encode(np.zeros((60, 80, 3), np.uint8))


def told(reader: Reader, data: bytes, name: str = "image") -> dict[str, Any]:
    """What the server must say of a picture, but for the time it took."""
    reading = reader.read(data)
    return {**reading.to_dict(), "source": name, "size_wh": list(reading.size_wh)}


def readings(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.body
    said = answer.json()
    assert (said["model"], said["precision"]) == (DEFAULT_MODEL, "int8")
    for reading in said["readings"]:
        times = reading.pop("timings_ms")
        assert set(times) == (set() if reading["error"] else {"wait", "decode", "detect", "classify"})
        assert all(time >= 0 for time in times.values())
    return said["readings"]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", None])
def test_the_bytes_of_a_picture(server: Running, reader: Reader, portrait: bytes, kind: str | None) -> None:
    (reading,) = readings(server.ask("/v1/predict", portrait, kind=kind))
    assert reading == told(reader, portrait)
    assert len(reading["faces"]) == 1


def test_a_form_of_several_pictures_keeps_their_order(
    server: Running, reader: Reader, portrait: bytes, blank: bytes
) -> None:
    files = [("b.png", blank), ("a.png", portrait), ("ü 漢.png", blank)]
    said = readings(server.form("/v1/predict", *files))
    assert said == [told(reader, data, name) for name, data in files]


def test_a_picture_that_cannot_be_read_among_others_has_its_error(
    server: Running, reader: Reader, portrait: bytes
) -> None:
    files = [("no.txt", b"no picture"), ("cut.png", portrait[:2000]), ("a.png", portrait)]
    no, cut, good = readings(server.form("/v1/predict", *files))
    assert "no.txt: not an image" in no["error"]
    assert "cut.png: the image is cut off" in cut["error"]
    assert no["faces"] == cut["faces"] == []
    assert good == told(reader, portrait, "a.png")


@pytest.mark.parametrize(
    ("cut", "status", "words"),
    [(slice(0, 2000), 422, "cut off"), (slice(5, 3000), 415, "not an image"), (slice(0, 0), 400, "empty")],
)
def test_a_single_picture_that_cannot_be_read_is_a_problem(
    server: Running, portrait: bytes, cut: slice, status: int, words: str
) -> None:
    answer = server.ask("/v1/predict", portrait[cut])
    assert answer.status == status
    assert words in answer.json()["detail"]
    if cut.stop:
        assert server.form("/v1/predict", ("a.png", portrait[cut])).status == status


def test_names_are_shown_as_one_safe_line(server: Running, blank: bytes) -> None:
    names = ["../../etc/passwd", "C:\\photos\\a.png", "a\x1b[31m.png", "x" * 500 + ".png", ""]
    said = readings(server.form("/v1/predict", *[(name, blank) for name in names]))
    assert [r["source"] for r in said] == ["passwd", "a.png", "a[31m.png", "x" * 200, "image"]


def test_maps_say_enough_to_draw_them(server: Running, reader: Reader, portrait: bytes) -> None:
    (reading,) = readings(server.ask("/v1/predict?maps=true", portrait))
    face, expected = reading["faces"][0], reader.read(portrait).faces[0]
    maps = face["maps"]
    assert maps["emotions"] == [str(emotion) for emotion in expected.probs]
    values = np.frombuffer(base64.b64decode(maps["data"]), np.uint8).reshape(maps["shape"])
    drawn = values / 255 * np.array(maps["peaks"])[:, None, None]
    # Half a step of the quantisation, and what rounding the peaks to four places may add.
    tolerance = np.array(maps["peaks"])[:, None, None] / 510 + 1e-4
    assert (np.abs(drawn - np.maximum(expected.maps, 0)) <= tolerance).all()
    np.testing.assert_allclose(face["to_image"], expected.to_image, atol=1e-4)
    assert face["crop_size"] == 48
    assert readings(server.ask("/v1/predict?maps=false", portrait)) == readings(server.ask("/v1/predict", portrait))


def test_a_map_is_drawn_as_png(server: Running, reader: Reader, portrait: bytes) -> None:
    expected = reader.read(portrait).faces[0]
    answer = server.ask("/v1/explain?format=png&emotion=sad&size=64", portrait)
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["x-mien-emotion"] == "sad"
    sad = next(emotion for emotion in expected.probs if emotion == "sad")
    with Image.open(io.BytesIO(answer.body)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), map_over_crop(expected, sad, size=64))


def test_every_face_is_explained_as_json(server: Running, reader: Reader, portrait: bytes) -> None:
    answer = server.form("/v1/explain", ("a.png", portrait)).json()
    (face,) = answer["reading"]["faces"]
    expected = reader.read(portrait).faces[0]
    assert face["explained"] == face["emotion"] == str(expected.top)
    assert face["probs"] == expected.to_dict()["probs"]
    assert len(base64.b64decode(face["maps"]["data"])) == 7 * 6 * 6
    with Image.open(io.BytesIO(base64.b64decode(face["overlay_png"]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), map_over_crop(expected))


def test_explain_says_what_it_cannot_do(server: Running, portrait: bytes, blank: bytes) -> None:
    wrong = {
        "/v1/explain?emotion=hapy": "did you mean 'happy'",
        "/v1/explain?size=5000": "from 16 to 1024",
        "/v1/explain?face=0": "from 1 to",
        "/v1/explain?face=%C2%B2": "from 1 to",
        "/v1/explain?colour=red": "'colour' is unknown",
        "/v1/explain?format=json&format=png": "is given twice",
        "/v1/predict?maps=1": "maps must be one of false, true",
    }
    for path, words in wrong.items():
        answer = server.ask(path, portrait)
        assert answer.status == 422
        assert words in answer.json()["detail"]
    missing = server.ask("/v1/explain?format=png&face=2", portrait)
    assert (missing.status, missing.json()["detail"]) == (404, "the image has no face 2; mien found 1")
    several = server.form("/v1/explain", ("a.png", blank), ("b.png", blank))
    assert (several.status, "takes 1 image" in several.json()["detail"]) == (422, True)
    nobody = server.ask("/v1/explain", blank).json()
    assert nobody["reading"]["faces"] == []


def test_requests_at_the_same_time_are_answered_each_its_own(
    server: Running, reader: Reader, astronaut: np.ndarray
) -> None:
    pictures = [encode(astronaut[i : i + 300, 60 : 360 + i], "JPEG") for i in range(0, 96, 4)]
    before = server.metric("mien_batch_crops_count")
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda data: readings(server.ask("/v1/predict", data))[0], pictures))
    for data, answer in zip(pictures, answers, strict=True):
        expected = told(reader, data)
        close = [face.pop("probs") for face in answer["faces"]], [face.pop("probs") for face in expected["faces"]]
        for one, other in zip(*close, strict=True):
            assert one == pytest.approx(other, abs=1.01e-4)  # a batch may round the last place in another way
        for faces in (answer["faces"], expected["faces"]):
            for face in faces:
                face["confidence"] = round(face["confidence"], 3)
        assert answer == expected
    assert server.metric("mien_batch_crops_count") > before


def test_everything_is_counted(server: Running, portrait: bytes, blank: bytes) -> None:
    series = {
        'mien_requests_total{path="/v1/predict",status="200"}': 1,
        'mien_request_seconds_count{path="/v1/predict"}': 1,
        'mien_stage_seconds_count{stage="detect"}': 2,
        'mien_stage_seconds_count{stage="receive"}': 1,
        'mien_images_total{result="read"}': 2,
        'mien_images_total{result="error"}': 1,
        "mien_faces_total": 1,
        "mien_queue_images": 0,
        "mien_held_bytes": 0,
    }
    before = {name: server.metric(name) for name in series}
    assert server.form("/v1/predict", ("a", portrait), ("b", blank), ("c", b"no")).status == 200
    assert {name: server.metric(name) - before[name] for name in series} == series
    text = server.ask("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert "mien_batch_crops_bucket" in text.body.decode()
    assert 'path="other"' not in text.body.decode() or "/nope" not in text.body.decode()


def test_the_client_of_the_handbook_works(server: Running, reader: Reader, portrait: bytes) -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    assert len(code.splitlines()) <= 16
    faces = namespace["read"](portrait, f"http://127.0.0.1:{server.port}")
    assert faces == reader.read(portrait).to_dict()["faces"]


def test_a_form_in_pieces_of_any_size_is_the_same(server: Running, reader: Reader, portrait: bytes) -> None:
    body = form(("a.png", portrait))
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=mien-boundary\r\n\r\n"
    ).encode()
    with server.connect() as connection:
        connection.sendall(head)
        sizes = np.random.default_rng(0).integers(1, 9000, 200).cumsum()
        for start, end in zip([0, *sizes], [*sizes, len(body)], strict=True):
            connection.sendall(body[start:end])
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert said.startswith(b"HTTP/1.1 200 ")
    assert str(told(reader, portrait)["faces"][0]["confidence"]).encode() in said
