"""What the teachers of a distillation answer on the very views that the student sees (Beyer et al., CVPR 2022)."""

from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from mien.lab.normalise import normalise
from mien.lab.recipe import Target
from mien.lab.run import load_final


class Teachers:
    """The teachers of ``choice.teachers``, on the device of ``fabric``. Raises ``DataError`` for a missing one."""

    def __init__(self, choice: Target, fabric: Fabric) -> None:
        self.choice = choice
        self.fabric = fabric
        self.nets = [load_final(Path(teacher), fabric.device) for teacher in choice.teachers]

    @torch.no_grad()
    def teach(self, x: Tensor, target: Tensor) -> Tensor:
        """``target`` ``[N, C]`` mixed with the teachers' mean probability on ``x`` ``[N, 1, S, S]`` in 0..1."""
        if not self.nets or self.choice.teach <= 0:
            return target
        with self.fabric.autocast():
            logits = [t.net(normalise(x, t.recipe.data.size)).float() for t in self.nets]
        answers = [F.softmax(each / self.choice.temperature, dim=1) for each in logits]
        return target * (1 - self.choice.teach) + self.choice.teach * torch.stack(answers).mean(0)
