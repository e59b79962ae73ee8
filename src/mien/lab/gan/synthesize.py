"""A data set -> made faces of some of its classes in a folder, with their judgement and contact sheet."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mien._emotions import Emotion, class_set
from mien._errors import DataError
from mien.lab import checkpoint
from mien.lab.data import FaceSet
from mien.lab.feed.rows import training_rows, validation_rows
from mien.lab.gan.features import Eye
from mien.lab.gan.judge import judge_made, yardstick
from mien.lab.gan.learn import Gan, Settings, train
from mien.lab.gan.nets import SIDE
from mien.lab.gan.sample import make_faces, write_faces
from mien.lab.gan.sheet import Band, contact_sheet
from mien.lab.recipe import Data, Optimise, Recipe, nearest

# Training faces of a class below which it cannot be learned.
FEWEST = 16
# Where a folder of made faces keeps the training; data sets are read without names that begin with a dot.
TRAINING_FOLDER = ".gan"

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall be made: ``count`` faces of each of ``emotions``, after ``steps`` steps of training."""

    emotions: tuple[Emotion, ...]
    count: int
    steps: int = 20_000
    recipe: Recipe = field(default_factory=lambda: faces_of())
    settings: Settings = field(default_factory=Settings)
    time_limit: float = math.inf  # seconds, of the training
    device: str = "cpu"
    threads: int = 1  # that look at the faces when they are judged


def faces_of(classes: str = "seven") -> Recipe:
    """Which faces are learned from, as a recipe of any training would say it: ``classes`` is a ``class_set``."""
    return Recipe("gan", "", data=Data(classes=classes, size=SIDE), optimise=Optimise(batch=2))


def choose_emotions(names: Sequence[str], recipe: Recipe) -> tuple[Emotion, ...]:
    """The emotions of those names, each once. Raises ``DataError`` for one that is no class of the recipe."""
    known = [str(emotion) for emotion in class_set(recipe.data.classes)]
    for name in names:
        if name not in known:
            raise DataError(f"no emotion {name!r} to make faces of{nearest(name, known)}; there are {', '.join(known)}")
    return tuple(dict.fromkeys(Emotion(name) for name in names))


def synthesize(
    wish: Wish,
    faces: FaceSet,
    folder: Path,
    *,
    provenance: dict[str, Any] | None = None,
    report: Report = lambda _: None,
) -> dict[str, Any]:
    """Train on the Training rows of ``faces`` (or go on, or reuse), then make, write and judge what ``wish`` says.

    Writes ``EMOTION/00001.png`` and so on, ``judgement.json`` and ``contact.png`` into ``folder``, the training into
    ``.gan``. Returns the judgement, or ``{}`` when the time limit came first; the same call goes on then. Raises
    ``DataError`` for too few faces, ``OutputError`` where ``folder`` cannot be written, ``DivergedError``.
    """
    training, held_out = _rows(faces, wish)
    gan = train(
        training,
        folder / TRAINING_FOLDER,
        steps=wish.steps,
        settings=wish.settings,
        device=wish.device,
        time_limit=wish.time_limit,
        report=report,
    )
    if gan.step < wish.steps:
        return {}
    return _make(wish, gan, training, held_out, folder, provenance or {}, report)


def _rows(faces: FaceSet, wish: Wish) -> tuple[FaceSet, FaceSet]:
    """What the GAN learns from, without rows that stand in a test split, and what its faces are judged by."""
    training, held_out = training_rows(faces, wish.recipe), validation_rows(faces, wish.recipe)
    for emotion in wish.emotions:
        count = int((training.labels == training.emotions.index(emotion)).sum())
        if count < FEWEST:
            raise DataError(
                f"{faces.source}: {count} Training faces of {emotion!s} are too few to learn from; {FEWEST} are needed"
            )
    return training, held_out


def _make(
    wish: Wish,
    gan: Gan,
    training: FaceSet,
    held_out: FaceSet,
    folder: Path,
    provenance: dict[str, Any],
    report: Report,
) -> dict[str, Any]:
    """Faces, judgement and sheet of a trained GAN; the judgement."""
    report({"doing": "looking at the real faces"})
    by = yardstick(Eye(threads=wish.threads), training, held_out)
    judged: dict[str, Any] = {}
    bands = []
    for emotion in wish.emotions:
        report({"doing": f"making and judging {emotion}"})
        label = gan.emotions.index(emotion)
        made = make_faces(gan.maker, label, wish.count, seed=gan.settings.seed)
        write_faces(made, folder, emotion)
        judged[str(emotion)], pairs = judge_made(made, emotion, by, seed=gan.settings.seed)
        bands.append(Band(emotion, made, pairs))
    last = gan.history[-1] if gan.history else {}
    judgement = {"emotions": judged, "steps": gan.step, "judge": by.eye.name, "losses": last, "provenance": provenance}
    checkpoint.save_text(folder / "judgement.json", json.dumps(judgement, indent=1) + "\n")
    checkpoint.save_bytes(folder / "contact.png", contact_sheet(bands, training))
    return judgement
