"""Any convolutional net of timm (github.com/huggingface/pytorch-image-models), under our pooled head: ``mien[hub]``."""

from difflib import get_close_matches
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from mien._errors import DownloadError, MissingExtraError, RecipeError
from mien.lab.nets._layers import Net, PooledHead

PREFIX = "timm/"


def build(name: str, channels: int, classes: int, *, size: int = 64, dropout: float = 0.0, **options: Any) -> Net:
    """timm's net ``name`` (after ``timm/``) without its pooling and classifier, and our head, with random weights.

    ``options`` are timm's own, ``drop_path_rate`` for one. ``size`` is the side in pixels of the images. Raises
    ``MissingExtraError`` without timm, ``RecipeError`` for a name that timm does not know (naming the nearest) and for
    a net whose features are no map ``[N, K, h, w]``.
    """
    features = _features(name, channels, **options)
    with torch.device("meta"):  # a twin without storage finds the map's shape, at no cost
        probe = _features(name, channels, **options).eval()
    try:
        shape = probe(torch.empty(1, channels, size, size, device="meta")).shape
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"net {name!r} takes no images of {size} px: {str(error).splitlines()[0]}") from error
    if len(shape) != 4 or shape[2] != shape[3]:
        raise RecipeError(f"net {name!r} has features {list(shape)}, no map [N, K, h, w]; take a convolutional one")
    return Net(features, PooledHead(shape[1], classes, dropout=dropout))


def pretrained_features(name: str, like: nn.Module) -> dict[str, Tensor]:
    """timm's pretrained weights for ``like``, the features of the net ``name``; timm fits the first convolution.

    Raises ``DownloadError`` where timm has none or cannot fetch them.
    """
    channels = next(p for p in like.parameters() if p.ndim == 4).shape[1]
    try:
        with torch.random.fork_rng(devices=[]):  # the run's own random numbers go on as without
            state: dict[str, Tensor] = _features(name, channels, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DownloadError(
            f'net.weights = "imagenet": timm cannot load {name} ({reason}); net.weights="" trains from scratch'
        ) from error
    return state


def _features(name: str, channels: int, **options: Any) -> nn.Module:
    timm, short = _timm(), name.removeprefix(PREFIX)
    if not timm.is_model(short):
        near = _nearest(short, timm.list_models())
        raise RecipeError(f"timm has no net {short!r}{near}; timm.list_models() names all")
    features: nn.Module = timm.create_model(short, in_chans=channels, num_classes=0, global_pool="", **options)
    return features


def _nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", "hub") from error
    except RuntimeError as error:  # a torchvision built for another torch
        raise RecipeError(f"timm cannot be imported: {error}; install the torchvision that fits this torch") from error
    module: ModuleType = timm
    return module
