"""The loss of the class: what the logits say against what the net is told."""

from torch import Tensor
from torch.nn import functional as F

from mien.lab.recipe import Loss

# Keeps the slope of a power below 1 finite where its base is 0.
_TINY = 1e-6


def class_loss(logits: Tensor, target: Tensor, weights: Tensor, choice: Loss) -> Tensor:
    """Batch mean of the cross-entropy or focal loss of ``logits`` ``[N, C]`` against ``target`` ``[N, C]``.

    ``weights`` ``[C]`` multiply each class's part. The focal loss (Lin et al., ICCV 2017) is written for one right
    class; for soft targets it is that of Li et al. (NeurIPS 2020): each part times ``|target - prob| ** gamma``. On
    one-hot targets that is Lin's ``(1 - prob) ** gamma``, with gamma 0 it is cross-entropy, and unlike
    ``(1 - prob) ** gamma`` on soft targets it is smallest where the answer equals the target.
    """
    log_probs = F.log_softmax(logits.float(), dim=1)
    losses = -weights * target * log_probs
    if choice.name == "focal" and choice.gamma > 0:
        losses = losses * (target - log_probs.exp()).abs().clamp(min=_TINY) ** choice.gamma
    return losses.sum(dim=1).mean()
