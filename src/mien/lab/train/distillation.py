"""Knowledge distillation: the probabilities of teachers in a student's targets, computed live or read from a file.

Live teachers see the augmented and mixed faces of the student ("function matching", Beyer et al., CVPR 2022). Cached
logits are of the faces without augmentation. They are added to the targets before an epoch, so that mixup and CutMix
mix them together with the faces.
"""

import io
import json
from collections.abc import Sequence
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
from mien._progress import Progress, no_progress
from mien.lab.data import FaceSet
from mien.lab.files import find_input, save_bytes
from mien.lab.inference import TTA, normalise, tta_views
from mien.lab.recipe import TargetConfig
from mien.lab.train.run import Trained, load_final

# Smallest probability in a file, so that the logarithm of one that rounds to 0 is finite.
_SMALLEST = 1e-6

_CURE = "write it again with `cache_logits`"


@dataclass(frozen=True, eq=False)
class CachedLogits:
    """The logits of teachers for R faces of one data set, as an ``.npz`` file holds them.

    Attributes:
        rows: int64 ``[R]``: row numbers of the faces, as in ``FaceSet.rows``.
        logits: float16 ``[R, V, C]``: logarithm of the teachers' mean probability on each of V views.
        emotions: The C classes.
        data_sha256: SHA-256 of the data set.
        teachers: Names of the teachers' recipes.
    """

    rows: NDArray[np.int64]
    logits: NDArray[np.float16]
    emotions: tuple[Emotion, ...]
    data_sha256: str
    teachers: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write the file atomically.

        Args:
            path: Where to write it; its name ends in ``.npz``.

        Raises:
            OutputError: The file cannot be written.
        """
        stream = io.BytesIO()
        about = {"emotions": self.emotions, "data_sha256": self.data_sha256, "teachers": self.teachers}
        np.savez_compressed(stream, rows=self.rows, logits=self.logits, about=np.array(json.dumps(about)))
        save_bytes(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> "CachedLogits":
        """Read a file that ``save`` wrote.

        Args:
            path: The file.

        Returns:
            Its content.

        Raises:
            DataError: The file is missing, damaged or of another kind.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:  # numpy leaks a damaged open file
                about = json.loads(str(file["about"]))
                rows, logits = file["rows"], file["logits"]
            emotions = tuple(Emotion(name) for name in about["emotions"])
            if logits.shape[::2] != (len(rows), len(emotions)) or logits.ndim != 3:
                raise DataError(f"{path}: damaged (logits of shape {list(logits.shape)}); {_CURE}")
            return cls(rows, logits, emotions, about["data_sha256"], tuple(about["teachers"]))
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file of cached logits; {_CURE}") from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise DataError(f"{path}: not a file of cached logits ({type(error).__name__}); {_CURE}") from error

    def probabilities(self, faces: FaceSet, temperature: float, *, source: str) -> Tensor:
        """Return the teachers' probabilities for faces: the mean over the views.

        Args:
            faces: The faces, in any order.
            temperature: Divides the logits of each view before the softmax.
            source: The name of the file, for error messages.

        Returns:
            float32 ``[N, C]`` on the device of the faces.

        Raises:
            DataError: The faces are of another data set or other classes, or some have no logits.
        """
        if self.data_sha256 != faces.sha256:
            raise DataError(f"{source}: its logits are of another data set than {faces.source}; {_CURE}")
        if self.emotions != faces.emotions:
            theirs, ours = ", ".join(self.emotions), ", ".join(faces.emotions)
            raise DataError(f"{source}: logits for the classes {theirs}; the recipe learns {ours}")
        order = np.argsort(self.rows, kind="stable")
        wanted = faces.rows.cpu().numpy()
        found = np.searchsorted(self.rows, wanted, sorter=order).clip(max=len(order) - 1) if len(order) else None
        if found is None or (self.rows[order[found]] != wanted).any():
            raise DataError(f"{source}: has no logits for some rows that the recipe learns from; {_CURE}")
        logits = torch.from_numpy(self.logits[order[found]]).to(faces.labels.device).float()
        return F.softmax(logits / temperature, dim=2).mean(dim=1)


@torch.no_grad()
def cache_logits(
    teachers: Sequence[Trained],
    faces: FaceSet,
    *,
    tta: str = "none",
    batch_size: int = 256,
    progress: Progress = no_progress,
) -> CachedLogits:
    """Compute the logits of teachers for faces, to be saved to a file.

    Several teachers are averaged as probabilities. In a mean of logits, the teacher with the largest logits would
    outvote the others.

    Args:
        teachers: Finished runs with the same classes, on the device of the faces.
        faces: The faces, usually the Training split.
        tta: A key of ``TTA``: the views that the file holds.
        batch_size: Faces in one forward pass.
        progress: Receives the number of faces that are done.

    Returns:
        The logits of every face and view.

    Raises:
        DataError: ``tta`` is unknown, or the teachers have different classes or have learned from test faces.
    """
    if tta not in TTA:
        raise DataError(f"tta is one of {', '.join(TTA)}, not {tta!r}")
    emotions = shared_classes(teachers)
    parts = [np.zeros((0, len(tta_views(faces.images[:0, None], tta)), len(emotions)), np.float16)]
    for start in range(0, len(faces), batch_size):
        x = faces.images[start : start + batch_size].unsqueeze(1).float() / 255
        logits = torch.stack([_mean_log_probability(teachers, view) for view in tta_views(x, tta)], dim=1)
        parts.append(logits.cpu().numpy().astype(np.float16))
        progress("computing logits", min(start + batch_size, len(faces)), len(faces))
    return CachedLogits(
        rows=faces.rows.cpu().numpy().astype(np.int64),
        logits=np.concatenate(parts),
        emotions=emotions,
        data_sha256=faces.sha256,
        teachers=tuple(teacher.recipe.name for teacher in teachers),
    )


def shared_classes(teachers: Sequence[Trained]) -> tuple[Emotion, ...]:
    """Return the classes of all teachers.

    Args:
        teachers: Finished runs, at least one.

    Returns:
        The classes in the order of the logits.

    Raises:
        DataError: The classes differ, or a teacher has learned from test faces.
    """
    first = teachers[0]
    for teacher in teachers:
        _check_teacher(teacher)
        if teacher.emotions != first.emotions:
            raise DataError(
                f"teachers must have the same classes: {first.recipe.name} has {', '.join(first.emotions)}, "
                f"{teacher.recipe.name} {', '.join(teacher.emotions)}"
            )
    return first.emotions


class Teachers:
    """The teachers of a recipe: finished runs that are asked live, and files of cached logits.

    With T teachers, the student's target is ``1 - distillation`` times its target without teachers, plus
    ``distillation`` times the mean probability of all T. ``add_cached`` adds the part of the files before faces are
    mixed, ``add_live`` the part of the live teachers after. No teacher is loaded where ``distillation`` is 0.
    """

    def __init__(self, config: TargetConfig, fabric: Fabric, emotions: Sequence[Emotion]) -> None:
        """Load the teachers.

        Args:
            config: The section ``[target]`` of the recipe.
            fabric: Names the device, and the precision of live teachers.
            emotions: The student's classes.

        Raises:
            DataError: A teacher is missing, has other classes, or has learned from test faces.
        """
        self.config = config
        self.fabric = fabric
        names = config.teachers if config.distillation > 0 else ()
        self.cached = {name: CachedLogits.load(find_input(name)) for name in names if name.endswith(".npz")}
        self.live = [load_final(find_input(name), fabric.device) for name in names if not name.endswith(".npz")]
        for teacher in self.live:
            _check_teacher(teacher)
            if teacher.emotions != tuple(emotions):
                theirs, ours = ", ".join(teacher.emotions), ", ".join(emotions)
                raise DataError(f"teacher {teacher.recipe.name} has the classes {theirs}; the recipe learns {ours}")

    @property
    def live_share(self) -> float:
        """The share of the final target that comes from the live teachers."""
        count = len(self.live) + len(self.cached)
        return self.config.distillation * len(self.live) / count if count else 0.0

    def add_cached(self, target: Tensor, faces: FaceSet) -> Tensor:
        """Add the cached teachers to targets, in a share that ``add_live`` completes.

        Args:
            target: float ``[N, C]``: the targets without teachers.
            faces: The N faces.

        Returns:
            float ``[N, C]``; the same tensor where no teacher is cached.

        Raises:
            DataError: A file is of another data set or other classes, or lacks some of the faces.
        """
        if not self.cached:
            return target
        temperature = self.config.distillation_temperature
        probs = [each.probabilities(faces, temperature, source=name) for name, each in self.cached.items()]
        share = (self.config.distillation - self.live_share) / (1 - self.live_share)
        return target * (1 - share) + share * torch.stack(probs).mean(0)

    @torch.no_grad()
    def add_live(self, x: Tensor, target: Tensor) -> Tensor:
        """Add the live teachers' mean probability to the targets of a batch.

        Args:
            x: float ``[N, 1, S, S]`` in 0..1: the augmented and mixed faces, before normalisation.
            target: float ``[N, C]``: the targets that ``add_cached`` returned, mixed as the faces.

        Returns:
            float ``[N, C]``; the same tensor where no teacher is live.
        """
        if not self.live:
            return target
        with self.fabric.autocast():
            logits = [t.net(normalise(x, t.recipe.data.size)).float() for t in self.live]
        probs = [F.softmax(each / self.config.distillation_temperature, dim=1) for each in logits]
        return target * (1 - self.live_share) + self.live_share * torch.stack(probs).mean(0)


def _check_teacher(teacher: Trained) -> None:
    if teacher.recipe.data.expand_first:
        raise DataError(f"teacher {teacher.recipe.name} has learned from test faces (data.expand_first)")


def _mean_log_probability(teachers: Sequence[Trained], x: Tensor) -> Tensor:
    """float32 ``[N, C]`` of faces ``x`` ``[N, 1, V, V]`` in 0..1."""
    probs = [F.softmax(each.net(normalise(x, each.recipe.data.size)).float(), dim=1) for each in teachers]
    return torch.stack(probs).mean(dim=0).clamp(min=_SMALLEST).log()
