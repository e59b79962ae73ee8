"""What the command is told -> models, faces, and the reference of mean corruption."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mien._errors import DataError
from mien.lab.data import FaceSet
from mien.lab.feed.test_set import load_test_set
from mien.lab.model import Model, open_model
from mien.lab.stress.faces import draw_faces
from mien.lab.stress.reference import Reference, read_reference
from mien.lab.stress.stress import Trial, setting_of

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
