"""The audit finds planted duplicates, blanks and suspects, and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from mien._emotions import CLASS_SETS, SEVEN
from mien._errors import DataError
from mien.lab.audit import Audit, audit, audit_counts, audit_rows, duplicates, exclude_list, read_reasons
from mien.lab.audit.audit import flatness, inspect_images
from mien.lab.audit.duplicates import Leak, correlations, find_overlap, fingerprints, mirror_signs, near_pairs
from mien.lab.data import FERPLUS_COLUMNS, FaceSet, Split
from mien.lab.data.selection import read_exclude, training_rows
from support.defective_faces import planted, random_images, with_images
from support.short_runs import small
from support.synthetic_faces import cartoon_set


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return with_images(cartoon_set(), random_images(336))


@pytest.fixture(scope="module")
def found(faces: FaceSet) -> Audit:
    return audit(planted(faces), finds_face=lambda image: int(np.median(image)) < 240)


def test_the_fingerprint_is_the_low_end_of_scipys_cosine_transform() -> None:
    images = random_images(5)
    x = images.astype(np.float64) - images.mean(axis=(1, 2), keepdims=True)
    x /= np.sqrt((x**2).sum(axis=(1, 2), keepdims=True))
    expected = dctn(x, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(5, -1)[:, 1:]
    marks = fingerprints(images)
    assert np.allclose(marks[:, :-1], expected, atol=1e-5)
    assert np.allclose(marks.norm(dim=1), 1, atol=1e-5)
    mirrored = fingerprints(np.ascontiguousarray(images[:, :, ::-1]))
    assert np.allclose(marks * mirror_signs(64), mirrored, atol=1e-5)


def test_correlations_are_numpys() -> None:
    one, two = random_images(6, seed=1), random_images(6, seed=2)
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, two, strict=True)]
    assert correlations(one, two) == pytest.approx(expected, abs=1e-12)


def test_no_fingerprint_bound_is_below_the_correlation() -> None:
    images = random_images(200, seed=3)
    marks = fingerprints(images)
    flat = images.reshape(200, -1).astype(np.float64)
    assert ((marks @ marks.T).numpy() >= np.corrcoef(flat) - 1e-5).all()


@pytest.mark.parametrize("side", [8, 33, 48])
def test_the_search_finds_what_comparing_everything_finds(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_ROWS", 32)  # many blocks and windows
    monkeypatch.setattr(duplicates, "_COLUMNS", 48)
    images = random_images(300, seed=4, side=side)
    generator = np.random.default_rng(5)
    for place, strength in enumerate(np.linspace(1, 40, 100)):
        noisy = images[place] + generator.normal(0, strength, (side, side))
        images[200 + place] = (noisy if place % 3 else noisy[:, ::-1]).clip(0, 255).astype(np.uint8)
    flat = images.reshape(300, -1).astype(np.float64)
    turned = images[:, :, ::-1].reshape(300, -1).astype(np.float64)
    every = np.corrcoef(flat, turned)
    direct, mirrored = every[:300, :300], every[:300, 300:]
    expected = {(i, j, False) for i, j in np.argwhere(direct > 0.97) if i < j}
    expected |= {(i, j, True) for i, j in np.argwhere((mirrored > 0.97) & (direct <= 0.97)) if i < j}
    pairs = near_pairs(images, threshold=0.97)
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.mirrored.tolist(), strict=True))
    assert found == expected
    assert len(expected) > 20
    assert {mirrored for *_, mirrored in expected} == {False, True}
    across = near_pairs(images[:200], images[200:], threshold=0.97)
    assert {(i, j + 200, m) for i, j, m in zip(across.first, across.second, across.mirrored, strict=True)} == {
        (i, j, m) for i, j, m in expected if i < 200 <= j
    }


def test_too_many_pairs_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 100)
    images = np.repeat(random_images(1), 30, axis=0)
    images[:, 0, 0] = np.arange(30)
    with pytest.raises(DataError, match="frames of videos"):
        near_pairs(images)
    faces = cartoon_set(per_split=(14, 0, 0))
    blank = replace(faces, images=faces.images * 0)
    with pytest.raises(DataError, match="more than 100 pairs of equal images"):
        find_overlap(blank, blank)


def test_planted_duplicates_are_found_and_nothing_else(found: Audit) -> None:
    rows, counts = audit_rows(found), audit_counts(found)
    assert rows["duplicates"] == [[0, 200], [1, 270], [2, 3]]
    assert [pair[:2] for pair in rows["near_pairs"]] == [[5, 205]]
    assert [pair[:2] for pair in rows["mirrored_pairs"]] == [[6, 7]]
    assert rows["contradicting"] == [[1, 270], [2, 3]]
    assert rows["leaked"] == [0, 1, 5]
    assert counts["duplicates"]["repeats_by_split"] == {"Training": 1, "PublicTest": 0, "PrivateTest": 0}
    leaks = {(leak["of"], leak["into"]): leak for leak in counts["duplicates"]["leaks"]}
    assert leaks["PublicTest", "Training"]["exact"] == 1
    assert leaks["PublicTest", "Training"]["same_label"] == 1
    assert leaks["PublicTest", "Training"]["near"] == 2
    assert leaks["PrivateTest", "Training"]["same_label"] == 0
    assert counts["duplicates"]["contradicting"]["groups_within_one_split"] == 1


def test_blanks_and_placeholders_are_found(found: Audit) -> None:
    rows = audit_rows(found)
    assert rows["near_blank"] == [8, 9]
    assert rows["faceless"] == [10]
    assert found.content.black.tolist() == [8]
    assert found.content.constant.tolist() == [8]


def test_flatness_of_known_images() -> None:
    checker = np.indices((48, 48)).sum(axis=0) % 2 * 200
    half = checker.copy()
    half[:, :24] = 0
    images = np.stack([np.zeros((48, 48)), checker, half]).astype(np.uint8)
    assert flatness(images) == pytest.approx([1, 0, 24 / 47], abs=0.02)


def test_votes_make_suspects_and_a_found_face_clears_them(faces: FaceSet) -> None:
    assert faces.votes is not None
    votes = faces.votes.clone()
    votes[20] = 0
    votes[20, FERPLUS_COLUMNS.index("not_face")] = 10
    voted = replace(faces, votes=votes)
    assert inspect_images(voted, lambda _: True).faceless.tolist() == []
    seen = inspect_images(voted, lambda _: False)
    assert seen.faceless.tolist() == [20]
    assert seen.all_votes.tolist() == [20]
    unchecked = inspect_images(voted)
    assert unchecked.faceless.tolist() == []
    assert unchecked.not_checked == 1


def test_the_list_has_reasons_and_is_read_by_a_training(found: Audit, tmp_path: Path) -> None:
    text, counts = exclude_list(
        found, read_reasons("blank,not-face,leaked,contradicting,duplicates"), comment="Made by a test"
    )
    path = tmp_path / "exclude.txt"
    path.write_text(text)
    assert read_exclude(path, found.faces).tolist() == [0, 1, 2, 3, 5, 8, 9, 10]
    assert counts == {"blank": 2, "not-face": 1, "leaked": 3, "contradicting": 3, "duplicates": 1}
    assert "\n1  # leaked: duplicate in PrivateTest; contradicting: duplicates are labelled disgust and fear\n" in text
    assert "\n5  # leaked: near duplicate in PublicTest\n" in text
    chosen = small(f'data.exclude="{path}"')
    assert not {0, 1, 2, 3, 5, 8, 9, 10} & set(training_rows(found.faces, chosen).rows.tolist())


def test_reasons_are_read_strictly() -> None:
    assert read_reasons("leaked, blank") == ("blank", "leaked")
    assert read_reasons("none") == ()
    assert len(read_reasons("all")) == 6
    with pytest.raises(DataError, match="'blanks'; did you mean 'blank'"):
        read_reasons("blanks")


def test_faces_of_one_set_are_found_in_another(faces: FaceSet) -> None:
    other = with_images(cartoon_set(seed=1), random_images(336, seed=9))
    images = other.images.numpy().copy()
    images[30] = faces.images[40].numpy()
    images[31] = faces.images[41].numpy()[:, ::-1]
    images[300] = (faces.images[42].numpy() * 0.7 + 30).astype(np.uint8)
    labels = other.labels.clone()
    labels[30] = faces.labels[40]
    eight = CLASS_SETS["eight"]  # the same emotions in another order
    moved = torch.tensor([eight.index(emotion) for emotion in SEVEN])[labels]
    found = find_overlap(faces, replace(other, images=torch.from_numpy(images), labels=moved, emotions=eight))
    pairs = zip(
        found.index.tolist(), found.other_index.tolist(), found.exact.tolist(), found.mirrored.tolist(), strict=True
    )
    assert set(pairs) == {(40, 30, True, False), (41, 31, False, True), (42, 300, False, False)}
    leaks = {(leak.of, leak.into): leak for leak in found.leaks}
    training = Split.TRAINING
    assert leaks[training, training] == Leak(training, training, exact=1, same_label=1, near=2)
    assert leaks[training, Split.PRIVATE_TEST].near == 1


def test_a_leak_into_another_set_goes_into_the_list(faces: FaceSet) -> None:
    other = replace(faces.select(torch.arange(230, 260)), source="somewhere/other set")
    mine = faces.select(torch.arange(0, 100))
    images = mine.images.clone()
    images[4] = other.images[3]
    text, counts = exclude_list(audit(replace(mine, images=images), [other]), ("leaked",))
    assert counts == {"leaked": 1}
    assert "\n4  # leaked: duplicate of row 233 of other set (PublicTest)\n" in text
