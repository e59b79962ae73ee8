"""Evaluations of FER-2013: votes, pairs that are confused, mistakes, views, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from scipy import stats  # noqa: E402
from torch.nn import functional  # noqa: E402

from mien._emotions import CLASS_SETS, SEVEN, Emotion  # noqa: E402
from mien._errors import DataError, ModelError  # noqa: E402
from mien.lab.data import Split  # noqa: E402
from mien.lab.evaluate.answer import map_faces, read_faces  # noqa: E402
from mien.lab.evaluate.pairs import Direction, find_pairs, surest_mistakes  # noqa: E402
from mien.lab.evaluate.report import write_report  # noqa: E402
from mien.lab.feed.asked import read_split  # noqa: E402
from mien.lab.judge.ferplus import against_votes  # noqa: E402
from mien.lab.judge.judge import Answers, crops_of  # noqa: E402
from support.linear_classifier import evaluation, reader  # noqa: E402
from support.synthetic_faces import cartoon_set  # noqa: E402


def test_seven_classes_against_the_majority_of_votes() -> None:
    faces = cartoon_set()
    votes = faces.votes.clone()
    first = int((faces.usage == 1).nonzero()[0])
    votes[first] = torch.tensor([5, 5, 0, 0, 0, 0, 0, 0, 0, 0])  # no majority
    votes[first + 1] = torch.tensor([0, 0, 0, 0, 0, 0, 0, 9, 1, 0])  # contempt
    votes[first + 2] = torch.tensor([0, 9, 0, 0, 0, 0, 0, 0, 1, 0])  # happiness, where the label says fear
    faces = replace(faces, votes=votes)
    found = evaluation(faces, reader())
    told = found.votes["majority"]
    assert (told["n"], told["of"]) == (68, 70)
    assert told["account"] == {
        "no majority, or pixels from JPEG": 1,
        "majority for an emotion that the model does not know": 1,
    }
    guess = found.answers.probs.argmax(1)
    wanted = found.answers.labels.copy()
    wanted[2] = SEVEN.index(Emotion.HAPPY)
    assert told["agreement"] == pytest.approx((guess == wanted)[2:].mean())
    assert told["agreement_of_the_labels"] == pytest.approx(67 / 68)
    assert found.votes["distribution"]["n"] == 69  # contempt alone is no vote for the seven


def test_eight_classes_are_judged_on_the_majority() -> None:
    found = evaluation(cartoon_set(), reader(CLASS_SETS["eight"]))
    assert "FER+ majority" in found.selection.protocol
    assert found.votes["majority"]["agreement"] == pytest.approx(found.judged["all"]["accuracy"])
    told = found.votes["distribution"]
    assert told["log_loss"] == pytest.approx(told["kl"] + told["entropy_of_the_votes"])
    assert told["entropy_of_the_votes"] == pytest.approx(stats.entropy([0.8, 0.2]) * 6 / 7, rel=0.02)
    text = write_report(found, {})
    assert "majority accuracy" in text
    assert "single votes dropped as noise" in text


def test_a_set_without_votes_has_no_such_section() -> None:
    faces = cartoon_set(votes=False)
    found = evaluation(faces, reader())
    assert found.votes is None
    assert "crowd of FER+" not in write_report(found, {})
    assert against_votes(found.answers, found.selection, faces) is None


def test_pairs_are_counted_both_ways_and_ranked() -> None:
    confusion = np.diag([10] * 7)
    confusion[2, 4], confusion[4, 2], confusion[2, 3], confusion[0, 1] = 7, 5, 1, 2
    pairs = {(p.there.truth, p.there.told): p for p in find_pairs(confusion.tolist(), SEVEN)}
    assert list(pairs)[:4] == [("fear", "happy"), ("angry", "happy"), ("fear", "surprise"), ("neutral", "sad")]
    assert list(pairs)[4:] == [("fear", "sad"), ("angry", "disgust")]
    top = pairs[Emotion.FEAR, Emotion.SAD]
    assert (top.rank, top.there.count, top.back.count, top.there.support) == (1, 7, 5, 18)
    assert top.there.rate == pytest.approx(7 / 18)
    three = find_pairs([[1, 0, 0], [0, 1, 0], [0, 0, 0]], CLASS_SETS["three"])
    assert [p.there.rate for p in three] == [0.0, 0.0]
    assert [p.back.rate for p in three] == [None, None]


def test_the_surest_mistakes_come_first_and_copies_once() -> None:
    faces = cartoon_set().select(torch.tensor([0, 7, 14, 21, 21, 28]))  # all angry; the fourth twice
    probs = np.full((6, 7), 0.01, np.float32)
    probs[:, 4] = [0.5, 0.9, 0.6, 0.8, 0.8, 0.3]
    probs[5, 0] = 0.6
    probs /= probs.sum(1, keepdims=True)
    answers = Answers(faces.rows.numpy(), probs, faces.labels.numpy(), np.ones(6, bool), SEVEN)
    found = surest_mistakes(answers, faces, Direction(Emotion.ANGRY, Emotion.SAD, 5, 6), most=3)
    assert found.tolist() == [1, 3, 2]
    assert len(surest_mistakes(answers, faces, Direction(Emotion.SAD, Emotion.ANGRY, 0, 0))) == 0


def test_the_gallery_shows_the_map_of_the_wrong_emotion() -> None:
    faces, model = cartoon_set().select(torch.arange(40)), reader()
    maps = map_faces(model, faces)
    assert np.array_equal(maps, model(faces.images.numpy())[1])
    assert map_faces(None, faces) is None


def test_views_are_means_over_what_they_say() -> None:
    faces, model = cartoon_set().select(torch.arange(300)), reader()
    images, heard = faces.images.numpy(), []
    one = read_faces(model, faces, report=lambda *words: heard.append(words))
    assert np.allclose(one, model(images)[0])
    assert [words[1:] for words in heard] == [(256, 300), (300, 300)]
    flip = read_faces(model, faces, views="flip", report=lambda *_: None)
    mirrored = model(np.ascontiguousarray(images[:, :, ::-1]))[0]
    assert np.allclose(flip, (model(images)[0] + mirrored) / 2, atol=1e-6)
    ten = read_faces(model, faces, views="ten", report=lambda *_: None)
    assert np.allclose(ten.sum(1), 1, atol=1e-5)
    both = read_faces(model, replace(faces, images=faces.images.flip(2)), views="ten", report=lambda *_: None)
    assert np.allclose(ten, both, atol=1e-5)  # a mirrored face has the same ten views
    assert not np.allclose(ten, flip, atol=1e-4)
    six = read_faces(model, faces, views="six", report=lambda *_: None)
    small = functional.pad(faces.images[:, None].float(), (2, 2, 2, 2), mode="replicate").byte()[:, 0]
    sizes = [faces.images, faces.images[:, 2:46, 2:46], small]
    seen = [crops_of(replace(faces, images=view), model.size) for size in sizes for view in (size, size.flip(2))]
    expected = np.mean([model(np.ascontiguousarray(crops))[0] for crops in seen], axis=0)
    assert np.allclose(six, expected, atol=1e-6)


def test_missing_classes_are_named_and_the_account_adds_up() -> None:
    faces = cartoon_set()
    found = evaluation(faces.select(faces.labels != 1), reader())
    assert found.judged["all"]["absent"] == ["disgust"]
    assert any("No face of disgust" in warning for warning in found.warnings())
    assert "disgust" not in found.recall_intervals
    write_report(found, {})
    three = evaluation(faces, reader(CLASS_SETS["three"]))
    told = three.metrics()
    assert told["judged"] + sum(told["left_out"].values()) == told["total"] == 70
    assert told["left_out"]["disgust: not among the model's classes"] == 10


def test_what_cannot_be_judged_is_refused() -> None:
    faces = cartoon_set()
    with pytest.raises(DataError, match="one class alone"):
        evaluation(faces.select(faces.labels == 3), reader())
    with pytest.raises(DataError, match="no row is left"):
        evaluation(faces.select(faces.labels == 6), reader(CLASS_SETS["three"]))
    with pytest.raises(DataError, match=r"no rows in PrivateTest; it has Training, PublicTest; name one"):
        evaluation(faces.select(faces.usage < 2), reader(), Split.PRIVATE_TEST)
    with pytest.raises(DataError, match="name one with --split, or all"):
        evaluation(faces.select(faces.usage != 1), reader())
    with pytest.raises(DataError, match=r"such split.*PublicTest"):
        read_split("Public")


def test_answers_that_are_no_probabilities_are_refused() -> None:
    good = reader()
    spoiled = {
        "sum is off 1": lambda crops: (good(crops)[0] * 2, None),
        "labels do not match": lambda crops: (good(crops)[0][:, :5], None),
        "no numbers": lambda crops: (good(crops)[0] * np.nan, None),
    }
    for says, answer in spoiled.items():
        with pytest.raises(ModelError, match=says):
            evaluation(cartoon_set(), replace(good, answer=answer))
