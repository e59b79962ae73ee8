"""Generator and discriminator, conditional on the class, and small enough for two CPU cores.

Both are trained on all classes, so that common classes help to learn rare ones. The generator is conditioned by batch
norm, the discriminator by projection (Miyato and Koyama, ICLR 2018). Faces are float ``[N, 1, 48, 48]`` in -1..1.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

FACE_SIDE = 48
_BASE = 6  # side of the first map of the generator; each stage doubles it


class Generator(nn.Module):
    """Noise and class -> face: a linear layer to 6 x 6, transposed convolutions to 24 x 24, pixel shuffle to 48 x 48.

    Args:
        classes: Number of classes.
        noise: Length of the noise vector.
        widths: Channels at 6, 12 and 24 pixels.

    Raises:
        TypeError: ``widths`` are not three.
    """

    def __init__(self, classes: int, *, noise: int = 64, widths: Sequence[int] = (128, 64, 32)) -> None:
        super().__init__()
        if len(widths) != 3:
            raise TypeError(f"a generator has widths at 6, 12 and 24 pixels: three, not {len(widths)}")
        self.noise, self.classes = noise, classes
        self.name = nn.Embedding(classes, noise)
        self.base = nn.Linear(2 * noise, widths[0] * _BASE * _BASE)
        self.norms = nn.ModuleList(_StyledNorm(width, 2 * noise) for width in widths)
        pairs = list(pairwise(widths))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairs)
        # A convolution at half the side with four channels costs a quarter of one at full side (Shi et al., CVPR 2016).
        self.last = nn.Conv2d(widths[-1], 4, 3, padding=1)
        # Orthogonal first weights (Brock et al., ICLR 2019). The classes start almost equal, so that common features
        # are learned once, and the noise makes the faces differ.
        for name, module in self.named_modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                nn.init.orthogonal_(module.weight, gain=0.5 if "norms" in name else 1.0)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.25)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Generate faces.

        Args:
            z: Standard normal noise ``[N, noise]``.
            labels: Classes, int64 ``[N]``.

        Returns:
            Faces ``[N, 1, 48, 48]`` in -1..1.
        """
        style = torch.cat([z, self.name(labels)], dim=1)
        x = self.base(style).unflatten(1, (-1, _BASE, _BASE))
        for up, norm in zip(self.ups, self.norms, strict=False):
            x = up(F.relu(norm(x, style)))
        x = F.relu(self.norms[-1](x, style))
        return torch.tanh(F.pixel_shuffle(self.last(x), 2).float())


class Discriminator(nn.Module):
    """Face and class -> score: strided convolutions under spectral norm, a projection on the class.

    Args:
        classes: Number of classes.
        widths: Channels at 24, 12, 6 and 3 pixels.

    Raises:
        TypeError: ``widths`` are not four.
    """

    def __init__(self, classes: int, *, widths: Sequence[int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        if len(widths) != 4:
            raise TypeError(f"a discriminator has widths at 24, 12, 6 and 3 pixels: four, not {len(widths)}")
        pairs = list(pairwise((1, *widths)))
        self.downs = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairs)
        self.mix = spectral_norm(nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1))
        self.real = spectral_norm(nn.Linear(widths[-1], 1))
        self.name = spectral_norm(nn.Embedding(classes, widths[-1]))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Score faces.

        Args:
            x: Faces ``[N, 1, 48, 48]`` in -1..1.
            labels: Classes, int64 ``[N]``.

        Returns:
            Scores ``[N]``, high for real faces.
        """
        for down in self.downs:
            x = F.leaky_relu(down(x), 0.2)
        # One more channel, the mean deviation within the batch, exposes a collapsed generator (Karras et al., 2018).
        deviation = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
        x = torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], dim=1)
        x = F.leaky_relu(self.mix(x), 0.2).sum(dim=(2, 3))
        scores: Tensor = self.real(x).squeeze(1) + (self.name(labels) * x).sum(1)
        return scores.float()


class _StyledNorm(nn.Module):
    """Batch norm with gain and bias computed from noise and class (self-modulation; Chen et al., ICLR 2019)."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = nn.Linear(style, channels), nn.Linear(style, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gain, bias = self.gain(style)[:, :, None, None], self.bias(style)[:, :, None, None]
        styled: Tensor = self.norm(x) * (1 + gain) + bias
        return styled
