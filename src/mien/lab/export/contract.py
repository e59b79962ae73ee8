"""A trained net as the contract wants it: uint8 crops in, calibrated probabilities and class activation maps out.

Scaling, normalisation, calibration and softmax become part of the graph, so nothing downstream can disagree with
training. What the maps are, head by head, stands in docs/nets.md; for every head their mean is the calibrated logit.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mien._errors import ModelError
from mien.lab.export.calibrate import Calibration
from mien.lab.nets._net import Net, PooledHead
from mien.lab.nets._pull import pull
from mien.lab.nets._reparam import Branched
from mien.lab.normalise import MEAN, STD


class Contract(nn.Module):
    """``forward(crops uint8 [N, S, S]) -> (probs float32 [N, C], maps float32 [N, C, h, w])``.

    ``features`` are those of the net, without batch norms; ``answers`` is its head, which gives probabilities and maps.
    Raises ``ModelError`` for a net that is no ``Net``, and at the first call for a head whose gradient is unknown.
    """

    def __init__(self, net: nn.Module, calibration: Calibration) -> None:
        super().__init__()
        if not isinstance(net, Net):
            raise ModelError("only nets of two halves, features and head, can be exported: see mien.lab.nets")
        head = net.head
        self.features = fold_norms(net.features)
        self.answers = PooledMaps(head, calibration) if isinstance(head, PooledHead) else HeadMaps(head, calibration)
        self.scale, self.offset = 1 / (255 * STD), MEAN / STD
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """``probs`` sum to 1 over C; ``maps`` are logits by place, whose mean is the calibrated logit."""
        probs, maps = self.answers(self.see(crops))
        return probs, maps

    def see(self, crops: Tensor) -> Tensor:
        """The features ``[N, K, h, w]``."""
        features: Tensor = self.features(crops.unsqueeze(1).float() * self.scale - self.offset)
        return features


class PooledMaps(nn.Module):
    """The pooled linear head: class activation maps (Zhou et al., CVPR 2016).

    The linear layer is applied at every place of the features instead of to their mean; both orders give the same
    logits, since pooling and the linear layer commute. The calibration is linear, too, and becomes part of that layer.
    """

    def __init__(self, head: PooledHead, calibration: Calibration) -> None:
        super().__init__()
        linear = head.linear
        self.maps = nn.Conv2d(linear.in_features, linear.out_features, 1)
        with torch.no_grad():
            scale, offset = torch.tensor(calibration.scale), torch.tensor(calibration.offset)
            self.maps.weight.copy_((linear.weight * scale[:, None])[:, :, None, None])
            self.maps.bias.copy_(linear.bias * scale + offset)  # type: ignore[union-attr]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities ``[N, C]`` and maps ``[N, C, h, w]`` of features ``[N, K, h, w]``."""
        maps = self.maps(features)
        return torch.softmax(maps.mean(dim=(2, 3)), dim=1), maps


class HeadMaps(nn.Module):
    """Any other head: HiResCAM (Draelos & Carin, arXiv:2011.08891), gradient times activation summed over channels.

    What that sum leaves of the logit (for a head of linear layers and rectifiers its biases, as far as they are passed
    on) belongs to no place, and is spread evenly over all. Of a pooled linear head these would be the maps above.
    """

    def __init__(self, head: nn.Module, calibration: Calibration) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).eval()
        self.register_buffer("scale", torch.tensor(calibration.scale))
        self.register_buffer("offset", torch.tensor(calibration.offset))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities ``[N, C]`` and maps ``[N, C, h, w]`` of features ``[N, K, h, w]``."""
        maps = hires_maps(self.head, features)
        scale, offset = self.get_buffer("scale"), self.get_buffer("offset")
        maps = maps * scale[:, None, None] + offset[:, None, None]
        return torch.softmax(maps.mean(dim=(2, 3)), dim=1), maps


def hires_maps(head: nn.Module, features: Tensor) -> Tensor:
    """HiResCAM of every class, ``[N, C, h, w]``: their mean is the logit that ``head`` gives ``[N, K, h, w]``."""
    logits, back = pull(head, features)
    n, classes = logits.shape
    one_each = torch.eye(classes, dtype=logits.dtype, device=logits.device).expand(n, classes, classes)
    places = features.shape[2] * features.shape[3]
    maps = places * torch.einsum("nckhw,nkhw->nchw", back(one_each), features)
    return maps + (logits - maps.mean(dim=(2, 3)))[:, :, None, None]


def fold_norms(module: nn.Module) -> nn.Module:
    """A copy of ``module`` in eval mode as it computes fastest: the same answers by fewer layers.

    Batch norms are folded into the convolutions before them, branched convolutions into a single one.
    """
    folded = copy.deepcopy(module).eval()
    for parent in list(folded.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Branched):
                setattr(parent, name, child.fused())
        if isinstance(parent, nn.Sequential):
            _fold_children(parent)
    return folded


def _fold_children(parent: nn.Sequential) -> None:
    for i, (first, second) in enumerate(zip(list(parent), list(parent)[1:], strict=False)):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            parent[i], parent[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
