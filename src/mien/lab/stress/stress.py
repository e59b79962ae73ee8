"""Models, faces and spoilings -> one account of figures, as it stands in stress.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.judge.examine import Selection
from mien.lab.model import Model
from mien.lab.stress.corruption import corruption
from mien.lab.stress.faces import draw_faces, selected
from mien.lab.stress.gaps import judge_groups
from mien.lab.stress.groups import Groups
from mien.lab.stress.judge import judge
from mien.lab.stress.read import Read, Report, read_spoilt
from mien.lab.stress.reference import Reference, pack, reference_of
from mien.lab.stress.spoilings import SPOILINGS, Spoiling


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
