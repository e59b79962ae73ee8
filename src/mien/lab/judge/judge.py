"""An exported file against the splits of a data set, through the same code that readers use."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mien._emotions import Emotion, class_set
from mien._errors import DataError
from mien.infer import Classifier
from mien.lab.data import FaceSet, Split, clean_rows, with_classes
from mien.lab.judge.metrics import figures


def crops_of(faces: FaceSet, size: int) -> NDArray[np.uint8]:
    """The faces as the file takes them: uint8 ``[N, size, size]``, resized (bicubic) where their own size differs."""
    if faces.images.shape[-1] == size:
        return faces.images.numpy()
    images = faces.images.unsqueeze(1).float()
    resized = torch.cat(
        [F.interpolate(part, size=size, mode="bicubic", align_corners=False) for part in torch.split(images, 1024)]
    )
    return resized.round().clamp(0, 255).to(torch.uint8).squeeze(1).numpy()


@dataclass(frozen=True)
class Answers:
    """What a classifier says of a split: ``rows`` int64 ``[N]`` of the data set, ``probs`` float32 ``[N, C]``.

    ``labels`` int64 ``[N]`` are the truth, ``clean`` bool ``[N]`` the rows whose pixels are no earlier row's.
    """

    rows: NDArray[np.int64]
    probs: NDArray[np.float32]
    labels: NDArray[np.int64]
    clean: NDArray[np.bool_]
    emotions: tuple[Emotion, ...]

    def figures(self) -> dict[str, Any]:
        """Figures of ``all`` rows and of the ``clean`` ones; the latter only where there are any."""
        found = {"all": figures(self.probs, self.labels, self.emotions)}
        if self.clean.all():
            found["clean"] = found["all"]
        elif self.clean.any():
            found["clean"] = figures(self.probs[self.clean], self.labels[self.clean], self.emotions)
        return found


def answer(classifier: Classifier, faces: FaceSet, classes: str, split: Split) -> Answers:
    """Every answer of ``classifier`` on ``split``.

    ``faces`` is the full set of seven classes, from which copies are known; ``classes`` names the classifier's
    class set. Raises ``DataError`` for a classifier of other classes and for an empty split.
    """
    if class_set(classes) != classifier.emotions:
        raise DataError(f"{classifier.name} answers {', '.join(classifier.emotions)}: not the class set {classes!r}")
    chosen = with_classes(faces.split(split), classes)
    if len(chosen) == 0:
        raise DataError(f"{faces.source}: no rows left to judge {classifier.name} on; check the Usage column")
    clean = np.isin(chosen.rows.numpy(), faces.rows[clean_rows(faces, split)].numpy())
    probs, _ = classifier(crops_of(chosen, classifier.size))
    return Answers(chosen.rows.numpy(), probs, chosen.labels.numpy(), clean, chosen.emotions)


def judge(classifier: Classifier, faces: FaceSet, classes: str, split: Split) -> dict[str, Any]:
    """Figures of the file on ``split``: of ``all`` rows, and of the ``clean`` ones. Raises as ``answer``."""
    return answer(classifier, faces, classes, split).figures()
