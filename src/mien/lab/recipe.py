"""Recipes: one TOML file is one published training. Read strictly, overridden by dotted flags, saved resolved."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mien._emotions import CLASS_SETS
from mien._errors import RecipeError
from mien.lab.augment import Augment

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Data:
    """What is learned from: the class set, the size of the crops in pixels, and whether leaked rows are left out."""

    classes: str = "seven"
    size: int = 48
    exclude_leaked: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """What the net is told: ``(1 - votes) * smoothed label + votes * FER+ distribution``, or what its teachers say.

    ``teach`` is the share of the teachers' answer in the target, ``teachers`` the runs (folders with a ``final.pt``)
    whose mean probability it is, softened by ``temperature``. ``weights`` multiplies each class's loss by its inverse
    frequency to this power.
    """

    smoothing: float = 0.0
    votes: float = 0.0
    weights: float = 0.0
    teach: float = 0.0
    teachers: tuple[str, ...] = ()
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class NetChoice:
    """The module of ``mien.lab.nets`` and the options of its ``build``."""

    name: str = "mien"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Optimise:
    """The optimiser and the course of its learning rate: linear warm-up, then a cosine to zero."""

    name: str = "sgd"  # "sgd" (Nesterov) or "adamw"
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4  # weight decay of convolution and linear weights; norms and biases have none
    epochs: int = 100
    warmup: float = 0.1  # share of all steps
    batch: int = 128
    clip: float = 0.0  # largest gradient norm, 0: no clipping
    ema: float = 0.999  # decay of the averaged weights, 0: none
    precision: str = "bf16-mixed"  # as Lightning Fabric names it


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training, whole. ``about`` says what it reproduces, from what figure, at what cost."""

    name: str
    about: str
    seed: int = 0
    data: Data = field(default_factory=Data)
    target: Target = field(default_factory=Target)
    augment: Augment = field(default_factory=Augment)
    net: NetChoice = field(default_factory=NetChoice)
    optimise: Optimise = field(default_factory=Optimise)

    def __post_init__(self) -> None:
        """Checks what types alone cannot: raises ``RecipeError`` naming the key."""
        if self.data.classes not in CLASS_SETS:
            raise RecipeError(
                f"recipe {self.name}: data.classes is one of {', '.join(CLASS_SETS)}, not {self.data.classes!r}"
            )
        if self.optimise.name not in ("sgd", "adamw"):
            raise RecipeError(f"recipe {self.name}: optimise.name is 'sgd' or 'adamw', not {self.optimise.name!r}")
        if self.optimise.epochs < 1 or self.optimise.batch < 2:
            raise RecipeError(f"recipe {self.name}: optimise.epochs must be at least 1 and optimise.batch at least 2")
        if self.target.teach > 0 and not self.target.teachers:
            raise RecipeError(
                f"recipe {self.name}: target.teach is {self.target.teach} but target.teachers names no run"
            )
        if self.augment.fill not in ("border", "zeros"):
            raise RecipeError(f"recipe {self.name}: augment.fill is 'border' or 'zeros', not {self.augment.fill!r}")


def names() -> tuple[str, ...]:
    """The recipes that mien ships."""
    folder = resources.files("mien.lab").joinpath("recipes")
    return tuple(sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml")))


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The shipped recipe of that name, or the TOML file of that path, with ``section.key=value`` overrides applied.

    Raises ``RecipeError`` for an unknown recipe, key or override (naming the nearest) and for a value of the wrong
    type.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise RecipeError(f"{path}: no such recipe file")
        text = path.read_text(encoding="utf-8")
    elif name_or_path in names():
        text = resources.files("mien.lab").joinpath("recipes", f"{name_or_path}.toml").read_text(encoding="utf-8")
    else:
        raise RecipeError(
            f"unknown recipe {name_or_path!r}{_nearest(name_or_path, names())}; there are: {', '.join(names())}"
        )
    try:
        table = tomllib.loads(text)
        for override in overrides:
            _apply(table, override)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {name_or_path}: not valid TOML: {error}") from error
    return parse(table, where=f"recipe {name_or_path}")


def parse(table: Mapping[str, Any], *, where: str) -> Recipe:
    """A recipe from plain values, as they stand in a TOML file or a checkpoint."""
    return _parse(Recipe, table, where=where)


def dump(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values: ``parse(dump(recipe))`` is the same recipe."""
    return asdict(recipe)


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The same recipe under another seed."""
    return replace(recipe, seed=seed)


def _apply(table: dict[str, Any], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign:
        raise RecipeError(f"override {override!r} must read section.key=value")
    *sections, last = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"override {override!r}: {section!r} is not a section")
    try:
        table[last] = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        table[last] = value.strip()  # a bare word is a string


def _parse(kind: type[T], table: Mapping[str, Any], *, where: str) -> T:
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}{_nearest(key, known)}")
    values = {key: _value(hints[key], value, where=f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise RecipeError(f"{where}: {error}") from error


def _value(kind: Any, value: Any, *, where: str) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} is a section with keys, not {value!r}")
        return _parse(kind, value, where=where)  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise RecipeError(f"{where} is a list, not {value!r}")
        return tuple(_value(get_args(kind)[0], v, where=where) for v in value)
    if get_origin(kind) is not None:  # Mapping[str, Any]: the options of a net
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecipeError(f"{where} is of type {kind.__name__}, not {value!r}")
    return value


def _nearest(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
