"""The inverted residual of Sandler et al. (CVPR 2018), with squeeze-and-excitation: MobileNetV3 and EfficientNet."""

from torch import Tensor, nn

from mien.lab.nets._net import Squeeze, conv_norm, drop_branch

# Batch norm's epsilon in both published nets.
EPS = 1e-3


class Inverted(nn.Module):
    """1x1 to ``inner`` channels, depthwise, ``squeeze``, and 1x1 to ``outputs`` without activation.

    The shortcut is there where the shape stays; ``drop`` is the share of samples that skip its branch in training.
    """

    def __init__(
        self,
        inputs: int,
        inner: int,
        outputs: int,
        *,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        squeeze: Squeeze | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if inner != inputs:
            layers += [conv_norm(inputs, inner, kernel=1, eps=EPS), activation()]
        layers += [conv_norm(inner, inner, kernel=kernel, stride=stride, groups=inner, eps=EPS), activation()]
        layers += [squeeze] if squeeze is not None else []
        self.branch = nn.Sequential(*layers, conv_norm(inner, outputs, kernel=1, eps=EPS))
        self.straight = inputs == outputs and stride == 1
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """``[N, outputs, h / stride, w / stride]``."""
        branch: Tensor = self.branch(x)
        return x + drop_branch(branch, self.drop, training=self.training) if self.straight else branch
