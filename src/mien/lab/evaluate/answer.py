"""A model reads the selected faces, piece by piece; and once more those whose maps are shown."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from mien._errors import DataError, ModelError
from mien.lab.data import FaceSet
from mien.lab.export.contract import hires_maps
from mien.lab.judge.judge import crops_of
from mien.lab.looks import VIEWS, views_of
from mien.lab.model import Model
from mien.lab.nets._net import Net
from mien.lab.normalise import normalise
from mien.lab.train.run import Trained

_PIECE = 256  # faces read at once: bounds the memory, and tells how far it is
_MAP_PIECE = 32  # as many for maps, whose gradients take more

Report = Callable[[str, int, int], None]


def check_views(views: str) -> None:
    """Raises ``DataError`` for a word that names no views."""
    if views not in VIEWS:
        raise DataError(f"--views is one of {', '.join(VIEWS)}, not {views!r}")


def read_faces(model: Model, faces: FaceSet, *, views: str = "one", report: Report) -> NDArray[np.float32]:
    """Probabilities float32 ``[N, C]``: the mean over the views of each face. ``report`` hears how many are read."""
    probs = np.zeros((len(faces), len(model.emotions)), np.float64)
    for start in range(0, len(faces), _PIECE):
        piece = faces.select(torch.arange(start, min(start + _PIECE, len(faces))))
        seen = views_of(piece.images.unsqueeze(1), VIEWS[views])
        for view in seen:
            crops = crops_of(replace(piece, images=view.squeeze(1)), model.size)
            probs[start : start + len(piece)] += model(np.ascontiguousarray(crops))[0] / len(seen)
        report(f"{model.name} reads", start + len(piece), len(faces))
    return probs.astype(np.float32)


def map_faces(model: Model | None, faces: FaceSet) -> NDArray[np.float32] | None:
    """Maps float32 ``[N, C, h, w]`` of the faces as they are, in logits by place; ``None`` where there are none.

    Of a run they are HiResCAM of its net, which for a pooled linear head is the class activation map.
    """
    if model is None or not len(faces):
        return None
    parts = []
    for start in range(0, len(faces), _MAP_PIECE):
        crops = crops_of(faces.select(torch.arange(start, min(start + _MAP_PIECE, len(faces)))), model.size)
        maps = _of_net(model.trained, crops) if model.trained else model(np.ascontiguousarray(crops))[1]
        if maps is None:
            return None
        parts.append(maps)
    return np.concatenate(parts)


@torch.no_grad()
def _of_net(trained: Trained, crops: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    net = trained.net
    if not isinstance(net, Net):
        return None
    x = normalise(torch.from_numpy(crops).unsqueeze(1).float() / 255, trained.recipe.data.size)
    try:
        return np.asarray(hires_maps(net.head, net.features(x)).numpy(), np.float32)
    except ModelError:  # a head whose gradient has no closed form here
        return None
