"""The `[search]` section of a recipe: the searched keys with their values, and the objective.

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

from mien._errors import RecipeError, checked
from mien._suggest import require_known
from mien.lab import nets
from mien.lab.recipe import Recipe, load, search_space
from mien.lab.recipe.load import toml_value
from mien.lab.train.schedule import build_schedule

OBJECTIVES = ("accuracy", "log_loss")
_MOST_CHOICES = 100  # of a key; each is checked with the whole recipe
_RANGE = ("low", "high", "log", "step", "choices")

Value = Any  # a plain value of TOML


@dataclass(frozen=True, slots=True)
class Choices:
    """One of several values, which may be lists. Optuna cannot store lists, so the values are stored as JSON.

    Attributes:
        values: The values, at least one.
    """

    values: tuple[Value, ...]

    def suggest(self, trial: Any, key: str) -> Value:
        """Return the value of a key in a trial.

        Args:
            trial: The Optuna trial.
            key: The dotted key.

        Returns:
            One of the values.
        """
        return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in self.values]))

    def stored(self, value: Value) -> Any:
        """Return a value in the form in which Optuna stores it.

        Args:
            value: A plain value.

        Returns:
            The stored form, or ``None`` for a value outside of the space.
        """
        # The JSON of the equal choice: that of the value may be another one, as 0.0 of a choice 0.
        equal = (x for x in self.values if x == value and isinstance(x, bool) == isinstance(value, bool))
        return next(map(json.dumps, equal), None)

    @property
    def corners(self) -> tuple[Value, ...]:
        """The values with which the recipe is checked before the first trial."""
        return self.values


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers of a range; whole numbers if both ends and the step are.

    Attributes:
        low: The smallest number.
        high: The largest number.
        log: Whether the logarithm of the number is drawn uniformly.
        step: Distance of two numbers; ``None``: any number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: Any, key: str) -> Value:
        """Return the value of a key in a trial.

        Args:
            trial: The Optuna trial.
            key: The dotted key.

        Returns:
            A number of the range.
        """
        if self.whole:
            step = int(self.step or 1)
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log, step=step)
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)

    def stored(self, value: Value) -> Any:
        """Return a value in the form in which Optuna stores it.

        Args:
            value: A plain value.

        Returns:
            The value, or ``None`` for a value outside of the space.
        """
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high or (self.whole and value != int(value)):
            return None
        steps = (value - self.low) / self.step if self.step else 0.0
        return value if math.isclose(steps, round(steps), abs_tol=1e-9) else None

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, (int, type(None)))

    @property
    def corners(self) -> tuple[Value, ...]:
        """The values with which the recipe is checked before the first trial."""
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The keys of a recipe that a search varies, and the objective.

    Attributes:
        keys: Dotted key of a recipe -> its possible values.
        objective: ``"accuracy"`` or ``"log_loss"`` on the validation faces.
    """

    keys: Mapping[str, Choices | Range]
    objective: str = "accuracy"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The direction of the optimisation."""
        return "maximize" if self.objective == "accuracy" else "minimize"

    def suggest(self, trial: Any) -> dict[str, Value]:
        """Return the values of a trial.

        Args:
            trial: The Optuna trial.

        Returns:
            Dotted key -> value.
        """
        return {key: domain.suggest(trial, key) for key, domain in self.keys.items()}

    def shown(self, stored: Mapping[str, Any]) -> dict[str, Value]:
        """Return the parameters of a stored trial as plain values.

        Args:
            stored: Dotted key -> value in stored form.

        Returns:
            Dotted key -> plain value.
        """
        known = {key: value for key, value in stored.items() if key in self.keys}
        return {key: json.loads(x) if isinstance(self.keys[key], Choices) else x for key, x in known.items()}

    def starting_point(self, recipe: Recipe) -> dict[str, Any]:
        """Return the values of a recipe that are in the space.

        Args:
            recipe: The recipe.

        Returns:
            Dotted key -> value in stored form.
        """
        own = {key: domain.stored(_value_of(recipe, key)) for key, domain in self.keys.items()}
        return {key: value for key, value in own.items() if value is not None}


@checked
def read_space(name: str, overrides: Sequence[str] = ()) -> SearchSpace:
    """Read the search space of a recipe.

    The recipe is checked with both ends of every range and with every choice, so that a wrong value raises now.

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
        raise RecipeError(f"recipe {name} has no [search] section; write one (docs/how-to/train.md shows how)")
    objective = table.pop("objective", "accuracy")
    if objective not in OBJECTIVES:
        raise RecipeError(f"{where}: objective is one of {', '.join(OBJECTIVES)}, not {objective!r}")
    keys = {key: _domain(spec, f"{where}: {key!r}") for key, spec in _flat(table).items()}
    if not keys:
        raise RecipeError(f"{where}: names no key to vary")
    for key, domain in keys.items():
        for value in domain.corners:
            try:
                build_schedule(load(name, [*overrides, as_override(key, value)]))
            except RecipeError as error:
                raise RecipeError(f"{where}: {key!r} cannot be {value!r}: {error}") from error
    return SearchSpace(keys, objective)


def as_override(key: str, value: Value) -> str:
    """Return an override of a recipe.

    Args:
        key: The dotted key.
        value: Its value.

    Returns:
        ``section.key=value``.
    """
    return f"{key}={toml_value(value)}"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys below [search] as dotted keys, also if they are written as sections."""
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
        require_known("key", key, _RANGE, RecipeError, where=where)
    if "choices" not in spec:
        return _range(spec, where)
    values = spec["choices"]
    if len(spec) > 1:
        raise RecipeError(f"{where}: choices cannot have {', '.join(key for key in spec if key != 'choices')}")
    if not isinstance(values, list) or not values:
        raise RecipeError(f"{where}: choices is a list of values, not {values!r}")
    if len(values) > _MOST_CHOICES:
        raise RecipeError(f"{where}: has {len(values):,} choices, more than {_MOST_CHOICES}")
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


def _value_of(recipe: Recipe, key: str) -> Value:
    """The value of a recipe at a dotted key, or the default of a net's option; ``None`` without any."""
    section, _, option = key.rpartition(".")
    if section == "net.options" and option not in recipe.net.options:
        return nets.default(recipe.net.name, option)
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return list(value) if isinstance(value, tuple) else value
