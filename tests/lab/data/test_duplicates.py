"""Copies in FER-2013, the counts of the official table, the real table, and the examples of docs/reference/data.md."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._errors import DataError
from mien.lab.data import (
    FaceSet,
    Split,
    check_official,
    clean_rows,
    extra_copies,
    leaked_into_tests,
    vote_distribution,
    with_classes,
)
from mien.lab.data.fer2013 import OFFICIAL_COUNTS, read_csv
from support.fer2013_files import csv_rows, make_set, refuse, twenty_one, write_csv
from support.paths import ROOT

DOCS = ROOT / "docs" / "reference/data.md"


@pytest.fixture(scope="module")
def faces(draw_face: Callable[..., np.ndarray]) -> FaceSet:
    return twenty_one(draw_face)


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


@pytest.fixture(scope="module")
def fer2013(fer2013_faces: FaceSet) -> FaceSet:
    return fer2013_faces


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
    voted = (fer2013.usage == 2) & (probs.sum(dim=1) > 0)
    of_label = probs[voted].gather(1, fer2013.labels[voted][:, None])
    assert f"{of_label.mean():.3f}" == "0.589"  # README and docs/explanations/protocol.md


def test_real_table_as_csv(fer2013: FaceSet, tmp_path: Path) -> None:
    part = fer2013.select(torch.arange(0, 35887, 100))
    read = read_csv(write_csv(tmp_path / "fer2013.csv", csv_rows(part)))
    assert torch.equal(read.images, part.images)
    assert torch.equal(read.labels, part.labels)


def snippets() -> Iterator[str]:
    yield from re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.release
def test_docs_run(fer2013_parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_DATA", str(fer2013_parquet))
    names: dict[str, object] = {}
    for snippet in snippets():
        exec(compile(snippet, str(DOCS), "exec"), names)
    assert [len(names[name]) for name in ("validation", "train", "six")] == [3589, 28006, 29689]
    assert [int(names[name].sum()) for name in ("leaked", "clean", "repeated")] == [703, 3268, 1279]
    assert names["soft"].shape == (35887, 7)
