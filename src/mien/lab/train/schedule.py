"""The course of a training: which phase an epoch belongs to, what is frozen in it, how its learning rate runs.

All of it follows from the recipe and the records of the epochs so far, so a resumed run needs no further state.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd  # what all dropout layers are

from mien._errors import RecipeError
from mien._suggest import suggest
from mien.lab.recipe import Phase, Recipe, TrainConfig, change, check_train

# A loss must fall by this share of itself to count as better, as in torch's ReduceLROnPlateau.
_BETTER = 1e-4


@dataclass(frozen=True)
class Stage:
    """A phase in its place: epochs ``first`` to ``last - 1`` of the run, counted from 0."""

    phase: Phase
    train: TrainConfig
    fallback: TrainConfig | None
    first: int
    size: int  # side in pixels that the net learns at

    @property
    def last(self) -> int:
        """The epoch after its last one."""
        return self.first + self.train.epochs


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """The recipe's phases one after another; one stage for a recipe without. Raises ``RecipeError`` for wrong keys."""
    course: list[Stage] = []
    for phase in recipe.phases or (Phase(),):
        what = f"phase {phase.name!r}" if recipe.phases else ""
        choice = changed(recipe, recipe.train, phase.train, what)
        first = course[-1].last if course else 0
        course.append(Stage(phase, choice, _fallback(recipe, choice, what), first, phase.size or recipe.data.size))
    return tuple(course)


def stage_at(course: Sequence[Stage], epoch: int) -> Stage:
    """The stage that ``epoch`` belongs to; the last one for the epoch after the end."""
    return next((stage for stage in course if epoch < stage.last), course[-1])


def choices(course: Sequence[Stage]) -> tuple[TrainConfig, ...]:
    """Every optimisation that the course may come to, fallbacks included."""
    return tuple(choice for stage in course for choice in (stage.train, stage.fallback) if choice is not None)


def changed(recipe: Recipe, base: TrainConfig, changes: Mapping[str, Any], what: str) -> TrainConfig:
    """``base`` with some keys changed, checked as strictly as the recipe itself."""
    where = ": ".join(part for part in (f"recipe {recipe.name}", what, "train") if part)
    choice = change(base, changes, where=where)
    check_train(choice, where)
    if choice.precision != recipe.train.precision:
        raise RecipeError(f"{where}.precision is that of the whole training, {recipe.train.precision!r}")
    if choice.schedule == "plateau" and recipe.validate_every > 1:
        raise RecipeError(
            f"{where}.schedule 'plateau' needs a loss of every epoch; "
            f"leave validate_every at 1, not {recipe.validate_every}"
        )
    return choice


def freeze(net: nn.Module, prefixes: Sequence[str]) -> None:
    """Let all of ``net`` learn but the modules whose names begin with one of ``prefixes``.

    Raises ``RecipeError`` for a prefix that no module has.
    """
    known = [name for name, _ in net.named_modules() if name]
    for prefix in prefixes:
        if prefix not in known:
            raise RecipeError(f"freeze: the net has no module {prefix!r}{suggest(prefix, known)}")
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not within(name, prefixes))


def set_mode(net: nn.Module, phase: Phase) -> None:
    """Training mode for all but the frozen modules, whose batch norms keep their statistics; the phase's dropout."""
    net.train()
    for name, module in net.named_modules():
        if within(name, phase.freeze):
            module.eval()
        if isinstance(module, _DropoutNd):
            built = module.__dict__.setdefault("p_built", module.p)
            module.p = phase.dropout if phase.dropout >= 0 else built


def within(name: str, prefixes: Sequence[str]) -> bool:
    """Whether the dotted ``name`` is one of ``prefixes`` or lies below one."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def rate_scale(choice: TrainConfig, progress: float, losses: Sequence[float]) -> float:
    """The share of the rate at ``progress`` 0..1 of the leg, after the validation ``losses`` of its epochs so far.

    A leg is a stage, or the part of it before or after its fallback took over.
    Warm-up is linear. Then: half a cosine to zero; constant; falling by ``factor`` on a plateau of the losses; or
    one-cycle (Smith and Topin, 2018: a cosine up from 1/25 of the rate over the warm-up, a cosine down to zero).
    """
    rise = progress / choice.warmup if progress < choice.warmup else 1.0
    fall = (progress - choice.warmup) / (1 - choice.warmup)
    if choice.schedule == "one-cycle" and rise < 1:
        return 1 / 25 + (1 - 1 / 25) * 0.5 * (1 - math.cos(math.pi * rise))
    if rise < 1:
        return rise
    if choice.schedule in ("cosine", "one-cycle"):
        return 0.5 * (1 + math.cos(math.pi * fall))
    return plateau(losses, choice)[0] if choice.schedule == "plateau" else 1.0


def plateau(losses: Sequence[float], choice: TrainConfig) -> tuple[float, bool]:
    """The share of the rate after ``losses``, and whether its floor has been reached and waited out as well.

    The rule of torch's ReduceLROnPlateau. A loss that is not a number is not better than any.
    """
    best, waited, share, over = math.inf, 0, 1.0, False
    for loss in losses:
        if loss < best * (1 - _BETTER):
            best, waited = loss, 0
        else:
            waited += 1
        if waited > choice.patience:
            over = share <= choice.min_lr_factor * (1 + 1e-9)  # rounding: 0.1 ** 3 is a little more than 1e-3
            share, waited = max(share * choice.factor, choice.min_lr_factor), 0
    return share, over


def _fallback(recipe: Recipe, choice: TrainConfig, what: str) -> TrainConfig | None:
    """What takes over in a stage of ``choice``, checked before the first epoch and not when it is needed."""
    if not choice.fallback:
        return None
    where = ": ".join(part for part in (what, "fallback") if part)
    if "epochs" in choice.fallback:
        raise RecipeError(f"recipe {recipe.name}: {where}: epochs are those of its phase; leave them out")
    return changed(recipe, choice, {**choice.fallback, "fallback": {}}, where)
