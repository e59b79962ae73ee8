"""FER-2013 in its four forms: the same tensors from each."""

import hashlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import SEVEN  # noqa: E402
from mien._errors import DataError  # noqa: E402
from mien.lab.data import FaceSet, Split, load_fer2013, with_classes  # noqa: E402
from mien.lab.feed import sets  # noqa: E402
from mien.lab.feed.sets import load_set  # noqa: E402
from mien.lab.recipe import load  # noqa: E402
from support.fer2013_files import (  # noqa: E402
    SPLITS,
    VOTES_HEADER,
    assert_same,
    csv_rows,
    parquet_columns,
    twenty_one,
    votes_rows,
    write_csv,
    write_folders,
    write_parquet,
)


@pytest.fixture(scope="module")
def faces(draw_face: Callable[..., np.ndarray]) -> FaceSet:
    return twenty_one(draw_face)


def test_parquet(faces: FaceSet, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "fer2013.parquet", parquet_columns(faces))
    read = load_fer2013(path, official=False)
    assert_same(read, faces, "votes")
    assert read.pixels_from_jpeg is not None
    assert not read.pixels_from_jpeg.any()
    assert read.emotions == SEVEN
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.source == str(path)


def test_parquet_without_votes(faces: FaceSet, tmp_path: Path) -> None:
    columns = {name: parquet_columns(faces)[name] for name in ("label", "usage", "image")}
    read = load_fer2013(write_parquet(tmp_path / "any.name", columns), official=False)
    assert_same(read, faces)
    assert read.votes is None
    assert read.pixels_from_jpeg is None


def test_original_csv(faces: FaceSet, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "fer2013.csv", csv_rows(faces))
    read = load_fer2013(path, official=False)
    assert_same(read, faces)
    assert read.votes is None
    assert read.pixels_from_jpeg is None
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_later_kaggle_csv(faces: FaceSet, tmp_path: Path) -> None:
    rows = [[label, usage, pixels] for label, pixels, usage in csv_rows(faces)]
    path = write_csv(tmp_path / "icml_face_data.csv", rows, header=("emotion", " Usage", " pixels"))
    assert_same(load_fer2013(path, official=False), faces)


def test_csv_with_byte_order_mark_and_blank_lines(faces: FaceSet, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "fer2013.csv", csv_rows(faces))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n\r\n")
    assert_same(load_fer2013(path, official=False), faces)


def test_train_csv_is_all_training(faces: FaceSet, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "train.csv", [row[:2] for row in csv_rows(faces)], header=("emotion", "pixels"))
    read = load_fer2013(path, official=False)
    assert torch.equal(read.images, faces.images)
    assert set(read.usage.tolist()) == {0}
    assert read.note is not None
    assert "Training" in read.note


def test_votes_join_by_row(faces: FaceSet, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "fer2013.csv", csv_rows(faces))
    votes = write_csv(tmp_path / "fer2013new.csv", votes_rows(faces), header=VOTES_HEADER)
    read = load_fer2013(path, votes=votes, official=False)
    assert_same(read, faces, "votes")
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, votes)}
    listing = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    assert read.sha256 == hashlib.sha256(listing.encode()).hexdigest()


def test_a_recipe_names_the_votes_of_a_csv(faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "load_fer2013", partial(load_fer2013, official=False))  # few faces, not the whole set
    path = write_csv(tmp_path / "fer2013.csv", csv_rows(faces))
    votes = write_csv(tmp_path / "fer2013new.csv", votes_rows(faces), header=VOTES_HEADER)
    assert_same(load_set(path, load("mien-0", [f"data.votes={votes}"])), faces, "votes")
    with pytest.raises(DataError, match=r"in a recipe: data\.votes"):
        with_classes(load_set(path, load("mien-0", ["data.classes=eight"])), "eight")


def test_folders(faces: FaceSet, tmp_path: Path) -> None:
    folder = write_folders(tmp_path, faces)
    (folder / "train" / "happy" / ".DS_Store").write_bytes(b"clutter")
    (folder / "train" / "Thumbs.db").write_bytes(b"clutter")
    read = load_fer2013(folder, official=False)
    assert_same(read, faces)
    assert read.note is None
    assert read.votes is None
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    listing = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in files)
    assert read.sha256 == hashlib.sha256(listing.encode()).hexdigest()


def test_folders_whose_names_do_not_tell_the_split(faces: FaceSet, tmp_path: Path) -> None:
    read = load_fer2013(write_folders(tmp_path, faces, named=False), official=False)
    assert [int((read.usage == i).sum()) for i in range(3)] == [7, 14, 0]
    assert read.note is not None
    assert read.note.startswith("14 test pictures")


def test_folders_with_validation(faces: FaceSet, tmp_path: Path) -> None:
    write_folders(tmp_path, faces, named=False)
    write_folders(tmp_path / "more", faces.split(Split.TRAINING), named=False)
    (tmp_path / "more" / "train").rename(tmp_path / "validation")
    read = load_fer2013(tmp_path, official=False)
    assert [int((read.usage == i).sum()) for i in range(3)] == [7, 7, 14]
    assert read.note is None


def test_folders_of_other_copies(faces: FaceSet, tmp_path: Path) -> None:
    write_folders(tmp_path, faces)
    for split in ("train", "test"):
        (tmp_path / split / "fear").rename(tmp_path / split / "Fearful")
        (tmp_path / split / "surprise").rename(tmp_path / split / "surprised")
    assert_same(load_fer2013(tmp_path, official=False), faces)


def test_jpeg_is_marked(faces: FaceSet, tmp_path: Path) -> None:
    write_folders(tmp_path, faces)
    for path in list(tmp_path.rglob("*.png"))[:5]:
        with Image.open(path) as picture:
            picture.save(path.with_suffix(".JPG"), "JPEG", quality=95)
        path.unlink()
    read = load_fer2013(tmp_path, official=False)
    assert read.pixels_from_jpeg is not None
    assert int(read.pixels_from_jpeg.sum()) == 5
    difference = read.images.int() - faces.images.int()
    assert difference.abs().amax(dim=(1, 2))[~read.pixels_from_jpeg].max() == 0
    assert difference.abs().float().mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_stored_as_colour_keeps_its_values(faces: FaceSet, tmp_path: Path, mode: str) -> None:
    columns = parquet_columns(faces)
    stream = io.BytesIO()
    Image.fromarray(faces.images[3].numpy()).convert(mode).save(stream, "PNG")
    columns["image"][3] = stream.getvalue()
    assert_same(load_fer2013(write_parquet(tmp_path / "f.parquet", columns), official=False), faces)


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=48 * 48, max_size=48 * 48), st.integers(0, 6), st.sampled_from(SPLITS))
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, pixels: bytes, label: int, split: Split) -> None:
    path = tmp_path_factory.mktemp("csv") / "fer2013.csv"
    write_csv(path, [[str(label), " ".join(map(str, pixels)), str(split)]])
    read = load_fer2013(path, official=False)
    assert read.images.numpy().tobytes() == pixels
    assert (read.labels.item(), SPLITS[read.usage.item()]) == (label, split)
