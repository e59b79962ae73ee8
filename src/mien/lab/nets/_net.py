"""What every net shares: two halves, and a head whose activation maps cost one matrix product."""

from torch import Tensor, nn


class Net(nn.Module):
    """A classifier in two halves. ``forward(x)`` is ``head(features(x))``."""

    features: nn.Module
    head: nn.Module

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[N, C]`` of normalised images ``[N, channels, S, S]``."""
        logits: Tensor = self.head(self.features(x))
        return logits


class PooledHead(nn.Module):
    """Global average pooling, dropout, one linear layer.

    With this head the class activation map of class c is the features weighted by row c of ``linear.weight`` (Zhou et
    al., CVPR 2016), and its spatial mean plus the bias is the logit.
    """

    def __init__(self, width: int, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[N, C]`` of features ``[N, K, h, w]``."""
        logits: Tensor = self.linear(self.dropout(features.mean(dim=(2, 3))))
        return logits


def conv_norm(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution without bias that keeps the size (but for its stride), and batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))
