"""Teachers that are refused: files of other faces, classes, rows or shapes, and what is no file of answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mien._emotions import SEVEN
from mien._errors import DataError
from mien.lab.data import FaceSet
from mien.lab.recipe import Target
from mien.lab.train.answers import Answers, answer
from mien.lab.train.run import Trained, load_final
from mien.lab.train.teachers import Teachers
from support.short_runs import CPU, training, two_runs
from support.synthetic_faces import cartoon_set


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(70, 14, 7))


@pytest.fixture(scope="module")
def folders(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return two_runs(tmp_path_factory.mktemp("teachers"), faces)


@pytest.fixture(scope="module")
def trained(folders: list[Path]) -> list[Trained]:
    return [load_final(folder) for folder in folders]


def test_answers_for_other_data_classes_or_rows_are_refused(trained: list[Trained], faces: FaceSet) -> None:
    ours = training(faces)
    answers = answer(trained[:1], ours.select(torch.arange(60)), 1)
    with pytest.raises(DataError, match=r"a\.npz: its answers are for another data set than cartoons"):
        answers.probabilities(replace(ours, sha256="1" * 64), 1.0, source="a.npz")
    with pytest.raises(DataError, match=r"a\.npz: answers for the classes angry, .*; the recipe learns angry, fear"):
        answers.probabilities(replace(ours, emotions=SEVEN[:1] + SEVEN[2:3]), 1.0, source="a.npz")
    with pytest.raises(DataError, match=r"a\.npz: has no answer for some rows"):
        answers.probabilities(ours, 1.0, source="a.npz")
    assert len(answers.probabilities(ours.select(torch.arange(50)), 1.0, source="a.npz")) == 50
    with pytest.raises(DataError, match="no answer for some rows"):
        answer(trained[:1], ours.select(torch.arange(0)), 1).probabilities(ours, 1.0, source="a.npz")


@pytest.mark.parametrize("content", [None, b"", b"not a file of numpy", b"PK\x03\x04 half of one"])
def test_a_missing_or_damaged_file_is_one_clear_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: .*`mien logits`"):
        Answers.load(path)


def test_another_npz_file_and_a_file_of_wrong_shape_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="is no file of cached logits"):
        Answers.load(tmp_path / "other.npz")
    short_one = Answers(np.arange(3), np.zeros((2, 1, 7), np.float16), SEVEN, "0" * 64, ("x",))
    short_one.save(tmp_path / "short.npz")
    with pytest.raises(DataError, match=r"damaged \(logits of shape \[2, 1, 7\]\)"):
        Answers.load(tmp_path / "short.npz")


def test_views_and_teachers_that_do_not_fit_are_refused(trained: list[Trained], faces: FaceSet) -> None:
    with pytest.raises(DataError, match="views is one of 1, 2, 6, 10, not 3"):
        answer(trained, training(faces), 3)
    odd = replace(trained[1], emotions=SEVEN[:3])
    with pytest.raises(DataError, match="teachers must answer for the same classes"):
        answer([trained[0], odd], training(faces), 1)


def test_a_live_teacher_of_other_classes_is_refused(folders: list[Path]) -> None:
    choice = Target(teach=1.0, teachers=(str(folders[0]),))
    with pytest.raises(
        DataError, match=r"teacher mien-plain knows the classes angry, .*; the recipe learns angry, disgust"
    ):
        Teachers(choice, CPU.launch("32-true"), SEVEN[:2])
