"""What one step minimises: a module that holds the net, so that its whole forward pass is one call on any device."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien._emotions import SEVEN, Emotion
from mien._errors import RecipeError
from mien.lab import emotion_text as words
from mien.lab.nets import Net
from mien.lab.nets._layers import PooledHead
from mien.lab.recipe import LossConfig


class Alignment(nn.Module):
    """A linear projection of pooled features into the space of the words, and a softmax over cosines there.

    The class vectors are fixed, as the texts of Radford et al. (CLIP, ICML 2021) are in zero-shot use: the net learns
    where each emotion lies among the others, not where they lie.
    """

    def __init__(self, inputs: int, words: Tensor, temperature: float) -> None:
        """``words`` float32 ``[C, D]``: a vector for each class, of any length."""
        super().__init__()
        self.temperature = temperature
        self.project = nn.Linear(inputs, words.shape[1])
        self.register_buffer("words", F.normalize(words, dim=1), persistent=False)

    def forward(self, pooled: Tensor, target: Tensor) -> Tensor:
        """Batch mean of the cross-entropy of cosine over temperature against ``target`` ``[N, C]``, hard or soft."""
        unit = F.normalize(self.project(pooled).float(), dim=1)
        cosines = unit @ self.get_buffer("words").float().T
        return F.cross_entropy(cosines / self.temperature, target.float())


# Keeps the slope of a power below 1 finite where its base is 0.
_TINY = 1e-6


def class_loss(logits: Tensor, target: Tensor, weights: Tensor, choice: LossConfig) -> Tensor:
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


# Values of the space in which faces are compared, as in the paper.
WIDTH = 128


class Contrast(nn.Module):
    """A projection head (linear, ReLU, linear) on pooled features, and the loss on what it makes of a batch."""

    def __init__(self, inputs: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.project = nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, WIDTH))

    def forward(self, pooled: Tensor, target: Tensor) -> Tensor:
        """The loss of ``pooled`` ``[N, K]``, a face's class being the largest entry of its ``target`` ``[N, C]``."""
        return contrastive_loss(self.project(pooled), target.argmax(dim=1), self.temperature)


def contrastive_loss(embedded: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """``L_out`` of the paper: faces ``[N, D]`` drawn to the others of their ``labels`` ``[N]``, pushed from the rest.

    The mean, over all faces that have another of their class in the batch, of the mean over those others of
    ``-log(exp(similarity) / sum of exp(similarity) to all others)``; similarity is the cosine over ``temperature``.
    A batch in which no face has another of its class gives 0.
    """
    unit = F.normalize(embedded.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similar = (unit @ unit.T / temperature).masked_fill(itself, torch.finfo(torch.float32).min)
    log_share = F.log_softmax(similar, dim=1).masked_fill(itself, 0)
    positive = ((labels[:, None] == labels[None, :]) & ~itself).float()
    others = positive.sum(dim=1)
    each = -(positive * log_share).sum(dim=1) / others.clamp(min=1)
    return each.sum() / (others > 0).sum().clamp(min=1)


# Keeps the share defined where a map has no positive place; far below any map that says something.
_TINY_OVAL = 1e-6


def class_maps(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """Class activation maps ``[N, h, w]`` (Zhou et al., CVPR 2016) of one class for each face.

    ``features`` ``[N, K, h, w]``; ``weight`` ``[C, K]`` of the linear layer after pooling; ``classes`` int64 ``[N]``.
    """
    return torch.einsum("nkhw,nk->nhw", features.float(), weight.float()[classes])


def outside_share(maps: Tensor, oval: Tensor) -> Tensor:
    """Batch mean, 0..1, of the share of each map's positive part that lies outside of the face oval.

    ``maps`` ``[N, h, w]``; ``oval`` ``[N, 1, S, S]``, 1 inside: each place of a map counts as outside by the share of
    its pixels that are. A map without a positive place gives 0.
    """
    positive = maps.clamp(min=0)
    outside = 1 - F.adaptive_avg_pool2d(oval.float(), (maps.shape[-2], maps.shape[-1])).squeeze(1)
    shares = (positive * outside).sum(dim=(1, 2)) / positive.sum(dim=(1, 2)).clamp(min=_TINY_OVAL)
    return shares.mean()


# Side of a face in pixels that every net here takes: enough to count the channels of its features.
_PROBE = 64


class Objective(nn.Module):
    """``forward(x, target, oval) -> (loss, logits)``: the loss of the recipe, and what the net answered.

    ``auxiliary`` holds what the auxiliary losses learn beside the net. It is built after the net, so that the same
    seed gives the same net with and without it; it is trained and checkpointed with the net and thrown away at the end.
    """

    def __init__(self, net: Net, choice: LossConfig, weights: Tensor, *, emotions: Sequence[Emotion] = SEVEN) -> None:
        """``weights`` float32 ``[C]`` of the classes ``emotions``. Raises ``RecipeError`` where net and loss clash."""
        super().__init__()
        if choice.face_region > 0 and not isinstance(net.head, PooledHead):
            raise RecipeError(
                "loss.face_region looks at class activation maps, which only a net with a pooled head has; "
                "set loss.face_region to 0 or name another net"
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
            if self.choice.face_region > 0:
                loss = loss + self.choice.face_region * self._outside(features, target, oval)
        return loss, logits

    def _outside(self, features: Tensor, target: Tensor, oval: Tensor) -> Tensor:
        head = self.net.head
        assert isinstance(head, PooledHead)
        return outside_share(class_maps(features, head.linear.weight, target.argmax(dim=1)), oval)


def _auxiliary(net: Net, choice: LossConfig, emotions: Sequence[Emotion]) -> dict[str, nn.Module]:
    """The parts whose weights are above 0, under the names of these weights."""
    parts: dict[str, nn.Module] = {}
    if choice.contrastive > 0:
        parts["contrastive"] = Contrast(_width(net), choice.contrastive_temperature)
    if choice.text_alignment > 0:
        vectors = torch.from_numpy(words.class_vectors(emotions))
        parts["text_alignment"] = Alignment(_width(net), vectors, choice.text_temperature)
    return parts


@torch.no_grad()
def _width(net: Net) -> int:
    """Channels of the net's features, found by a copy without storage."""
    probe = copy.deepcopy(net.features).to("meta").eval()
    return int(probe(torch.empty(1, 1, _PROBE, _PROBE, device="meta")).shape[1])


def _dtype(part: nn.Module) -> torch.dtype:
    """That of the part's weights: float32, but for recipes that train in true half precision."""
    return next(part.parameters()).dtype
