"""Knowledge distillation: the probabilities of teachers, computed in training or cached, are part of the targets.

Live teachers take the augmented and mixed faces of the student ("function matching", Beyer et al., CVPR 2022). Cached
logits are those of the faces without augmentation. They are added to the targets before an epoch, so that mixup and
CutMix mix them like the faces.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mien._emotions import Emotion
from mien._errors import DataError
from mien._progress import Progress, no_progress
from mien.infer import Classifier, bundled_models, find_model
from mien.lab.data import FaceSet
from mien.lab.files import find_input, load_arrays, save_arrays
from mien.lab.inference import normalise, tta_views
from mien.lab.pretrained import require_unseen
from mien.lab.recipe import Recipe
from mien.lab.recipe.schema import DataConfig
from mien.lab.train.run import Trained, load_final

# Smallest probability in a file, so that its logarithm is finite.
_SMALLEST = 1e-6

_CURE = "write it again with `cache_logits`"


@dataclass(frozen=True, eq=False)
class CachedLogits:
    """The logits of teachers for R faces of one data set, which are stored as an ``.npz`` file.

    Attributes:
        rows: int64 ``[R]``: row numbers of the faces, as in ``FaceSet.rows``.
        logits: float16 ``[R, V, C]``: logarithm of the teachers' mean probabilities for each of V views.
        emotions: The C classes.
        data_sha256: SHA-256 of the data set.
        teachers: Names of the teachers' recipes.
        learned: The section ``[data]`` of each teacher, of which files have the folds; empty in older files.
    """

    rows: NDArray[np.int64]
    logits: NDArray[np.float16]
    emotions: tuple[Emotion, ...]
    data_sha256: str
    teachers: tuple[str, ...]
    learned: tuple[DataConfig, ...] = ()

    def save(self, path: Path) -> None:
        """Write the file atomically.

        Args:
            path: The file; its name ends in ``.npz``.

        Raises:
            OutputError: The file cannot be written.
        """
        folds = [(data.folds, data.fold, data.fold_public) for data in self.learned]
        about = {"emotions": self.emotions, "data_sha256": self.data_sha256, "teachers": self.teachers, "folds": folds}
        save_arrays(path, {"rows": self.rows, "logits": self.logits, "about": np.array(json.dumps(about))})

    @classmethod
    def load(cls, path: Path) -> "CachedLogits":
        """Read a file that ``save`` wrote.

        Args:
            path: The file.

        Returns:
            The content of the file.

        Raises:
            DataError: The file is missing, damaged or of another kind.
        """
        try:
            arrays = load_arrays(path, _CURE)
            about = json.loads(str(arrays["about"]))
            rows, logits = arrays["rows"], arrays["logits"]
            emotions = tuple(Emotion(name) for name in about["emotions"])
            if logits.shape[::2] != (len(rows), len(emotions)) or logits.ndim != 3:
                raise DataError(f"{path}: damaged (logits of shape {list(logits.shape)}); {_CURE}")
            folds = [DataConfig(folds=k, fold=fold, fold_public=public) for k, fold, public in about.get("folds", ())]
            return cls(rows, logits, emotions, about["data_sha256"], tuple(about["teachers"]), tuple(folds))
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file of cached logits; {_CURE}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a file of cached logits ({type(error).__name__}); {_CURE}") from error

    def probabilities(self, faces: FaceSet, temperature: float, *, source: str) -> Tensor:
        """Return the probabilities of the teachers for faces, averaged over the views.

        Args:
            faces: The faces, in any order.
            temperature: Divides the logits of each view before the softmax.
            source: Name of the file, for error messages.

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
        positions = {row: position for position, row in enumerate(self.rows.tolist())}
        try:
            rows = [positions[row] for row in faces.rows.tolist()]
        except KeyError as error:
            raise DataError(f"{source}: has no logits for some rows that the recipe learns from; {_CURE}") from error
        logits = torch.from_numpy(self.logits[rows]).to(faces.labels.device).float()
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
    """Compute the logits of teachers for faces, to save them to a file.

    The probabilities of several teachers are averaged. In a mean of logits, the teacher with the largest logits would
    dominate the others.

    Args:
        teachers: One or more finished runs with the same classes, on the device of the faces.
        faces: The faces, usually the Training split.
        tta: A key of ``TTA``: the views that the file holds.
        batch_size: Faces in one forward pass.
        progress: Called with the number of finished faces.

    Returns:
        The logits of every face and view.

    Raises:
        DataError: ``tta`` is unknown, or the teachers have different classes or have learned from every split.
    """
    first, emotions = teachers[0].recipe.name, teachers[0].emotions
    for teacher in teachers:
        name = teacher.recipe.name
        if teacher.recipe.data.expand_first:
            raise DataError(f"teacher {name} has learned from test faces (data.expand_first)")
        if teacher.emotions != emotions:
            theirs, ours = ", ".join(teacher.emotions), ", ".join(emotions)
            raise DataError(f"teachers must have the same classes: {first} has {ours}, {name} has {theirs}")
    parts = [np.zeros((0, len(tta_views(faces.images[:0, None], tta)), len(emotions)), np.float16)]
    for start in range(0, len(faces), batch_size):
        x = faces.images[start : start + batch_size].unsqueeze(1).float() / 255
        views = []
        for view in tta_views(x, tta):
            logits = [t.net(normalise(view, t.recipe.data.size)).float() for t in teachers]
            probs = torch.stack([F.softmax(each, dim=1) for each in logits]).mean(dim=0)
            views.append(probs.clamp(min=_SMALLEST).log())
        parts.append(torch.stack(views, dim=1).cpu().numpy().astype(np.float16))
        progress("computing logits", min(start + batch_size, len(faces)), len(faces))
    return CachedLogits(
        rows=faces.rows.cpu().numpy().astype(np.int64),
        logits=np.concatenate(parts),
        emotions=emotions,
        data_sha256=faces.sha256,
        teachers=tuple(teacher.recipe.name for teacher in teachers),
        learned=tuple(teacher.recipe.data for teacher in teachers),
    )


class Teachers:
    """The teachers of a recipe: runs, embedded models and ``.onnx`` files (live teachers), and files of cached logits.

    The target of the student is ``1 - distillation`` times the target without teachers plus ``distillation`` times the
    mean probability of all teachers. ``add_cached`` adds cached teachers before faces are mixed, ``add_live`` adds live
    teachers afterwards. With ``distillation`` 0 no teacher is loaded.
    """

    def __init__(self, recipe: Recipe, fabric: Fabric, emotions: Sequence[Emotion], *, data: str = "") -> None:
        """Load the teachers.

        Args:
            recipe: The student's recipe, whose section ``[target]`` names them.
            fabric: Has the device, and the precision of live teachers.
            emotions: The student's classes.
            data: SHA-256 of the student's data set.

        Raises:
            DataError: A teacher is missing, has other classes, or has learned from the validation faces.
        """
        self.config = config = recipe.target
        self.recipe, self.fabric, self.data = recipe, fabric, data
        names = config.teachers if config.distillation > 0 else ()
        self.cached = {name: CachedLogits.load(find_input(name)) for name in names if name.endswith(".npz")}
        for name, each in self.cached.items():
            for learned in each.learned or (None,):
                self._require_unseen(name, learned, each.data_sha256)
        self.live = [self._open(name, tuple(emotions)) for name in names if not name.endswith(".npz")]

    @property
    def live_share(self) -> float:
        """The share of live teachers in the final target."""
        count = len(self.live) + len(self.cached)
        return self.config.distillation * len(self.live) / count if count else 0.0

    def add_cached(self, target: Tensor, faces: FaceSet) -> Tensor:
        """Add the cached teachers to targets; the result is correct after ``add_live``.

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
            target: float ``[N, C]``: the result of ``add_cached``, mixed like the faces.

        Returns:
            float ``[N, C]``; the same tensor where no teacher is live.
        """
        if not self.live:
            return target
        with self.fabric.autocast():
            logits = [predict(x).float() for predict in self.live]
        probs = [F.softmax(each / self.config.distillation_temperature, dim=1) for each in logits]
        return target * (1 - self.live_share) + self.live_share * torch.stack(probs).mean(0)

    def _open(self, name: str, emotions: tuple[Emotion, ...]) -> Callable[[Tensor], Tensor]:
        """A function from faces ``[N, 1, S, S]`` in 0..1 to the logits of a live teacher."""
        path = find_model(name) if name in bundled_models() else find_input(name)
        teacher = Classifier(path) if path.suffix == ".onnx" else load_final(path, self.fabric.device)
        if isinstance(teacher, Classifier):
            name = teacher.name
            self._require_unseen(name, None, teacher.metadata["data_sha256"])
        else:
            name = teacher.recipe.name
            self._require_unseen(name, teacher.recipe.data, teacher.provenance.get("data_sha256", ""))
        if teacher.emotions != emotions:
            theirs, ours = ", ".join(teacher.emotions), ", ".join(emotions)
            raise DataError(f"teacher {name} has the classes {theirs}; the recipe learns {ours}")
        if isinstance(teacher, Classifier):
            return partial(_predict_file, teacher)
        return lambda x: teacher.net(normalise(x, teacher.recipe.data.size))

    def _require_unseen(self, name: str, learned: DataConfig | None, data: str) -> None:
        same_data = data == self.data and data != ""
        require_unseen(learned, self.recipe, same_data=same_data, name=f"teacher {name}")


def _predict_file(teacher: Classifier, x: Tensor) -> Tensor:
    """The logarithms of the probabilities of an exported model, on the device of the faces."""
    if x.shape[-1] != teacher.size:
        x = F.interpolate(x, size=teacher.size, mode="bicubic", align_corners=False)
    crops = (255 * x[:, 0]).round().clamp(0, 255).to("cpu", torch.uint8)
    return torch.from_numpy(teacher(crops.numpy())[0]).clamp(min=_SMALLEST).log().to(x.device)
