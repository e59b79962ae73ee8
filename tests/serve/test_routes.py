"""The paths of `mien serve` over HTTP give the results of the reader."""

import base64
import io
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.bundled import DEFAULT_MODEL
from mien.overlay import map_over_crop
from support.encoded_images import encode
from support.http_server import Response, RunningServer, form
from support.paths import ROOT


@pytest.fixture(scope="module")
def blank() -> bytes:
    return encode(np.zeros((60, 80, 3), np.uint8))


def expected_reading(reader: Reader, data: bytes, name: str = "image") -> dict[str, Any]:
    """The reading of an image that the server must return, without its durations."""
    reading = reader.read(data)
    return {**reading.to_dict(), "source": name, "size_wh": list(reading.size_wh)}


def readings(response: Response) -> list[dict[str, Any]]:
    assert response.status == 200, response.body
    received = response.json()
    assert (received["model"], received["precision"]) == (DEFAULT_MODEL, "int8")
    for reading in received["readings"]:
        times = reading.pop("timings_ms")
        assert set(times) == (set() if reading["error"] else {"wait", "decode", "detect", "classify"})
        assert all(time >= 0 for time in times.values())
    return received["readings"]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", None])
def test_an_image_as_the_body(server: RunningServer, reader: Reader, portrait: bytes, kind: str | None) -> None:
    (reading,) = readings(server.request("/v1/predict", portrait, kind=kind))
    assert reading == expected_reading(reader, portrait)
    assert len(reading["faces"]) == 1


def test_a_form_of_several_images_returns_their_order(
    server: RunningServer, reader: Reader, portrait: bytes, blank: bytes
) -> None:
    files = [("b.png", blank), ("a.png", portrait), ("ü 漢.png", blank)]
    received = readings(server.form("/v1/predict", *files))
    assert received == [expected_reading(reader, data, name) for name, data in files]


def test_an_unreadable_image_among_others_has_an_error(server: RunningServer, reader: Reader, portrait: bytes) -> None:
    files = [("no.txt", b"no image"), ("cut.png", portrait[:2000]), ("a.png", portrait)]
    no, cut, good = readings(server.form("/v1/predict", *files))
    assert "no.txt: not an image" in no["error"]
    assert "cut.png: the image is cut off" in cut["error"]
    assert no["faces"] == cut["faces"] == []
    assert good == expected_reading(reader, portrait, "a.png")


@pytest.mark.parametrize(
    ("cut", "status", "words"),
    [(slice(0, 2000), 422, "cut off"), (slice(5, 3000), 415, "not an image"), (slice(0, 0), 400, "empty")],
)
def test_a_single_unreadable_image_is_a_problem(
    server: RunningServer, portrait: bytes, cut: slice, status: int, words: str
) -> None:
    response = server.request("/v1/predict", portrait[cut])
    assert response.status == status
    assert words in response.json()["detail"]
    if cut.stop:
        assert server.form("/v1/predict", ("a.png", portrait[cut])).status == status


def test_file_names_become_one_safe_line(server: RunningServer, blank: bytes) -> None:
    names = ["../../etc/passwd", "C:\\photos\\a.png", "a\x1b[31m.png", "x" * 500 + ".png", ""]
    received = readings(server.form("/v1/predict", *[(name, blank) for name in names]))
    assert [r["source"] for r in received] == ["passwd", "a.png", "a[31m.png", "x" * 200, "image"]


def test_maps_can_be_reconstructed_from_their_bytes(server: RunningServer, reader: Reader, portrait: bytes) -> None:
    (reading,) = readings(server.request("/v1/predict?maps=true", portrait))
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
    assert readings(server.request("/v1/predict?maps=false", portrait)) == readings(
        server.request("/v1/predict", portrait)
    )


def test_a_map_is_drawn_as_png(server: RunningServer, reader: Reader, portrait: bytes) -> None:
    expected = reader.read(portrait).faces[0]
    response = server.request("/v1/explain?format=png&emotion=sad&size=64", portrait)
    assert (response.status, response.headers["content-type"]) == (200, "image/png")
    assert response.headers["x-mien-emotion"] == "sad"
    sad = next(emotion for emotion in expected.probs if emotion == "sad")
    with Image.open(io.BytesIO(response.body)) as image:
        np.testing.assert_array_equal(np.asarray(image), map_over_crop(expected, sad, size=64))


def test_every_face_is_explained_as_json(server: RunningServer, reader: Reader, portrait: bytes) -> None:
    response = server.form("/v1/explain", ("a.png", portrait)).json()
    (face,) = response["reading"]["faces"]
    expected = reader.read(portrait).faces[0]
    assert face["explained"] == face["emotion"] == str(expected.top)
    assert face["probs"] == expected.to_dict()["probs"]
    assert len(base64.b64decode(face["maps"]["data"])) == 7 * 6 * 6
    with Image.open(io.BytesIO(base64.b64decode(face["overlay_png"]))) as image:
        np.testing.assert_array_equal(np.asarray(image), map_over_crop(expected))


def test_wrong_queries_of_explain_are_problems(server: RunningServer, portrait: bytes, blank: bytes) -> None:
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
        response = server.request(path, portrait)
        assert response.status == 422
        assert words in response.json()["detail"]
    missing = server.request("/v1/explain?format=png&face=2", portrait)
    assert (missing.status, missing.json()["detail"]) == (404, "the image has no face 2; mien found 1")
    several = server.form("/v1/explain", ("a.png", blank), ("b.png", blank))
    assert (several.status, "takes 1 image" in several.json()["detail"]) == (422, True)
    faceless = server.request("/v1/explain", blank).json()
    assert faceless["reading"]["faces"] == []


def test_concurrent_requests_get_their_own_readings(
    server: RunningServer, reader: Reader, astronaut: np.ndarray
) -> None:
    images = [encode(astronaut[i : i + 300, 60 : 360 + i], "JPEG") for i in range(0, 96, 4)]
    before = server.metric("mien_batch_crops_count")
    with ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(lambda data: readings(server.request("/v1/predict", data))[0], images))
    for data, response in zip(images, responses, strict=True):
        expected = expected_reading(reader, data)
        close = [face.pop("probs") for face in response["faces"]], [face.pop("probs") for face in expected["faces"]]
        for one, other in zip(*close, strict=True):
            assert one == pytest.approx(other, abs=1.01e-4)  # a batch may round the last place in another way
        for faces in (response["faces"], expected["faces"]):
            for face in faces:
                face["confidence"] = round(face["confidence"], 3)
        assert response == expected
    assert server.metric("mien_batch_crops_count") > before


def test_metrics_count_requests_images_and_faces(server: RunningServer, portrait: bytes, blank: bytes) -> None:
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
    text = server.request("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert "mien_batch_crops_bucket" in text.body.decode()
    assert 'path="other"' not in text.body.decode() or "/nope" not in text.body.decode()


def test_the_client_in_the_docs_works(server: RunningServer, reader: Reader, portrait: bytes) -> None:
    page = (ROOT / "docs" / "how-to/serve.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    assert len(code.splitlines()) <= 16
    faces = namespace["read"](portrait, f"http://127.0.0.1:{server.port}")
    assert faces == reader.read(portrait).to_dict()["faces"]


def test_a_form_in_pieces_of_any_size_is_read(server: RunningServer, reader: Reader, portrait: bytes) -> None:
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
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert str(expected_reading(reader, portrait)["faces"][0]["confidence"]).encode() in received
