"""FER-2013 with defects: every one is named, with its place, in one line."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien.lab.data import FaceSet, load_fer2013  # noqa: E402
from support.encoded_images import encode  # noqa: E402
from support.fer2013_files import (  # noqa: E402
    VOTES_HEADER,
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
    content = bytearray(encode(image))
    content[60] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("column", "value", "pattern"),
    [
        ("image", b"no picture", r"f\.parquet, row 5: not a readable PNG or JPEG"),
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
