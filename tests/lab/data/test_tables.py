"""Tables of pixels that are not the official FER-2013: read in every variant, with what was assumed in one line."""

import codecs
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import DataError
from mien.lab.data import FaceSet, tables
from mien.lab.data.datasets import is_fer2013, load_set, load_test_set
from mien.lab.data.fer2013 import OFFICIAL_COUNTS
from mien.lab.evaluate.subjects import load_tests, select
from support.cli import mien_here
from support.custom_datasets import recipe, sizes
from support.fer2013_files import csv_rows, parquet_columns, twenty_one, write_csv, write_folders, write_parquet

WORDS = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}


@pytest.fixture(scope="module")
def faces(draw_face: Callable[..., np.ndarray]) -> FaceSet:
    return twenty_one(draw_face)


def lines(faces: FaceSet, *, sep: str = ",", header: str = "emotion,pixels,Usage", row: str = "{0},{1},{2}") -> str:
    filled = [row.format(label, pixels, usage, SEVEN[int(label)]) for label, pixels, usage in csv_rows(faces)]
    return "\n".join([header, *filled, ""]).replace(",", sep)


VARIANTS: dict[str, Callable[[FaceSet], bytes]] = {
    "as published": lambda faces: lines(faces).encode(),
    "semicolons": lambda faces: lines(faces, sep=";").encode(),
    "tabs": lambda faces: lines(faces, sep="\t").encode(),
    "other order and names": lambda faces: lines(faces, header="Split,Label,Pixel", row="{2},{0},{1}").encode(),
    "pixels found by content": lambda faces: lines(faces, header="class,image,subset").encode(),
    "floats": lambda faces: lines(faces, row="{0}.0,{1},{2}").encode(),
    "names": lambda faces: lines(faces, row="{3},{1},{2}").encode(),
    "lists": lambda faces: lines(faces, row="{0},[{1}.0],{2}").encode(),
    "an index": lambda faces: lines(faces, header=",emotion,pixels,Usage", row="7,{0},{1},{2}").encode(),
    "UTF-16": lambda faces: lines(faces).encode("utf-16"),
    "UTF-16 without a mark": lambda faces: lines(faces).encode("utf-16-le"),
    "a byte-order mark": lambda faces: codecs.BOM_UTF8 + lines(faces).encode(),
    "other words": lambda faces: "".join(
        line.replace(word, WORDS[word]) for line in lines(faces).splitlines(True) for word in WORDS if word in line
    ).encode(),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_gives_the_same_faces(name: str, faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    content = VARIANTS[name](faces)
    path.write_bytes(content if name != "other words" else b"emotion,pixels,Usage\n" + content)
    for read in (
        load_set(path, recipe()),
        load_test_set(path, SEVEN),
        load_tests([path], SEVEN, size=48, label_map={})[0].faces,
    ):
        assert torch.equal(read.images, faces.images)
        assert torch.equal(read.labels, faces.labels)
        assert torch.equal(read.usage, faces.usage)
        counts = "Training 7 (official: 28,709), PublicTest 7 (official: 3,589), PrivateTest 7 (official: 3,589)"
        assert str(read.note).startswith(f"not the official FER-2013: {counts}")
        assert "\n" not in str(read.note)
        assert ("Usage 'val' is PublicTest; Usage 'test' is PrivateTest" in str(read.note)) is (name == "other words")
        assert ("labels as in FER-2013: 0 is angry, 1 is disgust" in str(read.note)) is (name != "names")


def test_a_missing_usage_column_is_said_and_faces_are_held_out(faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    path.write_text("".join(lines(faces, header="emotion,pixels", row="{0},{1}").splitlines(True) * 4))
    path.write_text("emotion,pixels\n" + path.read_text().replace("emotion,pixels\n", ""))
    read = load_set(path, recipe())
    assert sizes(read) == [72, 12, 0]  # copies are held out together
    assert "no Usage column: every row is used for Training" in str(read.note)
    assert select(load_tests([path], SEVEN, size=48, label_map={})[0], SEVEN, None).split == "all"


def test_contempt_and_maps(faces: FaceSet, tmp_path: Path) -> None:
    """CK+ as a table of pixels has contempt as 7; the numbers of other tables are mapped."""
    text = lines(faces).splitlines()
    path = tmp_path / "ckextended.csv"
    path.write_text("\n".join([*text, "7" + text[1][1:]]))
    eight = load_set(path, recipe("data.classes=eight"))
    assert eight.emotions == CLASS_SETS["eight"]
    assert int((eight.labels == eight.emotions.index(Emotion.CONTEMPT)).sum()) == 1
    assert "left out: 1 of 7" in str(load_set(path, recipe()).note)
    test = load_tests([path], SEVEN, size=48, label_map={"3": "sad", "4": "happy", "7": ""})[0]
    assert str(test.faces.note).endswith("2 is fear, 5 is surprise, 6 is neutral; left out: 1 of 7")
    swapped = torch.where(faces.labels == 3, 4, torch.where(faces.labels == 4, 3, faces.labels))
    assert torch.equal(test.faces.labels, swapped)


def test_faces_of_another_size_are_resized(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "faces.csv", [["0", " ".join(["9"] * 4096), "Training"]])
    assert load_test_set(path, SEVEN).images.shape == (1, 48, 48)
    assert load_test_set(path, SEVEN, size=64).images.shape == (1, 64, 64)


def test_cut_parquet_files_and_folders_are_read(faces: FaceSet, tmp_path: Path) -> None:
    for path in (write_parquet(tmp_path / "f.parquet", parquet_columns(faces)), write_folders(tmp_path / "f", faces)):
        read = load_set(path, recipe("target.vote_weight=0"))
        assert sizes(read) == [7, 7, 7]
        assert read.note == "not the official FER-2013: Training holds 7 faces, the official set 28,709"


PIXELS = " ".join(["7"] * 2304)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"0,{PIXELS},Training\n1,{PIXELS},Training", "begins with a face; put a line with the names before it"),
        (f"emotion,emotion,pixels\n0,0,{PIXELS}", '2 columns are called "emotion"; give each its own name'),
        (f"emotion,pixels\n,{PIXELS}", "row 0 (line 2): the label is empty"),
        (f"emotion,pixels\n9,{PIXELS}", "'9' is no emotion that mien knows; map the label to an emotion"),
        (f"emotion,pixels,Usage\n0,{PIXELS},trian", "'trian' is no split; splits are called train, "),
        (f"feeling,pixels\n0,{PIXELS}", "column \"label\" is missing; found 'feeling', 'pixels'; it may be called"),
        (f"emotion,pixels\n0,{PIXELS}\n0,{PIXELS[:-2]}", "2,303 pixel values instead of 2,304 (48x48)"),
        ("emotion,pixels\n0," + "7 " * 2**20, "a line has more than 1,048,576 characters"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        load_set(path, recipe())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_number_of_rows_is_limited_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 2)
    path = tmp_path / "faces.csv"
    path.write_text("path,label\n" + "none.png,happy\n" * 3)
    with pytest.raises(DataError, match="has 3 rows; mien reads tables of up to 2, so split it"):
        load_set(path, recipe())


def test_the_official_table_is_known_by_its_numbers(tmp_path: Path) -> None:
    """Also where it was saved with other words; a table with one label changed is another one."""
    pixels = "0" + " 0" * 2303
    rows = [
        f"{label}.0;{WORDS[split]};{pixels}\n"
        for split, counts in OFFICIAL_COUNTS.items()
        for label, count in enumerate(counts)
        for _ in range(count)
    ]
    path = tmp_path / "again.csv"
    path.write_text("label;split;pixels\n" + "".join(rows))
    assert is_fer2013(path)
    with path.open("r+b") as table:
        table.seek(len("label;split;pixels\n"))
        table.write(b"1")
    assert not is_fer2013(path)


def test_commands_read_a_cut_table_and_say_what_is_missing(faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "cut.csv"
    path.write_text(lines(faces))
    done = mien_here("evaluate", "mien-0", "--data", str(path), "--split", "all", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cut: not the official FER-2013: Training 7 (official: 28,709)" in " ".join(done.stderr.split())
    done = mien_here("audit", str(path), "--out", "audit", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not the official FER-2013: Training 7 (official: 28,709)" in " ".join(done.stderr.split())
