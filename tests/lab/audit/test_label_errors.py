"""The audit of labels: predictions of nets trained on other folds, votes, and the report."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mien._emotions import SEVEN
from mien._errors import DataError, RecipeError
from mien._format import percent
from mien.lab.audit import Audit, audit, audit_counts, audit_page, exclude_list, load_faces
from mien.lab.audit.duplicates import contradicting
from mien.lab.audit.label_errors import (
    FOLDS,
    OutOfFold,
    check_with_votes,
    find_label_errors,
    fold_recipes,
    folds_folder,
    predict_unseen,
    read_probabilities,
    save_probabilities,
    train_folds,
    vote_agreement,
)
from mien.lab.data import FaceSet, Split, load_fer2013
from mien.lab.data.selection import training_rows, validation_rows
from mien.lab.files import load_json
from mien.lab.models import open_model, was_trained_on
from mien.lab.train.devices import Devices
from support.defective_faces import planted, random_images, with_images
from support.paths import ROOT
from support.short_runs import small
from support.synthetic_faces import cartoon_set


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return with_images(cartoon_set(), random_images(336))


@pytest.fixture(scope="module")
def found(faces: FaceSet) -> Audit:
    return audit(planted(faces), finds_face=lambda image: int(np.median(image)) < 240)


def probabilities_of(faces: FaceSet, *, wrong: list[int], by: int = 3) -> OutOfFold:
    """Confident predictions that contradict only the labels at ``wrong``."""
    rows = faces.rows[:196].numpy()
    predicted = faces.labels[:196].numpy().copy()
    predicted[wrong] = (predicted[wrong] + by) % 7
    probs = np.full((196, 7), 0.02, np.float32)
    probs[np.arange(196), predicted] = 0.88
    return OutOfFold(rows, probs, SEVEN, "a test")


def test_planted_label_errors_are_found_with_the_right_label(faces: FaceSet) -> None:
    wrong = [3, 50, 51, 120]
    errors = find_label_errors(faces, probabilities_of(faces, wrong=wrong))
    assert sorted(errors.index.tolist()) == wrong
    given = faces.labels.numpy()[errors.index]
    assert (errors.suggested == (given + 3) % 7).all()
    assert errors.quality == pytest.approx([0.02] * 4)
    assert len(errors.evaluated) == 196
    assert sum(errors.left_out.values()) == 140
    assert errors.accuracy == pytest.approx(192 / 196)


def test_flagged_faces_are_checked_against_the_votes(faces: FaceSet) -> None:
    assert faces.votes is not None
    votes = faces.votes.clone()
    votes[3] = votes[(int(faces.labels[3]) + 3) % 7]  # the votes agree with the probabilities
    voted = replace(faces, votes=votes)
    errors = find_label_errors(voted, probabilities_of(faces, wrong=[3, 50]))
    agreed = vote_agreement(voted)
    assert agreed is not None
    assert asdict(check_with_votes(errors, agreed, voted)) == {
        "evaluated": 196,
        "evaluated_contradicted": pytest.approx(1 / 196),
        "flagged": 2,
        "flagged_contradicted": 0.5,
        "first": 2,
        "first_contradicted": 0.5,
        "suggestion_is_majority": 0.5,
    }


def test_a_share_of_no_flagged_faces_is_none_and_not_on_the_page(faces: FaceSet, found: Audit) -> None:
    errors, agreed = find_label_errors(faces, probabilities_of(faces, wrong=[])), vote_agreement(faces)
    assert agreed is not None
    check = check_with_votes(errors, agreed, faces)
    assert (check.flagged, check.flagged_contradicted, check.suggestion_is_majority) == (0, None, None)
    assert check.evaluated_contradicted == 0
    page = audit_page(replace(found, faces=faces, label_errors=errors, agreement=agreed), {}, provenance={})
    assert "0 of 196 evaluated faces are flagged" in page
    assert "An independent check" not in page


def test_votes_without_any_majority_have_no_section(faces: FaceSet) -> None:
    assert faces.votes is not None
    six = replace(faces, votes=faces.votes * 0 + 1).select(faces.rows < 6)
    page = audit_page(audit(six), {}, provenance={})
    assert "against FER+" not in page


def test_the_agreement_counts_labels_against_majorities(faces: FaceSet) -> None:
    agreed = vote_agreement(faces)
    assert agreed is not None
    assert agreed.agree.all()
    assert agreed.table.sum() == len(faces) == len(agreed.index)
    assert agreed.by_split["PublicTest"] == (70, 70)
    assert vote_agreement(cartoon_set(votes=False)) is None


def test_classes_that_the_set_lacks_do_not_count(faces: FaceSet) -> None:
    some = faces.select(faces.labels < 3)
    probabilities = probabilities_of(faces, wrong=[7], by=1)
    chosen = np.isin(probabilities.rows, some.rows.numpy())
    errors = find_label_errors(some, select_probabilities(probabilities, chosen))
    assert some.rows[errors.index].tolist() == [7]
    one = faces.select(faces.labels == 0)
    chosen = np.isin(probabilities.rows, one.rows.numpy())
    with pytest.raises(DataError, match="fewer than two of its classes"):
        find_label_errors(one, select_probabilities(probabilities, chosen))


def select_probabilities(probabilities: OutOfFold, chosen: np.ndarray) -> OutOfFold:
    return replace(probabilities, rows=probabilities.rows[chosen], probs=probabilities.probs[chosen])


def test_probabilities_are_read_back_and_refused_when_wrong(faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    probabilities = probabilities_of(faces, wrong=[])
    save_probabilities(path, probabilities)
    back = read_probabilities(path, faces)
    assert (back.rows == probabilities.rows).all()
    assert back.probs == pytest.approx(probabilities.probs, abs=1e-6)
    assert back.emotions == SEVEN
    np.savez(path, rows=probabilities.rows, probs=probabilities.probs * 2)
    with pytest.raises(DataError, match="sum to 1"):
        read_probabilities(path, faces)
    np.savez(path, rows=probabilities.rows + 300, probs=probabilities.probs)
    with pytest.raises(DataError, match="has no row 336"):
        read_probabilities(path, faces)
    np.savez(path, rows=probabilities.rows * 0, probs=probabilities.probs)
    with pytest.raises(DataError, match="each once"):
        read_probabilities(path, faces)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a file of arrays"):
        read_probabilities(path, faces)


def test_every_training_face_is_predicted_by_a_net_that_has_not_seen_it(faces: FaceSet, tmp_path: Path) -> None:
    images = faces.images.clone()
    images[:20] = images[100:120]  # duplicates, some of them under other labels
    images[30] = images[200]  # a leak, which no fold trains on or predicts
    copied = replace(faces, images=images, sha256="1" * 64)
    recipe = small("train.epochs=1", "checkpoint=best")
    folder = folds_folder(tmp_path, recipe)
    probabilities = train_folds(recipe, copied, folder, devices=Devices("cpu"))
    assert sorted(probabilities.rows.tolist()) == [row for row in range(196) if row != 30]
    start = 0
    for chosen in fold_recipes(recipe, FOLDS):
        learned, unseen = training_rows(copied, chosen), validation_rows(copied, chosen)
        seen = {image.numpy().tobytes() for image in learned.images}
        assert not any(image.numpy().tobytes() in seen for image in unseen.images)
        assert probabilities.rows[start : start + len(unseen)].tolist() == unseen.rows.tolist()
        start += len(unseen)
    stamps = [(folder / f"fold-{n}" / "final.pt").stat().st_mtime_ns for n in range(FOLDS)]
    again = train_folds(recipe, copied, folder, devices=Devices("cpu"))
    assert (again.probs == probabilities.probs).all()
    assert [(folder / f"fold-{n}" / "final.pt").stat().st_mtime_ns for n in range(FOLDS)] == stamps
    assert folds_folder(tmp_path, small()) != folder


def test_recipes_whose_nets_have_seen_the_faces_are_refused() -> None:
    for change in ('net.weights="runs/x"', 'data.extra=[{path="x"}]'):
        with pytest.raises(RecipeError, match="leave out data.extra" if "extra" in change else "take a recipe without"):
            fold_recipes(small(change), FOLDS)
    folds = fold_recipes(small("checkpoint=best"), FOLDS)
    assert [one.data.fold for one in folds] == list(range(FOLDS))
    assert {one.checkpoint for one in folds} == {"last"}


def test_a_fold_must_not_set_the_learning_rate_of_the_net_that_predicts_it() -> None:
    in_a_phase = 'phases=[{name="first", train={epochs=1, schedule="plateau"}}]'
    for change in ('train.schedule="plateau"', in_a_phase):
        with pytest.raises(RecipeError, match="a plateau would let each fold set the learning rate"):
            fold_recipes(small(change), FOLDS)


def test_a_model_knows_fer2013_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("emotion,pixels,Usage\n")
    other_form = replace(cartoon_set(), source=str(tmp_path / "faces.csv"), sha256="1" * 64)
    trained_on = open_model("mien-1").about["data_sha256"]
    assert was_trained_on(trained_on, other_form)
    assert not was_trained_on("", replace(other_form, sha256=""))
    (tmp_path / "own" / "happy").mkdir(parents=True)
    assert not was_trained_on(trained_on, replace(other_form, source=str(tmp_path / "own")))


def test_a_model_predicts_all_but_private_faces() -> None:
    class Sure:
        name, emotions, size = "sure", SEVEN, 48

        def __call__(self, crops: np.ndarray, /) -> tuple[np.ndarray, None]:
            probs = np.full((len(crops), 7), 0.1, np.float32)
            probs[:, 0] = 0.4
            return probs, None

    probabilities = predict_unseen(Sure(), cartoon_set())
    assert sorted(probabilities.rows.tolist()) == list(range(266))
    with pytest.raises(DataError, match="has no Training or PublicTest rows"):
        predict_unseen(Sure(), cartoon_set().split(Split.PRIVATE_TEST))


def test_own_faces_have_eight_classes_with_contempt_and_else_seven(tmp_path: Path) -> None:
    from PIL import Image

    for folder, names in (("seven", ("happy", "sad")), ("eight", ("happy", "contempt"))):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            Image.fromarray(random_images(1)[0]).save(tmp_path / folder / name / "1.png")
    seven, eight = load_faces(tmp_path / "seven", {}), load_faces(tmp_path / "eight", {})
    assert seven.emotions == SEVEN
    assert [seven.emotions[label] for label in seven.labels] == ["happy", "sad"]
    assert [eight.emotions[label] for label in eight.labels] == ["contempt", "happy"]
    assert audit_counts(audit(eight))["duplicates"]["groups"] == 1


def test_the_page_shows_every_finding_and_escapes_text(found: Audit) -> None:
    strange = replace(found, faces=replace(found.faces, source="<b>set</b>", note="<i>a note</i>"))
    html = audit_page(strange, {"blank": 2}, provenance={"command": "mien audit"})
    assert "row 205, PublicTest" in html
    assert "&lt;i&gt;a note" in html
    assert "<i>a note" not in html
    assert "do not publish it" in html
    assert "No blank" not in html
    for title in (
        "Duplicates",
        "Contradicting labels",
        "Blanks and non-faces",
        "Rows to leave out",
        "What is not found",
    ):
        assert f"<h2>{title}</h2>" in html


def test_the_page_has_the_recorded_figures() -> None:
    """docs/how-to/audit.md is written by hand, `results/audit.json` by its command."""
    recorded, page = load_json(ROOT / "results" / "audit.json"), (ROOT / "docs" / "how-to" / "audit.md").read_text()
    found, votes = recorded["label_errors"], recorded["label_errors"]["against_ferplus"]
    content = recorded["content"]
    for words in (
        f"faceless: {content['faceless']} of {content['suspects']} suspects",
        f"right on {percent(found['accuracy'])} of the faces",
        f"flags {found['flagged']:,} of {found['evaluated']:,}",
        f"in {percent(votes['flagged_contradicted'])} of the flagged faces",
        f"in {percent(votes['evaluated_contradicted'])} of all",
        f"in {percent(votes['first_contradicted'])} of the {votes['first']} least likely labels",
        f"the majority in only {percent(votes['suggestion_is_majority'])}",
        f"{percent(recorded['ferplus']['rate'])} of the {recorded['ferplus']['n']:,} rows",
    ):
        assert words in " ".join(page.split()), words


@pytest.mark.release
def test_fer2013_has_exactly_the_known_defects(fer2013_parquet: Path) -> None:
    faces = load_fer2013(fer2013_parquet)
    found = audit(faces)
    counts = audit_counts(found)
    duplicates, content = counts["duplicates"], counts["content"]
    assert (duplicates["distinct"], duplicates["groups"], duplicates["rows_in_groups"]) == (34034, 1516, 3369)
    assert duplicates["repeats_by_split"] == {"Training": 1236, "PublicTest": 26, "PrivateTest": 17}
    leaks = {
        (leak["of"], leak["into"]): (leak["exact"], leak["same_label"], leak["near"]) for leak in duplicates["leaks"]
    }
    assert leaks["PublicTest", "Training"] == (280, 273, 295)
    assert leaks["PrivateTest", "Training"] == (288, 279, 310)
    assert leaks["PrivateTest", "PublicTest"][0] == 44
    assert duplicates["training_rows_in_tests"] == 703
    near = duplicates["near"]
    assert (near["pairs"], near["pairs_above_0.999"], near["mirrored_pairs"]) == (155, 81, 0)
    assert duplicates["contradicting"] == {
        "groups": 57,
        "rows": 160,
        "groups_within_one_split": 41,
        "rows_within_one_split": 102,
    }
    assert content["all_black_by_split"] == {"Training": 11, "PublicTest": 1, "PrivateTest": 0}
    assert (content["near_blank"], content["all_votes_not_face"]) == (15, 176)
    assert (content["suspects"], content["faceless"]) == (410, 80)
    assert counts["ferplus"]["n"] == 25059 + 3199 + 3152
    assert len(contradicting(found.duplicates, faces)) == 57
    text, _ = exclude_list(found, ("leaked",))
    assert text.count("# leaked: duplicate in") == 703
