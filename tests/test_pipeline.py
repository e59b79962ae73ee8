"""The reader on one picture: what a reading holds, and that it is the same from every source."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien import Box, Emotion, Reader, Reading
from support.encoded_images import encode
from support.onnx_models import write_model

Draw = Callable[..., np.ndarray]


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


def test_the_face_is_what_the_classifier_says_of_its_crop(reader: Reader, astronaut: np.ndarray) -> None:
    face = reader.read(astronaut).faces[0]
    probs, maps = reader.model(face.crop[None])
    np.testing.assert_allclose(list(face.probs.values()), probs[0], atol=1e-6)
    np.testing.assert_allclose(face.maps, maps[0], atol=1e-5)


def test_no_detector_reads_the_whole_picture_as_one_crop(crop_reader: Reader, draw_face: Draw) -> None:
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


def test_abstain_answers_unsure_below_it(tiny: Path, draw_face: Draw) -> None:
    crop = draw_face(seed=1)
    sure = Reader(tiny, detector="none").read(crop).faces[0]
    assert sure.emotion is sure.top
    unsure = Reader(tiny, detector="none", abstain=min(1.0, sure.confidence + 1e-3)).read(crop).faces[0]
    assert unsure.emotion is None
    assert (unsure.top, unsure.confidence) == (sure.top, sure.confidence)
    assert unsure.to_dict()["emotion"] is None
    exact = Reader(tiny, detector="none", abstain=sure.confidence).read(crop).faces[0]
    assert exact.emotion is sure.top
