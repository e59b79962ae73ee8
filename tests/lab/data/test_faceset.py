"""Selections from a FaceSet: splits, classes, and majority votes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import CLASS_SETS, Emotion
from mien._errors import DataError, MissingExtraError
from mien.lab.data import FERPLUS_COLUMNS, FaceSet, Split, find_fer2013, load_fer2013, vote_distribution, with_classes
from support.fer2013_files import assert_same, csv_rows, make_set, parquet_columns, twenty_one, write_csv, write_parquet


@pytest.fixture(scope="module")
def faces(draw_face: Callable[..., np.ndarray]) -> FaceSet:
    return twenty_one(draw_face)


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


@pytest.mark.parametrize("name", [name for name in CLASS_SETS if name != "eight"])
def test_class_sets(faces: FaceSet, name: str) -> None:
    chosen = with_classes(faces, name)
    assert chosen.emotions == CLASS_SETS[name]
    kept = [row for row in range(len(faces)) if faces.emotions[faces.labels[row]] in CLASS_SETS[name]]
    assert chosen.rows.tolist() == kept
    before = [faces.emotions[i] for i in faces.labels[chosen.rows].tolist()]
    assert [chosen.emotions[i] for i in chosen.labels.tolist()] == before


def test_class_sets_that_cannot_be_chosen(faces: FaceSet) -> None:
    with pytest.raises(DataError, match=r"not 'six-no-neutrl'; did you mean 'six-no-neutral'\?"):
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
