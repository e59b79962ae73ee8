"""What one step minimises: a module that holds the net, so that its whole forward pass is one call on any device."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mien._emotions import SEVEN, Emotion
from mien._errors import RecipeError
from mien.lab import words
from mien.lab.nets import Net
from mien.lab.nets._net import PooledHead
from mien.lab.recipe import Loss
from mien.lab.train.losses import Alignment, Contrast, class_loss, class_maps, outside_share

# Side of a face in pixels that every net here takes: enough to count the channels of its features.
_PROBE = 64


class Objective(nn.Module):
    """``forward(x, target, oval) -> (loss, logits)``: the loss of the recipe, and what the net answered.

    ``auxiliary`` holds what the auxiliary losses learn beside the net. It is built after the net, so that the same
    seed gives the same net with and without it; it is trained and checkpointed with the net and thrown away at the end.
    """

    def __init__(self, net: Net, choice: Loss, weights: Tensor, *, emotions: Sequence[Emotion] = SEVEN) -> None:
        """``weights`` float32 ``[C]`` of the classes ``emotions``. Raises ``RecipeError`` where net and loss clash."""
        super().__init__()
        if choice.oval > 0 and not isinstance(net.head, PooledHead):
            raise RecipeError(
                "loss.oval looks at class activation maps, which only a net with a pooled head has; "
                "set loss.oval to 0 or name another net"
            )
        self.net = net
        self.choice = choice
        self.register_buffer("weights", weights, persistent=False)
        self.auxiliary = nn.ModuleDict(_auxiliary(net, choice, emotions))

    def forward(self, x: Tensor, target: Tensor, oval: Tensor) -> tuple[Tensor, Tensor]:
        """Batch mean of the loss of a ``View``, and the logits ``[N, C]``."""
        features = self.net.features(x)
        logits = self.net.head(features)
        loss = class_loss(logits, target, self.get_buffer("weights"), self.choice)
        with torch.autocast(x.device.type, enabled=False):  # cosines over a small temperature need all their digits
            for name, part in self.auxiliary.items():
                pooled = features.mean(dim=(2, 3), dtype=_dtype(part))
                loss = loss + getattr(self.choice, name) * part(pooled, target)
            if self.choice.oval > 0:
                loss = loss + self.choice.oval * self._outside(features, target, oval)
        return loss, logits

    def _outside(self, features: Tensor, target: Tensor, oval: Tensor) -> Tensor:
        head = self.net.head
        assert isinstance(head, PooledHead)
        return outside_share(class_maps(features, head.linear.weight, target.argmax(dim=1)), oval)


def _auxiliary(net: Net, choice: Loss, emotions: Sequence[Emotion]) -> dict[str, nn.Module]:
    """The parts whose weights are above 0, under the names of these weights."""
    parts: dict[str, nn.Module] = {}
    if choice.contrast > 0:
        parts["contrast"] = Contrast(_width(net), choice.contrast_temperature)
    if choice.words > 0:
        vectors = torch.from_numpy(words.vectors(emotions))
        parts["words"] = Alignment(_width(net), vectors, choice.words_temperature)
    return parts


@torch.no_grad()
def _width(net: Net) -> int:
    """Channels of the net's features, found by a copy without storage."""
    probe = copy.deepcopy(net.features).to("meta").eval()
    return int(probe(torch.empty(1, 1, _PROBE, _PROBE, device="meta")).shape[1])


def _dtype(part: nn.Module) -> torch.dtype:
    """That of the part's weights: float32, but for recipes that train in true half precision."""
    return next(part.parameters()).dtype
