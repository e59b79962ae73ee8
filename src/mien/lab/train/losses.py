"""The objective of a training: the classification loss plus weighted auxiliary losses, one function each.

To add an auxiliary loss, write its function and a module that calls it, add the module to ``_AUXILIARY``, and add its
weight to ``LossConfig`` of ``lab/recipe/schema.py``. A classification loss needs a line in ``class_loss`` instead.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien._emotions import SEVEN, Emotion
from mien._errors import RecipeError
from mien.lab import emotion_text
from mien.lab.nets import Net, to_meta
from mien.lab.nets._layers import PooledHead
from mien.lab.recipe import LossConfig

# The smallest base of a power and the smallest divisor, so that gradients are finite.
_EPSILON = 1e-6


class Objective(nn.Module):
    """A net and its loss in one module, so that a step is one forward call on any device.

    ``auxiliary`` holds the layers of auxiliary losses. They are built after the net, so that the same seed gives the
    same net with and without them. They are trained and checkpointed with the net, but are not part of the result.

    Attributes:
        net: The net.
        config: The section ``[loss]`` of the recipe.
        auxiliary: Modules by the name of their weight in ``config``.
    """

    def __init__(
        self, net: Net, config: LossConfig, class_weights: Tensor, *, emotions: Sequence[Emotion] = SEVEN
    ) -> None:
        """Build the auxiliary layers of every loss with a weight above 0.

        Args:
            net: The net.
            config: The section ``[loss]`` of the recipe.
            class_weights: float32 ``[C]``: the factor on the loss of each class.
            emotions: The C classes.

        Raises:
            RecipeError: ``face_region`` is used with a net without pooled linear head.
        """
        super().__init__()
        if config.face_region > 0 and not isinstance(net.head, PooledHead):
            raise RecipeError(
                "loss.face_region needs class activation maps, which only nets with a pooled head have; "
                "set loss.face_region to 0 or choose another net"
            )
        self.net = net
        self.config = config
        self.register_buffer("class_weights", class_weights, persistent=False)
        built = {name: build for name, build in _AUXILIARY.items() if getattr(config, name) > 0}
        width = _width(net.features) if built else 0
        self.auxiliary = nn.ModuleDict({name: build(width, config, emotions) for name, build in built.items()})

    def forward(
        self, x: Tensor, target: Tensor, face_region: Tensor, view: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss and the logits of a batch.

        Args:
            x: float ``[N, 1, S, S]``, normalised.
            target: float ``[N, C]``: probabilities.
            face_region: float ``[N, 1, S, S]``, 1 inside the face oval; not used if the weight ``face_region`` is 0.
            view: float ``[N, 1, S, S]``: the second view of each face; not used if the weight ``consistency`` is 0.

        Returns:
            The mean loss, and the logits ``[N, C]`` of ``x``. With a second view the class loss is the mean over both.
        """
        other = view if self.config.consistency > 0 else None
        features = self.net.features(x if other is None else torch.cat([x, other]))
        every_logit = self.net.head(features)
        features, logits = features[: len(x)], every_logit[: len(x)]
        loss = class_loss(logits, target, self.get_buffer("class_weights"), self.config)
        if other is not None:
            others = every_logit[len(x) :]
            loss = (loss + class_loss(others, target, self.get_buffer("class_weights"), self.config)) / 2
            loss = loss + self.config.consistency * consistency_loss(logits, others)
        with torch.autocast(x.device.type, enabled=False):  # cosines over a small temperature need full precision
            for name, auxiliary in self.auxiliary.items():
                pooled = features.mean(dim=(2, 3), dtype=next(auxiliary.parameters()).dtype)
                loss = loss + getattr(self.config, name) * auxiliary(pooled, target)
            if self.config.face_region > 0:
                assert isinstance(self.net.head, PooledHead)
                maps = class_maps(features, self.net.head.linear.weight, target.argmax(dim=1))
                loss = loss + self.config.face_region * face_region_loss(maps, face_region)
        return loss, logits


def class_loss(logits: Tensor, target: Tensor, class_weights: Tensor, config: LossConfig) -> Tensor:
    """Compute the classification loss of a recipe.

    Args:
        logits: ``[N, C]``.
        target: float ``[N, C]``: one-hot or soft.
        class_weights: float ``[C]``: the factor on the loss of each class.
        config: Has the ``name`` and ``gamma`` of the loss.

    Returns:
        The mean loss of the batch.
    """
    return focal_loss(logits, target, class_weights, config.gamma if config.name == "focal" else 0.0)


def focal_loss(logits: Tensor, target: Tensor, class_weights: Tensor, gamma: float) -> Tensor:
    """Compute the focal loss (Lin et al., ICCV 2017) in its form for soft targets (Li et al., NeurIPS 2020).

    The cross-entropy of each class is multiplied by ``|target - prob| ** gamma``. On one-hot targets this equals Lin's
    factor ``(1 - prob) ** gamma``. On soft targets the loss is smallest where the probabilities equal the target, which
    Lin's factor does not ensure.

    Args:
        logits: ``[N, C]``.
        target: float ``[N, C]``.
        class_weights: float ``[C]``.
        gamma: At least 0; 0 gives the weighted cross-entropy.

    Returns:
        The mean loss of the batch.
    """
    log_probs = F.log_softmax(logits.float(), dim=1)
    losses = -class_weights * target * log_probs
    if gamma > 0:
        losses = losses * (target - log_probs.exp()).abs().clamp(min=_EPSILON) ** gamma
    return losses.sum(dim=1).mean()


def consistency_loss(logits: Tensor, others: Tensor) -> Tensor:
    """Compute the symmetric Kullback-Leibler divergence between the probabilities of two views of each face.

    Args:
        logits: Of the first views, ``[N, C]``.
        others: Of the second views, ``[N, C]``.

    Returns:
        The mean over the faces of ``(KL(p, q) + KL(q, p)) / 2``, in nats.
    """
    p, q = (F.log_softmax(each.float(), dim=1) for each in (logits, others))
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=1).mean() / 2


def contrastive_loss(embedded: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Compute the supervised contrastive loss (``L_out`` of Khosla et al., NeurIPS 2020).

    The similarity of two faces is their cosine over ``temperature``. The loss of two faces of one class is
    ``-log(exp(similarity) / sum of exp(similarity) to all other faces)``. It is averaged over the other faces of the
    class, and then over all faces that have any.

    Args:
        embedded: ``[N, D]``: the projected faces.
        labels: int64 ``[N]``.
        temperature: Above 0.

    Returns:
        The loss of the batch; 0 if no face has another face of its class.
    """
    unit = F.normalize(embedded.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.T / temperature).masked_fill(itself, torch.finfo(torch.float32).min)
    log_share = F.log_softmax(similarity, dim=1).masked_fill(itself, 0)
    positive = ((labels[:, None] == labels[None, :]) & ~itself).float()
    n_positive = positive.sum(dim=1)
    losses = -(positive * log_share).sum(dim=1) / n_positive.clamp(min=1)
    return losses.sum() / (n_positive > 0).sum().clamp(min=1)


def face_region_loss(maps: Tensor, face_region: Tensor) -> Tensor:
    """Compute the share of the positive part of class activation maps that is outside of the face.

    A cell that is partly outside counts by the share of its pixels that are outside.

    Args:
        maps: ``[N, h, w]``.
        face_region: ``[N, 1, S, S]``, 1 inside the face oval.

    Returns:
        The mean share of the batch, 0..1; a map without a positive cell counts as 0.
    """
    positive = maps.clamp(min=0)
    outside = 1 - F.adaptive_avg_pool2d(face_region.float(), (maps.shape[-2], maps.shape[-1])).squeeze(1)
    shares = (positive * outside).sum(dim=(1, 2)) / positive.sum(dim=(1, 2)).clamp(min=_EPSILON)
    return shares.mean()


def class_maps(features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Compute the class activation map (Zhou et al., CVPR 2016) of one class for each face.

    Args:
        features: ``[N, K, h, w]`` before the pooling.
        weight: ``[C, K]`` of the linear layer after the pooling.
        labels: int64 ``[N]``: the class of each map.

    Returns:
        float32 ``[N, h, w]``.
    """
    return torch.einsum("nkhw,nk->nhw", features.float(), weight.float()[labels])


class _Contrastive(nn.Module):
    """The projection (linear, ReLU, linear) of the contrastive loss; the class of a face is its largest target."""

    def __init__(self, width: int, config: LossConfig, emotions: Sequence[Emotion]) -> None:  # noqa: ARG002
        super().__init__()
        self.temperature = config.contrastive_temperature
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 128))  # as in the paper

    def forward(self, pooled: Tensor, target: Tensor) -> Tensor:
        return contrastive_loss(self.project(pooled), target.argmax(dim=1), self.temperature)


class _TextAlignment(nn.Module):
    """The text alignment loss: cross-entropy of the cosines between projected faces and text vectors of the classes.

    The vectors are not trained, as in zero-shot use of CLIP (Radford et al., ICML 2021).
    """

    def __init__(self, width: int, config: LossConfig, emotions: Sequence[Emotion]) -> None:
        super().__init__()
        vectors = torch.from_numpy(emotion_text.class_vectors(emotions))
        self.temperature = config.text_temperature
        self.project = nn.Linear(width, vectors.shape[1])
        self.register_buffer("class_vectors", F.normalize(vectors, dim=1), persistent=False)

    def forward(self, pooled: Tensor, target: Tensor) -> Tensor:
        cosines = F.normalize(self.project(pooled).float(), dim=1) @ self.get_buffer("class_vectors").float().T
        return F.cross_entropy(cosines / self.temperature, target.float())


# The weight of a loss in LossConfig -> its module, which takes pooled features [N, width] and targets [N, C].
def _width(features: nn.Module) -> int:
    """The number of channels of the features of a net."""
    probe = to_meta(features).eval()  # 64 px: a size that every net accepts
    return int(probe(torch.empty(1, 1, 64, 64, device="meta")).shape[1])


_AUXILIARY: Mapping[str, Callable[[int, LossConfig, Sequence[Emotion]], nn.Module]] = {
    "contrastive": _Contrastive,
    "text_alignment": _TextAlignment,
}
