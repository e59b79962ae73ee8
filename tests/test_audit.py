"""The audit: every planted defect is found, nothing else is, and FER-2013 has exactly the known ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from faces import cartoon_set
from mien._emotions import CLASS_SETS, SEVEN
from mien._errors import DataError, RecipeError
from mien.lab.audit import Audit, audit, exclude_text, figures, listed, read_reasons, report
from mien.lab.audit import near as near_module
from mien.lab.audit.against import overlap, overlap_counts
from mien.lab.audit.content import flatness, look
from mien.lab.audit.copies import contradicting
from mien.lab.audit.fingerprint import correlations, fingerprints, mirror_signs
from mien.lab.audit.folds import (
    FOLDS,
    Opinion,
    ask,
    fold_recipes,
    folds_folder,
    knows,
    read_opinion,
    save_opinion,
    train_folds,
)
from mien.lab.audit.label_errors import against_votes, find_label_errors
from mien.lab.audit.near import near_pairs
from mien.lab.audit.sets import load_any
from mien.lab.audit.votes import agreement
from mien.lab.data import FERPLUS_COLUMNS, FaceSet, load_fer2013
from mien.lab.feed.rows import read_exclude, training_rows, validation_rows
from mien.lab.model import open_model
from mien.lab.train.fit import Devices
from test_fit import small


def random_images(count: int, *, seed: int = 0, side: int = 48) -> np.ndarray:
    """Smooth random images: low frequencies as strong as in faces, so that correlations are spread widely."""
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.normal(size=(count, 1, 6, 6)))
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").squeeze(1).numpy()
    noisy = 128 + 40 * smooth + generator.normal(0, 8, (count, side, side))
    return noisy.clip(0, 255).astype(np.uint8)


def with_images(faces: FaceSet, images: np.ndarray) -> FaceSet:
    return replace(faces, images=torch.from_numpy(images))


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return with_images(cartoon_set(), random_images(336))


def planted(faces: FaceSet) -> FaceSet:
    """Copies, contradictions, near copies, a mirrored one, blanks and a placeholder in known rows."""
    images, labels = faces.images.numpy().copy(), faces.labels.clone()
    images[200] = images[0]  # Training 0 stands in PublicTest
    labels[200] = labels[0]
    images[270] = images[1]  # Training 1 stands in PrivateTest, under another label
    labels[270] = (labels[1] + 1) % 7
    images[3] = images[2]  # within Training, another label
    labels[3] = (labels[2] + 1) % 7
    images[205] = (images[5] * 0.8 + 20).astype(np.uint8)  # Training 5 nearly in PublicTest
    images[7] = images[6][:, ::-1]  # mirrored
    images[8] = 0
    images[9] = 200
    images[9, 0, 0] = 190
    images[10] = 250
    images[10, 20:24, 5:40:3] = 0  # letters, so to speak
    return replace(faces, images=torch.from_numpy(images), labels=labels)


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
    monkeypatch.setattr(near_module, "_ROWS", 32)  # many blocks and windows
    monkeypatch.setattr(near_module, "_COLUMNS", 48)
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
    monkeypatch.setattr(near_module, "MOST_PAIRS", 100)
    images = np.repeat(random_images(1), 30, axis=0)
    images[:, 0, 0] = np.arange(30)
    with pytest.raises(DataError, match="frames of videos"):
        near_pairs(images)


def test_planted_copies_are_found_and_nothing_else(found: Audit) -> None:
    rows, said = listed(found), figures(found)
    assert rows["copies"] == [[0, 200], [1, 270], [2, 3]]
    assert [pair[:2] for pair in rows["near_pairs"]] == [[5, 205]]
    assert [pair[:2] for pair in rows["mirrored_pairs"]] == [[6, 7]]
    assert rows["contradicting"] == [[1, 270], [2, 3]]
    assert rows["leaked"] == [0, 1, 5]
    assert said["copies"]["extra_by_split"] == {"Training": 1, "PublicTest": 0, "PrivateTest": 0}
    leaks = {(leak["of"], leak["into"]): leak for leak in said["copies"]["leaks"]}
    assert leaks["PublicTest", "Training"]["exact"] == 1
    assert leaks["PublicTest", "Training"]["same_label"] == 1
    assert leaks["PublicTest", "Training"]["near"] == 2
    assert leaks["PrivateTest", "Training"]["same_label"] == 0
    assert said["copies"]["contradicting"]["groups_within_one_split"] == 1


def test_blanks_and_placeholders_are_found(found: Audit) -> None:
    rows = listed(found)
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
    assert look(voted, lambda _: True).faceless.tolist() == []
    seen = look(voted, lambda _: False)
    assert seen.faceless.tolist() == [20]
    assert seen.all_votes.tolist() == [20]
    unasked = look(voted)
    assert unasked.faceless.tolist() == []
    assert unasked.not_asked == 1


def test_the_list_is_what_training_reads_and_says_why(found: Audit, tmp_path: Path) -> None:
    text, counts = exclude_text(
        found, read_reasons("blank,not-face,leaked,contradicting,copies"), head="Made by a test"
    )
    path = tmp_path / "exclude.txt"
    path.write_text(text)
    assert read_exclude(path, found.faces).tolist() == [0, 1, 2, 3, 5, 8, 9, 10]
    assert counts == {"blank": 2, "not-face": 1, "leaked": 3, "contradicting": 3, "copies": 1}
    assert "\n1  # leaked: copy in PrivateTest; contradicting: copies are disgust and fear\n" in text
    assert "\n5  # leaked: near copy in PublicTest\n" in text
    chosen = small(f'data.exclude="{path}"')
    assert not {0, 1, 2, 3, 5, 8, 9, 10} & set(training_rows(found.faces, chosen).rows.tolist())


def test_reasons_are_read_strictly() -> None:
    assert read_reasons("leaked, blank") == ("blank", "leaked")
    assert read_reasons("none") == ()
    assert len(read_reasons("all")) == 6
    with pytest.raises(DataError, match="'blanks' is no reason"):
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
    found = overlap(faces, replace(other, images=torch.from_numpy(images), labels=moved, emotions=eight))
    pairs = zip(found.place.tolist(), found.theirs.tolist(), found.exact.tolist(), found.mirrored.tolist(), strict=True)
    assert set(pairs) == {(40, 30, True, False), (41, 31, False, True), (42, 300, False, False)}
    counts = {(row["of"], row["into"]): row for row in overlap_counts(found, faces)}
    assert counts["Training", "Training"] | {"of": "", "into": ""} == {
        "of": "",
        "into": "",
        "exact": 1,
        "same_label": 1,
        "near": 2,
    }
    assert counts["Training", "PrivateTest"]["near"] == 1


def test_a_leak_into_another_set_goes_into_the_list(faces: FaceSet) -> None:
    other = replace(faces.select(torch.arange(230, 260)), source="somewhere/other set")
    mine = faces.select(torch.arange(0, 100))
    images = mine.images.clone()
    images[4] = other.images[3]
    text, counts = exclude_text(audit(replace(mine, images=images), [other]), ("leaked",))
    assert counts == {"leaked": 1}
    assert "\n4  # leaked: copy of row 233 of other set (PublicTest)\n" in text


def opinion_of(faces: FaceSet, *, wrong: list[int], by: int = 3) -> Opinion:
    """Sure and right about all Training faces but those whose label it contradicts."""
    rows = faces.rows[:196].numpy()
    told = faces.labels[:196].numpy().copy()
    told[wrong] = (told[wrong] + by) % 7
    probs = np.full((196, 7), 0.02, np.float32)
    probs[np.arange(196), told] = 0.88
    return Opinion(rows, probs, SEVEN, "a test")


def test_planted_label_errors_are_found_with_their_cure(faces: FaceSet) -> None:
    wrong = [3, 50, 51, 120]
    errors = find_label_errors(faces, opinion_of(faces, wrong=wrong))
    assert sorted(errors.places.tolist()) == wrong
    given = faces.labels.numpy()[errors.places]
    assert (errors.suggested == (given + 3) % 7).all()
    assert errors.quality == pytest.approx([0.02] * 4)
    assert len(errors.judged) == 196
    assert sum(errors.account.values()) == 140
    assert errors.accuracy == pytest.approx(192 / 196)


def test_flagged_faces_are_checked_against_the_votes(faces: FaceSet) -> None:
    assert faces.votes is not None
    votes = faces.votes.clone()
    votes[3] = votes[(int(faces.labels[3]) + 3) % 7]  # the voters say what the opinion says
    voted = replace(faces, votes=votes)
    errors = find_label_errors(voted, opinion_of(faces, wrong=[3, 50]))
    agreed = agreement(voted)
    assert agreed is not None
    assert against_votes(errors, agreed, voted) == {
        "judged": 196,
        "judged_contradicted": pytest.approx(1 / 196),
        "flagged": 2,
        "flagged_contradicted": 0.5,
        "first": 2,
        "first_contradicted": 0.5,
        "suggestion_is_majority": 0.5,
    }


def test_the_agreement_counts_labels_against_majorities(faces: FaceSet) -> None:
    agreed = agreement(faces)
    assert agreed is not None
    assert agreed.agree.all()
    assert agreed.table.sum() == len(faces) == len(agreed.places)
    assert agreed.by_split["PublicTest"] == (70, 70)
    assert agreement(cartoon_set(votes=False)) is None


def test_classes_that_the_set_lacks_do_not_count(faces: FaceSet) -> None:
    some = faces.select(faces.labels < 3)
    opinion = opinion_of(faces, wrong=[7], by=1)
    kept = np.isin(opinion.rows, some.rows.numpy())
    errors = find_label_errors(some, replace_opinion(opinion, kept))
    assert some.rows[errors.places].tolist() == [7]
    one = faces.select(faces.labels == 0)
    kept = np.isin(opinion.rows, one.rows.numpy())
    with pytest.raises(DataError, match="fewer than two of its classes"):
        find_label_errors(one, replace_opinion(opinion, kept))


def replace_opinion(opinion: Opinion, kept: np.ndarray) -> Opinion:
    return replace(opinion, rows=opinion.rows[kept], probs=opinion.probs[kept])


def test_probabilities_are_read_back_and_refused_when_wrong(faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    opinion = opinion_of(faces, wrong=[])
    save_opinion(path, opinion)
    back = read_opinion(path, faces)
    assert (back.rows == opinion.rows).all()
    assert back.probs == pytest.approx(opinion.probs, abs=1e-6)
    assert back.emotions == SEVEN
    np.savez(path, rows=opinion.rows, probs=opinion.probs * 2)
    with pytest.raises(DataError, match="sum to 1"):
        read_opinion(path, faces)
    np.savez(path, rows=opinion.rows + 300, probs=opinion.probs)
    with pytest.raises(DataError, match="has no row 336"):
        read_opinion(path, faces)
    np.savez(path, rows=opinion.rows * 0, probs=opinion.probs)
    with pytest.raises(DataError, match="each once"):
        read_opinion(path, faces)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="holds no arrays rows"):
        read_opinion(path, faces)


def test_every_training_face_is_read_by_a_net_that_has_not_seen_it(faces: FaceSet, tmp_path: Path) -> None:
    images = faces.images.clone()
    images[:20] = images[100:120]  # copies, some of them under other labels
    images[30] = images[200]  # a leak, which no fold learns from or is asked about
    copied = replace(faces, images=images, sha256="1" * 64)
    recipe = small("optimise.epochs=1", "keep=best")
    folder = folds_folder(tmp_path, recipe)
    opinion = train_folds(recipe, copied, folder, devices=Devices("cpu"))
    assert sorted(opinion.rows.tolist()) == [row for row in range(196) if row != 30]
    asked = 0
    for chosen in fold_recipes(recipe):
        learned, judged = training_rows(copied, chosen), validation_rows(copied, chosen)
        seen = {image.numpy().tobytes() for image in learned.images}
        assert not any(image.numpy().tobytes() in seen for image in judged.images)
        assert opinion.rows[asked : asked + len(judged)].tolist() == judged.rows.tolist()
        asked += len(judged)
    stamps = [(folder / f"fold-{n}" / "final.pt").stat().st_mtime_ns for n in range(FOLDS)]
    again = train_folds(recipe, copied, folder, devices=Devices("cpu"))
    assert (again.probs == opinion.probs).all()
    assert [(folder / f"fold-{n}" / "final.pt").stat().st_mtime_ns for n in range(FOLDS)] == stamps
    assert folds_folder(tmp_path, small()) != folder


def test_recipes_whose_nets_have_seen_the_faces_are_refused() -> None:
    for change in ('net.weights="runs/x"', 'data.also=[{path="x"}]'):
        with pytest.raises(RecipeError, match="leave out data.also" if "also" in change else "take a recipe without"):
            fold_recipes(small(change))
    folds = fold_recipes(small("keep=best"))
    assert [one.data.fold for one in folds] == list(range(FOLDS))
    assert {one.keep for one in folds} == {"last"}


def test_a_fold_must_not_steer_the_rate_of_the_net_that_judges_it() -> None:
    in_a_phase = 'phases=[{name="first", optimise={epochs=1, schedule="plateau"}}]'
    for change in ('optimise.schedule="plateau"', in_a_phase):
        with pytest.raises(RecipeError, match="a plateau would let every fold steer"):
            fold_recipes(small(change))


def test_a_model_knows_fer2013_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("emotion,pixels,Usage\n")
    other_form = replace(cartoon_set(), source=str(tmp_path / "faces.csv"), sha256="1" * 64)
    assert knows(open_model("mien-0"), other_form)
    (tmp_path / "own" / "happy").mkdir(parents=True)
    assert not knows(open_model("mien-0"), replace(other_form, source=str(tmp_path / "own")))


def test_a_model_is_asked_about_all_but_private_faces() -> None:
    class Sure:
        name, emotions, size = "sure", SEVEN, 48

        def __call__(self, crops: np.ndarray, /) -> tuple[np.ndarray, None]:
            probs = np.full((len(crops), 7), 0.1, np.float32)
            probs[:, 0] = 0.4
            return probs, None

    opinion = ask(Sure(), cartoon_set())
    assert sorted(opinion.rows.tolist()) == list(range(266))


def test_own_faces_keep_contempt_and_else_are_the_seven(tmp_path: Path) -> None:
    from PIL import Image

    for folder, names in (("seven", ("happy", "sad")), ("eight", ("happy", "contempt"))):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            Image.fromarray(random_images(1)[0]).save(tmp_path / folder / name / "1.png")
    seven, eight = load_any(tmp_path / "seven", {}), load_any(tmp_path / "eight", {})
    assert seven.emotions == SEVEN
    assert [seven.emotions[label] for label in seven.labels] == ["happy", "sad"]
    assert [eight.emotions[label] for label in eight.labels] == ["contempt", "happy"]
    assert figures(audit(eight))["copies"]["groups"] == 1


def test_the_page_shows_every_finding_and_escapes_what_it_is_told(found: Audit) -> None:
    strange = replace(found, faces=replace(found.faces, source="<b>set</b>", note="<i>a note</i>"))
    html = report(strange, {"blank": 2}, provenance={"command": "mien audit"})
    assert "row 205, PublicTest" in html
    assert "&lt;i&gt;a note" in html
    assert "<i>a note" not in html
    assert "do not publish it" in html
    assert "No blank" not in html
    for title in ("Copies", "Contradicting labels", "Blanks and non-faces", "Rows to leave out", "What is not found"):
        assert f"<h2>{title}</h2>" in html


def test_fer2013_has_exactly_the_known_defects(fer2013_parquet: Path) -> None:
    faces = load_fer2013(fer2013_parquet)
    found = audit(faces)
    said = figures(found)
    copies, content = said["copies"], said["content"]
    assert (copies["distinct"], copies["groups"], copies["rows_in_groups"]) == (34034, 1516, 3369)
    assert copies["extra_by_split"] == {"Training": 1236, "PublicTest": 26, "PrivateTest": 17}
    leaks = {(leak["of"], leak["into"]): (leak["exact"], leak["same_label"], leak["near"]) for leak in copies["leaks"]}
    assert leaks["PublicTest", "Training"] == (280, 273, 295)
    assert leaks["PrivateTest", "Training"] == (288, 279, 310)
    assert leaks["PrivateTest", "PublicTest"][0] == 44
    assert copies["training_rows_in_tests"] == 703
    near = copies["near"]
    assert (near["pairs"], near["pairs_above_0.999"], near["mirrored_pairs"]) == (155, 81, 0)
    assert copies["contradicting"] == {
        "groups": 57,
        "rows": 160,
        "groups_within_one_split": 41,
        "rows_within_one_split": 102,
    }
    assert content["all_black_by_split"] == {"Training": 11, "PublicTest": 1, "PrivateTest": 0}
    assert (content["near_blank"], content["all_votes_not_face"]) == (15, 176)
    assert said["ferplus"]["n"] == 25059 + 3199 + 3152
    assert len(contradicting(found.copies, faces)) == 57
    text, _ = exclude_text(found, ("leaked",))
    assert text.count("# leaked: copy in") == 703
