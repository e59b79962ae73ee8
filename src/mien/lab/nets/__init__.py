"""The networks and their cost; one architecture a file, with a function ``build(channels, classes, **options)``.

Every net has two halves: ``features(x) -> [N, K, h, w]`` and ``head(features) -> logits [N, C]``. There is no registry:
a recipe names its net, and the module of that name is imported, from here or from the folder ``$MIEN_NETS``.
``timm/NAME`` is a convolutional net of timm (github.com/huggingface/pytorch-image-models, ``mien[hub]``) with a pooled
head.

Defaults are for grey faces of 48 pixels. A published net that would shrink such a face to a map of 1x1 or 2x2 has the
option ``stem``: ``"small"`` (the default) keeps more of the resolution, ``"imagenet"`` is the published stem.
"""

import copy
import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mien._errors import DownloadError, MienError, MissingExtraError, RecipeError, checked, first_line
from mien._suggest import suggest
from mien.lab.nets._layers import Dense, EncoderBlock, Net, PooledHead
from mien.lab.nets._own import code_hashes, load_builder, own_nets, place
from mien.lab.nets.mien import BlurredBlock, BlurredStem

TIMM = "timm/"
_WIDEST = 16_384  # channels of a layer, pixels of a side, and any other number among the options of a net
_DEEPEST = 256  # layers or blocks
_AT_LEAST_ONE = ("width", "stem", "hidden", "stride")  # in the names of options
_LONGEST = 16  # stages
_WRONG_VALUES = (MienError, TypeError, ValueError, ArithmeticError, LookupError, RuntimeError)  # what they raise
_MOST_PARAMETERS = 1_000_000_000  # 4 GB; the largest published net here has 144 million

__all__ = [
    "Net",
    "PooledHead",
    "build",
    "code_hashes",
    "count_macs",
    "count_parameters",
    "default",
    "net_names",
    "options",
    "require_independence",
    "to_meta",
]


def net_names() -> tuple[str, ...]:
    """Return the nets that a recipe can name: the modules of this package without an underscore."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def options(name: str) -> tuple[str, ...]:
    """Return the options of a net.

    Args:
        name: One of ``net_names()``, or ``timm/NAME``.

    Returns:
        The names of the arguments after ``channels`` and ``classes``.

    Raises:
        RecipeError: There is no such net.
    """
    return _options(_builder(name))


def default(name: str, option: str) -> Any:
    """Return the default of a net's option.

    Args:
        name: One of ``net_names()``, or ``timm/NAME``.
        option: Name of the option.

    Returns:
        The default, or ``None`` where the net has no such option.
    """
    found = inspect.signature(_builder(name)).parameters.get(option)
    return None if found is None or found.default is found.empty else found.default


@checked
def build(name: str, *, channels: int, classes: int, **options: Any) -> Net:
    """Build a net with random weights.

    Args:
        name: One of ``net_names()`` (dashes may replace its underscores), a file in ``$MIEN_NETS``, or ``timm/NAME``.
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        **options: Options of that net.

    Returns:
        A net that maps normalised images ``[N, channels, S, S]`` to logits ``[N, classes]``.

    Raises:
        RecipeError: The net or an option is unknown, or the net does not take a value; a file of ``$MIEN_NETS`` raises
            an error or returns something else than a ``Net``.

    Example:
        >>> net = build("mien", channels=1, classes=7, widths=(16, 32), depths=(1, 1), strides=(2, 2))
    """
    is_timm = name.startswith(TIMM)  # it checks its own options
    own = own_nets().get(name.replace("-", "_"))  # whose arguments need no annotations
    builder = _builder(name) if is_timm or own else checked(_builder(name))
    known = _options(builder)
    for option in options:
        if option not in known and not is_timm:
            hint = suggest(option, known)
            raise RecipeError(f"net {name!r} has no option {option!r}{hint} (it has: {', '.join(known)})")
    try:
        if own is None and _check_numbers(options):
            with torch.device("meta"):
                count = count_parameters(builder(channels, classes, **options))
            if count > _MOST_PARAMETERS:
                raise ValueError(f"has {count:,} parameters, more than {_MOST_PARAMETERS:,}; lower its options")
        net = builder(channels, classes, **options)
        if not isinstance(net, Net):
            raise TypeError(f"build returns {type(net).__name__}, not mien.lab.nets.Net(features, head)")
        if own is None and not next(net.parameters()).is_meta:  # weights without values
            for layer in (net.head if is_timm else net).modules():  # timm initialises its features
                _initialise(layer)
    except (RecipeError, MissingExtraError):
        raise
    except Exception as error:
        if own is not None:  # whatever it raises
            raise RecipeError(f"{place(error, own)}: {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(error, _WRONG_VALUES):
            raise
        raise RecipeError(f"net {name!r}: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    return net


def _check_numbers(value: Any, name: str = "") -> bool:
    """Check the numbers among options; returns whether any is so large that the net may not fit into memory."""
    if isinstance(value, Mapping):
        return max((_check_numbers(each, str(key)) for key, each in value.items()), default=False)
    if isinstance(value, list | tuple):
        if len(value) > _LONGEST:
            raise ValueError(f"{name} has {len(value):,} values, more than {_LONGEST}")
        return max((_check_numbers(each, name) for each in value), default=False)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    least = int(any(part in name for part in _AT_LEAST_ONE))
    most = _DEEPEST if "depth" in name else _WIDEST
    if not least <= value <= most:
        raise ValueError(f"{name} is from {least} to {most}, not {value}")
    if "drop_path" in name and value >= 1:  # what is kept is divided by 1 - value
        raise ValueError(f"{name} is from 0 to below 1, not {value}")
    return value > (16 if "depth" in name else 512)


def _builder(name: str) -> Callable[..., Net]:
    if name.startswith(TIMM):
        return partial(_build_timm, name)
    module_name, known = name.replace("-", "_"), net_names()
    own = own_nets()
    if module_name in own:
        if module_name in known:
            raise RecipeError(f"{own[module_name]}: mien has a net of this name; rename the file")
        return load_builder(module_name, own[module_name])
    if module_name not in known:
        hint = suggest(module_name, (*known, *own))
        names = ", ".join((*known, *own))
        raise RecipeError(f"unknown net {name!r}{hint} (there are: {names}, timm/NAME, and files in $MIEN_NETS)")
    build: Callable[..., Net] = importlib.import_module(f"{__name__}.{module_name}").build
    return build


def _options(builder: Callable[..., Net]) -> tuple[str, ...]:
    parameters = list(inspect.signature(builder).parameters.values())[2:]  # after channels and classes
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def _initialise(layer: nn.Module) -> None:
    """Initialise a layer as He et al. (ICCV 2015) before a ReLU, and other linear layers with small normal weights.

    Convolutions use the fan-out of one group; with that of all groups, depthwise weights would be far too small. Dense
    layers use the fan-in, because no norm corrects their scale.
    """
    if isinstance(layer, nn.Conv2d):
        fan = layer.weight[:, 0].numel() // layer.groups
        nn.init.normal_(layer.weight, std=math.sqrt(2) / math.sqrt(fan))
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.in_features) if isinstance(layer, Dense) else 0.01)
    if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _build_timm(name: str, channels: int, classes: int, *, size: int = 64, dropout: float = 0.0, **options: Any) -> Net:
    """Build a net of timm for images of ``size`` pixels; a pooled head replaces its own pooling and classifier."""
    features = _timm_features(name, channels, **options)
    with torch.device("meta"):  # a copy without storage finds the shape of the map without computing anything
        probe = _timm_features(name, channels, **options).eval()
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
            state: dict[str, Tensor] = _timm_features(name, channels, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DownloadError(
            f'net.weights = "imagenet": timm cannot load {name} ({reason}); net.weights="" trains from scratch'
        ) from error
    return state


def _timm_features(name: str, channels: int, **options: Any) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", "hub") from error
    except RuntimeError as error:  # a torchvision built for another torch
        raise RecipeError(f"timm cannot be imported: {error}; install the torchvision that fits this torch") from error
    short = name.removeprefix(TIMM)
    if not timm.is_model(short):
        hint = suggest(short, timm.list_models())
        raise RecipeError(f"timm has no net {short!r}{hint}; timm.list_models() names all")
    features: nn.Module = timm.create_model(short, in_chans=channels, num_classes=0, global_pool="", **options)
    return features


def require_independence(net: nn.Module, size: int, *, channels: int = 1) -> None:
    """Check that the logits of an image do not depend on the other images of its batch (in evaluation mode).

    Args:
        net: The net; it is not changed.
        size: Side of the images in pixels.
        channels: Channels of the images.

    Raises:
        RecipeError: They do, so its answers for sorted test faces would tell their labels.
    """
    x = torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(0))
    was_training = net.training
    net.eval()
    with torch.no_grad():
        together, alone = net(x), torch.cat([net(x[i : i + 1]) for i in range(len(x))])
    net.train(was_training)
    largest = float(alone.abs().max())
    if not torch.allclose(together, alone, rtol=0, atol=1e-3 * largest, equal_nan=True):
        raise RecipeError("the net's logits of a face depend on the other faces of its batch, also in evaluation mode")


def count_parameters(net: nn.Module) -> int:
    """Return the number of parameters of a net.

    Args:
        net: Any module.

    Returns:
        The number of parameters.
    """
    return sum(p.numel() for p in net.parameters())


def count_macs(net: nn.Module, size: int) -> int:
    """Count the multiply-accumulates of one grey image: convolutions, linear layers and attention scores.

    Norms, activations and pooling are not counted, as in the tables of the papers.

    Args:
        net: The net; it is not changed.
        size: Side of the image in pixels.

    Returns:
        The number of multiply-accumulates.

    Example:
        >>> from torch import nn
        >>> count_macs(nn.Conv2d(1, 16, 3, padding=1), 48)
        331776
    """
    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            total += output[0].numel() * layer.weight[0].numel()  # a linear layer may be applied to many tokens
        elif isinstance(layer, (BlurredStem, BlurredBlock)):
            total += 9 * inputs[0][0].numel()  # the filter
        elif isinstance(layer, EncoderBlock):
            tokens, width = inputs[0].shape[1:]
            total += 2 * tokens * tokens * width  # queries by keys, and the scores by the values

    copied = to_meta(net).eval()
    for module in copied.modules():
        module.register_forward_hook(add)
    with torch.no_grad():
        copied(torch.empty(1, 1, size, size, device="meta"))
    return total


def to_meta(net: nn.Module) -> nn.Module:
    """Copy a net to torch's meta device, which computes shapes only.

    Args:
        net: Any module; it is not changed.

    Returns:
        The copy, without its batch norms: they change no shape, and are most of the time on this device.
    """
    norms = (module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    copies: dict[int, Any] = {id(norm): nn.Identity() for norm in norms}
    copies |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in net.buffers()}
    for p in net.parameters():
        copies[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
    return copy.deepcopy(net, copies)
