"""The schedule of a training: its phases, frozen modules, and learning rates.

The schedule depends only on the recipe and the records of the epochs so far, so a resumed run needs no other state.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd  # the base class of all dropout layers

from mien._errors import RecipeError
from mien._suggest import suggest
from mien.lab.recipe import Phase, Recipe, TrainConfig, change, check_train

# A loss is better if it is smaller by this share, as in torch's ReduceLROnPlateau.
_THRESHOLD = 1e-4


@dataclass(frozen=True)
class Segment:
    """The epochs of one optimizer: a phase of the recipe, or the rest of a phase after its fallback.

    Attributes:
        phase: The phase of the recipe.
        config: The section ``[train]`` with the changes of the phase.
        fallback: The configuration that takes over if training fails; ``None``: none.
        first: The first epoch, counted from 0.
        last: The epoch after the last one.
        size: Side in pixels of the faces that the net takes.
    """

    phase: Phase
    config: TrainConfig
    fallback: TrainConfig | None
    first: int
    last: int
    size: int

    def after_fallback(self, epoch: int) -> "Segment":
        """Return the rest of this segment, which the fallback trains.

        Args:
            epoch: The first epoch of the rest.

        Returns:
            The new segment.
        """
        assert self.fallback is not None
        return replace(self, config=self.fallback, fallback=None, first=epoch)


def build_schedule(recipe: Recipe) -> tuple[Segment, ...]:
    """Return the phases of a recipe in order, each with its own configuration.

    Args:
        recipe: A recipe; without phases it is one segment.

    Returns:
        At least one segment.

    Raises:
        RecipeError: A phase or a fallback changes a key that does not exist, or sets a value that is not allowed.

    Example:
        >>> from mien.lab import recipe
        >>> [segment.last for segment in build_schedule(recipe.load("conv4", ["train.epochs=3"]))]
        [3]
    """
    schedule: list[Segment] = []
    for phase in recipe.phases or (Phase(),):
        where = f"phase {phase.name!r}" if recipe.phases else ""
        config, fallback = _changed(recipe, recipe.train, phase.train, where), None
        if config.fallback:
            where = f"{where}: fallback" if where else "fallback"
            if "epochs" in config.fallback:
                raise RecipeError(f"recipe {recipe.name}: {where}: the epochs are those of the phase; remove the key")
            fallback = _changed(recipe, config, {**config.fallback, "fallback": {}}, where)
        first = schedule[-1].last if schedule else 0
        schedule.append(Segment(phase, config, fallback, first, first + config.epochs, phase.size or recipe.data.size))
    return tuple(schedule)


def segment_at(schedule: Sequence[Segment], epoch: int) -> Segment:
    """Return the segment of an epoch; the last one for epochs after the end.

    Args:
        schedule: The segments of a training.
        epoch: The epoch, counted from 0.

    Returns:
        The segment.
    """
    return next((segment for segment in schedule if epoch < segment.last), schedule[-1])


def all_configs(schedule: Sequence[Segment]) -> tuple[TrainConfig, ...]:
    """Return every configuration that a training may use, including those of fallbacks.

    Args:
        schedule: The segments of a training.

    Returns:
        The configurations in order.
    """
    return tuple(config for each in schedule for config in (each.config, each.fallback) if config is not None)


def freeze(net: nn.Module, prefixes: Sequence[str]) -> None:
    """Freeze some modules of a net and unfreeze all others.

    Args:
        net: The net.
        prefixes: Names of modules; they are frozen with all modules inside them.

    Raises:
        RecipeError: The net has no module of such a name.
    """
    known = [name for name, _ in net.named_modules() if name]
    for prefix in prefixes:
        if prefix not in known:
            raise RecipeError(f"freeze: the net has no module {prefix!r}{suggest(prefix, known)}")
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not is_inside(name, prefixes))


def set_train_mode(net: nn.Module, phase: Phase) -> None:
    """Put a net into training mode, except for its frozen modules, and set the dropout of the phase.

    Frozen modules stay in eval mode, so that their batch norms keep their statistics.

    Args:
        net: The net.
        phase: The phase; with a negative ``dropout`` the net has the rates that it was built with.
    """
    net.train()
    for name, module in net.named_modules():
        if is_inside(name, phase.freeze):
            module.eval()
        if isinstance(module, _DropoutNd):
            built = module.__dict__.setdefault("p_built", module.p)
            module.p = phase.dropout if phase.dropout >= 0 else built


def is_inside(name: str, prefixes: Sequence[str]) -> bool:
    """Return whether a module or parameter is one of some modules or inside one of them.

    Args:
        name: Dotted name of the module or parameter.
        prefixes: Dotted names of the modules.

    Returns:
        Whether it is inside.

    Example:
        >>> is_inside("features.0.weight", ["features"])
        True
    """
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def lr_factor(config: TrainConfig, progress: float, losses: Sequence[float]) -> float:
    """Return the factor on the largest learning rate at a step.

    The warm-up is linear. After it, the rate falls to zero along half a cosine, stays constant, or is multiplied by
    ``factor`` whenever the validation loss is on a plateau. With ``one-cycle`` (Smith and Topin, 2018) the warm-up is
    half a cosine from 1/25, and the rate then falls to zero along half a cosine.

    Args:
        config: The configuration of the segment.
        progress: The finished share of the segment, from 0 to 1.
        losses: Validation losses of the segment's epochs so far.

    Returns:
        A factor from 0 to 1.
    """
    rise = progress / config.warmup if progress < config.warmup else 1.0
    fall = (progress - config.warmup) / (1 - config.warmup)
    if config.schedule == "one-cycle" and rise < 1:
        return 1 / 25 + (1 - 1 / 25) * 0.5 * (1 - math.cos(math.pi * rise))
    if rise < 1:
        return rise
    if config.schedule in ("cosine", "one-cycle"):
        return 0.5 * (1 + math.cos(math.pi * fall))
    return plateau(losses, config)[0] if config.schedule == "plateau" else 1.0


def plateau(losses: Sequence[float], config: TrainConfig) -> tuple[float, bool]:
    """Apply the rule of torch's ``ReduceLROnPlateau`` to losses.

    Args:
        losses: Validation losses; one that is not finite counts as not better.
        config: Has ``patience``, ``factor`` and ``min_lr_factor``.

    Returns:
        The factor on the learning rate, and whether the patience ended again after the factor reached its minimum.
    """
    best, waited, factor, is_over = math.inf, 0, 1.0, False
    for loss in losses:
        if loss < best * (1 - _THRESHOLD):
            best, waited = loss, 0
        else:
            waited += 1
        if waited > config.patience:
            is_over = factor <= config.min_lr_factor * (1 + 1e-9)  # rounding: 0.1 ** 3 is a little more than 1e-3
            factor, waited = max(factor * config.factor, config.min_lr_factor), 0
    return factor, is_over


def _changed(recipe: Recipe, base: TrainConfig, changes: Mapping[str, Any], part: str) -> TrainConfig:
    """Change some keys of ``base``, with the checks of a recipe; ``part`` of the recipe is named in errors."""
    where = f"recipe {recipe.name}: {part}: train" if part else f"recipe {recipe.name}: train"
    config = change(base, changes, where=where)
    check_train(config, where)
    if config.precision != recipe.train.precision:
        raise RecipeError(f"{where}.precision cannot change in a training; it is {recipe.train.precision!r}")
    if config.schedule == "plateau" and recipe.validate_every > 1:
        raise RecipeError(
            f"{where}.schedule 'plateau' needs a validation loss after every epoch; "
            f"set validate_every to 1, not {recipe.validate_every}"
        )
    return config
