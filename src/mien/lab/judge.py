"""An exported file against the splits of a data set, through the same code that readers use."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mien._emotions import CLASS_SETS
from mien._errors import DataError
from mien.infer import Classifier
from mien.lab.data import FaceSet, Split, clean_rows, with_classes
from mien.lab.metrics import figures


def crops_of(faces: FaceSet, size: int) -> NDArray[np.uint8]:
    """The faces as the file takes them: uint8 ``[N, size, size]``, resized (bicubic) where their own size differs."""
    if faces.images.shape[-1] == size:
        return faces.images.numpy()
    images = faces.images.unsqueeze(1).float()
    resized = torch.cat(
        [F.interpolate(part, size=size, mode="bicubic", align_corners=False) for part in torch.split(images, 1024)]
    )
    return resized.round().clamp(0, 255).to(torch.uint8).squeeze(1).numpy()


def judge(classifier: Classifier, faces: FaceSet, class_set: str, split: Split) -> dict[str, Any]:
    """Figures of the file on ``split``: of ``all`` rows, and of the ``clean`` ones, whose pixels are no earlier row's.

    ``faces`` is the full set of seven classes, from which copies are known; ``class_set`` names the classifier's
    classes. Raises ``DataError`` for a classifier of other classes and for an empty split.
    """
    if CLASS_SETS[class_set] != classifier.emotions:
        raise DataError(f"{classifier.name} answers {', '.join(classifier.emotions)}: not the class set {class_set!r}")
    parts = {"all": faces.split(split), "clean": faces.select(clean_rows(faces, split))}
    return {part: _figures(classifier, with_classes(rows, class_set)) for part, rows in parts.items()}


def _figures(classifier: Classifier, faces: FaceSet) -> dict[str, Any]:
    if len(faces) == 0:
        raise DataError(f"{faces.source}: no rows left to judge {classifier.name} on; check the Usage column")
    probs, _ = classifier(crops_of(faces, classifier.size))
    return figures(probs, faces.labels.numpy(), faces.emotions)
