"""What the teachers of a distillation answer: live on the very views that the student sees, or from cached files.

Live teachers are the "function matching" of Beyer et al. (CVPR 2022): they see the student's augmented, mixed views.
Cached answers are about the faces as they are; they become part of each face's target before an epoch begins, so that
mixing faces mixes their answers with the same shares.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab.data import FaceSet
from mien.lab.normalise import normalise
from mien.lab.recipe import Target
from mien.lab.train.answers import Answers
from mien.lab.train.run import load_final


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
