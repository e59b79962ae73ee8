"""FER-2013 in its four forms gives the same tensors; every defect is reported with its place in one line."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch", reason="the lab is not installed")
pa = pytest.importorskip("pyarrow", reason="the lab is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the lab is not installed")

from mien._emotions import SEVEN
from mien._errors import DataError
from mien.lab.data import FaceSet, Split, load_fer2013, tables, with_classes
from mien.lab.data import datasets as sets
from mien.lab.data.datasets import load_set
from mien.lab.recipe import load
from support.encoded_images import encode
from support.fer2013_files import (
    SPLITS,
    VOTES_HEADER,
    assert_same,
    csv_rows,
    parquet_columns,
    refuse,
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
    monkeypatch.setattr(sets, "is_fer2013", lambda _: True)  # few faces, not the whole set
    path = write_csv(tmp_path / "fer2013.csv", csv_rows(faces))
    votes = write_csv(tmp_path / "fer2013new.csv", votes_rows(faces), header=VOTES_HEADER)
    assert_same(load_set(path, load("mien-0", [f"data.votes={votes}"])), faces, "votes")
    with pytest.raises(DataError, match=r"in a recipe: data\.votes"):
        with_classes(load_fer2013(path, official=False), "eight")


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


def test_folders_with_names_without_a_split(faces: FaceSet, tmp_path: Path) -> None:
    read = load_fer2013(write_folders(tmp_path, faces, named=False), official=False)
    assert [int((read.usage == i).sum()) for i in range(3)] == [7, 14, 0]
    assert read.note is not None
    assert read.note.startswith("14 test images")


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
        with Image.open(path) as image:
            image.save(path.with_suffix(".JPG"), "JPEG", quality=95)
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


PIXELS = " ".join(["7"] * 2304)


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        (["7", PIXELS, "Training"], r"fer2013\.csv, row 1 \(line 3\): label '7' is not a whole number from 0"),
        (["-1", PIXELS, "Training"], r"row 1 .*label '-1'"),
        (["hapy", PIXELS, "Training"], r"row 1 .*label 'hapy'"),
        (["1" * 5000, PIXELS, "Training"], r"row 1 .*label '1+\.\.\.'"),
        (["", PIXELS, "Training"], r"row 1 .*the label is empty"),
        (["3", PIXELS[:-2], "Training"], r"row 1 \(line 3\): 2,303 pixel values instead of 2,304"),
        (["3", PIXELS + " 9", "Training"], r"2,305 pixel values instead of 2,304 \(48x48\)"),
        (["3", "", "Training"], r"row 1 .*0 pixel values"),
        (["3", PIXELS[:-1] + "256", "Training"], r"row 1 .*pixel value '256' is not a whole number from 0 to 255"),
        (["3", PIXELS[:-1] + "-1", "Training"], r"pixel value '-1'"),
        (["3", PIXELS[:-1] + "0.5", "Training"], r"pixel value '0\.5'"),
        (["3", PIXELS[:-1] + "x", "Training"], r"pixel value 'x'"),
        (["3", PIXELS, "Publictst"], r"row 1 .*'Publictst' is no split; .*; did you mean 'publictest'\?"),
        (["3", PIXELS], r"row 1 \(line 3\): 2 fields instead of 3; is the file complete"),
        (["3", PIXELS * 30, "Training"], r"row 1 .*not CSV \(field larger than field limit"),
    ],
)
def test_bad_csv_row(tmp_path: Path, row: list[str], pattern: str) -> None:
    refuse(pattern, write_csv(tmp_path / "fer2013.csv", [["0", PIXELS, "Training"], row]))


def test_csv_columns(faces: FaceSet, tmp_path: Path) -> None:
    rows = csv_rows(faces)
    path = write_csv(tmp_path / "fer2013.csv", rows, header=("emotin", "pixels", "Usage"))
    refuse(r"\"label\" is missing; found 'emotin', 'pixels', 'usage'; .*did you mean 'emotion'", path)
    refuse(
        '"pixels" is missing',
        write_csv(path, [[*row[:1], "7", row[2]] for row in rows], header=("emotion", "image", "Usage")),
    )
    refuse("no labels.*use icml_face_data.csv", write_csv(path, [[row[1]] for row in rows], header=("pixels",)))
    refuse('"label" is missing', write_csv(path, votes_rows(faces), header=VOTES_HEADER))


def test_files_that_are_no_table(tmp_path: Path) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_bytes(b"")
    refuse('"label" is missing', path)
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
    content = bytearray(encode(image))
    content[60] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("column", "value", "pattern"),
    [
        ("image", b"no image", r"f\.parquet, row 5: not a readable PNG or JPEG"),
        ("image", b"", r"row 5: not a readable PNG or JPEG"),
        ("image", encode(np.zeros((48, 47), np.uint8)), r"row 5: the image is 47x48; FER-2013 faces are 48x48"),
        ("image", encode(np.zeros((48, 48), np.uint16)), r"row 5: the image has mode I;16; 8-bit grey"),
        ("image", encode(np.full((48, 48), 9, np.uint8))[:-40], r"row 5: not a readable PNG or JPEG"),
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
        r'"label" is missing; .*did you mean .labels.',
        write_parquet(path, {"labels" if name == "label" else name: values for name, values in columns.items()}),
    )
    columns_less = {name: values for name, values in columns.items() if name != "contempt"}
    refuse('"contempt" is missing', write_parquet(path, columns_less))
    twice = pa.table(
        [pa.array(columns["label"])] * 3 + [pa.array(columns["image"])], ["label", "usage", "label", "image"]
    )
    pq.write_table(twice, path)
    refuse("two columns are called 'label'; give each its own name", path)
    refuse(
        'row 0: column "image" holds str; bytes is expected',
        write_parquet(path, {**columns, "image": ["face.png"] * len(faces)}),
    )
    refuse(
        'row 0: column "label" holds float; int is expected',
        write_parquet(path, {**columns, "label": [float(label) for label in columns["label"]]}),
    )


def test_a_footer_that_lies_gives_no_faces(faces: FaceSet, tmp_path: Path) -> None:
    """Rows that a footer claims and the columns lack would be uninitialised memory."""
    columns = {name: parquet_columns(faces)[name] for name in ("image", "label", "usage")}
    path = write_parquet(tmp_path / "f.parquet", columns)
    content = path.read_bytes()
    at = content.rindex(b"\x16\x2a\x19")  # in Thrift's compact form: 21 rows, then the row groups
    for claimed, says in ((b"\x7e", "its footer says 63 rows"), (b"\x02", "its footer says 1 rows"), (b"\x01", "")):
        path.write_bytes(content[: at + 1] + claimed + content[at + 2 :])
        refuse(rf"f\.parquet: not a complete Parquet file.*{says}", path)


def test_parquet_that_needs_more_memory_than_faces(
    faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {name: parquet_columns(faces)[name] for name in ("image", "label", "usage")}
    path = tmp_path / "f.parquet"
    refuse("21 rows have 3 MB, more than faces", write_parquet(path, {**columns, "image": [bytes(3_000_000)] * 21}))
    monkeypatch.setattr(tables, "MOST_ROWS", 20)
    refuse("has 21 rows; mien reads tables of up to 20, so split it", write_parquet(path, columns))


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
    refuse(r"\"hapy\" is no emotion of FER-2013; the folders are angry, .*; did you mean 'happy'\?", folder)
    folder = fresh("contempt")
    (folder / "test" / "contempt").mkdir()
    refuse('"contempt" is no emotion of FER-2013', folder)
    folder = fresh("empty emotion")
    for file in (folder / "train" / "sad").iterdir():
        file.unlink()
    refuse(r"train.sad: is empty", folder)
    folder = fresh("loose")
    (folder / "train" / "a.png").write_bytes(encode(np.zeros((48, 48), np.uint8)))
    refuse(r"a\.png: is a file where only folders of emotions belong", folder)
    folder = fresh("contradiction")
    (folder / "train" / "sad" / "PublicTest_9.png").write_bytes(encode(np.zeros((48, 48), np.uint8)))
    refuse(r"PublicTest_9\.png: its name says PublicTest, its folder Training", folder)
    folder = fresh("notes")
    (folder / "test" / "sad" / "notes.txt").write_text("x")
    refuse(r"notes\.txt: is not a \.png, \.jpg or \.jpeg file", folder)
    folder = fresh("broken")
    (folder / "test" / "sad" / "PublicTest_1.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    refuse(r"PublicTest_1\.jpg: not a readable PNG or JPEG", folder)
    (tmp_path / "bare" / "train").mkdir(parents=True)
    refuse(r"train: is empty; a folder for each of angry, ", tmp_path / "bare")
