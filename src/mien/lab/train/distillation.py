"""What the teachers of a distillation answer: live on the very views that the student sees, or from cached files.

Live teachers are the "function matching" of Beyer et al. (CVPR 2022): they see the student's augmented, mixed views.
Cached answers are about the faces as they are; they become part of each face's target before an epoch begins, so that
mixing faces mixes their answers with the same shares.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab import checkpoint
from mien.lab.data import FaceSet
from mien.lab.inference import VIEWS, normalise, views_of
from mien.lab.recipe import Target
from mien.lab.train.run import Trained, load_final

# Keeps the logarithm of a probability that rounds to 0 finite.
_LEAST = 1e-6


_CURE = "write it again with `mien logits`"


@dataclass(frozen=True, eq=False)
class Answers:
    """What teachers answered for R faces of one data set.

    - ``rows``: int64 ``[R]``, as ``FaceSet.rows`` counts them
    - ``logits``: float16 ``[R, V, C]``: the logarithm of the teachers' mean probability on each of V views
    - ``emotions``: the C classes; ``data_sha256``: of the data set; ``teachers``: the names of their recipes
    """

    rows: NDArray[np.int64]
    logits: NDArray[np.float16]
    emotions: tuple[Emotion, ...]
    data_sha256: str
    teachers: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write the file, atomically. Raises ``OutputError``."""
        stream = io.BytesIO()
        about = {"emotions": self.emotions, "data_sha256": self.data_sha256, "teachers": self.teachers}
        np.savez_compressed(stream, rows=self.rows, logits=self.logits, about=np.array(json.dumps(about)))
        checkpoint.save_bytes(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Answers":
        """Read what ``save`` wrote. Raises ``DataError`` for a missing file or one that is something else."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:  # whole: numpy leaks a bad file
                about = json.loads(str(file["about"]))
                rows, logits = file["rows"], file["logits"]
            emotions = tuple(Emotion(name) for name in about["emotions"])
            if logits.shape[::2] != (len(rows), len(emotions)) or logits.ndim != 3:
                raise DataError(f"{path}: damaged (logits of shape {list(logits.shape)}); {_CURE}")
            return cls(rows, logits, emotions, about["data_sha256"], tuple(about["teachers"]))
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file of cached logits; {_CURE}") from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise DataError(f"{path}: is no file of cached logits ({type(error).__name__}); {_CURE}") from error

    def probabilities(self, faces: FaceSet, temperature: float, *, source: str) -> Tensor:
        """float32 ``[N, C]`` for ``faces``, on their device: the mean over the views, each softened by ``temperature``.

        Raises ``DataError`` naming ``source`` for faces of another data set or classes, and for rows without answer.
        """
        if self.data_sha256 != faces.sha256:
            raise DataError(f"{source}: its answers are for another data set than {faces.source}; {_CURE}")
        if self.emotions != faces.emotions:
            theirs, ours = ", ".join(self.emotions), ", ".join(faces.emotions)
            raise DataError(f"{source}: answers for the classes {theirs}; the recipe learns {ours}")
        place = np.argsort(self.rows, kind="stable")
        wanted = faces.rows.cpu().numpy()
        found = np.searchsorted(self.rows, wanted, sorter=place).clip(max=len(place) - 1) if len(place) else None
        if found is None or (self.rows[place[found]] != wanted).any():
            raise DataError(f"{source}: has no answer for some rows that the recipe learns from; {_CURE}")
        logits = torch.from_numpy(self.logits[place[found]]).to(faces.labels.device).float()
        return F.softmax(logits / temperature, dim=2).mean(dim=1)


@torch.no_grad()
def answer(
    teachers: Sequence[Trained],
    faces: FaceSet,
    views: int,
    *,
    batch: int = 256,
    report: Callable[[int], None] = lambda _: None,
) -> Answers:
    """The answers of ``teachers`` for all ``faces``, which lie on their device; ``report`` is told the faces done.

    ``views`` is how many ``looks.views_of`` are asked for.
    The mean over teachers is one of probabilities, as for teachers that answer live: a mean of logits would let the
    surest teacher, whose logits are the largest, outvote the others. Raises ``DataError`` for other ``views`` and for
    teachers of different classes.
    """
    if views not in VIEWS.values():
        raise DataError(f"views is one of {', '.join(map(str, VIEWS.values()))}, not {views}")
    emotions = same_classes(teachers)
    parts = []
    for start in range(0, len(faces), batch):
        x = faces.images[start : start + batch].unsqueeze(1).float() / 255
        seen = views_of(x, views)
        logits = torch.stack([_mean_log_probability(teachers, view) for view in seen], dim=1)
        parts.append(logits.cpu().numpy().astype(np.float16))
        report(min(start + batch, len(faces)))
    return Answers(
        rows=faces.rows.cpu().numpy().astype(np.int64),
        logits=np.concatenate(parts) if parts else np.zeros((0, views, len(emotions)), np.float16),
        emotions=emotions,
        data_sha256=faces.sha256,
        teachers=tuple(teacher.recipe.name for teacher in teachers),
    )


def same_classes(teachers: Sequence[Trained]) -> tuple[Emotion, ...]:
    """The classes that all ``teachers`` answer for.

    Raises ``DataError`` where they differ, and for a teacher that has learned from test faces.
    """
    first = teachers[0]
    for each in teachers:
        if each.recipe.data.expand_first:
            raise DataError(f"teacher {each.recipe.name} has learned from test faces (data.expand_first)")
    for other in teachers[1:]:
        if other.emotions != first.emotions:
            raise DataError(
                f"teachers must answer for the same classes: {first.recipe.name} knows {', '.join(first.emotions)}, "
                f"{other.recipe.name} {', '.join(other.emotions)}"
            )
    return first.emotions


def _mean_log_probability(teachers: Sequence[Trained], x: Tensor) -> Tensor:
    """float32 ``[N, C]``."""
    answers = [F.softmax(each.net(normalise(x, each.recipe.data.size)).float(), dim=1) for each in teachers]
    return torch.stack(answers).mean(dim=0).clamp(min=_LEAST).log()


class Teachers:
    """The teachers of ``choice.teachers``: ``.npz`` files of cached logits, or folders of runs, on ``fabric``'s device.

    With T teachers, K of them cached, the student's target is ``(1 - teach)`` of what it is told otherwise and
    ``teach`` of the mean probability of all T. ``fold`` adds the cached share before faces are mixed, ``teach`` the
    live share after. Without ``teach`` no teacher is opened. Raises ``DataError`` for a missing one, for one that
    answers for other classes than ``emotions``, and for one that has learned from test faces.
    """

    def __init__(self, choice: Target, fabric: Fabric, emotions: Sequence[Emotion]) -> None:
        self.choice = choice
        self.fabric = fabric
        named = choice.teachers if choice.teach > 0 else ()
        self.cached = {name: Answers.load(Path(name)) for name in named if name.endswith(".npz")}
        self.nets = [load_final(Path(name), fabric.device) for name in named if not name.endswith(".npz")]
        for net in self.nets:
            if net.recipe.data.expand_first:
                raise DataError(f"teacher {net.recipe.name} has learned from test faces (data.expand_first)")
            if net.emotions != tuple(emotions):
                theirs, ours = ", ".join(net.emotions), ", ".join(emotions)
                raise DataError(f"teacher {net.recipe.name} knows the classes {theirs}; the recipe learns {ours}")

    @property
    def live(self) -> float:
        """The share of the final target that the live teachers answer."""
        count = len(self.nets) + len(self.cached)
        return self.choice.teach * len(self.nets) / count if count else 0.0

    def fold(self, target: Tensor, faces: FaceSet) -> Tensor:
        """``target`` ``[N, C]`` of ``faces`` mixed with the cached answers, in shares that ``teach`` completes.

        Raises ``DataError`` for a file of another data set, other classes, or without some of the faces.
        """
        if not self.cached:
            return target
        answers = [a.probabilities(faces, self.choice.temperature, source=n) for n, a in self.cached.items()]
        share = (self.choice.teach - self.live) / (1 - self.live)
        return target * (1 - share) + share * torch.stack(answers).mean(0)

    @torch.no_grad()
    def teach(self, x: Tensor, target: Tensor) -> Tensor:
        """``target`` ``[N, C]`` mixed with the live teachers' mean probability on ``x`` ``[N, 1, S, S]`` in 0..1."""
        if not self.nets:
            return target
        with self.fabric.autocast():
            logits = [t.net(normalise(x, t.recipe.data.size)).float() for t in self.nets]
        answers = [F.softmax(each / self.choice.temperature, dim=1) for each in logits]
        return target * (1 - self.live) + self.live * torch.stack(answers).mean(0)
