"""One's own folders: what is read, under which emotion, what is held out, and how a picture becomes a face."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import CLASS_SETS, SEVEN, Emotion  # noqa: E402
from mien.lab.data import FaceSet, Split  # noqa: E402
from mien.lab.data.read_pictures import read_picture  # noqa: E402
from mien.lab.feed.rows import training_rows, validation_rows  # noqa: E402
from mien.lab.feed.sets import load_set  # noqa: E402
from support.custom_datasets import Draw, fill, put, recipe, sizes  # noqa: E402
from support.encoded_images import encode  # noqa: E402


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
    row = [str(e) for e in sorted(SEVEN)].index("happy") * 20  # folders come by name, and so do pictures
    expected = read_picture((tmp_path / "happy" / "0.png").read_bytes(), 48, where="")
    assert faces.emotions[faces.labels[row]] is Emotion.HAPPY
    assert np.array_equal(faces.images[row].numpy(), expected)


def test_reading_twice_gives_the_same_and_a_changed_picture_another_hash(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path, SEVEN, draw_face)
    first, second = load_set(tmp_path, recipe()), load_set(tmp_path, recipe("seed=5"))
    assert first.sha256 == second.sha256
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.usage, second.usage)  # held out faces belong to the set, not to the run
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


def test_persons_are_never_parted(tmp_path: Path, draw_face: Draw) -> None:
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


def test_own_faces_are_stored_as_large_as_the_net_sees_them(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path, SEVEN, draw_face, size=96)
    assert load_set(tmp_path, recipe("data.size=64")).images.shape[1:] == (64, 64)
    assert load_set(tmp_path, recipe("data.size=32")).images.shape[1:] == (48, 48)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "I;16", "1", "F"])
def test_modes(mode: str, draw_face: Draw) -> None:
    grey = draw_face(48)
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "F":
        picture = Image.fromarray(grey.astype(np.float32) / 255)
    elif mode == "P":
        picture = Image.fromarray(grey).convert("P")
    else:
        picture = Image.fromarray(grey).convert("RGB").convert(mode)
    expected = np.asarray(Image.fromarray(grey).convert("1").convert("L")) if mode == "1" else grey
    read = read_picture(encode(picture, "TIFF"), 48, where="x")
    assert np.abs(read.astype(int) - expected).max() <= 1


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    assert read_picture(encode(clear), 48, where="x").min() == 255


def test_exif_turns_and_the_middle_square_is_kept() -> None:
    pixels = np.zeros((40, 80), np.uint8)
    pixels[:, 60:] = 255  # outside of the middle square
    pixels[:20, 20:60] = 100
    exif = Image.Exif()
    exif[0x0112] = 3
    upright = read_picture(encode(Image.fromarray(pixels)), 40, where="x")
    turned = read_picture(encode(Image.fromarray(pixels), exif=exif), 40, where="x")
    assert (upright[:20] == 100).all()
    assert (upright[20:] == 0).all()
    assert np.array_equal(turned, upright[::-1, ::-1])


def test_a_large_jpeg_is_read_as_pillow_reads_it_whole(draw_face: Draw) -> None:
    large = Image.fromarray(draw_face(500)).convert("RGB")
    content = encode(large, "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as picture:
        whole = np.asarray(picture.convert("L").resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(read_picture(content, 48, where="x") - whole).mean() < 1.5
