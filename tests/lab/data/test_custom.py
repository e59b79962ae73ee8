"""Custom folders and tables: which files are read, emotions, splits, conversion to faces, and mistakes in one line."""

import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import DataError, RecipeError
from mien.lab.data import FaceSet, Split, vote_distribution, with_classes
from mien.lab.data.custom import decode_face, read_custom
from mien.lab.data.datasets import load_set
from mien.lab.data.selection import training_rows, validation_rows
from mien.lab.data.weighting import targets
from mien.lab.provenance import provenance
from support.custom_datasets import Draw, fill, lines_of, put, recipe, sizes, table
from support.encoded_images import encode


def in_split(faces: FaceSet, split: Split) -> FaceSet:
    return faces.split(split)


def test_a_labelled_folder(tmp_path: Path, draw_face: Draw) -> None:
    faces = load_set(fill(tmp_path, SEVEN, draw_face, count=20), recipe())
    assert faces.images.shape == (140, 48, 48)
    assert faces.emotions == SEVEN
    assert sizes(faces) == [119, 21, 0]
    for split, count in ((Split.TRAINING, 17), (Split.PUBLIC_TEST, 3)):
        assert torch.bincount(faces.split(split).labels).tolist() == [count] * 7
    assert faces.note is not None
    assert "21 of 140 Training faces (15% of each class) validate as PublicTest" in faces.note
    assert faces.rows.tolist() == list(range(140))
    row = [str(e) for e in sorted(SEVEN)].index("happy") * 20  # folders and images are in the order of their names
    expected = decode_face((tmp_path / "happy" / "0.png").read_bytes(), 48, where="")
    assert faces.emotions[faces.labels[row]] is Emotion.HAPPY
    assert np.array_equal(faces.images[row].numpy(), expected)


def test_reading_twice_gives_the_same_and_a_changed_image_gives_another_hash(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path, SEVEN, draw_face)
    first, second = load_set(tmp_path, recipe()), load_set(tmp_path, recipe("seed=5"))
    assert first.sha256 == second.sha256
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.usage, second.usage)  # the same for all runs
    put(tmp_path / "sad" / "3.png", draw_face(60, seed=77))
    assert load_set(tmp_path, recipe()).sha256 != first.sha256


def test_splits_by_folder(tmp_path: Path, draw_face: Draw) -> None:
    for top, count in (("Train", 4), ("valid", 2), ("test", 3)):
        fill(tmp_path / top, SEVEN, draw_face, count=count, seed=100_000 * count)
    faces = load_set(tmp_path, recipe())
    assert sizes(faces) == [28, 14, 21]
    assert "validation" not in (faces.note or "")
    shutil.rmtree(tmp_path / "valid")
    without = load_set(tmp_path, recipe())
    assert len(without.split(Split.PRIVATE_TEST)) == 21
    assert len(without.split(Split.PUBLIC_TEST)) > 0


def test_known_words_and_a_map(tmp_path: Path, draw_face: Draw) -> None:
    names = ["Anger", "disgusted", "FEAR", "smile", "sadness", "surprised", "neutral", "odd one"]
    fill(tmp_path, names, draw_face)
    faces = load_set(tmp_path, recipe('data.labels={smile="happiness", "odd one"=""}'))
    assert len(faces) == 7 * 8
    assert torch.bincount(faces.labels).tolist() == [8] * 7
    assert "left out: 8 of odd one" in str(faces.note)
    assert max(faces.rows.tolist()) == 63  # rows are counted before anything is left out


def test_dotted_overrides_make_a_map(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path, [*SEVEN[:3], "smile", *SEVEN[4:], "other"], draw_face)
    faces = load_set(tmp_path, recipe("data.labels.smile=happy", "data.labels.other="))
    assert torch.bincount(faces.labels).tolist() == [8] * 7


def test_contempt_and_the_eight(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path, list(Emotion), draw_face)
    eight = load_set(tmp_path, recipe("data.classes=eight"))
    assert eight.emotions == CLASS_SETS["eight"]
    assert torch.bincount(eight.labels).tolist() == [8] * 8
    chosen = recipe("data.classes=eight")
    assert training_rows(eight, chosen).emotions == validation_rows(eight, chosen).emotions == CLASS_SETS["eight"]
    seven = load_set(tmp_path, recipe())
    assert len(seven) == 56
    assert "left out: 8 of contempt" in str(seven.note)


def test_persons_are_not_separated(tmp_path: Path, draw_face: Draw) -> None:
    for person in range(20):
        fill(tmp_path / "x", [f"{e}/person-{person}" for e in SEVEN], draw_face, count=1, seed=50_000 * person)
    faces = load_set(tmp_path / "x", recipe())
    assert faces.groups is not None
    held, rest = (set(in_split(faces, split).groups.tolist()) for split in (Split.PUBLIC_TEST, Split.TRAINING))  # type: ignore[union-attr]
    assert len(held) == 3
    assert not held & rest
    assert "no group in both" in str(faces.note)


def test_copies_are_held_out_together(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path, SEVEN, draw_face, count=10)
    for emotion in SEVEN:
        for face in range(10):
            shutil.copy(tmp_path / emotion / f"{face}.png", tmp_path / emotion / f"again-{face}.png")
    faces = load_set(tmp_path, recipe())
    held, rest = (
        {image.numpy().tobytes() for image in faces.split(s).images} for s in (Split.PUBLIC_TEST, Split.TRAINING)
    )
    assert held
    assert not held & rest


def test_custom_faces_are_stored_at_the_size_of_the_net(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path, SEVEN, draw_face, size=96)
    assert load_set(tmp_path, recipe("data.size=64")).images.shape[1:] == (64, 64)
    assert load_set(tmp_path, recipe("data.size=32")).images.shape[1:] == (48, 48)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "I;16", "1", "F"])
def test_modes(mode: str, draw_face: Draw) -> None:
    grey = draw_face(48)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    elif mode == "P":
        image = Image.fromarray(grey).convert("P")
    else:
        image = Image.fromarray(grey).convert("RGB").convert(mode)
    expected = np.asarray(Image.fromarray(grey).convert("1").convert("L")) if mode == "1" else grey
    read = decode_face(encode(image, "TIFF"), 48, where="x")
    assert np.abs(read.astype(int) - expected).max() <= 1


def test_transparent_pixels_become_white() -> None:
    clear = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    assert decode_face(encode(clear), 48, where="x").min() == 255


def test_images_are_turned_by_exif_and_cropped_to_the_middle_square() -> None:
    pixels = np.zeros((40, 80), np.uint8)
    pixels[:, 60:] = 255  # outside of the middle square
    pixels[:20, 20:60] = 100
    exif = Image.Exif()
    exif[0x0112] = 3
    upright = decode_face(encode(Image.fromarray(pixels)), 40, where="x")
    turned = decode_face(encode(Image.fromarray(pixels), exif=exif), 40, where="x")
    assert (upright[:20] == 100).all()
    assert (upright[20:] == 0).all()
    assert np.array_equal(turned, upright[::-1, ::-1])


def test_a_large_jpeg_is_read_as_pillow_reads_it_whole(draw_face: Draw) -> None:
    large = Image.fromarray(draw_face(500)).convert("RGB")
    content = encode(large, "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as image:
        whole = np.asarray(image.convert("L").resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(decode_face(content, 48, where="x") - whole).mean() < 1.5


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("path,label,split", "images/{n}.png,{emotion},{split}", [21, 7, 7]),
        ("Usage;Image;Emotion", "{split};images/{n}.png;{emotion}", [21, 7, 7]),
        ("filename\tclass\tsubject", "images/{n}.png\t{emotion}\t{person}", [28, 7, 0]),
        ("person,expression,file", "{person},{emotion},images/{n}.png", [28, 7, 0]),
    ],
)
def test_tables(tmp_path: Path, draw_face: Draw, header: str, row: str, expected: list[int]) -> None:
    name = "faces.tsv" if "\t" in header else "faces.csv"
    path = table(tmp_path, draw_face, lines_of(header, row), name=name)
    faces = load_set(path, recipe())
    assert sizes(faces) == expected
    assert faces.labels.tolist() == [n % 7 for n in range(35)]
    assert np.array_equal(faces.images[5].numpy(), decode_face((tmp_path / "images/5.png").read_bytes(), 48, where=""))


def test_the_hash_of_a_table_covers_its_labels(tmp_path: Path, draw_face: Draw) -> None:
    lines = lines_of("path,label,split", "images/{n}.png,{emotion},{split}")
    first = load_set(table(tmp_path, draw_face, lines), recipe()).sha256
    lines[1], lines[2] = lines[1].replace("angry", "fear"), lines[2].replace("disgust", "angry")
    assert load_set(table(tmp_path, draw_face, lines), recipe()).sha256 != first


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            ["path,labl", "images/1.png,happy"],
            'column "label" is missing; found .path., .labl.; .*did you mean .label.',
        ),
        (["path,label", "images/none.png,happy"], r"row 0 \(line 2\), .*none.png: cannot be read \(No such file"),
        (["path,label", "images/\0.png,happy"], r"row 0 \(line 2\), .*: cannot be read \(embedded null byte"),
        (["path,label", ",happy"], "the path is empty"),
        (["path,label", "images/1.png,"], "the label is empty"),
        (["path,label,split", "images/1.png,happy,trian"], "'trian' is no split"),
        (["path,label,split", "images/1.png,happy,test"], "no Training row"),
        (["path,label", "images/1.png,happy,more"], "3 fields instead of 2"),
        (["path,label", "images/1.png,hapy"], "'hapy' is no emotion"),
        (["path,label,split,person", "images/1.png,happy,train,ann", "images/2.png,sad,val,ann"], "several splits"),
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
            "'hapy' is no emotion that mien knows; map the label to an emotion",
        ),
        (lambda f: (f / "happy").rename(f / "smile"), [], DataError, "data.labels.smile=happy"),
        (lambda f: (f / "happy").rename(f / "big smile"), [], DataError, '\'data.labels={"big smile"="happy"}\''),
        (lambda _: None, ["data.labels.smil=happy"], RecipeError, "'smil', which is no label here"),
        (lambda _: None, ["data.labels.happy=hapy"], RecipeError, "did you mean 'happy'?"),
        (lambda f: shutil.rmtree(f / "fear"), [], DataError, "no Training face is fear, as data.classes=seven needs"),
        (
            lambda f: (f / "sad" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n half"),
            [],
            DataError,
            "2.png: not a readable",
        ),
        (lambda f: (f / "sad" / "0.png").write_bytes(b""), [], DataError, "0.png: not a readable image"),
        (lambda f: (f / "sad" / "list.txt").write_text("x"), [], DataError, "list.txt: is no image"),
        (lambda f: (f / "calm").mkdir(), [], DataError, "calm: holds no image"),
        (
            lambda f: put(f / "sad" / "a" / "b" / "1.png", np.zeros((9, 9), np.uint8)),
            [],
            DataError,
            "is nested too deep",
        ),
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


def test_all_unreadable_images_are_named_at_once_or_skipped(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path, SEVEN, draw_face)
    expected = load_set(tmp_path, recipe())
    for number in range(3):
        (tmp_path / "sad" / f"bad{number}.png").write_bytes(b"no image"[: 4 * number])
    with pytest.raises(DataError) as caught:
        load_set(tmp_path, recipe())
    said = str(caught.value)
    assert "3 of 59 images are unreadable" in said
    assert all(f"bad{number}.png: not a readable image (empty, or in no known format)" in said for number in range(3))
    assert "BytesIO" not in said
    skipped = load_set(tmp_path, recipe("data.skip_unreadable=true"))
    assert torch.equal(skipped.images, expected.images)
    assert skipped.sha256 == expected.sha256
    assert "3 of 59 images are unreadable and left out: " in str(skipped.note)
    assert provenance(skipped.sha256, skipped.note)["data_note"] == skipped.note
    for number in range(9):
        (tmp_path / "fear" / f"bad{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"12 of 68 images are unreadable: .*; and 7 more; get it again, remove it"):
        load_set(tmp_path, recipe())


def test_unreadable_images_of_fer2013_folders_are_skipped(tmp_path: Path, draw_face: Draw) -> None:
    for emotion in SEVEN:
        put(tmp_path / "train" / emotion / "Training_1.png", draw_face(48))
        put(tmp_path / "test" / emotion / "PublicTest_2.png", draw_face(48))
    (tmp_path / "test" / "sad" / "PublicTest_2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 14 images is unreadable: .*PublicTest_2\.png: not a readable"):
        load_set(tmp_path, recipe())
    skipped = load_set(tmp_path, recipe("data.skip_unreadable=true"))
    assert sizes(skipped) == [7, 6, 0]
    assert "1 of 14 images is unreadable and left out" in str(skipped.note)


def test_a_set_with_few_emotions_names_the_class_sets_that_fit(tmp_path: Path, draw_face: Draw) -> None:
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
    joint = load_set(tmp_path / "two", recipe(f'data.extra=[{{path="{tmp_path / "rest"}"}}]'))
    assert sorted(set(joint.labels.tolist())) == list(range(7))


def test_paths_that_are_no_set(tmp_path: Path) -> None:
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


def test_fer2013_as_images_is_recognised_by_its_file_names(tmp_path: Path, draw_face: Draw) -> None:
    for emotion in SEVEN:
        put(tmp_path / "train" / emotion / "Training_1.png", draw_face(48))
        put(tmp_path / "test" / emotion / "PublicTest_2.png", draw_face(48))
    assert "not the official FER-2013: Training holds 7 faces" in str(load_set(tmp_path, recipe()).note)


def test_without_votes_only_the_labels_are_learned(tmp_path: Path, draw_face: Draw) -> None:
    chosen = recipe("target.vote_weight=0.5", "target.label_smoothing=0")
    faces = load_set(fill(tmp_path, SEVEN, draw_face), chosen)
    assert "no FER+ votes: target.vote_weight=0.5 has no effect" in str(faces.note)
    assert float(vote_distribution(faces).sum()) == 0
    assert torch.equal(targets(faces, chosen.target).argmax(1), faces.labels)
    assert float(targets(faces, chosen.target).max(1).values.min()) == 1
    assert load_set(tmp_path, recipe("target.vote_weight=0")).votes is None


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights elsewhere")
def test_links_to_folders_are_followed_and_each_folder_is_read_once(draw_face: Draw, tmp_path: Path) -> None:
    for name in ("elsewhere/1.png", "faces/happy/ann/2.png", "faces/sad/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_face(48)).save(tmp_path / name)
    links = {"happy/bob": tmp_path / "elsewhere", "happy/eve": "ann", "sad/loop": ".", "surprise": "sad"}
    for name, target in links.items():
        (tmp_path / "faces" / name).symlink_to(target)
    faces = read_custom(tmp_path / "faces", label_map={}, emotions=SEVEN, side=48)
    assert [faces.emotions[label] for label in faces.labels] == ["happy", "happy", "sad"]
    assert faces.note == "left out: 3 folders that were read already"
