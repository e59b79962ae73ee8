"""What a recipe can say of its optimiser, of the course of its learning rate and of its phases."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mien._errors import RecipeError

OPTIMISERS = ("sgd", "adam", "adamw", "muon")
SCHEDULES = ("cosine", "constant", "plateau", "one-cycle")
PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True, slots=True)
class Optimise:
    """The optimiser and the course of its learning rate."""

    name: str = "sgd"  # "sgd" (Nesterov), "adam" (decay as L2 penalty), "adamw" (decoupled decay) or
    # "muon" (orthogonal steps of convolutions, decoupled decay; Nesterov SGD for the rest)
    rate: float = 0.1  # the largest learning rate
    momentum: float = 0.9  # of SGD and Muon; the Adams have (0.9, 0.999)
    decay: float = 5e-4  # weight decay of convolution and linear weights; norms and biases have none
    rates: Mapping[str, float] = field(default_factory=dict)  # module prefix -> factor on its rate
    decays: Mapping[str, float] = field(default_factory=dict)  # module prefix -> its own weight decay
    epochs: int = 100  # of the training, or of the phase
    schedule: str = "cosine"  # "cosine" to zero, "constant", "plateau" or "one-cycle"
    warmup: float = 0.1  # share of all steps, linear; the rise of one-cycle
    patience: int = 5  # plateau: epochs without a better validation loss before the rate falls
    factor: float = 0.1  # plateau: what the rate is multiplied by then
    floor: float = 1e-3  # plateau: the smallest share of the first rate
    fallback: Mapping[str, Any] = field(default_factory=dict)  # changes of this section that take over from the best
    # epoch so far once the plateau's floor is reached and its patience is over again, or the loss is not finite
    batch: int = 128  # faces a step, over all devices
    accumulate: int = 1  # parts that a batch is computed in
    clip: float = 0.0  # largest gradient norm, 0: no clipping
    ema: float = 0.999  # decay of the averaged weights, 0: none
    precision: str = "bf16-mixed"  # as Lightning Fabric names it


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training with epochs, rates and optimiser of its own: ``optimise`` changes keys of the recipe's."""

    name: str = ""  # for people
    freeze: tuple[str, ...] = ()  # module prefixes that do not learn, and whose batch norms keep their statistics
    dropout: float = -1.0  # of every dropout layer; below 0: as the net was built
    size: int = 0  # side in pixels that the net learns at in this phase; 0: that of `[data]`, which it is judged at
    optimise: Mapping[str, Any] = field(default_factory=dict)  # key of `[optimise]` -> its value in this phase


def check_optimise(choice: Optimise, where: str) -> None:
    """Raises ``RecipeError`` naming the key of ``where`` that has a value it cannot have."""
    for key, value, allowed in (
        ("name", choice.name, OPTIMISERS),
        ("schedule", choice.schedule, SCHEDULES),
        ("precision", choice.precision, PRECISIONS),
    ):
        if value not in allowed:
            raise RecipeError(f"{where}.{key} is one of {', '.join(allowed)}, not {value!r}")
    if choice.epochs < 1 or choice.batch < 2:
        raise RecipeError(f"{where}.epochs must be at least 1 and {where}.batch at least 2")
    if choice.accumulate < 1 or choice.batch % choice.accumulate:
        raise RecipeError(f"{where}.batch ({choice.batch}) must be a multiple of accumulate ({choice.accumulate})")
    if choice.rate <= 0 or not 0 < choice.factor < 1 or not 0 < choice.floor <= 1:
        raise RecipeError(f"{where}: rate is above 0, factor between 0 and 1, floor above 0 and at most 1")
    for key in ("warmup", "momentum", "ema"):
        if not 0 <= getattr(choice, key) < 1:
            raise RecipeError(f"{where}.{key} is at least 0 and below 1, not {getattr(choice, key)}")
    single = {key: getattr(choice, key) for key in ("decay", "patience", "clip")}
    groups = {f"{key}.{name}": x for key in ("rates", "decays") for name, x in getattr(choice, key).items()}
    for key, value in (single | groups).items():
        if value < 0:
            raise RecipeError(f"{where}.{key} is at least 0, not {value}")
    if choice.fallback and choice.schedule != "plateau":
        raise RecipeError(f"{where}.fallback waits for a plateau: set schedule = 'plateau'")
