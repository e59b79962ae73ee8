"""Trained generator -> faces of a class -> a labelled folder that the lab reads as a data set."""

import re
import shutil
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mien._emotions import Emotion
from mien._errors import OutputError
from mien.lab.gan.nets import Generator

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
