"""The layouts of docs/reference/public-sets.md, each built from cartoon faces and read as documented."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import SEVEN
from mien._errors import DataError
from mien.commands import app
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import read_map
from mien.lab.data.public_sets import PUBLIC_SETS, prepare_public_set
from mien.lab.evaluate.subjects import load_tests, select
from support.written_files import foreign_files

Draw = Callable[..., np.ndarray]

RAFDB = "1=surprise 2=fear 3=disgust 4=happy 5=sad 6=angry 7=neutral"
AFFECTNET = "0=neutral 1=happy 2=sad 3=surprise 4=fear 5=disgust 6=angry 7=contempt"


@pytest.fixture
def put(draw_face: Draw) -> Callable[..., Path]:
    """Draws another face at each path."""
    count = iter(range(10**6))

    def draw(path: Path, *, size: int = 60) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_face(size, seed=next(count))).save(path)
        return path

    return draw


def read(path: Path, words: str = "") -> FaceSet:
    return load_tests([path], SEVEN, size=48, label_map=read_map(words.split()))[0].faces


def names(faces: FaceSet, split: Split | None = None) -> list[str]:
    chosen = faces.split(split) if split else faces
    return [str(chosen.emotions[label]) for label in chosen.labels.tolist()]


# Layouts that are read directly


def test_numbered_folders_of_rafdb_and_affectnet(tmp_path: Path, put: Callable[..., Path]) -> None:
    for code in range(1, 8):
        for split in ("train", "test"):
            put(tmp_path / "rafdb" / split / str(code) / f"{split}_0000{code}_aligned.jpg")
    faces = read(tmp_path / "rafdb", RAFDB)
    expected = ["surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"]
    assert names(faces, Split.PRIVATE_TEST) == names(faces, Split.TRAINING) == expected
    for code in range(8):
        for split in ("train", "val"):
            put(tmp_path / "affectnet" / split / str(code) / f"{code}.jpg")
    (test,) = load_tests([tmp_path / "affectnet"], SEVEN, size=48, label_map=read_map(AFFECTNET.split()))
    selection = select(test, SEVEN, None)
    assert selection.split == "PublicTest"
    assert sorted(names(selection.faces)) == sorted(map(str, SEVEN))
    assert selection.account == {"contempt: not among the model's classes": 1}


def test_the_folders_of_ck48(tmp_path: Path, put: Callable[..., Path]) -> None:
    for name in ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise"):
        put(tmp_path / name / "S010_004_00000017.png", size=48)
    assert names(read(tmp_path)) == ["angry", "disgust", "fear", "happy", "sad", "surprise"]


def test_the_table_of_affectnet(tmp_path: Path, put: Callable[..., Path]) -> None:
    """training.csv next to the folders that it names."""
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    rows = [f"{code}/face.jpg,0,0,60,60,1;2;3;4,{code},0.1,0.2" for code in (*range(8), 10)]
    for code in (*range(8), 10):
        put(tmp_path / str(code) / "face.jpg")
    (tmp_path / "training.csv").write_text("\n".join([head, *rows]) + "\n")
    faces = read(tmp_path / "training.csv", f"{AFFECTNET} 10=")
    assert names(faces) == ["neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"]


# Listed by `mien prepare`


def listed(kind: str, folder: Path, out: Path, **how: bool) -> FaceSet:
    prepare_public_set(kind, folder, out, **how)
    return read(out / "faces.csv")


def test_the_list_of_rafdb(tmp_path: Path, put: Callable[..., Path]) -> None:
    top, lines = tmp_path / "basic", []
    for code in range(1, 8):
        for split in ("train", "test"):
            put(top / "Image" / "aligned" / f"{split}_{code:05d}_aligned.jpg")
            lines.append(f"{split}_{code:05d}.jpg {code}")
    (top / "EmoLabel").mkdir()
    (top / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    faces = listed("rafdb", top, tmp_path / "out")
    expected = ["surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"]
    assert names(faces, Split.PRIVATE_TEST) == names(faces, Split.TRAINING) == expected
    (top / "EmoLabel" / "list_patition_label.txt").write_text("train_00001.jpg 9\n")
    with pytest.raises(DataError, match=r"line 1: '9' is no label"):
        prepare_public_set("rafdb", top, tmp_path / "out")


def test_the_annotations_of_affectnet(tmp_path: Path, put: Callable[..., Path]) -> None:
    for top in ("train_set", "val_set"):
        for code in range(8):
            put(tmp_path / top / "images" / f"{code}.jpg")
            (tmp_path / top / "annotations").mkdir(exist_ok=True)
            np.save(tmp_path / top / "annotations" / f"{code}_exp.npy", np.array(str(code)))
    faces = listed("affectnet", tmp_path, tmp_path / "out")
    expected = ["neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"]
    assert names(faces, Split.PUBLIC_TEST) == names(faces, Split.TRAINING) == expected


NOTE = "train_set/annotations/1_exp.npy"  # of AffectNet
LABELS = "EmoLabel/list_patition_label.txt"  # of RAF-DB


@pytest.mark.parametrize(
    ("name", "path", "content", "message"),
    [
        ("affectnet", NOTE, b"", "1_exp.npy: holds no label"),
        ("affectnet", NOTE, b"no array", "1_exp.npy: holds no label"),
        ("affectnet", NOTE, b"\x93NUMPY\x01\x00\x04\x00{'(\n", "1_exp.npy: holds no label"),
        ("affectnet", NOTE, np.array([1, 2]), "1_exp.npy: holds no label"),
        ("affectnet", NOTE, np.array("inf"), "'inf' is no label of this set"),
        ("rafdb", LABELS, b"tr\xe9in_1.jpg 5\n", "is not UTF-8 text"),
        ("ckplus", "Emotion/S005/001/S005_001_00000003_emotion.txt", b"\xe9", "is not UTF-8 text"),
        ("ckplus", "Emotion/S005/001/S005_001_00000003_emotion.txt", b"", "'' is no label of this set"),
        ("expw", "label.lst", b"1.jpg 0 1 2 3 x 50.2 4\n", "line 1: '1 2 3 x' is no box"),
    ],
)
def test_damaged_notes_of_public_sets_are_one_line(
    name: str, path: str, content: Any, message: str, tmp_path: Path, put: Callable[..., Path]
) -> None:
    for image in ("Image/aligned/1_aligned.jpg", "origin/1.jpg", "cohn-kanade-images/S005/001/1.png"):
        put(tmp_path / image)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        (tmp_path / path).write_bytes(content)
    else:
        np.save(tmp_path / path, content)
    with pytest.raises(DataError) as caught:
        prepare_public_set(name, tmp_path, tmp_path / "out")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_sequences_of_ckplus(tmp_path: Path, put: Callable[..., Path]) -> None:
    last = {}
    for sequence, code in (("001", 3), ("002", 7), ("003", None)):
        for frame in range(1, 4):
            name = f"S005_{sequence}_{frame:08d}"
            last[sequence] = put(tmp_path / "cohn-kanade-images" / "S005" / sequence / f"{name}.png")
        if code is not None:
            note = tmp_path / "Emotion" / "S005" / sequence / f"{name}_emotion.txt"
            note.parent.mkdir(parents=True)
            note.write_text(f"   {code}.0000000e+00\n")
    faces = listed("ckplus", tmp_path, tmp_path / "out")
    assert names(faces) == ["disgust", "neutral", "surprise", "neutral"]  # the sequence without a note is left out
    assert faces.groups is not None
    assert len(set(faces.groups.tolist())) == 1
    with Image.open(last["002"]) as image:
        expected = np.asarray(image.resize((48, 48), Image.Resampling.BICUBIC))
    assert np.abs(faces.images[2].numpy().astype(int) - expected).max() <= 1


def test_the_names_of_jaffe_and_kdef(tmp_path: Path, put: Callable[..., Path]) -> None:
    for name in ("KA.AN1.39", "KA.DI2.43", "KA.FE1.45", "KL.HA1.158", "KL.NE1.155", "KL.SA1.161", "KL.SU1.164"):
        put(tmp_path / "jaffe" / f"{name}.tiff")
    (tmp_path / "jaffe" / "README").write_text("of the set")
    faces = listed("jaffe", tmp_path / "jaffe", tmp_path / "out-jaffe")
    assert names(faces) == ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    assert faces.groups is not None
    assert [faces.groups.tolist().count(group) for group in (0, 1)] == [3, 4]
    for code in ("AF", "AN", "DI", "HA", "NE", "SA", "SU"):
        for angle in ("S", "HL", "FR"):
            put(tmp_path / "kdef" / "AF01" / f"AF01{code}{angle}.JPG")
    faces = listed("kdef", tmp_path / "kdef", tmp_path / "out-kdef")
    assert names(faces) == ["fear", "angry", "disgust", "happy", "neutral", "sad", "surprise"]


def test_the_boxes_of_expw(tmp_path: Path, astronaut: np.ndarray) -> None:
    """Two scenes: one with a face where its box is, one without any."""
    origin = tmp_path / "image" / "origin"
    origin.mkdir(parents=True)
    Image.fromarray(astronaut).save(origin / "scene.png")
    Image.fromarray(np.full((200, 200, 3), 127, np.uint8)).save(origin / "empty.png")
    (tmp_path / "label").mkdir()
    lines = ["scene.png 0 70 175 275 185 90.5 3", "empty.png 0 20 20 80 80 45.1 4"]
    (tmp_path / "label" / "label.lst").write_text("\n".join(lines) + "\n")
    counts = prepare_public_set("expw", tmp_path, tmp_path / "out")
    assert foreign_files(tmp_path / "out") == []
    assert counts == {"happy": 1, "not found": 1}
    assert (tmp_path / "out" / "not_found.txt").read_text() == "empty.png sad\n"
    faces = read(tmp_path / "out" / "faces.csv")
    assert names(faces) == ["happy"]
    assert faces.images.float().std() > 20


def test_crops_have_the_framing_of_readings(tmp_path: Path, astronaut: np.ndarray) -> None:
    from mien import Reader

    (tmp_path / "kdef").mkdir()
    Image.fromarray(astronaut).save(tmp_path / "kdef" / "AF01HAS.JPG", quality=95)
    faces = listed("kdef", tmp_path / "kdef", tmp_path / "out", crop=True)
    (face,) = Reader().read(astronaut).faces
    crop = face.crop.astype(float)
    assert np.corrcoef(crop.ravel(), faces.images[0].numpy().astype(float).ravel())[0, 1] > 0.97


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        prepare_public_set("kdef", tmp_path / "nowhere", tmp_path / "out")
    for kind in PUBLIC_SETS:
        with pytest.raises(DataError, match=r"public-sets\.md"):
            prepare_public_set(kind, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_the_table(tmp_path: Path, put: Callable[..., Path]) -> None:
    put(tmp_path / "kdef" / "AF01HAS.JPG")
    result = CliRunner().invoke(app, ["prepare", "kdef", str(tmp_path / "kdef"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "happy 1" in result.output
    assert names(read(tmp_path / "out" / "faces.csv")) == ["happy"]


def test_an_unknown_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="known are rafdb, affectnet"):
        prepare_public_set("fer", tmp_path, tmp_path / "out")
