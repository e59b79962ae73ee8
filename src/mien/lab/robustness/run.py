"""The robustness test: models, faces and corruptions -> metrics under corruption."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from mien._errors import DataError, checked
from mien._progress import Progress, no_progress
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import ALL, as_in_training, load_test_set
from mien.lab.ledger import Ledger, is_private_test
from mien.lab.models import Model, answers_of_model, open_model
from mien.lab.predictions import select_rows
from mien.lab.provenance import provenance
from mien.lab.robustness.corruptions import CORRUPTIONS, Corruption
from mien.lab.robustness.groups import GroupComparison, GroupTable, compare_groups, read_groups
from mien.lab.robustness.metrics import (
    CorruptionError,
    CorruptionMetrics,
    Steadiness,
    corruption_error,
    corruption_metrics,
    measure_steadiness,
)
from mien.lab.robustness.predictions import (
    DEFAULT_FACES,
    CorruptedPredictions,
    CorruptionReference,
    pack_reference,
    predict_corrupted,
    read_reference,
    reference_of,
    sample_faces,
    select_sample,
)

DEFAULT_REFERENCE = "mien-0"
# Its predictions of FER-2013, recorded in the repository; an installed package has none.
_RECORDED = Path(__file__).parents[4] / "results" / "stress" / f"{DEFAULT_REFERENCE}.json"


@dataclass(frozen=True)
class RobustnessOptions:
    """The faces and corruptions of a robustness test.

    Attributes:
        split: The split of the data set; ``None``: all rows.
        faces: Number of faces, stratified by class; 0: all.
        corruptions: The corruptions to apply.
        seed: Seed of the sample and of all random corruptions, at least 0.
        ledger: Where a look at PrivateTest is written.
        skip_unreadable: Whether images that cannot be read are left out and counted.
        steady: Whether the steadiness of the models is measured, too.
    """

    split: Split | None = Split.PUBLIC_TEST
    faces: int = DEFAULT_FACES
    corruptions: Sequence[Corruption] = CORRUPTIONS
    seed: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    skip_unreadable: bool = False
    steady: bool = False


class ModelRobustness(CorruptionMetrics):
    """The result of one model: its metrics, and what follows.

    Attributes:
        name: Its name in this test.
        about: Facts about the model, term to text.
        emotions: Its emotions.
        n: Number of faces that it was tested on.
        left_out: By reason, the number of rows that were left out.
        protocol: The source of the labels.
        corruption_error: Its mean corruption error.
        groups: By column of the table of groups, the metrics by group; missing without groups.
        correct: Rows and correct predictions, one bit per face.
        steadiness: What ``measure_steadiness`` returned; missing if it was not wanted.
    """

    name: str
    about: dict[str, str]
    emotions: list[str]
    n: int
    left_out: dict[str, int]
    protocol: str
    corruption_error: CorruptionError
    groups: NotRequired[dict[str, GroupComparison]]
    correct: dict[str, Any]
    steadiness: NotRequired[Steadiness]


class RobustnessResult(TypedDict):
    """The result of a robustness test: plain values, as in ``stress.json``.

    Attributes:
        provenance: Command, commit, machine and versions.
        setting: ``data_sha256``, ``side``, ``seed``, ``split``, ``drawn`` (faces of the sample) and ``of`` (faces of
            the split).
        source: Name of the data set's file or folder.
        note: Remarks of the reader of the data set; empty where there are none.
        reference: ``name`` of the reference model, and whether its predictions were ``recorded``.
        corruptions: Name, kind, unit, amounts and description of every corruption.
        groups: ``source`` of the table of groups and its ``unknown_rows``; ``None`` without groups.
        models: The results of the models.
    """

    provenance: dict[str, str]
    setting: dict[str, Any]
    source: str
    note: str
    reference: dict[str, Any]
    corruptions: list[dict[str, Any]]
    groups: dict[str, Any] | None
    models: list[ModelRobustness]


@checked
def run_robustness(
    models: Sequence[str],
    data: Path | None = None,
    *,
    options: RobustnessOptions | None = None,
    reference: str | None = None,
    groups: Path | None = None,
    labels: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> RobustnessResult:
    """Test models on corrupted faces. With the same seed, all models get the same corrupted pixels.

    Args:
        models: What ``open_model`` opens: names, ONNX files, run folders, or TOML files of other models.
        data: The data set; ``None``: the one at ``$MIEN_DATA``.
        options: Faces and corruptions; ``None``: the defaults.
        reference: What the mean corruption error is relative to: one of ``models``, another model, or a robustness file
            (``.json``). ``None``: mien-0; its recorded predictions are used if they are of the same pixels.
        groups: A table of the groups of faces, see ``read_groups``.
        labels: What the labels of the data set mean, label to emotion.
        progress: Called with the number of faces done.

    Returns:
        The result. ``write_robustness`` writes it as JSON, CSV and HTML.

    Raises:
        DataError: The data set, the groups or the reference cannot be used, a model is named twice, or PrivateTest was
            looked at before for another model of its family.
        ModelError: A model cannot be opened or does not predict probabilities.

    Example:
        >>> result = run_robustness(["mien-1"], options=RobustnessOptions(faces=100))  # doctest: +SKIP
        >>> [model["name"] for model in result["models"]]  # doctest: +SKIP
        ['mien-1']
    """
    options = options or RobustnessOptions()
    if not models:
        raise DataError("models is empty; name one or more")
    opened = [open_model(each) for each in models]  # before the data set: a wrong name fails at once
    emotions = tuple({emotion: None for model in opened for emotion in model.emotions})
    size, skipped = max(model.size for model in opened), options.skip_unreadable
    faces = load_test_set(data, emotions, size=size, labels=labels, skip_unreadable=skipped)
    faces = as_in_training(faces, [model.about.get("data_sha256") for model in opened])
    # Runs are calibrated on their own faces, as their exported files are.
    opened = [open_model(each, faces=faces) if m.trained else m for each, m in zip(models, opened, strict=True)]
    named = name_models(models, opened)
    by_argument = dict(zip(models, named, strict=True))
    compared = _find_reference(by_argument.get(reference or "", reference), named, faces, options)
    predicting = dict(named) | (dict([compared]) if isinstance(compared, tuple) else {})
    is_counted = is_private_test(faces, options.split or ALL)
    answers = [answers_of_model(model, faces) for model in predicting.values()] if is_counted else []
    if answers:
        options.ledger.require(answers)
    result = evaluate_robustness(
        named,
        faces,
        options,
        groups=read_groups(groups, faces) if groups else None,
        reference=compared,
        progress=progress,
    )
    if answers:
        options.ledger.add(answers, faces.sha256)
    return result


def evaluate_robustness(
    models: Mapping[str, Model],
    faces: FaceSet,
    options: RobustnessOptions,
    *,
    reference: CorruptionReference | tuple[str, Model] | None = None,
    groups: GroupTable | None = None,
    progress: Progress = no_progress,
) -> RobustnessResult:
    """Test open models on corrupted faces of a data set that was read before.

    Args:
        models: The models by name.
        faces: The whole data set.
        options: Faces and corruptions.
        reference: What the mean corruption error is relative to: recorded predictions, or name and model; ``None``:
            the first of ``models``.
        groups: The groups of the faces.
        progress: Called with the number of faces done.

    Returns:
        The result.

    Raises:
        DataError: The faces cannot be used to test a model.
        ModelError: A model does not predict probabilities.
    """
    sample = sample_faces(faces, options.split, options.faces, seed=options.seed)
    every = {**models, **(dict([reference]) if isinstance(reference, tuple) else {})}
    selections = {name: select_sample(faces, sample, model.emotions, options.split) for name, model in every.items()}
    predictions = predict_corrupted(
        every, selections, sample, options.corruptions, seed=options.seed, progress=progress
    )
    setting = _pixel_setting(faces, options)
    correct = {each.name: reference_of(each, options.corruptions, setting) for each in predictions}
    recorded = isinstance(reference, CorruptionReference)
    if not isinstance(reference, CorruptionReference):
        reference = correct[reference[0] if reference else next(iter(models))]
    part = faces.split(options.split) if options.split else faces
    results = [
        _model_result(each, correct[each.name], reference, groups, options)
        for each in predictions
        if each.name in models
    ]
    for result in results if options.steady else ():
        model, moved = models[result["name"]], selections[result["name"]].faces
        progress(f"small moves, {model.name}", 0, 0)
        whole = select_rows(faces, model.emotions, options.split)
        result["steadiness"] = measure_steadiness(model, whole, moved, part, seed=options.seed)
    return {
        "provenance": provenance(faces.sha256, faces.note),
        "setting": {**setting, "split": str(options.split or "all"), "drawn": len(sample), "of": len(part)},
        "source": Path(faces.source).name,
        "note": faces.note or "",
        "reference": {"name": reference.name, "recorded": recorded},
        "corruptions": [_describe(corruption) for corruption in options.corruptions],
        "groups": {"source": Path(groups.source).name, "unknown_rows": groups.unknown_rows} if groups else None,
        "models": results,
    }


def name_models(arguments: Sequence[str], models: Sequence[Model]) -> dict[str, Model]:
    """Name models by their own names, or by their arguments where two have the same name.

    Args:
        arguments: What each model was opened from.
        models: The models.

    Returns:
        The models by name.

    Raises:
        DataError: A model is named twice.
    """
    names = [model.name for model in models]
    chosen = [what if names.count(name) > 1 else name for what, name in zip(arguments, names, strict=True)]
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice:
        raise DataError(f"{twice} is named twice; name every model once")
    return dict(zip(chosen, models, strict=True))


def _find_reference(
    wanted: str | None, models: Mapping[str, Model], faces: FaceSet, options: RobustnessOptions
) -> CorruptionReference | tuple[str, Model]:
    """Recorded predictions of the same pixels, or the model that is predicted in this run."""
    name = wanted or DEFAULT_REFERENCE
    given = name.endswith(".json")
    if given or (wanted is None and name not in models and _RECORDED.is_file()):
        recorded = read_reference(Path(name) if given else _RECORDED)
        sample = sample_faces(faces, options.split, options.faces, seed=options.seed)
        amounts = {corruption.name: corruption.amounts for corruption in options.corruptions}
        mismatch = recorded.pixel_mismatch(_pixel_setting(faces, options), sample.rows.numpy(), amounts)
        if not mismatch:
            return recorded
        if given:
            raise DataError(f"{name}: {mismatch}; name a model instead, which is then tested on the same faces")
    return name, models[name] if name in models else open_model(name, faces=faces)


def _pixel_setting(faces: FaceSet, options: RobustnessOptions) -> dict[str, Any]:
    """What must be equal for corrupted faces to have the same pixels."""
    return {"data_sha256": faces.sha256, "side": int(faces.images.shape[-1]), "seed": options.seed}


def _model_result(
    predictions: CorruptedPredictions,
    correct: CorruptionReference,
    reference: CorruptionReference,
    groups: GroupTable | None,
    options: RobustnessOptions,
) -> ModelRobustness:
    model, selection = predictions.model, predictions.selection
    metrics = corruption_metrics(predictions, options.corruptions)
    result: ModelRobustness = {
        "name": predictions.name,
        "about": dict(model.about),
        "emotions": [str(emotion) for emotion in model.emotions],
        "n": len(predictions.labels),
        "left_out": dict(selection.account),
        "protocol": selection.protocol,
        "clean": metrics["clean"],
        "corrupted": metrics["corrupted"],
        "by_corruption": metrics["by_corruption"],
        "by_severity": metrics["by_severity"],
        "mean": metrics["mean"],
        "corruption_error": corruption_error(correct, reference),
        "correct": pack_reference(correct),
    }
    if groups:
        result["groups"] = compare_groups(predictions, groups, seed=options.seed)
    return result


def _describe(corruption: Corruption) -> dict[str, Any]:
    return {
        "name": corruption.name,
        "kind": str(corruption.kind),
        "unit": corruption.unit,
        "amounts": list(corruption.amounts),
        "description": corruption.description,
    }
