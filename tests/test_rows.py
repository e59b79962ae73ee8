"""Which faces are learned from: folds, limits, exclude files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")
model_selection = pytest.importorskip("sklearn.model_selection", reason="the lab is not installed")

from mien._errors import DataError, ModelError, RecipeError  # noqa: E402
from mien.lab import recipe as recipes  # noqa: E402
from mien.lab.data import FaceSet  # noqa: E402
from mien.lab.data.divide import clusters, divide  # noqa: E402
from mien.lab.feed.rows import training_rows, validation_name, validation_rows  # noqa: E402
from mien.lab.recipe import Recipe  # noqa: E402
from mien.lab.train.fit import Devices, fit  # noqa: E402
from mien.lab.train.run import load_final, validated  # noqa: E402
from support.synthetic_faces import cartoon_set  # noqa: E402

TINY = ["net.options.stem=16", "net.options.widths=[16]", "net.options.depths=[1]", "net.options.strides=[2]"]


def recipe(*overrides: str) -> Recipe:
    return recipes.load("mien-0", ["optimise.batch=4", *overrides])


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set()


def rows_of(faces: FaceSet) -> list[int]:
    return faces.rows.tolist()


def test_faces_without_a_majority_are_learned_from_on_request_and_never_judged(faces: FaceSet) -> None:
    assert faces.votes is not None
    ballots = faces.votes.clone()
    ballots[[0, 196]] = torch.tensor([0, 4, 4, 0, 0, 0, 0, 2, 0, 0], dtype=torch.uint8)
    split = replace(faces, votes=ballots)
    sure, all_of_them = recipe("data.classes=eight"), recipe("data.classes=eight", "data.undecided=true")
    assert rows_of(training_rows(split, all_of_them)) == list(range(196))
    assert rows_of(training_rows(split, sure)) == list(range(1, 196))
    assert 196 not in rows_of(validation_rows(split, all_of_them))
    for more in ("data.classes=seven", "data.folds=3"):
        with pytest.raises(
            RecipeError, match=r"data\.undecided needs data\.classes 'eight', one set and neither folds"
        ):
            recipe("data.classes=eight", "data.undecided=true", more)


# Folds


def test_folds_are_a_stratified_partition_of_training(faces: FaceSet) -> None:
    parts = []
    for fold in range(4):
        chosen = recipe("data.folds=4", f"data.fold={fold}", f"seed={fold}")
        held, rest = validation_rows(faces, chosen), training_rows(faces, chosen)
        assert torch.bincount(held.labels).tolist() == [7] * 7
        assert not set(rows_of(held)) & set(rows_of(rest))
        assert len(held) + len(rest) == 196
        parts += rows_of(held)
    assert sorted(parts) == list(range(196))


def test_groups_and_copies_stay_in_one_fold(faces: FaceSet) -> None:
    images, groups = faces.images.clone(), torch.arange(len(faces))
    groups[:40] = torch.arange(40) // 8
    images[100] = images[0]  # a copy draws its whole group with it
    images[101] = images[100]
    linked = replace(faces, images=images, groups=groups)
    for fold in range(3):
        chosen = recipe("data.folds=3", f"data.fold={fold}")
        held, rest = set(rows_of(validation_rows(linked, chosen))), set(rows_of(training_rows(linked, chosen)))
        for together in (*(set(range(8 * g, 8 * g + 8)) for g in range(1, 5)), {*range(8), 100, 101}):
            assert together <= held or together <= rest


def test_clusters_follow_chains() -> None:
    faces = cartoon_set(per_split=(7, 7, 7))
    images = faces.images.clone()
    images[4], images[9] = images[1], images[6]
    groups = torch.tensor([0, 1, 2, 3, 5, 5, 6, *range(10, 24)])
    groups[9], groups[12] = 5, 6
    found = clusters(replace(faces, images=images, groups=groups)).tolist()
    assert [row for row in range(21) if found[row] == found[1]] == [1, 4, 5, 6, 9, 12]
    assert len(set(found)) == 16


def test_parts_are_as_even_as_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    groups = generator.integers(0, 120, 3000)
    labels = (generator.random(3000) ** 2 * 7).astype(np.int64)

    def unevenness(parts: list[np.ndarray]) -> float:
        counts = np.stack([np.bincount(labels[part], minlength=7) for part in parts])
        return float((counts.std(0) / counts.mean(0)).max())

    ours = divide(labels, groups, shares=[0.2] * 5, seed=0)
    theirs = model_selection.StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)
    assert unevenness([ours == part for part in range(5)]) <= 1.1 * unevenness([held for _, held in theirs])
    assert all(len(set(ours[groups == group])) == 1 for group in range(120))


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_held_out_shares(share: float) -> None:
    labels = np.repeat(np.arange(3), [200, 40, 8])
    part = divide(labels, np.arange(248), shares=[1 - share, share], seed=1)
    assert np.bincount(labels[part == 1], minlength=3).tolist() == [round(n * share) for n in (200, 40, 8)]


def test_one_large_group_does_not_fill_the_small_part() -> None:
    groups = np.array([0] * 50 + [1] * 30 + list(range(2, 22)))
    part = divide(np.zeros(100, np.int64), groups, shares=[0.85, 0.15], seed=0)
    assert int((part == 1).sum()) == 15


def test_mixed_in_faces_are_never_validated_on_and_never_leak(faces: FaceSet) -> None:
    images = faces.images.clone()
    images[150:196] = images[:46]  # what is mixed in repeats faces of the set
    mixed = replace(faces, images=images, mixed_in=torch.arange(len(faces)) >= 150)
    mixed = mixed.select(mixed.usage == 0)
    seen = []
    for fold in range(3):
        chosen = recipe("data.folds=3", f"data.fold={fold}")
        held, rest = validation_rows(mixed, chosen), training_rows(mixed, chosen)
        assert max(rows_of(held)) < 150
        assert not {i.numpy().tobytes() for i in held.images} & {i.numpy().tobytes() for i in rest.images}
        seen += rows_of(held)
    assert sorted(seen) == list(range(150))


def test_too_many_folds(faces: FaceSet) -> None:
    with pytest.raises(DataError, match="196 groups of Training faces make no 500"):
        training_rows(faces, recipe("data.folds=500"))


# Exclude, classes, share, limit


def test_exclude_files(faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("# wrong labels\n0\n 7 # and why\n\n200\n")  # row 200 is PublicTest, and stays there
    chosen = recipe(f"data.exclude={path}")
    assert rows_of(training_rows(faces, chosen)) == [row for row in range(196) if row not in (0, 7)]
    assert len(validation_rows(faces, chosen)) == 70


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3\nx4\n", "line 2: 'x4' is no row"),
        ("-1\n", "line 1: '-1' is no row"),
        ("9999", "has no row 9999; its rows are"),
    ],
)
def test_bad_exclude_files(faces: FaceSet, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(DataError, match=says):
        training_rows(faces, recipe(f"data.exclude={tmp_path / 'bad.txt'}"))


def test_a_missing_exclude_file(faces: FaceSet, tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match=r"data\.exclude cannot be read"):
            training_rows(faces, recipe(f"data.exclude={path}"))


def test_a_limit_a_class(faces: FaceSet) -> None:
    first, again = (training_rows(faces, recipe("data.limit=5")) for _ in range(2))
    other = training_rows(faces, recipe("data.limit=5", "seed=1"))
    larger = training_rows(faces, recipe("data.limit=9"))
    assert torch.bincount(first.labels).tolist() == [5] * 7
    assert rows_of(first) == rows_of(again) != rows_of(other)
    assert set(rows_of(first)) < set(rows_of(larger))
    assert torch.bincount(training_rows(faces, recipe("data.limit=999")).labels).tolist() == [28] * 7


def test_share_then_limit_within_the_classes(faces: FaceSet) -> None:
    chosen = training_rows(faces, recipe("data.share=0.5", "data.limit=3", "data.classes=three"))
    assert torch.bincount(chosen.labels).tolist() == [3, 3, 3]
    assert len(training_rows(faces, recipe("data.share=0.5"))) == 98


def test_too_few_faces_for_a_batch(faces: FaceSet) -> None:
    with pytest.raises(DataError, match=r"make no batch of 256; lower optimise\.batch"):
        training_rows(faces, recipe("optimise.batch=256"))
    light = replace(faces, weights=torch.full((len(faces),), 0.01))
    with pytest.raises(DataError, match="make no batch of 4"):
        training_rows(light, recipe())


SHOWN = ("data.expand=0.3", "data.expand_first=true")


@pytest.mark.parametrize(
    ("overrides", "name"), [((), "public"), (("data.folds=4",), "fold"), (SHOWN, "leaky")], ids=lambda v: str(v)[:8]
)
def test_the_records_name_what_validated(faces: FaceSet, tmp_path: Path, overrides: tuple[str, ...], name: str) -> None:
    chosen = recipe(*TINY, *overrides, "optimise.batch=28", "optimise.epochs=1", "optimise.precision=32-true")
    assert validation_name(chosen) == name
    fit(chosen, faces, tmp_path, devices=Devices("cpu"))
    trained = load_final(tmp_path)
    assert {key for key in trained.history[0] if key.endswith("_log_loss")} == {f"{name}_log_loss"}
    assert validated(trained.history[0], "accuracy") == trained.history[0][f"{name}_accuracy"]
    if name == "leaky":
        from mien.lab.export.release import release

        with pytest.raises(ModelError, match="has learned from test faces"):
            release(trained, faces, tmp_path / "out")
        assert not (tmp_path / "out").exists()
