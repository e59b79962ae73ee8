"""What one step minimises: a module that holds the net, so that its whole forward pass is one call on any device."""

from torch import Tensor, nn
from torch.nn import functional as F

from mien.lab.nets import Net
from mien.lab.recipe import Loss


class Objective(nn.Module):
    """``forward(x, target) -> (loss, logits)``: the loss of the recipe, and what the net answered."""

    def __init__(self, net: Net, choice: Loss, weights: Tensor) -> None:
        super().__init__()
        self.net = net
        self.choice = choice
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, x: Tensor, target: Tensor, oval: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Batch mean of the loss of a ``View``, and the logits ``[N, C]``."""
        logits = self.net(x)
        return class_loss(logits, target, self.get_buffer("weights"), self.choice), logits


def class_loss(logits: Tensor, target: Tensor, weights: Tensor, choice: Loss) -> Tensor:
    """Batch mean of the cross-entropy or focal loss of ``logits`` ``[N, C]`` against ``target`` ``[N, C]``."""
    log_probs = F.log_softmax(logits.float(), dim=1)
    losses = -weights * target * log_probs
    if choice.name == "focal":
        losses = losses * (1 - log_probs.exp()) ** choice.gamma
    return losses.sum(dim=1).mean()
