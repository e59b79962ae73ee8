"""The reader: contents of a reading, every source, order, laziness, batches, threads, and refusals."""

import copy
import dataclasses
import io
import json
import math
import multiprocessing
import pickle
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFilter

from mien import Box, Emotion, Face, ImageError, MienError, ModelError, NotAnImageError, Reader, Reading
from mien import reader as reader_module
from mien._errors import TooLargeError, TruncatedError
from mien._face import Detection, KeyPoints, crop_sharpness
from mien.decode import MAX_BYTES, MAX_PIXELS, decode, decode_half
from mien.detect import from_detections
from mien.infer import Classifier, bundled_models, find_model
from support.encoded_images import encode
from support.onnx_models import write_model
from support.paths import ROOT

Draw = Callable[..., np.ndarray]
LIMITS = {"max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS}


def values(readings: list[Reading]) -> list[list[list[float]]]:
    return [[list(face.probs.values()) for face in reading.faces] for reading in readings]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def reader(tiny: Path) -> Reader:
    return Reader(tiny)


@pytest.fixture(scope="module")
def crop_reader(tiny: Path) -> Reader:
    return Reader(tiny, detector="none")


def large_jpeg(astronaut: np.ndarray, side: int, **options: Any) -> bytes:
    """A photograph of 2800 x 2600 pixels with the astronaut, ``side`` pixels high, in its middle."""
    canvas = Image.new("RGB", (2800, 2600), (96, 96, 96))
    canvas.paste(Image.fromarray(astronaut).resize((side, side)), (1400 - side // 2, 1300 - side // 2))
    stream = io.BytesIO()
    canvas.save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_large_jpeg_of_a_close_face_is_read_in_half_of_its_pixels(
    astronaut: np.ndarray, orientation: int, tmp_path: Path
) -> None:
    turned = np.rot90(astronaut, {1: 0, 3: 2, 6: 1}[orientation])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "large.jpg"
    path.write_bytes(large_jpeg(turned, 2400, exif=exif))
    full_reader, whole = Reader(), decode(path).pixels
    half, is_half = decode_half(path, **LIMITS)
    assert is_half
    assert [2 * length for length in half.pixels.shape[:2]] == list(whole.shape[:2])
    fast, full = full_reader.read(path), full_reader.read(whole)
    assert (fast.size_wh, fast.source) == (full.size_wh, str(path))
    (one,), (other,) = fast.faces, full.faces
    np.testing.assert_allclose(one.box, other.box, atol=0.02 * other.box.width)
    assert max(abs(one.probs[emotion] - other.probs[emotion]) for emotion in one.probs) < 0.02
    np.testing.assert_allclose(one.to_image, other.to_image, atol=0.02 * other.box.width)
    assert full_reader.detector.close_faces(half.pixels) is not None  # type: ignore[attr-defined]


def test_a_large_jpeg_of_small_or_no_faces_is_read_in_all_of_its_pixels(astronaut: np.ndarray) -> None:
    for side in (300, 8):
        photo, full_reader = large_jpeg(astronaut, side), Reader()
        fast, full = full_reader.read(photo), full_reader.read(decode(photo).pixels)
        assert len(fast.faces) == (side == 300)
        assert values([fast]) == values([full])
        assert [face.box for face in fast.faces] == [face.box for face in full.faces]


def test_only_files_and_bytes_of_large_jpegs_are_halved(astronaut: np.ndarray, tmp_path: Path) -> None:
    photo = large_jpeg(astronaut, 2400)
    for other in (io.BytesIO(photo), astronaut, encode(astronaut, "PNG"), encode(astronaut, "JPEG")):
        image, is_half = decode_half(other, **LIMITS)
        assert not is_half
        if isinstance(other, io.BytesIO):
            other.seek(0)
        np.testing.assert_array_equal(image.pixels, decode(other).pixels)
    for wrong, message in (("x" * 5000, "cannot be opened"), ("a\0b", "null"), (tmp_path, "this is a folder")):
        with pytest.raises(ImageError, match=message):
            decode_half(wrong, **LIMITS)
    with pytest.raises(TruncatedError):
        decode_half(photo[: len(photo) // 2], **LIMITS)
    with pytest.raises(TooLargeError):
        decode_half(photo, **LIMITS | {"max_pixels": 2800 * 2600 - 1})


def test_a_portrait_gives_a_frozen_reading(reader: Reader, astronaut: np.ndarray) -> None:
    before = astronaut.copy()
    reading = reader.read(astronaut)
    assert (reading.size_wh, reading.error, reading.note, reading.pixels) == ((512, 512), None, None, None)
    face = reading.faces[0]
    assert 150 < face.box.x1 < 260 < face.box.x2 - 10
    assert 20 < face.box.y1 < 130
    assert face.points is not None
    assert face.emotion is face.top
    assert face.confidence == max(face.probs.values())
    assert sum(face.probs.values()) == pytest.approx(1, abs=1e-5)
    assert tuple(face.probs) == reader.model.emotions
    assert (face.maps.shape, face.crop.shape, face.to_image.shape) == ((7, 6, 6), (48, 48), (2, 3))
    assert not any(array.flags.writeable for array in (face.maps, face.crop, face.to_image))
    with pytest.raises(dataclasses.FrozenInstanceError):
        face.emotion = Emotion.HAPPY  # type: ignore[misc]
    np.testing.assert_array_equal(astronaut, before)


def test_the_face_is_the_output_of_the_classifier_for_its_crop(reader: Reader, astronaut: np.ndarray) -> None:
    face = reader.read(astronaut).faces[0]
    probs, maps = reader.model(face.crop[None])
    np.testing.assert_allclose(list(face.probs.values()), probs[0], atol=1e-6)
    np.testing.assert_allclose(face.maps, maps[0], atol=1e-5)


def test_no_detector_reads_the_whole_image_as_one_crop(crop_reader: Reader, draw_face: Draw) -> None:
    crop = draw_face(48, seed=3)
    (face,) = crop_reader.read(crop).faces
    assert face.box == Box(0, 0, 48, 48)
    assert face.points is None
    np.testing.assert_array_equal(face.crop, crop)
    np.testing.assert_allclose(list(face.probs.values()), crop_reader.model(crop[None])[0][0], atol=1e-6)


def test_every_kind_of_source_gives_the_same(crop_reader: Reader, draw_face: Draw, tmp_path: Path) -> None:
    crop = draw_face(64, seed=1)
    path = tmp_path / "face.png"
    path.write_bytes(encode(crop))
    sources: list[Any] = [str(path), path, encode(crop), io.BytesIO(encode(crop)), crop, Image.fromarray(crop)]
    first, *others = values([crop_reader.read(source) for source in sources])
    assert all(other == first for other in others)


def test_a_face_below_abstain_is_unsure(tiny: Path, draw_face: Draw) -> None:
    crop = draw_face(seed=1)
    sure = Reader(tiny, detector="none").read(crop).faces[0]
    assert sure.emotion is sure.top
    unsure = Reader(tiny, detector="none", abstain=min(1.0, sure.confidence + 1e-3)).read(crop).faces[0]
    assert unsure.emotion is None
    assert (unsure.top, unsure.confidence) == (sure.top, sure.confidence)
    assert unsure.to_dict()["emotion"] is None
    exact = Reader(tiny, detector="none", abstain=sure.confidence).read(crop).faces[0]
    assert exact.emotion is sure.top


def with_card(tiny: Path, folder: Path, thresholds: dict[str, Any], name: str = "tiny") -> Path:
    """A model folder whose card has these thresholds by size."""
    sizes = {side: {"unsure_below": value} for side, value in thresholds.items()}
    (folder / "card.json").write_text(json.dumps({"name": name, "sizes": sizes}))
    return Path(shutil.copyfile(tiny, folder / "model.onnx"))


def test_the_card_has_the_threshold_of_each_size(tiny: Path, draw_face: Draw, tmp_path: Path) -> None:
    model = with_card(tiny, tmp_path, {"48": 0.1, "16": 0.9})
    reader = Reader(model, detector="none", abstain="card")
    assert [reader.threshold(size) for size in (8, 16, 32, 48, 500)] == pytest.approx([0.9, 0.9, 0.5, 0.1, 0.1])
    assert "90 % at 16 px, 10 % at 48 px" in reader.describe()["unsure below"]
    small, large = reader.read(draw_face(16, seed=1)).faces[0], reader.read(draw_face(64, seed=1)).faces[0]
    assert (small.emotion, large.emotion) == (None, large.top)
    assert Reader(model, detector="none").read(draw_face(16, seed=1)).faces[0].emotion is small.top
    assert Reader(tiny, abstain="card").threshold(20) == 0  # no card beside it
    assert Reader(with_card(tiny, tmp_path, {"48": 1}, name="another"), abstain="card").threshold(20) == 0


@pytest.mark.parametrize("thresholds", [{"48": 2}, {"48": "much"}, {"wide": 0.5}, {"0": 0.5}])
def test_a_damaged_card_is_named(tiny: Path, tmp_path: Path, thresholds: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"card.json: .*export the model again"):
        Reader(with_card(tiny, tmp_path, thresholds), abstain="card")


def test_the_embedded_models_have_thresholds() -> None:
    for name in bundled_models():
        found = Classifier(find_model(name)).unsure_below
        assert list(found) == [16, 20, 24, 32, 48]
        assert 0 <= found[48] <= found[16] < 1  # fewer answers for small faces are right


def test_faces_of_low_quality_are_left_out_and_counted(tiny: Path, draw_face: Draw) -> None:
    sharp, small = draw_face(64, seed=1), draw_face(12, seed=1)
    reader = Reader(tiny, detector="none", min_quality=0.4)
    kept, poor = reader.read_many([sharp, small])
    assert (len(kept), kept.note) == (1, None)
    assert (len(poor), poor.note) == (0, "1 face of a quality below 0.4 left out")
    assert Reader(tiny, detector="none").read(small).faces[0].quality.score < 0.4


def test_quality_falls_with_size_blur_and_turn(crop_reader: Reader, draw_face: Draw) -> None:
    face = crop_reader.read(draw_face(64, seed=1)).faces[0]
    pixels = Image.fromarray(draw_face(64, seed=1))
    blurred = crop_reader.read(pixels.filter(ImageFilter.GaussianBlur(4))).faces[0]
    small = crop_reader.read(pixels.resize((16, 16))).faces[0]
    assert face.quality.size == pytest.approx(64)
    assert face.quality.turn is None
    assert small.quality.score <= small.quality.size / 32 == 0.5
    assert blurred.quality.sharpness < 0.5 * face.quality.sharpness
    points = KeyPoints((20.0, 20.0), (40.0, 20.0), (30.0, 30.0), (30.0, 40.0))
    turns = [replace(face, points=points._replace(nose=(x, 30.0))).quality for x in (30.0, 35.0, 39.0, 15.0)]
    assert [found.turn for found in turns] == pytest.approx([0, 0.5, 0.9, -1.5])
    assert turns[2].score == pytest.approx(0.2)
    assert turns[3].score == 0
    same = replace(face, points=points._replace(left_eye=points.right_eye))
    assert same.quality.turn is None


def test_the_maps_of_a_face_have_one_scale_unless_their_own_is_wanted(crop_reader: Reader) -> None:
    dots = np.random.default_rng(0).choice(np.uint8([0, 255]), (48, 48), p=[0.9, 0.1])
    face = crop_reader.read(dots).faces[0]
    largest = float(face.maps.max())
    assert largest > 0
    for index, emotion in enumerate(face.probs):
        positive = np.maximum(face.maps[index], 0)
        np.testing.assert_allclose(face.map(emotion), positive / largest)
        np.testing.assert_allclose(face.map(emotion, own_scale=True), positive / max(float(positive.max()), 1e-9))
    assert max(float(face.map(emotion).max()) for emotion in face.probs) == 1
    dark = replace(face, maps=-np.abs(face.maps))
    assert not dark.map().any()


def test_sharpness_of_known_crops() -> None:
    ramp, stripes = np.tile(np.arange(48, dtype=np.uint8), (48, 1)), np.tile(np.uint8([0, 255] * 24), (48, 1))
    assert crop_sharpness(ramp) == 0  # a blur does not change a ramp
    assert crop_sharpness(np.zeros((3, 3), np.uint8)) == 0
    assert crop_sharpness(stripes) == pytest.approx(2 / 3)  # the mean of 3 stripes has a third of their contrast
    assert crop_sharpness(stripes // 2) == pytest.approx(2 / 3)  # whatever their contrast


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_many_are_read_as_one_by_one_and_in_order(
    tiny: Path, astronaut: np.ndarray, draw_face: Draw, threads: int, batch: int
) -> None:
    reader = Reader(tiny, threads=threads)
    blank = np.zeros((40, 50, 3), np.uint8)
    turned = [astronaut, blank, astronaut[:, ::-1], draw_face(64), blank[:30], astronaut[20:, 30:]] * 2
    together = list(reader.read_many(iter(turned), batch=batch))
    alone = [reader.read(image) for image in turned]
    assert [r.size_wh for r in together] == [(p.shape[1], p.shape[0]) for p in turned]
    for one, other in zip(values(together), values(alone), strict=True):
        assert len(one) == len(other)
        np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-5)


@pytest.mark.parametrize("threads", [1, 4])
def test_an_image_that_cannot_be_read_is_a_reading(tiny: Path, draw_face: Draw, tmp_path: Path, threads: int) -> None:
    reader = Reader(tiny, detector="none", threads=threads)
    whole = encode(draw_face(64))
    sources: list[Any] = [
        whole,
        b"no image",
        tmp_path / "gone.jpg",
        whole[: len(whole) // 2],
        None,
        np.zeros(3),
        whole,
    ]
    readings = list(reader.read_many(sources))
    assert [reading.error is None for reading in readings] == [True, False, False, False, False, False, True]
    assert [len(reading.faces) for reading in readings] == [1, 0, 0, 0, 0, 0, 1]
    assert readings[2].source == str(tmp_path / "gone.jpg")
    assert [readings[i].source for i in (1, 5)] == ["<bytes>", "<array>"]
    for reading in readings[1:6]:
        assert reading.error is not None
        assert "\n" not in reading.error
        assert reading.to_dict()["faces"] == []


def test_one_image_raises_its_error(reader: Reader) -> None:
    with pytest.raises(NotAnImageError):
        reader.read(b"no image")


@pytest.mark.parametrize("threads", [1, 4])
def test_other_errors_are_raised(tiny: Path, draw_face: Draw, threads: int) -> None:
    def images() -> Iterator[np.ndarray]:
        yield draw_face(64)
        raise OSError("the camera was unplugged")

    reader = Reader(tiny, detector="none", threads=threads)
    for workers in (1, 2):
        readings = reader.read_many(images(), workers=workers)
        assert len(next(readings).faces) == 1  # what came before is not lost
        with pytest.raises(OSError, match="unplugged"):
            next(readings)

    class Broken:
        name = "broken"

        def __call__(self, pixels: np.ndarray) -> list[Detection]:  # noqa: ARG002
            raise RuntimeError("detector is broken")

    with pytest.raises(RuntimeError, match="detector is broken"):
        list(Reader(tiny, detector=Broken(), threads=threads).read_many([draw_face(64)]))
    assert not decoding_threads()


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mien-decode")]


@pytest.mark.parametrize(("threads", "batch", "most"), [(1, 1, 1), (1, 16, 16), (4, 1, 1), (4, 16, 24)])
def test_reading_is_lazy_and_closing_it_stops_the_threads(
    tiny: Path, draw_face: Draw, threads: int, batch: int, most: int
) -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield draw_face(48)

    readings = Reader(tiny, detector="none", threads=threads).read_many(endless(), batch=batch)
    assert taken == 0
    next(readings)
    assert 1 <= taken <= most
    readings.close()
    assert not decoding_threads()


class Counting:
    """A detector that counts how many of its images are still in memory."""

    name = "counting"

    def __init__(self) -> None:
        self.most = 0
        self._alive: list[weakref.ref[Any]] = []
        self._lock = threading.Lock()

    def __call__(self, pixels: np.ndarray) -> list[Detection]:
        with self._lock:
            self._alive = [ref for ref in self._alive if ref() is not None] + [weakref.ref(pixels)]
            self.most = max(self.most, len(self._alive))
        time.sleep(0.001)
        height, width = pixels.shape[:2]
        return [Detection(Box(0, 0, width, height), 1.0, None)]


@pytest.mark.parametrize("threads", [1, 4])
def test_decoded_images_do_not_pile_up(tiny: Path, draw_face: Draw, threads: int) -> None:
    counting = Counting()
    reader = Reader(tiny, detector=counting, threads=threads)
    assert len(list(reader.read_many([draw_face(64)] * 100))) == 100
    assert counting.most <= threads + 1


def test_kept_images_close_a_batch_early(tiny: Path, draw_face: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_MAX_KEPT_BYTES", 2 * 64 * 64 * 3)
    counting = Counting()
    reader = Reader(tiny, detector=counting)
    for reading in reader.read_many([draw_face(64)] * 50, keep_pixels=True):
        assert reading.pixels is not None
        assert reading.pixels.shape == (64, 64, 3)
    assert counting.most <= 6


def test_faces_of_a_crowd_go_beyond_a_batch(tiny: Path, draw_face: Draw) -> None:
    class Crowd:
        name = "crowd"

        def __call__(self, pixels: np.ndarray) -> list[Detection]:
            return [Detection(Box(x, 0, x + 48, 48), 0.9, None) for x in range(0, pixels.shape[1], 48)]

    faces = [draw_face(48, seed=seed) for seed in range(150)]
    reader = Reader(tiny, detector=Crowd())
    crowd, pair = reader.read_many([np.hstack(faces), np.hstack(faces[:2])], batch=10)
    assert (len(crowd.faces), len(pair.faces)) == (150, 2)
    np.testing.assert_array_equal(np.stack([face.crop for face in crowd.faces]), np.stack(faces))
    np.testing.assert_allclose(values([pair])[0], values([crowd])[0][:2], atol=1e-6)


def test_the_most_certain_faces_of_a_crowd_are_read(tiny: Path) -> None:
    class Crowd:
        name = "crowd"

        def __call__(self, _: np.ndarray) -> list[Detection]:
            return [Detection(Box(x, 0, x + 48, 48), (0.9, 0.7, 0.8, 0.9)[x % 4], None) for x in range(8)]

    reading = Reader(tiny, detector=Crowd(), max_faces=5).read(np.zeros((48, 96), np.uint8))
    assert [face.box.x1 for face in reading.faces] == [0, 2, 3, 4, 7]
    assert reading.note == "more than 5 faces: the 5 most certain were read"
    assert Reader(tiny, detector=Crowd(), max_faces=8).read(np.zeros((48, 96), np.uint8)).note is None


def test_eight_threads_share_a_reader(reader: Reader, astronaut: np.ndarray) -> None:
    images = [np.roll(astronaut, 7 * shift, axis=1) for shift in range(24)]
    serial = [reader.read(image).to_dict()["faces"] for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: reader.read(p).to_dict()["faces"], images))
        streams = list(pool.map(lambda _: [r.to_dict()["faces"] for r in reader.read_many(images[:6])], range(8)))
    assert any(serial)
    assert together == serial
    assert all(len(faces) == len(expected) for s in streams for faces, expected in zip(s, serial[:6], strict=True))


def test_readings_can_be_pickled_and_copied(reader: Reader, astronaut: np.ndarray) -> None:
    reading = reader.read(astronaut, keep_pixels=True)
    for other in (pickle.loads(pickle.dumps(reading)), copy.deepcopy(reading)):
        assert other.to_dict() == reading.to_dict()
        np.testing.assert_array_equal(other.faces[0].maps, reading.faces[0].maps)
        np.testing.assert_array_equal(other.pixels, astronaut)
        face = other.faces[0]
        assert not any(array.flags.writeable for array in (other.pixels, face.maps, face.crop, face.to_image))


def test_a_kept_face_does_not_hold_its_batch(crop_reader: Reader, draw_face: Draw) -> None:
    face: Face = next(crop_reader.read_many([draw_face(48)] * 20)).faces[0]
    assert all(array.base is None for array in (face.maps, face.crop, face.to_image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"abstain": 1.5}, "abstain is 1.5; it must be a number from 0 to 1"),
        ({"abstain": float("nan")}, "abstain is nan"),
        ({"threads": -1}, "threads is -1; it must be 0"),
        ({"detector": "haar"}, "unknown detector 'haar'"),
        ({"providers": ("tpu",)}, "unknown provider 'tpu'"),
        ({"precision": "int4"}, "unknown precision 'int4'"),
        ({"precision": ["int8"]}, "unknown precision"),
        ({"abstain": "0.5"}, "abstain is '0.5'"),
        ({"threads": 1.5}, "threads is 1.5; it must be 0"),
        ({"threads": None}, "threads is None"),
        ({"max_pixels": 0}, "max_pixels is 0; it must be 1"),
        ({"max_bytes": "9"}, "max_bytes is '9'"),
        ({"providers": "cpu"}, "providers is 'cpu'; it must be a list of names"),
        ({"providers": [1]}, "providers is"),
        ({"detector": None}, "a NoneType is no detector"),
    ],
)
def test_wrong_arguments_are_one_line(tiny: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MienError, match=message) as caught:
        Reader(tiny, **options)
    assert "\n" not in str(caught.value)


def test_unknown_model_and_wrong_batch(reader: Reader) -> None:
    with pytest.raises(ModelError, match="unknown model 'resnet'"):
        Reader("resnet")
    with pytest.raises(MienError, match="batch is 0; it must be 1 or more"):
        reader.read_many([], batch=0)


@pytest.mark.parametrize("model", [None, 5, b"mien-0", ["mien-0"]])
def test_a_model_is_a_name_or_a_path(model: Any) -> None:
    with pytest.raises(ModelError, match="give the name of a model or a path"):
        Reader(model)


@pytest.mark.parametrize(
    "images",
    [
        "a.jpg",
        Path("a.jpg"),
        b"bytes of an image",
        io.BytesIO(b"a stream"),
        np.zeros((48, 48), np.uint8),
        np.zeros((48, 48, 3), np.uint8),
        Image.new("RGB", (48, 48)),
        None,
        5,
        float("nan"),
    ],
    ids=lambda images: type(images).__name__,
)
def test_one_image_is_refused_by_read_many_before_anything_is_read(crop_reader: Reader, images: Any) -> None:
    with pytest.raises(MienError, match="read_many takes several images") as caught:
        crop_reader.read_many(images)
    assert "\n" not in str(caught.value)


def test_a_stack_of_images_is_several(crop_reader: Reader, draw_face: Draw) -> None:
    stack = np.stack([draw_face(48)] * 3)
    assert len(list(crop_reader.read_many(stack))) == 3


@pytest.mark.parametrize("image", [None, 5, float("nan"), "https://example.org/a.jpg", Path("nowhere.jpg"), [1], ""])
def test_what_is_no_image_is_one_line(crop_reader: Reader, image: Any) -> None:
    with pytest.raises(ImageError) as caught:
        crop_reader.read(image)
    assert "\n" not in str(caught.value)
    assert ("download" in str(caught.value)) == (isinstance(image, str) and "://" in image)


def _faces(job: tuple[Reader, Any]) -> list[dict[str, Any]]:
    reader, image = job
    return reader.read(image).to_dict()["faces"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_reader_works_in_other_processes(astronaut: NDArray[np.uint8], method: str) -> None:
    reader = Reader(abstain=0.25)
    expected = reader.read(astronaut).to_dict()["faces"]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_faces, [(reader, astronaut)] * 4) == [expected] * 4


def test_a_pickled_reader_is_the_same_reader(astronaut: NDArray[np.uint8]) -> None:
    reader = Reader("mien-0", abstain=0.25, threads=2, max_pixels=1_000_000)
    again = pickle.loads(pickle.dumps(reader))
    assert repr(again) == repr(reader)
    assert again.describe() == reader.describe()
    assert again.read(astronaut).to_dict() == reader.read(astronaut).to_dict()
    with pytest.raises(ImageError, match="1,000,000"):
        again.read(np.zeros((1001, 1000), np.uint8))


def test_limits_reach_the_decoder(tiny: Path, draw_face: Draw) -> None:
    reader = Reader(tiny, detector="none", max_pixels=100, max_bytes=10_000_000)
    (reading,) = reader.read_many([draw_face(48)])
    assert reading.error is not None
    assert "100" in reading.error


def test_the_reader_describes_itself(crop_reader: Reader) -> None:
    assert repr(crop_reader) == "Reader(tiny, fp32, detector=none, abstain=0.0)"
    assert repr(crop_reader.model) == "Classifier(tiny, fp32, 7 emotions, 48x48)"


def test_a_reading_is_iterable_and_always_true() -> None:
    reading = Reader(detector="none").read(np.zeros((64, 64, 3), np.uint8))
    assert list(reading) == list(reading.faces)
    assert len(reading) == 1
    assert bool(Reading((), "a.jpg", (1, 1)))


@pytest.fixture(scope="module")
def sure() -> Reader:
    return Reader()


def test_boxes_of_another_detector_are_read(sure: Reader, astronaut: NDArray[np.uint8]) -> None:
    own = sure.read(astronaut).faces[0]
    box = list(own.box)
    exact = sure.read_at(astronaut, [Detection(own.box, own.score, own.points)], keep_pixels=True)
    assert exact.faces[0].probs == own.probs
    assert exact.size_wh == (512, 512)
    assert np.array_equal(exact.pixels, astronaut)
    theirs = SimpleNamespace(xyxy=np.array([box], np.float32), confidence=np.array([0.5]))
    for boxes in ([box], np.array([[*box, 0.5]]), theirs):
        found = sure.read_at(ROOT / "examples" / "astronaut.png", boxes).faces[0]
        assert found.points is None
        assert found.emotion == own.emotion
    assert found.score == 0.5
    assert len(sure.read_at(astronaut, np.empty((0, 4)))) == 0


@pytest.mark.parametrize(
    "boxes",
    [[1, 2, 3, 4], [[5, 5, 5, 9]], [[0, 0, 1, math.inf]], [[0, 0, 9, 9, 7]], "a", [[1, 2]], None, [[0, 0, 1, 1e200]]]
    + [[Detection(Box(*box), 1, None)] for box in ((9, 9, 1, 1), (5, 5, 5, 5))],
)
def test_wrong_boxes_are_one_clear_line(boxes: object) -> None:
    with pytest.raises(MienError, match="boxes are"):
        from_detections(boxes)


def test_a_notebook_shows_image_faces_and_bars(sure: Reader, astronaut: NDArray[np.uint8]) -> None:
    shown = sure.read(astronaut, keep_pixels=True)._repr_html_()
    assert shown.count("<img") == 2
    assert shown.count("data:image/") == 2
    assert "happy 9" in shown
    assert "<script" not in shown
    hostile = Reading((), "<b>", (0, 0), error="<i>")._repr_html_()
    assert "<b>" not in hostile
    assert "<i>" not in hostile
