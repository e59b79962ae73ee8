"""One's own tables and the mistakes in tables and folders, each in one line."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import SEVEN  # noqa: E402
from mien._errors import DataError, RecipeError  # noqa: E402
from mien.lab.data import vote_distribution, with_classes  # noqa: E402
from mien.lab.data.read_pictures import read_picture  # noqa: E402
from mien.lab.feed.sets import load_set  # noqa: E402
from mien.lab.feed.target import targets  # noqa: E402
from support.custom_datasets import Draw, fill, lines_of, put, recipe, sizes, table  # noqa: E402


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("path,label,split", "pictures/{n}.png,{emotion},{split}", [21, 7, 7]),
        ("Usage;Image;Emotion", "{split};pictures/{n}.png;{emotion}", [21, 7, 7]),
        ("filename\tclass\tsubject", "pictures/{n}.png\t{emotion}\t{person}", [28, 7, 0]),
        ("person,expression,file", "{person},{emotion},pictures/{n}.png", [28, 7, 0]),
    ],
)
def test_tables(tmp_path: Path, draw_face: Draw, header: str, row: str, expected: list[int]) -> None:
    name = "faces.tsv" if "\t" in header else "faces.csv"
    path = table(tmp_path, draw_face, lines_of(header, row), name=name)
    faces = load_set(path, recipe())
    assert sizes(faces) == expected
    assert faces.labels.tolist() == [n % 7 for n in range(35)]
    assert np.array_equal(
        faces.images[5].numpy(), read_picture((tmp_path / "pictures/5.png").read_bytes(), 48, where="")
    )


def test_the_hash_of_a_table_covers_its_labels(tmp_path: Path, draw_face: Draw) -> None:
    lines = lines_of("path,label,split", "pictures/{n}.png,{emotion},{split}")
    first = load_set(table(tmp_path, draw_face, lines), recipe()).sha256
    lines[1], lines[2] = lines[1].replace("angry", "fear"), lines[2].replace("disgust", "angry")
    assert load_set(table(tmp_path, draw_face, lines), recipe()).sha256 != first


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["path,labl", "pictures/1.png,happy"], 'column "label" is missing (did you mean "label"?)'),
        (["path,label", "pictures/none.png,happy"], r"row 0 \(line 2\): there is no file .*none.png"),
        (["path,label", ",happy"], "the path is empty"),
        (["path,label", "pictures/1.png,"], "the label is empty"),
        (["path,label,split", "pictures/1.png,happy,trian"], "'trian' is no split"),
        (["path,label,split", "pictures/1.png,happy,test"], "no Training row"),
        (["path,label", "pictures/1.png,happy,more"], "3 fields instead of 2"),
        (["path,label", "pictures/1.png,hapy"], "'hapy' is no emotion"),
        (["path,label,split,person", "pictures/1.png,happy,train,ann", "pictures/2.png,sad,val,ann"], "several splits"),
    ],
)
def test_bad_tables(tmp_path: Path, draw_face: Draw, lines: list[str], says: str) -> None:
    with pytest.raises(DataError) as caught:
        load_set(table(tmp_path, draw_face, lines), recipe())
    assert re.search(says, str(caught.value)) or says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("break_it", "overrides", "error", "says"),
    [
        (
            lambda f: (f / "happy").rename(f / "hapy"),
            [],
            DataError,
            "'hapy' is no emotion that mien knows (did you mean \"happy\"?)",
        ),
        (lambda f: (f / "happy").rename(f / "smile"), [], DataError, "data.labels.smile=happy"),
        (lambda f: (f / "happy").rename(f / "big smile"), [], DataError, '\'data.labels={"big smile"="happy"}\''),
        (lambda _: None, ["data.labels.smil=happy"], RecipeError, "'smil', which is no label here"),
        (lambda _: None, ["data.labels.happy=hapy"], RecipeError, 'is no emotion (did you mean "happy"?)'),
        (lambda f: shutil.rmtree(f / "fear"), [], DataError, "no Training face is fear, as data.classes=seven needs"),
        (
            lambda f: (f / "sad" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n half"),
            [],
            DataError,
            "2.png: not a readable",
        ),
        (lambda f: (f / "sad" / "0.png").write_bytes(b""), [], DataError, "0.png: not a readable picture"),
        (lambda f: (f / "sad" / "list.txt").write_text("x"), [], DataError, "list.txt: is no picture"),
        (lambda f: (f / "calm").mkdir(), [], DataError, "calm: holds no picture"),
        (lambda f: put(f / "sad" / "a" / "b" / "1.png", np.zeros((9, 9), np.uint8)), [], DataError, "lies too deep"),
        (lambda f: (f / "sad").rename(f / "train"), [], DataError, "is no split"),
    ],
)
def test_bad_folders(
    tmp_path: Path, draw_face: Draw, break_it: Callable[[Path], object], overrides: list[str], error: type, says: str
) -> None:
    break_it(fill(tmp_path, SEVEN, draw_face, count=3))
    with pytest.raises(error) as caught:
        load_set(tmp_path, recipe(*overrides))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_few_emotions_say_which_class_sets_they_make(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path / "two", ["happy", "sad"], draw_face)
    with pytest.raises(DataError, match=r"set data\.classes='happy,sad', or mix in a set that has them"):
        load_set(tmp_path / "two", recipe())
    two = load_set(tmp_path / "two", recipe("data.classes=happy,sad"))
    assert len(with_classes(two, "happy,sad")) == len(two)
    fill(tmp_path / "four", ["happy", "sad", "anger", "fear"], draw_face)
    with pytest.raises(DataError, match=r"set data\.classes=three or 'angry,fear,happy,sad', or mix in"):
        load_set(tmp_path / "four", recipe())
    assert len(load_set(tmp_path / "four", recipe("data.classes=three"))) == 32
    fill(tmp_path / "rest", [e for e in SEVEN if e not in ("happy", "sad")], draw_face, seed=90_000)
    joint = load_set(tmp_path / "two", recipe(f'data.also=[{{path="{tmp_path / "rest"}"}}]'))
    assert sorted(set(joint.labels.tolist())) == list(range(7))


def test_what_is_no_set_at_all(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "nowhere", "no such file or folder"), (tmp_path, "holds no folder of a label")):
        with pytest.raises(DataError, match=says):
            load_set(path, recipe())
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="is an archive"):
        load_set(tmp_path / "x.zip", recipe())


def test_one_person_alone_cannot_be_held_out(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path, [f"{e}/ann" for e in SEVEN], draw_face, count=3)
    with pytest.raises(DataError, match="in 1 groups leave none to validate on"):
        load_set(tmp_path, recipe())


def test_fer2013_has_its_own_labels(fer2013_parquet: Path) -> None:
    with pytest.raises(RecipeError, match=r"leave data\.labels out"):
        load_set(fer2013_parquet, recipe("data.labels.sad=happy"))


def test_fer2013_as_pictures_is_known_by_its_names(tmp_path: Path, draw_face: Draw) -> None:
    for emotion in SEVEN:
        put(tmp_path / "train" / emotion / "Training_1.png", draw_face(48))
        put(tmp_path / "test" / emotion / "PublicTest_2.png", draw_face(48))
    with pytest.raises(DataError, match="the official set 28,709"):
        load_set(tmp_path, recipe())


def test_a_recipe_with_votes_learns_labels_alone(tmp_path: Path, draw_face: Draw) -> None:
    chosen = recipe("target.votes=0.5", "target.smoothing=0")
    faces = load_set(fill(tmp_path, SEVEN, draw_face), chosen)
    assert "no FER+ votes: target.votes=0.5 has no effect" in str(faces.note)
    assert float(vote_distribution(faces).sum()) == 0
    assert torch.equal(targets(faces, chosen.target).argmax(1), faces.labels)
    assert float(targets(faces, chosen.target).max(1).values.min()) == 1
    assert load_set(tmp_path, recipe("target.votes=0")).votes is None
