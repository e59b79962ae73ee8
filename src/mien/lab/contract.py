"""A trained net as the contract wants it: uint8 crops in, calibrated probabilities and class activation maps out.

Scaling, normalisation, calibration and softmax become part of the graph, so nothing downstream can disagree with
training.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mien._errors import ModelError
from mien.lab.calibrate import Calibration
from mien.lab.nets._net import Net, PooledHead
from mien.lab.normalise import MEAN, STD


class Contract(nn.Module):
    """``forward(crops uint8 [N, S, S]) -> (probs float32 [N, C], maps float32 [N, C, h, w])``.

    ``maps`` are the linear layer applied at every place of the features instead of to their mean; both orders give the
    same logits, since pooling and the linear layer commute. The calibration is linear, too, and becomes part of that
    layer: the mean of a map is the calibrated logit of its class.
    """

    def __init__(self, net: nn.Module, calibration: Calibration) -> None:
        super().__init__()
        if not isinstance(net, Net) or not isinstance(net.head, PooledHead):
            raise ModelError("only nets with a pooled linear head can be exported: their maps come from that head")
        linear = net.head.linear
        self.features = fold_norms(net.features)
        self.maps = nn.Conv2d(linear.in_features, linear.out_features, 1)
        with torch.no_grad():
            scale, offset = torch.tensor(calibration.scale), torch.tensor(calibration.offset)
            self.maps.weight.copy_((linear.weight * scale[:, None])[:, :, None, None])
            self.maps.bias.copy_(linear.bias * scale + offset)  # type: ignore[union-attr]
        self.scale, self.offset = 1 / (255 * STD), MEAN / STD
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """``probs`` sum to 1 over C; ``maps`` are logits by place."""
        x = crops.unsqueeze(1).float() * self.scale - self.offset
        maps = self.maps(self.features(x))
        return torch.softmax(maps.mean(dim=(2, 3)), dim=1), maps


def fold_norms(module: nn.Module) -> nn.Module:
    """A copy of ``module`` in eval mode whose batch norms are folded into the convolutions before them."""
    folded = copy.deepcopy(module).eval()
    for parent in folded.modules():
        if isinstance(parent, nn.Sequential):
            _fold_children(parent)
    return folded


def _fold_children(parent: nn.Sequential) -> None:
    for i, (first, second) in enumerate(zip(list(parent), list(parent)[1:], strict=False)):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            parent[i], parent[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
