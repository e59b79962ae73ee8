"""FER-2013 in its four forms: the same tensors from each, every defect named, and the counts of the real table."""

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch", reason="the lab is not installed")
pa = pytest.importorskip("pyarrow", reason="the lab is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the lab is not installed")

from mien._emotions import CLASS_SETS, SEVEN, Emotion  # noqa: E402
from mien._errors import DataError, MissingExtraError  # noqa: E402
from mien.lab.data import (  # noqa: E402
    FERPLUS_COLUMNS,
    FaceSet,
    Split,
    check_official,
    clean_rows,
    extra_copies,
    find_fer2013,
    leaked_into_tests,
    load_fer2013,
    vote_distribution,
    with_classes,
)
from mien.lab.data.official import OFFICIAL_COUNTS  # noqa: E402
from mien.lab.data.read_csv import read_csv  # noqa: E402
from mien.lab.feed import sets  # noqa: E402
from mien.lab.feed.sets import load_set  # noqa: E402
from mien.lab.recipe import load  # noqa: E402

SPLITS = tuple(Split)
DOCS = Path(__file__).resolve().parent.parent / "docs" / "data.md"


def make_set(images: object, labels: object, usage: object, votes: object = None, jpeg: object = None) -> FaceSet:
    """A FaceSet of the seven emotions from plain lists."""
    labels = torch.tensor(labels)
    return FaceSet(
        images=torch.tensor(np.asarray(images), dtype=torch.uint8),
        labels=labels,
        votes=None if votes is None else torch.tensor(votes, dtype=torch.uint8),
        usage=torch.tensor(usage),
        rows=torch.arange(len(labels)),
        pixels_from_jpeg=None if jpeg is None else torch.tensor(jpeg),
        emotions=SEVEN,
        sha256="0" * 64,
        source="made.csv",
    )


@pytest.fixture(scope="module")
def faces(draw_face: Callable[..., np.ndarray]) -> FaceSet:
    """Twenty-one drawn faces: every class in every split."""
    count = 21
    votes = np.random.default_rng(1).multinomial(10, [0.1] * 10, size=count)
    images = [draw_face(48, seed=seed) for seed in range(count)]
    return make_set(images, [i % 7 for i in range(count)], [i // 7 for i in range(count)], votes.tolist())


# Writers of the four forms. They share nothing with the readers.


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def parquet_columns(faces: FaceSet) -> dict[str, list[object]]:
    votes = {name: faces.votes[:, i].tolist() for i, name in enumerate(FERPLUS_COLUMNS)}
    return {
        "image": [png(image) for image in faces.images.numpy()],
        "label": faces.labels.tolist(),
        "usage": [str(SPLITS[i]) for i in faces.usage.tolist()],
        **votes,
        "pixels_from_jpeg": [False] * len(faces),
    }


def write_parquet(path: Path, columns: dict[str, list[object]]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def csv_rows(faces: FaceSet) -> list[list[str]]:
    rows = zip(faces.labels.tolist(), faces.images.numpy(), faces.usage.tolist(), strict=True)
    return [[str(label), " ".join(map(str, image.ravel())), str(SPLITS[usage])] for label, image, usage in rows]


def write_csv(path: Path, rows: list[list[str]], header: tuple[str, ...] = ("emotion", "pixels", "Usage")) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


VOTES_HEADER = ("Usage", "Image name", *FERPLUS_COLUMNS[:-1], "NF")


def votes_rows(faces: FaceSet) -> list[list[str]]:
    pairs = zip(faces.usage.tolist(), faces.votes.tolist(), strict=True)
    return [[str(SPLITS[usage]), f"fer{i:07d}.png", *map(str, votes)] for i, (usage, votes) in enumerate(pairs)]


def write_folders(folder: Path, faces: FaceSet, *, named: bool = True) -> Path:
    for row, (image, label, usage) in enumerate(
        zip(faces.images.numpy(), faces.labels.tolist(), faces.usage.tolist(), strict=True)
    ):
        place = folder / ("train" if usage == 0 else "test") / SEVEN[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / (f"{SPLITS[usage]}_{row}.png" if named else f"im{row}.png")).write_bytes(png(image))
    return folder


def assert_same(left: FaceSet, right: FaceSet, *columns: str) -> None:
    for name in ("images", "labels", "usage", "rows", *columns):
        a, b = getattr(left, name), getattr(right, name)
        assert a.dtype == b.dtype, name
        assert torch.equal(a, b), name


# The four forms.


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


# Defects. Every message is one line; the pattern says what it must name.


def refuse(pattern: str, path: Path, **options: object) -> None:
    with pytest.raises(DataError, match=pattern) as caught:
        load_fer2013(path, **{"official": False, **options})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(path))


PIXELS = " ".join(["7"] * 2304)


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        (["7", PIXELS, "Training"], r"fer2013\.csv, row 1 \(line 3\): label '7' is not a whole number from 0"),
        (["-1", PIXELS, "Training"], r"row 1 .*label '-1'"),
        (["happy", PIXELS, "Training"], r"row 1 .*label 'happy'"),
        (["1" * 5000, PIXELS, "Training"], r"row 1 .*label '1+\.\.\.'"),
        (["", PIXELS, "Training"], r"row 1 .*label ''"),
        (["3", PIXELS[:-2], "Training"], r"row 1 \(line 3\): 2,303 pixel values instead of 2,304"),
        (["3", PIXELS + " 9", "Training"], r"2,305 pixel values instead of 2,304 \(48x48\)"),
        (["3", "", "Training"], r"row 1 .*0 pixel values"),
        (["3", PIXELS[:-1] + "256", "Training"], r"row 1 .*pixel value '256' is not a whole number from 0 to 255"),
        (["3", PIXELS[:-1] + "-1", "Training"], r"pixel value '-1'"),
        (["3", PIXELS[:-1] + "0.5", "Training"], r"pixel value '0\.5'"),
        (["3", PIXELS[:-1] + "x", "Training"], r"pixel value 'x'"),
        (
            ["3", PIXELS, "Testing"],
            r"row 1 .*unknown Usage 'Testing'.*must be one of Training, PublicTest, PrivateTest",
        ),
        (["3", PIXELS, "Publictest"], r"unknown Usage 'Publictest' \(did you mean \"PublicTest\"\?\)"),
        (["3", PIXELS], r"row 1 \(line 3\): 2 fields instead of 3; is the file complete"),
        (["3", PIXELS * 30, "Training"], r"row 1 .*not CSV \(field larger than field limit"),
    ],
)
def test_bad_csv_row(tmp_path: Path, row: list[str], pattern: str) -> None:
    refuse(pattern, write_csv(tmp_path / "fer2013.csv", [["0", PIXELS, "Training"], row]))


def test_csv_columns(faces: FaceSet, tmp_path: Path) -> None:
    rows = csv_rows(faces)
    path = write_csv(tmp_path / "fer2013.csv", rows, header=("emotions", "pixels", "Usage"))
    refuse(r'"emotion" is missing \(is "emotions" meant\?\); found \'emotions\', \'pixels\', \'usage\'', path)
    refuse('"pixels" is missing', write_csv(path, rows, header=("emotion", "image", "Usage")))
    refuse("no labels.*use icml_face_data.csv", write_csv(path, [[row[1]] for row in rows], header=("pixels",)))
    refuse('"emotion" is missing', write_csv(path, votes_rows(faces), header=VOTES_HEADER))


def test_files_that_are_no_table(tmp_path: Path) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_bytes(b"")
    refuse('"emotion" is missing', path)
    path.write_text("emotion,pixels,Usage\n")
    refuse("holds no faces", path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    refuse("is an archive; unpack it", path)
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    refuse(r"fer2013\.csv", path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights do not stop this user")
def test_file_without_rights(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "fer2013.csv", [["0", PIXELS, "Training"]])
    path.chmod(0)
    refuse("cannot be read", path)


def test_votes_file(faces: FaceSet, tmp_path: Path) -> None:
    path, rows = write_csv(tmp_path / "fer2013.csv", csv_rows(faces)), votes_rows(faces)
    votes = tmp_path / "fer2013new.csv"

    def refuse_votes(pattern: str, rows: list[list[str]], header: tuple[str, ...] = VOTES_HEADER) -> None:
        refuse(pattern, path, votes=write_csv(votes, rows, header=header))

    refuse("no such file; get fer2013new.csv", path, votes=tmp_path / "nowhere.csv")
    refuse_votes("has 20 rows, but .*fer2013.csv has 21; votes are joined by row", rows[:-1])
    refuse_votes('"fear" is missing', rows, tuple("dread" if name == "fear" else name for name in VOTES_HEADER))
    for bad in ("-1", "11", "2.0", "", "many"):
        refuse_votes(
            rf"row 4 \(line 6\): column \"neutral\" holds '{bad}'; FER\+ votes are whole numbers from 0 to 10",
            [*rows[:4], [*rows[4][:2], bad, *rows[4][3:]], *rows[5:]],
        )
    refuse_votes("row 0: Usage is PrivateTest, but Training in .*not in the same order", rows[::-1])


def test_votes_need_not_sum_to_ten(faces: FaceSet, tmp_path: Path) -> None:
    rows = votes_rows(faces)
    rows[2] = [*rows[2][:2], "9", *["0"] * 9]
    votes = write_csv(tmp_path / "votes.csv", rows, header=VOTES_HEADER)
    read = load_fer2013(write_csv(tmp_path / "fer2013.csv", csv_rows(faces)), votes=votes, official=False)
    assert read.votes is not None
    assert read.votes[2].sum() == 9


def test_votes_where_they_cannot_be_joined(faces: FaceSet, tmp_path: Path) -> None:
    votes = write_csv(tmp_path / "votes.csv", votes_rows(faces), header=VOTES_HEADER)
    refuse("votes are joined by row", write_folders(tmp_path / "folders", faces), votes=votes)
    parquet = write_parquet(tmp_path / "f.parquet", parquet_columns(faces))
    refuse("holds FER\\+ votes already; leave out votes=", parquet, votes=votes)


def broken_png(image: np.ndarray) -> bytes:
    content = bytearray(png(image))
    content[60] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("column", "value", "pattern"),
    [
        ("image", b"no picture", r"f\.parquet, row 5: not a readable PNG or JPEG"),
        ("image", b"", r"row 5: not a readable PNG or JPEG"),
        ("image", png(np.zeros((48, 47), np.uint8)), r"row 5: the image is 47x48; FER-2013 faces are 48x48"),
        ("image", png(np.zeros((48, 48), np.uint16)), r"row 5: the image has mode I;16; 8-bit grey"),
        ("image", png(np.full((48, 48), 9, np.uint8))[:-40], r"row 5: not a readable PNG or JPEG"),
        ("image", broken_png(np.eye(48, dtype=np.uint8)), r"row 5: not a readable PNG or JPEG"),
        ("image", None, r'row 5: column "image" holds nothing; bytes is expected'),
        ("label", 7, r"row 5: label '7'"),
        ("label", None, r'row 5: column "label" holds nothing'),
        ("usage", "test", r"row 5: unknown Usage 'test'"),
        ("usage", None, r'row 5: column "usage" holds nothing'),
        ("fear", 11, r"row 5: column \"fear\" holds '11'"),
        ("fear", -1, r"row 5: column \"fear\" holds '-1'"),
        ("fear", 2**60, r"row 5: column \"fear\""),
        ("pixels_from_jpeg", None, r'row 5: column "pixels_from_jpeg" holds nothing'),
    ],
)
def test_bad_parquet_cell(faces: FaceSet, tmp_path: Path, column: str, value: object, pattern: str) -> None:
    columns = parquet_columns(faces)
    columns[column][5] = value
    refuse(pattern, write_parquet(tmp_path / "f.parquet", columns))


def test_bad_parquet_columns(faces: FaceSet, tmp_path: Path) -> None:
    columns = parquet_columns(faces)
    path = tmp_path / "f.parquet"
    refuse(
        r'"label" is missing \(is "labels" meant\?\)',
        write_parquet(path, {"labels" if name == "label" else name: values for name, values in columns.items()}),
    )
    columns_less = {name: values for name, values in columns.items() if name != "contempt"}
    refuse('"contempt" is missing', write_parquet(path, columns_less))
    refuse(
        'row 0: column "image" holds str; bytes is expected',
        write_parquet(path, {**columns, "image": ["face.png"] * len(faces)}),
    )
    refuse(
        'row 0: column "label" holds float; int is expected',
        write_parquet(path, {**columns, "label": [float(label) for label in columns["label"]]}),
    )


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_parquet(faces: FaceSet, tmp_path: Path, kept: float) -> None:
    path = write_parquet(tmp_path / "f.parquet", parquet_columns(faces))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refuse(r"f\.parquet: not a complete Parquet file", path)


def test_bad_folders(faces: FaceSet, tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        return write_folders(tmp_path / name, faces)

    folder = fresh("typo")
    (folder / "train" / "happy").rename(folder / "train" / "hapy")
    refuse(r'"hapy" is no emotion of FER-2013 \(did you mean "happy"\?\); the folders are angry, ', folder)
    folder = fresh("contempt")
    (folder / "test" / "contempt").mkdir()
    refuse('"contempt" is no emotion of FER-2013', folder)
    folder = fresh("empty emotion")
    for file in (folder / "train" / "sad").iterdir():
        file.unlink()
    refuse(r"train.sad: is empty", folder)
    folder = fresh("loose")
    (folder / "train" / "a.png").write_bytes(png(np.zeros((48, 48), np.uint8)))
    refuse(r"a\.png: is a file where only folders of emotions belong", folder)
    folder = fresh("contradiction")
    (folder / "train" / "sad" / "PublicTest_9.png").write_bytes(png(np.zeros((48, 48), np.uint8)))
    refuse(r"PublicTest_9\.png: its name says PublicTest, its folder Training", folder)
    folder = fresh("notes")
    (folder / "test" / "sad" / "notes.txt").write_text("x")
    refuse(r"notes\.txt: is not a \.png, \.jpg or \.jpeg file", folder)
    folder = fresh("broken")
    (folder / "test" / "sad" / "PublicTest_1.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    refuse(r"PublicTest_1\.jpg: not a readable PNG or JPEG", folder)
    (tmp_path / "bare" / "train").mkdir(parents=True)
    refuse(r"train: is empty; a folder for each of angry, ", tmp_path / "bare")


# Finding.


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIEN_DATA", raising=False)
    with pytest.raises(DataError, match=r"MIEN_DATA is not set; .*Kaggle"):
        find_fer2013()
    with pytest.raises(DataError, match=r"nowhere: there is no such file or folder; .*Kaggle"):
        find_fer2013(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds none of fer2013\.parquet, .*Kaggle"):
        find_fer2013(tmp_path)
    monkeypatch.setenv("MIEN_DATA", str(tmp_path))
    (tmp_path / "fer2013" / "Train").mkdir(parents=True)
    assert find_fer2013() == tmp_path / "fer2013"
    for name in ("icml_face_data.csv", "fer2013.csv", "fer2013.parquet"):
        (tmp_path / "fer2013" / name).touch()
        assert find_fer2013() == tmp_path / "fer2013" / name
    (tmp_path / "fer2013.csv").touch()
    assert find_fer2013() == tmp_path / "fer2013.csv"
    assert find_fer2013(tmp_path / "fer2013" / "fer2013.csv") == tmp_path / "fer2013" / "fer2013.csv"


def test_load_searches_a_folder(faces: FaceSet, tmp_path: Path) -> None:
    write_csv(tmp_path / "fer2013.csv", csv_rows(faces))
    assert_same(load_fer2013(str(tmp_path), official=False), faces)


def test_nothing_is_written(faces: FaceSet, tmp_path: Path) -> None:
    write_csv(tmp_path / "fer2013.csv", csv_rows(faces))
    load_fer2013(tmp_path, official=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["fer2013.csv"]


# Missing extras.


def test_without_pyarrow(faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "f.parquet", parquet_columns(faces))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pyarrow is not installed; run: pip install "mien\[lab\]"'):
        load_fer2013(path)


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    for name in [name for name in sys.modules if name.startswith("mien.lab.data")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="torch is not installed"):
        importlib.import_module("mien.lab.data")


# The value itself.


def test_select_split_and_device(faces: FaceSet) -> None:
    odd = faces.select(torch.tensor([5, 1]))
    assert odd.rows.tolist() == [5, 1]
    assert torch.equal(odd.images[0], faces.images[5])
    test = faces.split(Split.PRIVATE_TEST)
    assert len(test) == 7
    assert set(test.usage.tolist()) == {2}
    assert test.votes is not None
    assert test.votes.shape == (7, 10)
    odd.images.zero_()
    assert faces.images[5].any(), "select must not share memory with the set"
    assert faces.to("meta").images.device.type == "meta"
    assert "21 faces: Training 7, PublicTest 7, PrivateTest 7" in repr(faces)
    assert len(faces.select(torch.zeros(21, dtype=torch.bool))) == 0
    with pytest.raises(DataError, match=r"needs shape \[21\], not \[3\]"):
        faces.select(torch.ones(3, dtype=torch.bool))
    with pytest.raises(DataError, match="equally long"):
        replace(faces, labels=faces.labels[:3])


# Classes and votes.


@pytest.mark.parametrize("name", [name for name in CLASS_SETS if name != "eight"])
def test_class_sets(faces: FaceSet, name: str) -> None:
    chosen = with_classes(faces, name)
    assert chosen.emotions == CLASS_SETS[name]
    kept = [row for row in range(len(faces)) if faces.emotions[faces.labels[row]] in CLASS_SETS[name]]
    assert chosen.rows.tolist() == kept
    before = [faces.emotions[i] for i in faces.labels[chosen.rows].tolist()]
    assert [chosen.emotions[i] for i in chosen.labels.tolist()] == before


def test_class_sets_that_cannot_be_chosen(faces: FaceSet) -> None:
    with pytest.raises(DataError, match=r"not 'six-no-neutrl' \(did you mean \"six-no-neutral\"\?\)"):
        with_classes(faces, "six-no-neutrl")
    with pytest.raises(DataError, match="no longer has neutral"):
        with_classes(with_classes(faces, "six-no-neutral"), "eight")
    with pytest.raises(DataError, match="has FER\\+ labels already"):
        with_classes(with_classes(faces, "eight"), "three")
    with pytest.raises(DataError, match=r"has no FER\+ votes; load the Parquet file, or a CSV .*data\.votes"):
        with_classes(replace(faces, votes=None), "eight")
    with pytest.raises(DataError, match=r"has no FER\+ votes"):
        vote_distribution(replace(faces, votes=None))
    three = with_classes(with_classes(faces, "six-no-disgust"), "three")
    assert three.rows.tolist() == with_classes(faces, "three").rows.tolist()


def vote_set(*rows: dict[str, int], jpeg: list[bool] | None = None) -> FaceSet:
    votes = [[row.get(name, 0) for name in FERPLUS_COLUMNS] for row in rows]
    count = len(rows)
    return make_set(np.zeros((count, 48, 48)), [0] * count, [0] * count, votes, jpeg)


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        ({"neutral": 10}, Emotion.NEUTRAL),
        ({"contempt": 6, "anger": 4}, Emotion.CONTEMPT),
        ({"contempt": 5, "anger": 5}, None),
        ({"fear": 4, "surprise": 3, "anger": 3}, None),
        ({"fear": 3, "surprise": 2, "anger": 1, "sadness": 1, "disgust": 1, "neutral": 1, "contempt": 1}, Emotion.FEAR),
        ({"happiness": 5, "neutral": 4, "sadness": 1}, Emotion.HAPPY),
        ({"unknown": 6, "sadness": 4}, None),
        ({"not_face": 10}, None),
        ({"sadness": 4, "unknown": 4, "anger": 2}, None),
        ({"disgust": 9}, Emotion.DISGUST),
        (dict.fromkeys(FERPLUS_COLUMNS, 1), None),
    ],
)
def test_majority_rule(votes: dict[str, int], winner: Emotion | None) -> None:
    eight = with_classes(vote_set(votes), "eight")
    assert [eight.emotions[i] for i in eight.labels.tolist()] == ([] if winner is None else [winner])


def test_majority_drops_jpeg_rows() -> None:
    faces = vote_set({"neutral": 10}, {"anger": 9}, jpeg=[True, False])
    assert with_classes(faces, "eight").rows.tolist() == [1]


@given(st.lists(st.integers(0, 10), min_size=10, max_size=10))
def test_majority_rule_in_plain_words(votes: list[int]) -> None:
    counted = [v if v > 1 else 0 for v in votes]
    winners = [i for i, v in enumerate(counted) if v > sum(counted) / 2]
    expected = winners if winners and winners[0] < 8 else []
    eight = with_classes(vote_set(dict(zip(FERPLUS_COLUMNS, votes, strict=True))), "eight")
    assert eight.labels.tolist() == expected


def test_vote_distribution() -> None:
    faces = vote_set(
        {"happiness": 6, "neutral": 2, "contempt": 1, "unknown": 1}, {"not_face": 10}, {"anger": 10},
        jpeg=[False, False, True],
    )  # fmt: skip
    probs = vote_distribution(faces)
    assert probs.dtype == torch.float32
    assert probs[0].tolist() == pytest.approx([0, 0, 0, 0.75, 0, 0, 0.25])
    assert not probs[1:].any()
    assert vote_distribution(with_classes(faces, "three"))[0].tolist() == [0, 0, 1]
    assert vote_distribution(with_classes(faces, "eight"))[0].tolist() == pytest.approx(
        [2 / 9, 6 / 9, 0, 0, 0, 0, 0, 1 / 9]
    )


@given(st.lists(st.lists(st.integers(0, 10), min_size=10, max_size=10), min_size=1, max_size=5))
def test_vote_distributions_sum_to_one_or_zero(votes: list[list[int]]) -> None:
    faces = vote_set(*(dict(zip(FERPLUS_COLUMNS, row, strict=True)) for row in votes))
    sums = vote_distribution(faces).sum(dim=1).tolist()
    assert sums == pytest.approx([float(any(row[:7])) for row in votes])


# Copies.

SHADES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=12)


@given(SHADES)
def test_copies(rows: list[tuple[int, int]]) -> None:
    images = np.stack([np.full((4, 4), shade) for shade, _ in rows])
    faces = make_set(images, [0] * len(rows), [usage for _, usage in rows])
    leaked = [usage == 0 and any(s == shade and u > 0 for s, u in rows) for shade, usage in rows]
    assert leaked_into_tests(faces).tolist() == leaked
    for index, split in enumerate(Split):
        clean = [
            usage == index
            and not any(s == shade and (u < index or (u == index and i < row)) for i, (s, u) in enumerate(rows))
            for row, (shade, usage) in enumerate(rows)
        ]
        assert clean_rows(faces, split).tolist() == clean
    extra = [(shade, usage) in rows[:row] for row, (shade, usage) in enumerate(rows)]
    assert extra_copies(faces).tolist() == extra


# The official counts, on stand-ins of one pixel a face.


def official_like(counts: dict[Split, tuple[int, ...]]) -> FaceSet:
    labels, usage = [], []
    for index, split in enumerate(Split):
        for label, count in enumerate(counts.get(split, ())):
            labels += [label] * count
            usage += [index] * count
    return make_set(np.zeros((len(labels), 1, 1)), labels, usage)


def test_official_counts() -> None:
    check_official(official_like(OFFICIAL_COUNTS))
    assert [sum(counts) for counts in OFFICIAL_COUNTS.values()] == [28709, 3589, 3589]
    merged = tuple(a + b for a, b in zip(*list(OFFICIAL_COUNTS.values())[1:], strict=True))
    check_official(official_like({Split.TRAINING: OFFICIAL_COUNTS[Split.TRAINING], Split.PUBLIC_TEST: merged}))


@pytest.mark.parametrize(
    ("split", "change", "pattern"),
    [
        (
            Split.TRAINING,
            (0, 0, 0, 0, 0, 0, -1),
            "Training holds 28,708 faces, the official set 28,709; .*official=False",
        ),
        (Split.PUBLIC_TEST, (0, 0, 0, 0, 0, 0, 1), "PublicTest holds 3,590 faces, the official set 3,589"),
        (Split.PRIVATE_TEST, (0, 1, -1, 0, 0, 0, 0), 'PrivateTest, "disgust" holds 56 faces, the official set 55'),
    ],
)
def test_unofficial_counts(split: Split, change: tuple[int, ...], pattern: str) -> None:
    changed = tuple(a + b for a, b in zip(OFFICIAL_COUNTS[split], change, strict=True))
    with pytest.raises(DataError, match=pattern):
        check_official(official_like({**OFFICIAL_COUNTS, split: changed}))


def test_load_demands_the_official_counts(faces: FaceSet, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "fer2013.csv", csv_rows(faces))
    refuse(r"fer2013\.csv: Training holds 7 faces, the official set 28,709", path, official=True)
    with pytest.raises(DataError, match="only; check before with_classes"):
        check_official(with_classes(faces, "three"))


# The real table.


@pytest.fixture(scope="module")
def fer2013(fer2013_parquet: Path) -> FaceSet:
    return load_fer2013(fer2013_parquet)


def per_split(faces: FaceSet, mask: object) -> list[int]:
    return [int(mask[faces.usage == i].sum()) for i in range(3)]


def test_real_table(fer2013: FaceSet) -> None:
    assert fer2013.sha256 == "b01a090c948897b6c9dd65629ebe0769e5250703aef02db20aeb9b2905d721a5"
    assert fer2013.images.shape == (35887, 48, 48)
    assert fer2013.images.dtype == torch.uint8
    assert fer2013.pixels_from_jpeg is not None
    assert per_split(fer2013, fer2013.pixels_from_jpeg) == [149, 10, 16]
    assert fer2013.votes is not None
    assert (fer2013.votes.sum(dim=1) != 10).nonzero().flatten().tolist() == [10435]
    for split, expected in OFFICIAL_COUNTS.items():
        assert torch.bincount(fer2013.split(split).labels).tolist() == list(expected)


def test_real_copies(fer2013: FaceSet) -> None:
    leaked = leaked_into_tests(fer2013)
    assert per_split(fer2013, leaked) == [703, 0, 0]
    assert per_split(fer2013, extra_copies(fer2013)) == [1236, 26, 17]
    assert per_split(fer2013, clean_rows(fer2013, Split.PRIVATE_TEST)) == [0, 0, 3268]
    everything = sum(int(clean_rows(fer2013, split).sum()) for split in Split)
    assert everything == 34034  # distinct images
    train = fer2013.select((fer2013.usage == 0) & ~leaked)
    seen = {image.tobytes() for image in train.images.numpy()}
    tests = fer2013.select(fer2013.usage > 0)
    assert not any(image.tobytes() in seen for image in tests.images.numpy())


def test_real_classes(fer2013: FaceSet) -> None:
    eight = with_classes(fer2013, "eight")
    assert [len(eight.split(split)) for split in Split] == [25059, 3199, 3152]
    assert len(with_classes(fer2013, "six-no-neutral")) == 35887 - 4965 - 607 - 626
    probs = vote_distribution(fer2013)
    assert int((probs.sum(dim=1) == 0).sum()) == 180


def test_real_table_as_csv(fer2013: FaceSet, tmp_path: Path) -> None:
    part = fer2013.select(torch.arange(0, 35887, 100))
    read = read_csv(write_csv(tmp_path / "fer2013.csv", csv_rows(part)))
    assert torch.equal(read.images, part.images)
    assert torch.equal(read.labels, part.labels)


def snippets() -> Iterator[str]:
    yield from re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def test_docs_run(fer2013_parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_DATA", str(fer2013_parquet))
    names: dict[str, object] = {}
    for snippet in snippets():
        exec(compile(snippet, str(DOCS), "exec"), names)
    assert [len(names[name]) for name in ("validation", "train", "six")] == [3589, 28006, 29689]
    assert [int(names[name].sum()) for name in ("leaked", "clean", "repeated")] == [703, 3268, 1279]
    assert names["soft"].shape == (35887, 7)
