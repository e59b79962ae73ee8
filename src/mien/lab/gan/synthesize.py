"""Synthetic faces of some classes of a data set, with their evaluation and a contact sheet."""

import io
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mien._emotions import Emotion, class_set
from mien._errors import DataError, OutputError
from mien._output import png_mark, require_replaceable
from mien._progress import Progress, no_progress
from mien._suggest import require_known
from mien.lab.data import FaceSet
from mien.lab.data.selection import training_rows, validation_rows
from mien.lab.files import file_set, output_folder, save_bytes, save_json
from mien.lab.gan.evaluate import FeatureExtractor, Neighbours, evaluate_faces, read_real_faces
from mien.lab.gan.train import FACE_SIDE, Gan, GanConfig, Generator, train_gan
from mien.lab.recipe import DataConfig, Recipe, TrainConfig

# Smallest number of training faces of a generated class.
MIN_TRAINING_FACES = 16
# Subfolder of the training; readers of data sets skip names that begin with a dot.
TRAINING_FOLDER = ".gan"
# Faces in a batch, and digits of a file name (the first face is 00001.png).
_BATCH, _DIGITS = 256, 5
# The contact sheet: faces in a row, rows of a block; side of a face, height of a title and space between blocks in
# pixels.
_COLUMNS, _ROWS = 10, 4
_CELL, _TITLE, _GAP = 72, 26, 16
_SHEET_WIDTH = 2 * _COLUMNS * _CELL + 3 * _GAP
_BAND_HEIGHT = 2 * _TITLE + (_ROWS + 2) * _CELL + 2 * _GAP

_Band = tuple[Emotion, Tensor, Neighbours]  # the synthetic faces of an emotion, and the nearest training faces


def gan_recipe(classes: str = "seven") -> Recipe:
    """Return the recipe that selects the faces of a GAN.

    Args:
        classes: A class set, or the names of emotions, separated by commas.

    Returns:
        The recipe.
    """
    return Recipe("gan", "", data=DataConfig(classes=classes, size=FACE_SIDE), train=TrainConfig(batch_size=2))


@dataclass(frozen=True, slots=True)
class SynthesisOptions:
    """The faces to generate, and the training of the GAN.

    Attributes:
        emotions: The emotions of the faces.
        count: Faces of each emotion.
        steps: Training steps of the GAN.
        recipe: Selects the training and validation faces.
        config: Settings of the training.
        time_limit: Seconds after which the training stops with a checkpoint.
        device: The device of the training, as in torch.
        threads: Threads that classify faces for the evaluation.
    """

    emotions: tuple[Emotion, ...]
    count: int
    steps: int = 20_000
    recipe: Recipe = field(default_factory=gan_recipe)
    config: GanConfig = field(default_factory=GanConfig)
    time_limit: float = math.inf
    device: str = "cpu"
    threads: int = 1


def choose_emotions(names: Sequence[str], recipe: Recipe) -> tuple[Emotion, ...]:
    """Turn names into emotions, each once.

    Args:
        names: Names of emotions.
        recipe: The recipe whose classes are allowed.

    Returns:
        The emotions, in the given order.

    Raises:
        DataError: A name is no class of the recipe.
    """
    known = [str(emotion) for emotion in class_set(recipe.data.classes)]
    for name in names:
        require_known("emotion", name, known, DataError)
    return tuple(dict.fromkeys(Emotion(name) for name in names))


def synthesize(
    options: SynthesisOptions,
    faces: FaceSet,
    folder: Path,
    *,
    provenance: dict[str, Any] | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train a GAN (or resume or reuse its training), then generate, write and evaluate faces.

    It writes ``EMOTION/00001.png`` and so on, ``evaluation.json``, ``contact.png`` and the training in ``.gan``.

    Args:
        options: The faces to generate, and the training of the GAN.
        faces: The data set; the GAN is trained on its Training rows.
        folder: The output folder.
        provenance: Written into ``evaluation.json``.
        progress: Called with the progress.

    Returns:
        The content of ``evaluation.json``, or ``{}`` if the time limit ended the training; the same call then resumes.

    Raises:
        DataError: There are too few faces.
        OutputError: The folder cannot be written, or another process writes to it.
        DivergedError: A loss is not finite.
    """
    # Training rows that also occur in a test split are left out.
    training, held_out = training_rows(faces, options.recipe), validation_rows(faces, options.recipe)
    for emotion in options.emotions:
        count = int((training.labels == training.emotions.index(emotion)).sum())
        if count < MIN_TRAINING_FACES:
            raise DataError(
                f"{faces.source}: {count} Training faces of {emotion!s} are too few to learn from; "
                f"{MIN_TRAINING_FACES} are needed"
            )
    with output_folder(folder, ("evaluation.json", "contact.png")):
        for emotion in options.emotions:
            _require_faces(folder / emotion)
        gan = train_gan(
            training,
            folder / TRAINING_FOLDER,
            steps=options.steps,
            config=options.config,
            device=options.device,
            time_limit=options.time_limit,
            progress=progress,
        )
        if gan.step < options.steps:
            return {}
        evaluation, bands = _generate(gan, options, training, held_out, progress)
        evaluation |= {"provenance": provenance or {}}
        for emotion, made, _ in bands:
            write_faces(made, folder, emotion)
        with file_set(folder) as draft:
            save_json(draft / "evaluation.json", evaluation)
            save_bytes(draft / "contact.png", contact_sheet(bands, training))
    return evaluation


def _generate(
    gan: Gan, options: SynthesisOptions, training: FaceSet, held_out: FaceSet, progress: Progress
) -> tuple[dict[str, Any], list[_Band]]:
    """Generate the faces and evaluate them."""
    progress("reading the real faces")
    reference = read_real_faces(FeatureExtractor(threads=options.threads), training, held_out, seed=gan.config.seed)
    metrics: dict[str, Any] = {}
    bands: list[_Band] = []
    for emotion in options.emotions:
        progress(f"generating and evaluating {emotion}")
        label = gan.emotions.index(emotion)
        made = generate_faces(gan.averaged, label, options.count, seed=gan.config.seed)
        metrics[str(emotion)], neighbours = evaluate_faces(made, emotion, reference, seed=gan.config.seed)
        bands.append((emotion, made, neighbours))
    evaluation = {
        "emotions": metrics,
        "steps": gan.step,
        "model": reference.extractor.name,
        "losses": gan.history[-1] if gan.history else {},
    }
    return evaluation, bands


@torch.no_grad()
def generate_faces(generator: Generator, label: int, count: int, *, seed: int = 0) -> Tensor:
    """Generate faces of one class. The first faces do not depend on ``count``.

    Args:
        generator: The averaged generator, in eval mode.
        label: Index of the class.
        count: Number of faces.
        seed: Seed of the noise.

    Returns:
        uint8 ``[count, 48, 48]`` on the CPU.
    """
    device = next(generator.parameters()).device
    # The noise differs from that of the training and between classes, and is the same for all devices.
    source = torch.Generator().manual_seed((seed * 1_000_003 + label) * 2 + 1)
    made = []
    for start in range(0, count, _BATCH):
        z = torch.randn(_BATCH, generator.noise, generator=source)[: count - start].to(device)
        x = generator(z, torch.full((len(z),), label, device=device))
        made.append(((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).squeeze(1).cpu())
    return torch.cat(made)


def write_faces(images: Tensor, folder: Path, emotion: Emotion) -> None:
    """Write faces as numbered PNG files. An earlier set is replaced when the new set is complete.

    Args:
        images: uint8 ``[N, S, S]``.
        folder: The files are ``folder/EMOTION/00001.png`` and so on.
        emotion: Their emotion.

    Raises:
        OutputError: The folder cannot be written, or holds anything but numbered PNG files, which mien did not write.
    """
    target, draft = folder / emotion, folder / f".{emotion}.new"
    _require_faces(target)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for number, image in enumerate(images.numpy(), start=1):
            Image.fromarray(image).save(draft / f"{number:0{_DIGITS}d}.png", pnginfo=png_mark())
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        cause = (error.strerror or str(error)).lower()
        raise OutputError(f"{target}: cannot be written ({cause}); free space or choose another folder") from error


def _require_faces(target: Path) -> None:
    """Raise ``OutputError`` if a folder is a file, or holds anything but faces that mien wrote; it need not exist."""
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file where a folder of faces would be written; choose another folder")
    for entry in target.iterdir() if target.is_dir() else ():
        require_replaceable(entry)
        if not re.fullmatch(rf"\d{{{_DIGITS},}}\.png", entry.name):
            raise OutputError(f"{target}: holds {entry.name}, which mien did not write; choose another folder")


def contact_sheet(bands: Sequence[_Band], training: FaceSet) -> bytes:
    """Draw a PNG with a band for each emotion.

    Synthetic faces are on the left, real faces on the right. Below are the synthetic faces nearest to a training face,
    each above that training face.

    Args:
        bands: Emotions, their synthetic faces uint8 ``[N, S, S]``, and the nearest training faces.
        training: The real faces.

    Returns:
        The bytes of the PNG.
    """
    sheet = Image.new("L", (_SHEET_WIDTH, len(bands) * _BAND_HEIGHT + _GAP), 255)
    right = 2 * _GAP + _COLUMNS * _CELL
    for number, (emotion, made, neighbours) in enumerate(bands):
        top = _GAP + number * _BAND_HEIGHT
        real = training.images[training.labels == training.emotions.index(emotion)]
        _draw_block(sheet, f"{emotion}: synthetic", made[: _ROWS * _COLUMNS], _COLUMNS, at=(_GAP, top))
        _draw_block(sheet, f"{emotion}: real (Training)", real[: _ROWS * _COLUMNS], _COLUMNS, at=(right, top))
        closest = neighbours.distance.argsort()[: 2 * _COLUMNS]
        both = torch.cat([made[closest], training.images[neighbours.row[closest]]])
        title = "the synthetic faces nearest to a training face, each above that face"
        _draw_block(sheet, title, both, len(closest), at=(_GAP, top + _TITLE + _ROWS * _CELL + _GAP))
    stream = io.BytesIO()
    sheet.save(stream, "png", pnginfo=png_mark())
    return stream.getvalue()


def _draw_block(sheet: Image.Image, title: str, faces: Tensor, columns: int, *, at: tuple[int, int]) -> None:
    left, top = at
    ImageDraw.Draw(sheet).text((left, top), title, fill=0, font=ImageFont.load_default(16))
    for number, face in enumerate(faces.numpy()):
        row, column = divmod(number, columns)
        image = Image.fromarray(face).resize((_CELL - 2, _CELL - 2), Image.Resampling.BICUBIC)
        sheet.paste(image, (left + column * _CELL, top + _TITLE + row * _CELL))
