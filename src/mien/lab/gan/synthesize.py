"""A data set -> made faces of some of its classes in a folder, with their judgement and contact sheet."""

import io
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mien._emotions import Emotion, class_set
from mien._errors import DataError, OutputError
from mien.lab.data import FaceSet
from mien.lab.data.selection import training_rows, validation_rows
from mien.lab.files import save_bytes, save_text
from mien.lab.gan.evaluate import Eye, Pairs, judge_made, yardstick
from mien.lab.gan.nets import SIDE, Generator
from mien.lab.gan.train import Gan, Settings, train
from mien.lab.recipe import Data, Optimise, Recipe, nearest

# Faces made at once.
CHUNK = 256


# Digits of a file name; the first face is 00001.png.
DIGITS = 5


@torch.no_grad()
def make_faces(generator: Generator, label: int, count: int, *, seed: int = 0) -> Tensor:
    """``count`` faces of the class ``label``, uint8 ``[count, 48, 48]`` on the CPU; the same for the same ``seed``.

    The first faces are the same however many are made. ``generator`` is taken in the mode it is in: hand over the
    averaged one, which is in eval mode.
    """
    device = next(generator.parameters()).device
    # Noise of another stream than the training's, and of each class another: drawn on the CPU for any device.
    source = torch.Generator().manual_seed((seed * 1_000_003 + label) * 2 + 1)
    made = []
    for start in range(0, count, CHUNK):
        z = torch.randn(CHUNK, generator.noise, generator=source)[: count - start].to(device)
        x = generator(z, torch.full((len(z),), label, device=device))
        made.append(((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).squeeze(1).cpu())
    return torch.cat(made)


def write_faces(images: Tensor, folder: Path, emotion: Emotion) -> None:
    """Write ``images`` uint8 ``[N, S, S]`` to ``folder/EMOTION/00001.png`` and so on, in place of an earlier set.

    The earlier set stays until the new one is complete. Raises ``OutputError`` when ``folder`` cannot be written or
    its folder of the emotion holds anything but numbered PNGs, which may be somebody's own.
    """
    target, draft = folder / emotion, folder / f".{emotion}.new"
    _refuse_strangers(target)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for number, image in enumerate(images.numpy(), start=1):
            Image.fromarray(image).save(draft / f"{number:0{DIGITS}d}.png")
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        cause = (error.strerror or str(error)).lower()
        raise OutputError(f"{target}: cannot be written ({cause}); free space or name another --out") from error


def _refuse_strangers(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file where a folder of faces would be written; name another --out")
    for entry in target.iterdir() if target.is_dir() else ():
        if not re.fullmatch(rf"\d{{{DIGITS},}}\.png", entry.name):
            raise OutputError(f"{target}: holds {entry.name}, which mien did not make; name another --out")


# Faces in a row and rows of a block; side of a face, height of a title and space between blocks in pixels.
COLUMNS, ROWS = 10, 4


CELL, TITLE, GAP = 72, 26, 16


_WIDTH = 2 * COLUMNS * CELL + 3 * GAP


_HEIGHT = 2 * TITLE + (ROWS + 2) * CELL + 2 * GAP  # of a band


class Band(NamedTuple):
    """What the sheet shows of one emotion: made faces uint8 ``[N, S, S]`` and their nearest training faces."""

    emotion: Emotion
    made: Tensor
    pairs: Pairs


def contact_sheet(bands: Sequence[Band], training: FaceSet) -> bytes:
    """A PNG, a band for each emotion: made faces left, real ones right; below, the closest pairs, made above real."""
    sheet = Image.new("L", (_WIDTH, len(bands) * _HEIGHT + GAP), 255)
    for number, band in enumerate(bands):
        _draw_band(sheet, band, training, top=GAP + number * _HEIGHT)
    stream = io.BytesIO()
    sheet.save(stream, "png")
    return stream.getvalue()


def _draw_band(sheet: Image.Image, band: Band, training: FaceSet, *, top: int) -> None:
    emotion, made, pairs = band
    real = training.images[training.labels == training.emotions.index(emotion)]
    right = 2 * GAP + COLUMNS * CELL
    _draw_block(sheet, f"{emotion}: made", made[: ROWS * COLUMNS], COLUMNS, at=(GAP, top))
    _draw_block(sheet, f"{emotion}: real, of Training", real[: ROWS * COLUMNS], COLUMNS, at=(right, top))
    closest = pairs.distance.argsort()[: 2 * COLUMNS]
    both = torch.cat([made[closest], training.images[pairs.row[closest]]])
    title = "the made faces that are nearest to a training face, and that face below each"
    _draw_block(sheet, title, both, len(closest), at=(GAP, top + TITLE + ROWS * CELL + GAP))


def _draw_block(sheet: Image.Image, title: str, faces: Tensor, columns: int, *, at: tuple[int, int]) -> None:
    left, top = at
    ImageDraw.Draw(sheet).text((left, top), title, fill=0, font=ImageFont.load_default(16))
    for number, face in enumerate(faces.numpy()):
        row, column = divmod(number, columns)
        picture = Image.fromarray(face).resize((CELL - 2, CELL - 2), Image.Resampling.BICUBIC)
        sheet.paste(picture, (left + column * CELL, top + TITLE + row * CELL))


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
    save_text(folder / "judgement.json", json.dumps(judgement, indent=1) + "\n")
    save_bytes(folder / "contact.png", contact_sheet(bands, training))
    return judgement
