"""Models compared face by face on what they all know: intervals, verdicts, agreement, seeds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from mien._emotions import SEVEN, Emotion
from mien._errors import DataError
from mien.lab.compare import Comparison, Contender, Entries, compare_entries
from mien.lab.compare.common import common_ground
from mien.lab.compare.compare import over_seeds
from mien.lab.compare.contenders import named_apart
from mien.lab.compare.disagree import disagreement
from mien.lab.compare.pairs import compare_pairs
from mien.lab.compare.plots import Point, front
from mien.lab.compare.words import differences_in_words
from mien.lab.data import FaceSet, Split
from support.compared_models import contender, four_compared
from support.synthetic_faces import cartoon_set


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(70, 350, 0))


@pytest.fixture(scope="module")
def comparison(faces: FaceSet) -> Comparison:
    return four_compared(faces)


def test_models_of_other_classes_are_asked_the_same_question(faces: FaceSet) -> None:
    seven, three = contender(faces, "a", 0.5), contender(faces, "b", 0.5, classes="three")
    common = common_ground([seven, three])
    assert common.emotions == (Emotion.ANGRY, Emotion.FEAR, Emotion.HAPPY)
    assert common.narrowed
    assert len(common.rows) == 150
    assert common.probs.sum(2) == pytest.approx(1, abs=1e-6)
    of_rows = {int(row): int(label) for row, label in zip(seven.answers.rows, seven.answers.labels, strict=True)}
    for row, label in zip(common.rows.tolist(), common.labels, strict=True):
        assert SEVEN[of_rows[row]] == common.emotions[label]
    at = np.searchsorted(seven.answers.rows, common.rows)
    best = seven.answers.probs[at][:, [0, 2, 3]].argmax(1)
    assert (common.guesses[0] == best).all()


def test_a_model_that_gives_the_common_classes_nothing_guesses_evenly(faces: FaceSet) -> None:
    seven, three = contender(faces, "a", 0.5), contender(faces, "b", 0.5, classes="three")
    probs = np.zeros_like(seven.answers.probs)
    probs[:, 6] = 1
    common = common_ground([replace(seven, answers=replace(seven.answers, probs=probs)), three])
    assert common.probs[0] == pytest.approx(1 / 3)


def test_nothing_in_common_is_an_error(faces: FaceSet) -> None:
    one, two = contender(faces, "a", 0.5, classes="angry, sad"), contender(faces, "b", 0.5, classes="happy, fear")
    with pytest.raises(DataError, match="a and b: the classes that all know are none"):
        common_ground([one, two])
    a = contender(faces, "a", 0.5)
    others = replace(a, name="c", answers=replace(a.answers, rows=a.answers.rows + 10_000))
    with pytest.raises(DataError, match="a and c: no face is answered by all"):
        common_ground([a, others])


def test_faces_that_are_labelled_otherwise_do_not_count(faces: FaceSet) -> None:
    a = contender(faces, "a", 0.5)
    labels = a.answers.labels.copy()
    labels[:40] = (labels[:40] + 1) % 7
    common = common_ground([a, replace(a, name="b", answers=replace(a.answers, labels=labels))])
    assert len(common.rows) == len(labels) - 40


def test_verdicts_tell_noise_from_difference(comparison: Comparison) -> None:
    pair, sign = comparison.pair(1, 0)
    assert pair.accuracy_differs
    assert pair.f1_differs
    assert sign * pair.accuracy.value > 0.3
    same, _ = comparison.pair(1, 2)
    assert not same.accuracy_differs
    assert not same.f1_differs
    sentence = differences_in_words(comparison, "accuracy")[0]
    assert "poor by" in sentence
    assert "not to be told from" in sentence


def test_pairs_of_models_alike_are_those_tested_alone(faces: FaceSet) -> None:
    """That models of one class set share their draws changes nothing about a pair."""
    three = [contender(faces, name, share) for name, share in (("a", 0.4), ("b", 0.5), ("c", 0.8))]
    alone = compare_pairs(three[:2])[0]
    together = compare_pairs(three)[0]
    assert together.accuracy == alone.accuracy
    assert together.macro_f1 == alone.macro_f1
    assert together.accuracy_holm >= alone.accuracy_holm


def test_disagreement_is_counted_face_by_face(comparison: Comparison) -> None:
    d, right, guesses = comparison.disagreement, comparison.common.right, comparison.common.guesses
    assert d.oracle == pytest.approx(np.mean([any(column) for column in right.T]))
    assert d.all_right + d.all_wrong <= 1
    assert d.differ[0, 1] == pytest.approx(np.mean(guesses[0] != guesses[1]))
    assert d.double_fault[0, 0] == pytest.approx(1 - d.accuracy[0])


def test_the_divergence_of_two_is_that_of_scipy(faces: FaceSet) -> None:
    common = common_ground([contender(faces, "a", 0.3), contender(faces, "b", 0.6)])
    expected = [jensenshannon(*pair) ** 2 for pair in common.probs.swapaxes(0, 1).astype(float)]
    assert disagreement(common).divergence == pytest.approx(np.array(expected), abs=1e-6)


def test_a_majority_outvotes_and_a_tie_goes_to_the_surer(faces: FaceSet) -> None:
    a = contender(faces, "a", 1.0)
    label, other = a.answers.labels, (a.answers.labels + 1) % 7

    def sure(places: np.ndarray, share: float) -> Contender:
        probs = np.full((len(places), 7), (1 - share) / 7, np.float32)
        probs[np.arange(len(places)), places] += share
        return replace(a, answers=replace(a.answers, probs=probs))

    assert disagreement(common_ground([sure(label, 0.3), sure(label, 0.3), sure(other, 0.99)])).majority == 1
    assert disagreement(common_ground([sure(label, 0.9), sure(other, 0.5)])).majority == 1
    assert disagreement(common_ground([sure(label, 0.5), sure(other, 0.9)])).majority == 0


def test_one_model_is_no_comparison(faces: FaceSet) -> None:
    with pytest.raises(DataError, match="needs two models, and there is a;"):
        compare_entries(Entries((contender(faces, "a", 0.5),), faces), Split.PUBLIC_TEST, latency=False)


def test_names_are_told_apart(faces: FaceSet) -> None:
    seeds = [contender(faces, "a", 0.5, seed=seed) for seed in (0, 1)]
    assert [c.name for c in named_apart(seeds)] == ["a (seed 0)", "a (seed 1)"]
    twice = [contender(faces, "a", 0.5), replace(contender(faces, "a", 0.5), source="runs/a")]
    assert len({c.name for c in named_apart(twice)}) == 2


def test_seeds_of_a_recipe_become_mean_and_deviation(faces: FaceSet) -> None:
    seeds = named_apart([contender(faces, "a", 0.5, seed=seed) for seed in (0, 1, 2)])
    found = over_seeds(compare_entries(Entries(seeds, faces), Split.PUBLIC_TEST, latency=False))
    values = [c.answers.figures()["all"]["accuracy"] for c in seeds]
    assert found["a"]["n"] == 3
    assert found["a"]["accuracy"] == {
        "mean": pytest.approx(np.mean(values)),
        "sd": pytest.approx(np.std(values, ddof=1)),
    }


def test_the_front_holds_what_nothing_beats() -> None:
    points = [
        Point(name, cost, good, (good, good))
        for name, cost, good in (("a", 1, 0.5), ("b", 2, 0.4), ("c", 3, 0.7), ("d", 3, 0.6))
    ]
    assert [p.name for p in front(points)] == ["a", "c"]
