"""Convolutional nets of timm (github.com/huggingface/pytorch-image-models) with a pooled head: ``mien[hub]``."""

from typing import Any

import torch
from torch import Tensor, nn

from mien._errors import DownloadError, MissingExtraError, RecipeError
from mien._suggest import suggest
from mien.lab.nets._layers import Net, PooledHead

PREFIX = "timm/"


def build(name: str, channels: int, classes: int, *, size: int = 64, dropout: float = 0.0, **options: Any) -> Net:
    """Build a net of timm with random weights and a pooled head instead of its own pooling and classifier.

    Args:
        name: ``timm/`` and the name that timm gives the net.
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        size: Side of the images in pixels.
        dropout: Dropout rate before the classifier, from 0 to 1.
        **options: Options that timm passes to the net, such as ``drop_path_rate``.

    Returns:
        The net.

    Raises:
        MissingExtraError: timm is not installed.
        RecipeError: timm has no such net, or its features are not maps ``[N, K, h, w]``.
    """
    features = _features(name, channels, **options)
    with torch.device("meta"):  # a copy without storage finds the shape of the map without computing anything
        probe = _features(name, channels, **options).eval()
    try:
        shape = probe(torch.empty(1, channels, size, size, device="meta")).shape
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"net {name!r} takes no images of {size} px: {str(error).splitlines()[0]}") from error
    if len(shape) != 4 or shape[2] != shape[3]:
        raise RecipeError(f"net {name!r} has features {list(shape)}, not [N, K, h, w]; choose a convolutional one")
    return Net(features, PooledHead(shape[1], classes, dropout=dropout))


def pretrained_features(name: str, like: nn.Module) -> dict[str, Tensor]:
    """Load the pretrained weights of timm; timm adapts the first convolution to the number of channels.

    Args:
        name: ``timm/`` and the name that timm gives the net.
        like: The features of that net.

    Returns:
        The state dictionary of the features.

    Raises:
        DownloadError: timm has no weights for it or cannot fetch them.
    """
    channels = next(p for p in like.parameters() if p.ndim == 4).shape[1]
    try:
        with torch.random.fork_rng(devices=[]):  # the random numbers of the run stay the same
            state: dict[str, Tensor] = _features(name, channels, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DownloadError(
            f'net.weights = "imagenet": timm cannot load {name} ({reason}); net.weights="" trains from scratch'
        ) from error
    return state


def _features(name: str, channels: int, **options: Any) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", "hub") from error
    except RuntimeError as error:  # a torchvision built for another torch
        raise RecipeError(f"timm cannot be imported: {error}; install the torchvision that fits this torch") from error
    short = name.removeprefix(PREFIX)
    if not timm.is_model(short):
        hint = suggest(short, timm.list_models())
        raise RecipeError(f"timm has no net {short!r}{hint}; timm.list_models() names all")
    features: nn.Module = timm.create_model(short, in_chans=channels, num_classes=0, global_pool="", **options)
    return features
