"""Paired tests against scipy, scikit-learn, and values of statsmodels 0.15."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import f1_score

from mien._errors import DataError
from mien.lab.significance import (
    accuracy_difference,
    f1_differences,
    f1_draws,
    holm,
    mcnemar,
    row_draws,
    wilson_interval,
)


def right_columns(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether two models predict each face correctly, for given counts of agreement."""
    a = np.repeat([True, True, False, False], [both, first, second, neither])
    b = np.repeat([True, False, True, False], [both, first, second, neither])
    return a, b


# statsmodels.stats.contingency_tables.mcnemar(table, exact=True).pvalue
MCNEMAR = {(3, 11): 0.057373046875, (0, 4): 0.125, (40, 61): 0.046044066929342785, (7, 7): 1.0}
MCNEMAR |= {(210, 155): 0.004639774260151799}


@pytest.mark.parametrize(("alone", "p"), MCNEMAR.items())
def test_mcnemar_is_that_of_statsmodels(alone: tuple[int, int], p: float) -> None:
    test = mcnemar(*right_columns(100, *alone, 50))
    assert (test.first_alone, test.second_alone) == alone
    assert test.p == pytest.approx(p, rel=1e-9)
    assert test.p == pytest.approx(min(1, 2 * binom.cdf(min(alone), sum(alone), 0.5)), rel=1e-9)


def test_models_that_agree_everywhere_do_not_differ() -> None:
    right = np.array([True, False, True])
    assert mcnemar(right, right).p == 1
    assert accuracy_difference(right, right) == accuracy_difference(~right, ~right)
    low, high = accuracy_difference(right, right).interval
    assert -low == high == pytest.approx(wilson_interval(0, len(right))[1])


def test_the_interval_of_accuracy_covers_the_truth_nineteen_times_in_twenty() -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        hard = generator.random(400)
        first, second = generator.random(400) < 0.9 - 0.6 * hard, generator.random(400) < 0.85 - 0.6 * hard
        low, high = accuracy_difference(first, second).interval
        covered += low <= 0.05 <= high
    assert 930 <= covered <= 970


@pytest.mark.parametrize("n", [10, 30, 100])
@pytest.mark.parametrize(("first_alone", "second_alone"), [(0.02, 0.0), (0.01, 0.01), (0.1, 0.02), (0.2, 0.1)])
def test_the_interval_of_accuracy_covers_the_truth_of_few_faces(
    n: int, first_alone: float, second_alone: float
) -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(500):
        chance = generator.random(n)  # above first_alone + second_alone both are right
        first, second = (chance < first_alone) | (chance > first_alone + second_alone), chance >= first_alone
        low, high = accuracy_difference(first, second).interval
        covered += low <= first_alone - second_alone <= high
    assert covered >= 460


@pytest.mark.parametrize(("recalls", "least"), [((0.66, 0.6), 0.88), ((0.98, 0.96), 0.75)])
def test_the_interval_of_macro_f1_covers_less_where_mistakes_are_few(
    recalls: tuple[float, float], least: float
) -> None:
    """The second is what docs/how-to/evaluate.md warns of: the bootstrap draws no mistakes that it has not seen."""
    generator = np.random.default_rng(0)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.choice(7, n, p=np.array([491, 55, 528, 879, 594, 416, 626]) / 3589)
        hard, other = generator.random(n), (labels + generator.integers(1, 7, n)) % 7
        return labels, np.stack([np.where(hard < recall, labels, other) for recall in recalls])

    labels, guesses = drawn(300_000)
    one, two = f1_draws(labels, guesses, 7, weights=np.ones((1, len(labels)), np.float32))[:, 0]
    covered = []
    for trial in range(120):
        low, high = f1_differences(*drawn(300), 7, resamples=300, seed=trial)[0, 1].interval
        covered.append(low <= one - two <= high)
    assert least <= np.mean(covered) <= 1


def test_holm_is_that_of_statsmodels() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.2, 0.013, 0.5]  # multipletests(p_values, method="holm")
    assert holm(p_values) == pytest.approx([0.06, 0.12, 0.12, 0.035, 0.4, 0.065, 0.5])
    assert holm([]) == []


def test_macro_f1_of_every_draw_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    labels, guesses = generator.integers(0, 5, 60), generator.integers(0, 5, (3, 60))
    weights = np.concatenate(list(row_draws(60, resamples=20, seed=3)))
    assert (weights.sum(1) == 60).all()
    drawn = f1_draws(labels, guesses, 5, weights=weights)
    for draw, counts in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(60), counts)
        for model, guess in enumerate(guesses):
            expected = f1_score(labels[rows], guess[rows], labels=np.unique(labels[rows]), average="macro")
            assert drawn[model, draw] == pytest.approx(expected, abs=1e-6)


def test_the_bootstrap_sees_a_difference_and_only_a_difference() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 3, 900)
    noise = generator.integers(0, 3, (3, 900))
    wrong = generator.random((3, 900)) < np.array([[0.3], [0.3], [0.6]])
    guesses = np.where(wrong, noise, labels)
    found = f1_differences(labels, guesses, 3, resamples=2000)
    assert set(found) == {(0, 1), (0, 2), (1, 2)}
    assert found[0, 1].p > 0.05
    assert found[0, 1].interval[0] < 0 < found[0, 1].interval[1]
    assert found[0, 2].p == pytest.approx(2 / 2001)
    assert found[0, 2].interval[0] > 0.1
    direct = f1_score(labels, guesses[0], average="macro") - f1_score(labels, guesses[2], average="macro")
    assert found[0, 2].value == pytest.approx(direct, abs=1e-6)


def test_p_values_of_the_bootstrap_are_honest_where_nothing_differs() -> None:
    generator, alarms = np.random.default_rng(4), 0
    for trial in range(200):
        labels = generator.integers(0, 3, 200)
        wrong, noise = generator.random((2, 200)) < 0.4, generator.integers(0, 3, (2, 200))
        guesses = np.where(wrong, noise, labels)
        alarms += f1_differences(labels, guesses, 3, resamples=400, seed=trial)[0, 1].p < 0.05
    assert alarms <= 20  # ten are expected, 20 are passed once in a thousand times


def test_large_sets_are_drawn_in_pieces() -> None:
    pieces = list(row_draws(3_000_000, resamples=4))
    assert [len(piece) for piece in pieces] == [2, 2]


def test_other_faces_are_refused() -> None:
    with pytest.raises(DataError, match="same faces, not 3 and 4"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(DataError, match=r"3 labels, guesses \[2, 4\]"):
        f1_differences(np.zeros(3, np.int64), np.zeros((2, 4), np.int64), 2)
