"""Models, faces and spoilings -> one account of figures, as it stands in stress.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import load_test_set
from mien.lab.models import Model, open_model
from mien.lab.predictions import Selection
from mien.lab.robustness.corruptions import SPOILINGS, STRENGTHS, Spoiling
from mien.lab.robustness.groups import Groups, judge_groups
from mien.lab.robustness.metrics import (
    FIGURES,
    Floats,
    Weights,
    corruption,
    draw_weights,
    figures_of,
    interval,
    point,
    with_interval,
)
from mien.lab.robustness.predictions import Probs, Read, Report, draw_faces, read_spoilt, selected
from mien.lab.robustness.reference import Reference, pack, read_reference, reference_of


def judge(read: Read, spoilings: Sequence[Spoiling]) -> dict[str, Any]:
    """``clean`` figures, those ``spoilt`` by name and strength, and their means, as plain values.

    A ``difference`` is that to the clean faces, its interval from the same draws of the faces. ``flips`` is the share
    of faces whose answer is another than on the clean face.
    """
    weights = draw_weights(len(read.labels))
    clean = _Figures(read, read.clean, weights)
    spoilt = {s.name: [_Figures(read, probs, weights) for probs in read.spoilt[s.name]] for s in spoilings}
    return {
        "clean": clean.said(),
        "spoilt": {
            s.name: [
                {"strength": strength, "amount": amount, **each.said(clean), "flips": each.flips}
                for strength, amount, each in zip(STRENGTHS, s.amounts, spoilt[s.name], strict=True)
            ]
            for s in spoilings
        },
        "by_spoiling": {name: _mean(five, clean) for name, five in spoilt.items()},
        "by_strength": [_mean([five[at] for five in spoilt.values()], clean) for at in range(len(STRENGTHS))],
        "mean": _mean([each for five in spoilt.values() for each in five], clean),
    }


class _Figures:
    """``FIGURES`` of one condition: their values ``[4]`` and their draws ``[R, 4]``."""

    def __init__(self, read: Read, probs: Probs, weights: Weights) -> None:
        self.values = point(probs, read.labels)
        self.draws = figures_of(probs, read.labels, weights)
        self.flips = round(float((probs.argmax(1) != read.clean.argmax(1)).mean()), 6)

    def said(self, clean: "_Figures | None" = None) -> dict[str, Any]:
        return _said(self.values, self.draws, clean)


def _mean(conditions: Sequence[_Figures], clean: _Figures) -> dict[str, Any]:
    values = np.mean([each.values for each in conditions], axis=0)
    draws = np.mean([each.draws for each in conditions], axis=0)
    flips = round(float(np.mean([each.flips for each in conditions])), 6)
    return {**_said(values, draws, clean), "flips": flips}


def _said(values: Floats, draws: Floats, clean: _Figures | None) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for at, name in enumerate(FIGURES):
        said[name] = with_interval(values[at], draws[:, at])
        if clean:
            said[name]["difference"] = round(float(values[at] - clean.values[at]), 6)
            said[name]["difference_interval"] = interval(draws[:, at] - clean.draws[:, at])
    return said


@dataclass(frozen=True)
class Trial:
    """What is asked: the ``split`` (``None``: all rows), how many ``faces`` (0: all), which ``spoilings``, the seed."""

    split: Split | None = Split.PUBLIC_TEST
    faces: int = 0
    spoilings: Sequence[Spoiling] = SPOILINGS
    seed: int = 0


def stress(
    models: Mapping[str, Model],
    faces: FaceSet,
    trial: Trial,
    *,
    provenance: Mapping[str, str],
    reference: Reference | None = None,
    beside: Mapping[str, Model] | None = None,
    groups: Groups | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Everything that ``stress.json`` says of ``models``, given by name.

    Mean corruption is relative to the kept ``reference``; without one, to the one model ``beside``, which is read for
    this alone; without either, to the first of ``models``. Raises ``DataError`` for faces that no model can be judged
    on, ``ModelError`` for a model that does not answer with probabilities.
    """
    drawn = draw_faces(faces, trial.split, trial.faces, seed=trial.seed)
    every = {**models, **(beside or {})}
    selections = {name: selected(faces, drawn, model.emotions, trial.split) for name, model in every.items()}
    reads = read_spoilt(every, selections, drawn, trial.spoilings, seed=trial.seed, report=report)
    setting = setting_of(faces, trial)
    known = {read.name: reference_of(read, trial.spoilings, setting) for read in reads}
    held = reference or known[next(iter(beside or models))]
    part = faces.split(trial.split) if trial.split else faces
    return {
        "provenance": dict(provenance),
        "setting": {**setting, "split": str(trial.split or "all"), "drawn": len(drawn), "of": len(part)},
        "source": Path(faces.source).name,
        "reference": {"name": held.name, "kept": reference is not None},
        "spoilings": [_told(spoiling) for spoiling in trial.spoilings],
        "groups": {"source": Path(groups.source).name, "strange": groups.strange} if groups else None,
        "models": [
            _of_model(read, trial.spoilings)
            | {"corruption": corruption(known[read.name], held)}
            | ({"groups": judge_groups(read, groups, seed=trial.seed)} if groups else {})
            | {"right": pack(known[read.name])}
            for read in reads
            if read.name in models
        ],
    }


def setting_of(faces: FaceSet, trial: Trial) -> dict[str, Any]:
    """What must be equal for a face to be spoilt to the same pixels."""
    return {"data_sha256": faces.sha256, "side": int(faces.images.shape[-1]), "seed": trial.seed}


def name_models(given: Sequence[str], models: Sequence[Model]) -> dict[str, Model]:
    """The models by name; where two have one name, by what the user called them. Raises ``DataError`` for one twice."""
    names = [model.name for model in models]
    called = [what if names.count(name) > 1 else name for what, name in zip(given, names, strict=True)]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice:
        raise DataError(f"{twice} is named twice; name every model once")
    return dict(zip(called, models, strict=True))


def _of_model(read: Read, spoilings: Sequence[Spoiling]) -> dict[str, Any]:
    selection: Selection = read.selection
    return {
        "name": read.name,
        "about": dict(read.model.about),
        "emotions": [str(emotion) for emotion in read.model.emotions],
        "n": len(read.labels),
        "account": dict(selection.account),
        "protocol": selection.protocol,
        **judge(read, spoilings),
    }


def _told(spoiling: Spoiling) -> dict[str, Any]:
    return {
        "name": spoiling.name,
        "kind": str(spoiling.kind),
        "unit": spoiling.unit,
        "amounts": list(spoiling.amounts),
        "does": spoiling.does,
    }


# Figures of mien-0 that stand in the repository; elsewhere mien-0 is read beside the models.
REFERENCE, KEPT = "mien-0", Path("results/stress/mien-0.json")


def open_all(given: Sequence[str], data: Path | None, labels: Mapping[str, str]) -> tuple[FaceSet, list[Model]]:
    """The faces at ``data``, as large as the largest model sees them, and the models, runs calibrated on them.

    Raises ``ModelError`` and ``DataError`` as ``open_model`` and ``load_test_set`` do.
    """
    first = [open_model(what) for what in given]  # before the faces: a wrong name is said at once
    emotions = tuple({emotion: None for model in first for emotion in model.emotions})
    faces = load_test_set(data, emotions, size=max(model.size for model in first), labels=labels)
    return faces, [open_model(what, faces=faces) if m.trained else m for what, m in zip(given, first, strict=True)]


def choose_reference(
    given: str | None, models: Mapping[str, Model], faces: FaceSet, trial: Trial
) -> tuple[Reference | None, dict[str, Model] | None]:
    """A kept reference, or a model that is read beside the others or is one of them.

    ``given`` is a stress.json, a model, or ``None``: mien-0, as one of the models, as kept where that fits, or read.
    Raises ``DataError`` for a given file of other pixels.
    """
    wanted = given or REFERENCE
    if wanted.endswith(".json") or (given is None and wanted not in models and KEPT.is_file()):
        known = read_reference(Path(wanted) if wanted.endswith(".json") else KEPT)
        drawn = draw_faces(faces, trial.split, trial.faces, seed=trial.seed)
        amounts = {spoiling.name: spoiling.amounts for spoiling in trial.spoilings}
        why = known.differs(setting_of(faces, trial), drawn.rows.numpy(), amounts)
        if not why:
            return known, None
        if given is not None:
            raise DataError(f"{given}: {why}; name a model instead, which is then read beside the others")
    if wanted in models:
        return None, {wanted: models[wanted]}
    return None, {wanted: open_model(wanted, faces=faces)}
