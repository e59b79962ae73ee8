"""The `[search]` section of a recipe: which keys vary over which values, and the objective.

```toml
[search]
objective = "accuracy"                                       # or "log_loss"; on the validation faces
"train.lr" = { low = 1e-4, high = 1e-2, log = true }    # a range; whole numbers when both ends are
"net.options.dropout" = { low = 0.1, high = 0.5, step = 0.1 }
"train.batch_size" = [32, 64, 128]                             # or { choices = [32, 64, 128] }
```
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mien._errors import RecipeError
from mien._suggest import suggest
from mien.lab import nets
from mien.lab.recipe import Recipe, load, search_space
from mien.lab.recipe.text import toml_value
from mien.lab.train.schedule import build_schedule

OBJECTIVES = ("accuracy", "log_loss")
_RANGE = ("low", "high", "log", "step", "choices")

Value = Any  # a plain value, as TOML has them


@dataclass(frozen=True, slots=True)
class Choices:
    """One of several values; they may be lists."""

    values: tuple[Value, ...]

    def suggest(self, trial: Any, key: str) -> Value:
        """Return the value that the trial takes. The storage holds it as JSON, because it cannot hold lists."""
        return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in self.values]))

    def stored(self, value: Value) -> Any:
        """Return ``value`` as the storage holds it, ``None`` where it is outside of the space."""
        return json.dumps(value) if value in self.values else None

    def shown(self, stored: Any) -> Value:
        """Return a stored value as a plain value."""
        return json.loads(stored)

    @property
    def corners(self) -> tuple[Value, ...]:
        """The values that are tried on the recipe before the first trial."""
        return self.values


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; whole numbers when both are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: Any, key: str) -> Value:
        """Return the value that the trial takes."""
        if self.whole:
            step = int(self.step or 1)
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log, step=step)
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)

    def stored(self, value: Value) -> Any:
        """Return ``value`` as the storage holds it, ``None`` where it is outside of the space."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high or (self.whole and value != int(value)):
            return None
        steps = (value - self.low) / self.step if self.step else 0.0
        return value if math.isclose(steps, round(steps), abs_tol=1e-9) else None

    def shown(self, stored: Any) -> Value:
        """Return a stored value as a plain value."""
        return stored

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, (int, type(None)))

    @property
    def corners(self) -> tuple[Value, ...]:
        """The values that are tried on the recipe before the first trial."""
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """What a search varies.

    Attributes:
        keys: Dotted key of a recipe -> its possible values.
        objective: ``"accuracy"`` or ``"log_loss"`` on the validation faces.
    """

    keys: Mapping[str, Choices | Range]
    objective: str = "accuracy"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The direction of the optimisation, as Optuna names it."""
        return "maximize" if self.objective == "accuracy" else "minimize"

    def suggest(self, trial: Any) -> dict[str, Value]:
        """Return the values of one trial by dotted key."""
        return {key: domain.suggest(trial, key) for key, domain in self.keys.items()}

    def shown(self, stored: Mapping[str, Any]) -> dict[str, Value]:
        """Return the parameters of a stored trial as plain values."""
        return {key: self.keys[key].shown(value) for key, value in stored.items() if key in self.keys}

    def starting_point(self, recipe: Recipe) -> dict[str, Any]:
        """Return the values of the recipe itself as the storage holds them, where they are in the space."""
        own = {key: domain.stored(_value_of(recipe, key)) for key, domain in self.keys.items()}
        return {key: value for key, value in own.items() if value is not None}


def read_space(name: str, overrides: Sequence[str] = ()) -> SearchSpace:
    """Read the search space of a recipe.

    Every end of a range and every choice is tried on the recipe, so that a wrong value shows before the first trial.

    Args:
        name: Name or path of the recipe.
        overrides: ``section.key=value`` for every trial.

    Returns:
        The search space.

    Raises:
        RecipeError: There is no ``[search]`` section, or a key is unknown or has a wrong range.
    """
    table, where = dict(search_space(name)), f"recipe {name}: search"
    if not table:
        raise RecipeError(f"recipe {name} has no [search] section; write one (docs/training.md shows how)")
    objective = table.pop("objective", "accuracy")
    if objective not in OBJECTIVES:
        raise RecipeError(f"{where}: objective is one of {', '.join(OBJECTIVES)}, not {objective!r}")
    keys = {key: _domain(spec, f"{where}: {key!r}") for key, spec in _flat(table).items()}
    if not keys:
        raise RecipeError(f"{where}: names no key to vary")
    for key, domain in keys.items():
        for value in domain.corners:
            _try(name, overrides, key, value, where)
    return SearchSpace(keys, objective)


def as_override(key: str, value: Value) -> str:
    """Return ``section.key=value``, as ``load`` takes it."""
    return f"{key}={toml_value(value)}"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys, whether they are written as such or as sections below [search]."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        section = isinstance(value, Mapping) and value and all(isinstance(v, (Mapping, list)) for v in value.values())
        if section and "choices" not in value:
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _domain(spec: Any, where: str) -> Choices | Range:
    if isinstance(spec, list):
        spec = {"choices": spec}
    if not isinstance(spec, Mapping):
        raise RecipeError(f"{where} is a list of choices or a table like {{ low = 0.1, high = 0.5 }}, not {spec!r}")
    for key in spec:
        if key not in _RANGE:
            raise RecipeError(f"{where}: unknown key {key!r}{suggest(key, _RANGE)}")
    return _choices(spec, where) if "choices" in spec else _range(spec, where)


def _choices(spec: Mapping[str, Any], where: str) -> Choices:
    values = spec["choices"]
    if len(spec) > 1:
        raise RecipeError(f"{where}: choices cannot have {', '.join(key for key in spec if key != 'choices')}")
    if not isinstance(values, list) or not values:
        raise RecipeError(f"{where}: choices is a list of values, not {values!r}")
    if len({json.dumps(value) for value in values}) < len(values):
        raise RecipeError(f"{where}: choices names a value twice")
    return Choices(tuple(values))


def _range(spec: Mapping[str, Any], where: str) -> Range:
    for key in ("low", "high"):
        if key not in spec:
            raise RecipeError(f"{where}: a range has low and high; {key} is missing")
    for key in ("low", "high", "step"):
        number = spec.get(key, 1)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise RecipeError(f"{where}: {key} is a number, not {number!r}")
    low, high, log, step = spec["low"], spec["high"], spec.get("log", False), spec.get("step")
    if low >= high:
        raise RecipeError(f"{where}: low ({low}) must be below high ({high})")
    if not isinstance(log, bool) or (log and (low <= 0 or step is not None)):
        raise RecipeError(f"{where}: log is true or false; a logarithmic range starts above 0 and has no step")
    if step is not None and not 0 < step <= high - low:
        raise RecipeError(f"{where}: step ({step}) must be above 0 and at most high - low")
    return Range(low, high, log, step)


def _try(name: str, overrides: Sequence[str], key: str, value: Value, where: str) -> None:
    try:
        build_schedule(load(name, [*overrides, as_override(key, value)]))
    except RecipeError as error:
        raise RecipeError(f"{where}: {key!r} cannot be {value!r}: {error}") from error


def _value_of(recipe: Recipe, key: str) -> Value:
    """The value of the recipe at a dotted key, or the default of a net's option; ``None`` where there is neither."""
    section, _, option = key.rpartition(".")
    if section == "net.options" and option not in recipe.net.options:
        return nets.default(recipe.net.name, option)
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return list(value) if isinstance(value, tuple) else value
