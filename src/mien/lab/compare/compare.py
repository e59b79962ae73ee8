"""The comparison of models on the same faces: common rows, paired tests, disagreement, metrics, latency."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError, checked
from mien._metrics import HEADLINE, compare_with_claim
from mien._progress import Progress, no_progress
from mien.lab.compare.entries import Entries, ModelEntry, load_entries
from mien.lab.compare.latency import Latencies, measure_latency
from mien.lab.data import FaceSet, Split
from mien.lab.evaluate.subjects import recipe_of
from mien.lab.ledger import Ledger, answers_of_recipe
from mien.lab.metrics import check_probabilities, class_intervals, compute_metrics, restrict_probabilities
from mien.lab.models import was_trained_on
from mien.lab.significance import Difference, accuracy_difference, f1_differences, holm, mcnemar, wilson_interval

ALPHA = 0.05  # probability of a false positive among all pairs of a report

# Draws of the bootstrap. The smallest p is 2 / (draws + 1); with too few of them no p would survive the correction.
_RESAMPLES = 10_000
_RESAMPLES_PER_PAIR = 400
_MOST_RESAMPLES = 80_000  # p-values down to 0.000025, which the correction for 2,000 pairs leaves below 0.05


@dataclass(frozen=True, eq=False)
class CommonRows:
    """The N faces and C classes that M models share.

    Attributes:
        rows: Rows of the data set, int64 ``[N]``.
        labels: Their labels as indices into ``emotions``, int64 ``[N]``.
        clean: Whether no earlier row has the same pixels, bool ``[N]``.
        probs: Probabilities of every model, float32 ``[M, N, C]``.
        emotions: The C classes.
        narrowed: Whether a model knows further classes, which were left out.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    clean: NDArray[np.bool_]
    probs: NDArray[np.float32]
    emotions: tuple[Emotion, ...]
    narrowed: bool

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The predicted class of every face by every model, int64 ``[M, N]``."""
        return np.asarray(self.probs.argmax(2))

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the prediction is the label, bool ``[M, N]``."""
        return np.asarray(self.predicted == self.labels)


def common_rows(entries: Sequence[ModelEntry]) -> CommonRows:
    """Select the faces and classes that all models share.

    Probabilities of other classes are left out, and the rest of each row is scaled to sum to 1. Models may be
    evaluated on different labels (FER+ votes, FER-2013): faces whose labels differ are left out.

    Args:
        entries: At least one model.

    Returns:
        The common rows.

    Raises:
        DataError: If the models share fewer than two classes, or no face with the same label.
    """
    names = " and ".join(c.name for c in entries) if len(entries) < 4 else f"these {len(entries)} models"
    emotions = tuple(e for e in entries[0].emotions if all(e in c.emotions for c in entries))
    if len(emotions) < 2:
        known = f"{emotions[0]} alone" if emotions else "none"
        raise DataError(f"{names}: the classes that all know are {known}; nothing can be compared")
    to_common = [np.array([emotions.index(e) if e in emotions else -1 for e in c.emotions]) for c in entries]
    shared = []
    for entry, index in zip(entries, to_common, strict=True):
        if (np.diff(entry.predictions.rows) <= 0).any():
            raise DataError("predictions must be in the order of their rows, each row once; write them again")
        shared.append(entry.predictions.rows[index[entry.predictions.labels] >= 0])
    rows = np.asarray(reduce(np.intersect1d, shared), np.int64)
    if not len(rows):
        raise DataError(f"{names}: no face is predicted by all; compare them on the same split of the same set")
    at = [np.searchsorted(c.predictions.rows, rows) for c in entries]
    labels = np.stack([i[c.predictions.labels[a]] for c, i, a in zip(entries, to_common, at, strict=True)])
    same = (labels == labels[0]).all(0)
    if not same.any():
        raise DataError("the models are evaluated on other labels, and no face has the same in all; compare fewer")
    columns = [[c.emotions.index(e) for e in emotions] for c in entries]
    probs = [restrict_probabilities(c.predictions.probs, own) for c, own in zip(entries, columns, strict=True)]
    return CommonRows(
        rows[same],
        labels[0][same],
        entries[0].predictions.clean[at[0]][same],
        np.stack([each[a[same]] for each, a in zip(probs, at, strict=True)]).astype(np.float32),
        emotions,
        any(set(c.emotions) != set(emotions) for c in entries),
    )


@dataclass(frozen=True, eq=False)
class Disagreement:
    """How M models disagree on N common faces. All but ``divergence`` are shares of these faces.

    Attributes:
        differ: Two models predict different classes, ``[M, M]``.
        double_fault: Two models are both wrong (Giacinto and Roli, 2001), ``[M, M]``; the diagonal is the error rate.
        accuracy: Accuracy of each model, ``[M]``.
        oracle: At least one model is correct.
        all_right: All models are correct.
        all_wrong: No model is correct.
        majority: The class that most models predict is correct; ties go to the higher mean probability.
        mean: The class with the highest mean probability is correct.
        divergence: Jensen-Shannon divergence of the probabilities of each face, in nats (Lin, 1991), ``[N]``.
    """

    differ: NDArray[np.float64]
    double_fault: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    oracle: float
    all_right: float
    all_wrong: float
    majority: float
    mean: float
    divergence: NDArray[np.float64]


def disagreement(common: CommonRows) -> Disagreement:
    """Measure how models disagree.

    Args:
        common: Their common rows.

    Returns:
        The disagreement.
    """
    predicted, correct, wrong = common.predicted, common.correct, ~common.correct
    mean = common.probs.mean(0, dtype=np.float64)
    votes = np.stack([(predicted == place).sum(0) for place in range(mean.shape[1])], axis=1)
    majority = (votes + mean / 2).argmax(1)  # a mean probability never outweighs a vote
    each = [_entropy(check_probabilities(probs, common.labels, mean.shape[1])) for probs in common.probs]
    return Disagreement(
        (predicted[:, None] != predicted[None]).mean(2),
        (wrong[:, None] & wrong[None]).mean(2),
        correct.mean(1),
        float(correct.any(0).mean()),
        float(correct.all(0).mean()),
        float(wrong.all(0).mean()),
        float((majority == common.labels).mean()),
        float((mean.argmax(1) == common.labels).mean()),
        np.asarray((_entropy(mean) - np.stack(each).mean(0)).clip(min=0)),
    )


def _entropy(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(probs * np.log(np.maximum(probs, np.finfo(np.float64).tiny))).sum(1))


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The test of two models on the faces and classes that both know.

    Attributes:
        first: Index of the first model.
        second: Index of the second model.
        n: Number of faces.
        emotions: The classes.
        first_alone: Number of faces that only the first model predicts correctly.
        second_alone: Number of faces that only the second model predicts correctly.
        accuracy: Accuracy of the first less that of the second, with uncorrected p.
        macro_f1: Macro F1 of the first less that of the second, with uncorrected p.
        accuracy_holm: p of the accuracies, corrected for the number of pairs (Holm).
        f1_holm: p of the macro F1, corrected for the number of pairs.
    """

    first: int
    second: int
    n: int
    emotions: tuple[Emotion, ...]
    first_alone: int
    second_alone: int
    accuracy: Difference
    macro_f1: Difference
    accuracy_holm: float = 1.0
    f1_holm: float = 1.0

    @property
    def accuracy_differs(self) -> bool:
        """Whether the accuracies differ significantly."""
        return self.accuracy_holm < ALPHA

    @property
    def f1_differs(self) -> bool:
        """Whether the macro F1 differ significantly."""
        return self.f1_holm < ALPHA

    def difference(self, metric: str) -> tuple[Difference, bool]:
        """Return the difference in a metric.

        Args:
            metric: ``"accuracy"`` or ``"macro_f1"``.

        Returns:
            The difference, and whether it is significant.
        """
        if metric == "accuracy":
            return self.accuracy, self.accuracy_differs
        return self.macro_f1, self.f1_differs


def compare_pairs(entries: Sequence[ModelEntry], *, progress: Progress = no_progress) -> tuple[PairedTest, ...]:
    """Test every pair of models, with Holm's correction for the number of pairs.

    Args:
        entries: The models.
        progress: Called before each group of models.

    Returns:
        One test for each pair, in the order of the models.

    Raises:
        DataError: If two models have no faces or classes in common.
    """
    places = list(combinations(range(len(entries)), 2))
    resamples = min(max(_RESAMPLES, _RESAMPLES_PER_PAIR * len(places)), _MOST_RESAMPLES)
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, c in enumerate(entries):
        key = (frozenset(c.emotions), c.predictions.rows.tobytes(), c.selection.protocol)
        groups.setdefault(key, []).append(place)
    tests: dict[tuple[int, int], PairedTest] = {}
    # Models of the same rows and classes share the draws of the bootstrap, and so do those of two such groups.
    together = [*groups.values(), *(sorted(a + b) for a, b in combinations(groups.values(), 2))]
    for number, group in enumerate(together):
        progress("paired tests", number, len(together))
        if len(group) > 1:
            found = _test_pairs(entries, group, resamples)
            tests |= {pair: test for pair, test in found.items() if pair not in tests}
    pairs = [tests[place] for place in places]
    by_accuracy, by_f1 = holm([p.accuracy.p for p in pairs]), holm([p.macro_f1.p for p in pairs])
    corrected = zip(pairs, by_accuracy, by_f1, strict=True)
    return tuple(replace(pair, accuracy_holm=a, f1_holm=f) for pair, a, f in corrected)


def _test_pairs(
    entries: Sequence[ModelEntry], group: Sequence[int], resamples: int
) -> dict[tuple[int, int], PairedTest]:
    """The tests of all pairs of a group on its common rows, uncorrected."""
    common = common_rows([entries[place] for place in group])
    n, emotions, correct = len(common.rows), common.emotions, common.correct
    f1 = f1_differences(common.labels, common.predicted, len(emotions), resamples=resamples)
    tests = {}
    for (a, b), macro_f1 in f1.items():
        first, second = group[a], group[b]
        test, accuracy = mcnemar(correct[a], correct[b]), accuracy_difference(correct[a], correct[b])
        alone = test.first_alone, test.second_alone
        tests[first, second] = PairedTest(first, second, n, emotions, *alone, accuracy, macro_f1)
    return tests


@dataclass(frozen=True, eq=False)
class Comparison:
    """A comparison of models.

    Attributes:
        entries: The models.
        faces: The data set.
        split: Name of the split, or ``"all"``.
        metrics: Metrics of each model on ``all`` faces of its own classes, and on the ``clean`` ones.
        common: The faces and classes that all models share.
        common_metrics: Metrics of each model on these.
        pairs: The paired tests.
        disagreement: How the models disagree on the common rows.
        latencies: Latency of each model; ``None`` where it was not measured.
    """

    entries: tuple[ModelEntry, ...]
    faces: FaceSet
    split: str
    metrics: tuple[dict[str, Any], ...]
    common: CommonRows
    common_metrics: tuple[dict[str, Any], ...]
    pairs: tuple[PairedTest, ...]
    disagreement: Disagreement
    latencies: Latencies | None

    @property
    def ranking(self) -> list[int]:
        """Indices of the models, the highest accuracy on the common faces first."""
        scores = [metrics["accuracy"] for metrics in self.common_metrics]
        return sorted(range(len(scores)), key=lambda place: (-scores[place], self.entries[place].name))

    def difference(self, first: int, second: int, metric: str) -> tuple[float, bool]:
        """Return the difference of two models in a metric.

        Args:
            first: Index of the first model.
            second: Index of the second model.
            metric: ``"accuracy"`` or ``"macro_f1"``.

        Returns:
            The metric of the first less that of the second, and whether the difference is significant.
        """
        pair = next(p for p in self.pairs if {p.first, p.second} == {first, second})
        found, differs = pair.difference(metric)
        return found.value if pair.first == first else -found.value, differs

    def recall(self, place: int) -> dict[Emotion, float]:
        """Return the recall of a model for every emotion that its faces have.

        Args:
            place: Index of the model.

        Returns:
            Emotion -> recall.
        """
        metrics = self.metrics[place]["all"]
        return {e: metrics["recall"][e] for e in self.entries[place].emotions if e not in metrics["absent"]}

    def int8_bytes(self, place: int) -> int | None:
        """Return the size of the int8 file of a model.

        Args:
            place: Index of the model.

        Returns:
            Bytes of its own file, else of the one that was exported for timing; ``None`` where there is none.
        """
        own = self.entries[place].int8_bytes
        if own is not None or self.latencies is None:
            return own
        return self.latencies.each[place].bytes.get("int8")

    def warnings(self) -> list[str]:
        """Return what limits the metrics: faces that a model was trained or selected on, and copies.

        Returns:
            One sentence for each warning.
        """
        found = []
        learned = ", ".join(c.name for c in self.entries if was_trained_on(c.learned_from, self.faces))
        if learned and self.split == Split.PUBLIC_TEST:
            found.append(
                "PublicTest chose these models (their epoch, and the calibration of those that have one), so "
                f"that their metrics on it are slightly too good: {learned}."
            )
        elif learned and self.split != Split.PRIVATE_TEST:
            found.append(f"These models have learned from faces that they are evaluated on here: {learned}.")
        found += dict.fromkeys(entry.looks for entry in self.entries if entry.looks)
        found += _calibration_notes(self.entries)
        trainings = Counter(recipe for recipe, *_, settings in _trainings(self.entries) if settings)
        found += [
            f"{recipe}: the runs are of {count} different trainings, whose metrics are not averaged."
            for recipe, count in trainings.items()
            if count > 1
        ]
        if any("clean" not in each for each in self.metrics):
            found.append("No row is clean: every face has the pixels of one in an earlier split or row.")
        if self.faces.note:
            found.append(f"{self.faces.note}.")
        return found


def _calibration_notes(entries: Sequence[ModelEntry]) -> list[str]:
    """Which models have another calibration than their own, or a different one than the others."""
    changed = [f"{entry.name} ({entry.calibration})" for entry in entries if entry.own]
    if changed:
        return [
            "All models are compared with vector scaling, fitted on PublicTest; it replaces their own: "
            f"{', '.join(changed)}."
        ]
    known = {entry.name: entry.calibration for entry in entries if entry.calibration}
    if len(set(known.values())) < 2:
        return []
    each = ", ".join(f"{name} ({method})" for name, method in known.items())
    return [f"Calibrations differ, so log loss, ECE and small differences are not comparable: {each}."]


@checked
def compare(
    models: Sequence[str],
    data: Path | None,
    split: Split | None,
    *,
    latency: bool = True,
    own_calibration: bool = False,
    ledger: Ledger | None = None,
    skip_unreadable: bool = False,
    progress: Progress = no_progress,
) -> Comparison:
    """Compare models on the same faces.

    Args:
        models: Folders of recorded predictions, runs, embedded models or files; see ``load_entries``.
        data: The data set; ``None`` is the one that ``$MIEN_DATA`` names.
        split: The split; ``None`` is all faces.
        latency: Whether to measure the latency of every model.
        own_calibration: Whether every model keeps its own calibration; see ``load_entries``.
        ledger: Where a look at PrivateTest is written; ``None``: in ``default_ledger()``.
        skip_unreadable: Whether images that cannot be read are left out and counted.
        progress: Called before each step.

    Returns:
        The comparison. ``write_comparison`` turns it into files, ``summarize_comparison`` into lines of text.

    Raises:
        DataError: If there are fewer than two models, or predictions or the data set cannot be read.
        ModelError: If a model cannot be opened.

    Example:
        >>> from pathlib import Path
        >>> from mien.lab.compare import compare
        >>> found = compare(["mien-0", "mien-1"], Path("faces"), None, latency=False)  # doctest: +SKIP
        >>> found.difference(1, 0, "accuracy")  # doctest: +SKIP
        (0.021, True)
    """
    entries = load_entries(
        models,
        data,
        split,
        own_calibration=own_calibration,
        ledger=ledger,
        skip_unreadable=skip_unreadable,
        progress=progress,
    )
    return compare_entries(entries, split, latency=latency, progress=progress)


def compare_entries(
    entries: Entries, split: Split | None, *, latency: bool = True, progress: Progress = no_progress
) -> Comparison:
    """Compare models whose predictions are loaded.

    Args:
        entries: The models, as ``load_entries`` returns them.
        split: The split that they predict; ``None`` is all faces.
        latency: Whether to measure the latency of every model.
        progress: Called before each step.

    Returns:
        The comparison.

    Raises:
        DataError: If there are fewer than two models, or they have no faces or classes in common.
    """
    models = entries.entries
    if len(models) < 2:
        named = models[0].name if models else "none"
        raise DataError(f"a comparison needs two models, and there is {named}; name another one")
    common, metrics = common_rows(models), []
    for number, c in enumerate(models):
        progress("metrics", number, len(models))
        metrics.append(c.predictions.metrics())
    common_metrics = tuple(compute_metrics(probs, common.labels, common.emotions) for probs in common.probs)
    progress("paired tests")
    return Comparison(
        models,
        entries.faces,
        str(split) if split else "all",
        tuple(metrics),
        common,
        common_metrics,
        compare_pairs(models, progress=progress),
        disagreement(common),
        measure_latency(models, progress=progress) if latency else None,
    )


def over_seeds(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Summarise the metrics of recipes that were trained with several seeds.

    Args:
        comparison: The comparison.

    Returns:
        Recipe -> its number of seeds ``n``, its ``seeds``, and the mean and standard deviation (``sd``) of each metric.
        Runs of other settings, classes or data have a line of their own, which also names the folder of one.
    """
    found: dict[str, dict[str, Any]] = {}
    for (recipe, *_), places in _trainings(comparison.entries).items():
        seeds = [comparison.entries[place].seed for place in places]
        if not len(set(seeds)) == len(seeds) > 1:
            continue
        metrics = [comparison.metrics[place] for place in places]
        values = {key: [each["all"][key] for each in metrics] for key in HEADLINE}
        clean = [each["clean"]["accuracy"] for each in metrics if "clean" in each]
        values |= {"clean_accuracy": clean} if clean else {}
        spread = {key: {"mean": fmean(v), "sd": stdev(v)} for key, v in values.items()}
        name = f"{recipe} ({comparison.entries[places[0]].source})" if recipe in found else recipe
        found[name] = {"n": len(places), "seeds": seeds} | spread
    return found


def _trainings(entries: Sequence[ModelEntry]) -> dict[tuple[str, ...], list[int]]:
    """Recipe, classes, data and settings of a training -> indices of the entries that are its seeds."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, c in enumerate(entries):
        if c.seed:
            recipe = recipe_of(Path(c.source))
            settings = answers_of_recipe(recipe, ()).settings if recipe else ""
            groups.setdefault((c.recipe, ",".join(c.emotions), c.learned_from, settings), []).append(place)
    return groups


def mean_metrics(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average the main metrics of several seeds.

    Args:
        metrics: Metrics as ``compute_metrics`` returns them, one for each seed.

    Returns:
        The number of faces ``n``, the mean of each main metric, and the mean edges of the ``interval`` of the accuracy.
    """
    edges = [fmean(each["interval"][edge] for each in metrics) for edge in (0, 1)]
    return {"n": metrics[0]["n"], **{key: fmean(m[key] for m in metrics) for key in HEADLINE}, "interval": edges}


@dataclass(frozen=True, slots=True)
class ClaimedMetric:
    """A metric that a document claims, and what was measured.

    Attributes:
        key: Key of the metric; ``recall.sad`` of a class, ``confusion.sad.fear`` for the share of sad read as fear.
        claimed: The claimed value.
        value: The measured value, a mean over seeds.
        interval: Its 95 % interval, mean edges over seeds.
    """

    key: str
    claimed: float
    value: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        """``better``, ``within noise`` or ``worse``."""
        return compare_with_claim(self.key, self.claimed, self.interval)


def claimed_metrics(claim: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> list[ClaimedMetric]:
    """Pair the metrics that a document claims with the measured ones.

    Args:
        claim: A claim of a recipe, with its ``metrics``.
        measured: Metrics as ``compute_metrics`` returns them, one for each seed.

    Returns:
        The metrics that are claimed and measured.
    """
    found = []
    for key, claimed in claim.get("metrics", {}).items():
        each = [_measured(key, metrics) for metrics in measured]
        known = [one for one in each if one is not None]
        if known and len(known) == len(each):
            value, low, high = (fmean(column) for column in zip(*known, strict=True))
            found.append(ClaimedMetric(key, float(claimed), value, (low, high)))
    return found


def _measured(key: str, metrics: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Value, lower and upper edge; ``None`` without a value or an interval."""
    name, *emotions = key.split(".")
    if name == "confusion":
        if len(emotions) != 2 or not set(emotions) <= metrics["recall"].keys():
            return None
        label, predicted = (list(metrics["recall"]).index(emotion) for emotion in emotions)
        counts = metrics["confusion"][label]
        low, high = wilson_interval(counts[predicted], sum(counts))
        return counts[predicted] / max(sum(counts), 1), float(low), float(high)
    if emotions:
        by_class = class_intervals(np.array(metrics["confusion"]), list(metrics["recall"])).get(name, {})
        edges = by_class.get(".".join(emotions))
        value = None if edges is None else metrics[name][emotions[0]]
    else:
        value, edges = metrics.get(name), metrics["intervals"].get(name)
    return None if value is None or edges is None else (float(value), float(edges[0]), float(edges[1]))
