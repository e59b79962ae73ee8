"""Files in every form of FER-2013, with drawn faces: Parquet, both CSV versions, votes, folders."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")
pa = pytest.importorskip("pyarrow", reason="the lab is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the lab is not installed")

from mien._emotions import SEVEN
from mien._errors import DataError
from mien.lab.data import FERPLUS_COLUMNS, FaceSet, Split, load_fer2013
from support.encoded_images import encode

SPLITS = tuple(Split)


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


def parquet_columns(faces: FaceSet) -> dict[str, list[object]]:
    votes = {name: faces.votes[:, i].tolist() for i, name in enumerate(FERPLUS_COLUMNS)}
    return {
        "image": [encode(image) for image in faces.images.numpy()],
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
        (place / (f"{SPLITS[usage]}_{row}.png" if named else f"im{row}.png")).write_bytes(encode(image))
    return folder


def assert_same(left: FaceSet, right: FaceSet, *columns: str) -> None:
    for name in ("images", "labels", "usage", "rows", *columns):
        a, b = getattr(left, name), getattr(right, name)
        assert a.dtype == b.dtype, name
        assert torch.equal(a, b), name


def refuse(pattern: str, path: Path, **options: object) -> None:
    with pytest.raises(DataError, match=pattern) as caught:
        load_fer2013(path, **{"official": False, **options})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(path))


def twenty_one(draw_face: Callable[..., np.ndarray]) -> FaceSet:
    """Twenty-one drawn faces: every class in every split."""
    count = 21
    votes = np.random.default_rng(1).multinomial(10, [0.1] * 10, size=count)
    images = [draw_face(48, seed=seed) for seed in range(count)]
    return make_set(images, [i % 7 for i in range(count)], [i // 7 for i in range(count)], votes.tolist())
