"""What a recipe can say, section by section. The defaults are those of the `mien` family."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mien._emotions import Emotion, class_set
from mien._errors import RecipeError
from mien._suggest import suggest
from mien.lab.augment import AugmentConfig, check_augment
from mien.lab.inference import TTA

OPTIMIZERS = ("sgd", "adam", "adamw", "muon")


SCHEDULES = ("cosine", "constant", "plateau", "one-cycle")


TRAIN_PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The optimiser and the course of its learning rate."""

    optimizer: str = "sgd"  # "sgd" (Nesterov), "adam" (decay as L2 penalty), "adamw" (decoupled decay) or
    # "muon" (orthogonal steps of convolutions, decoupled decay; Nesterov SGD for the rest)
    lr: float = 0.1  # the largest learning rate
    momentum: float = 0.9  # of SGD and Muon; the Adams have (0.9, 0.999)
    weight_decay: float = 5e-4  # weight decay of convolution and linear weights; norms and biases have none
    lr_factors: Mapping[str, float] = field(default_factory=dict)  # module prefix -> factor on its rate
    weight_decays: Mapping[str, float] = field(default_factory=dict)  # module prefix -> its own weight decay
    epochs: int = 100  # of the training, or of the phase
    schedule: str = "cosine"  # "cosine" to zero, "constant", "plateau" or "one-cycle"
    warmup: float = 0.1  # share of all steps, linear; the rise of one-cycle
    patience: int = 5  # plateau: epochs without a better validation loss before the rate falls
    factor: float = 0.1  # plateau: what the rate is multiplied by then
    min_lr_factor: float = 1e-3  # plateau: the smallest share of the first rate
    fallback: Mapping[str, Any] = field(default_factory=dict)  # changes of this section that take over from the best
    # epoch so far once the plateau's floor is reached and its patience is over again, or the loss is not finite
    batch_size: int = 128  # faces a step, over all devices
    accumulate_steps: int = 1  # parts that a batch is computed in
    clip_grad: float = 0.0  # largest gradient norm, 0: no clipping
    ema_decay: float = 0.999  # decay of the averaged weights, 0: none
    precision: str = "bf16-mixed"  # as Lightning Fabric names it


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training with epochs, rates and optimiser of its own: ``train`` changes keys of the recipe's."""

    name: str = ""  # for people
    freeze: tuple[str, ...] = ()  # module prefixes that do not learn, and whose batch norms keep their statistics
    dropout: float = -1.0  # of every dropout layer; below 0: as the net was built
    size: int = 0  # side in pixels that the net learns at in this phase; 0: that of `[data]`, which it is judged at
    train: Mapping[str, Any] = field(default_factory=dict)  # key of `[train]` -> its value in this phase


def check_train(choice: TrainConfig, where: str) -> None:
    """Raises ``RecipeError`` naming the key of ``where`` that has a value it cannot have."""
    for key, value, allowed in (
        ("optimizer", choice.optimizer, OPTIMIZERS),
        ("schedule", choice.schedule, SCHEDULES),
        ("precision", choice.precision, TRAIN_PRECISIONS),
    ):
        if value not in allowed:
            raise RecipeError(f"{where}.{key} is one of {', '.join(allowed)}, not {value!r}")
    if choice.epochs < 1 or choice.batch_size < 2:
        raise RecipeError(f"{where}.epochs must be at least 1 and {where}.batch_size at least 2")
    if choice.accumulate_steps < 1 or choice.batch_size % choice.accumulate_steps:
        raise RecipeError(
            f"{where}.batch_size ({choice.batch_size}) must be a multiple of accumulate_steps {choice.accumulate_steps}"
        )
    if choice.lr <= 0 or not 0 < choice.factor < 1 or not 0 < choice.min_lr_factor <= 1:
        raise RecipeError(f"{where}: lr is above 0, factor between 0 and 1, min_lr_factor above 0 and at most 1")
    for key in ("warmup", "momentum", "ema_decay"):
        if not 0 <= getattr(choice, key) < 1:
            raise RecipeError(f"{where}.{key} is at least 0 and below 1, not {getattr(choice, key)}")
    single = {key: getattr(choice, key) for key in ("weight_decay", "patience", "clip_grad")}
    groups = {f"{key}.{name}": x for key in ("lr_factors", "weight_decays") for name, x in getattr(choice, key).items()}
    for key, value in (single | groups).items():
        if value < 0:
            raise RecipeError(f"{where}.{key} is at least 0, not {value}")
    if choice.fallback and choice.schedule != "plateau":
        raise RecipeError(f"{where}.fallback waits for a plateau: set schedule = 'plateau'")


T = TypeVar("T")


def read(kind: type[T], table: Mapping[str, Any], *, where: str) -> T:
    """An instance of the dataclass ``kind`` from ``table``.

    Raises ``RecipeError`` for unknown keys, wrong types and numbers that are not finite.
    """
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}{suggest(key, known)}")
    values = {key: _value(hints[key], value, where=f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise RecipeError(f"{where}: {error}") from error


def change(base: T, changes: Mapping[str, Any], *, where: str) -> T:
    """``base`` with the keys of ``changes`` replaced, read as strictly."""
    kept = {f.name: getattr(base, f.name) for f in fields(base)}  # type: ignore[arg-type]
    return read(type(base), {**kept, **changes}, where=where)


def _value(kind: Any, value: Any, *, where: str) -> Any:
    if is_dataclass(kind):
        return _section(kind, value, where=where)
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise RecipeError(f"{where} is a list, not {value!r}")
        return tuple(_value(get_args(kind)[0], v, where=where) for v in value)
    if get_origin(kind) is not None:
        return _mapping(get_args(kind)[1], value, where=where)
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where} is a finite number, not {value}")
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecipeError(f"{where} is of type {kind.__name__}, not {value!r}")
    return value


def _section(kind: Any, value: Any, *, where: str) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} is a section with keys, not {value!r}")
    return read(kind, value, where=where)


def _mapping(kind: Any, value: Any, *, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} is a table with keys, not {value!r}")
    return {key: _value(kind, v, where=f"{where}: {key}") for key, v in value.items()}


VARIANTS = ("faithful", "tuned", "own")


LOSSES = ("cross-entropy", "focal")


CHECKPOINTS = ("last", "best")


CALIBRATIONS = ("vector", "temperature")


# What torch's generators take, whatever the epoch makes of it.
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Claim:
    """What a document says of the system that a recipe reproduces: a claim, never a measurement of ours."""

    document: str = ""  # "000" to "004", as docs/systems.md lists them; empty for our own systems
    variant: str = "own"  # "faithful": trained as the document says; "tuned": changed where `about` says; "own"
    split: str = ""  # what the document measured on, in its words
    metrics: Mapping[str, float] = field(default_factory=dict)  # accuracy = 0.518, "recall.angry" = 0.467, ...
    cost: str = ""  # what the whole training costs, on which machine


@dataclass(frozen=True, slots=True)
class ExtraData:
    """A further set that training faces come from: whatever `--data` takes."""

    path: str = ""  # a folder or file
    weight: float = 1.0  # how often each of its faces is drawn in an epoch; 0.5: every other epoch, on average
    labels: Mapping[str, str] = field(default_factory=dict)  # as `DataConfig.labels`


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What is learned from. Everything here concerns the training faces alone, but for ``folds`` and the leak."""

    classes: str = "seven"  # a class set, or emotions: "happy, sad"
    size: int = 48  # side in pixels that the net sees
    exclude_leaked: bool = True  # leave out Training rows whose pixels stand in a test split
    exclude: str = ""  # a text file of rows to leave out: one number a line, as `FaceSet.rows` counts them
    labels: Mapping[str, str] = field(default_factory=dict)  # names in one's own folder or CSV -> emotion, "" = drop
    votes: str = ""  # FER+'s fer2013new.csv, where a table of FER-2013 holds no votes itself
    extra: tuple[ExtraData, ...] = ()  # further sets, mixed in
    max_per_class: int = 0  # at most so many faces a class (the first of an order drawn by the seed); 0: all
    fraction: float = 1.0  # share of the training faces to learn from, for trials
    balance_power: float = 0.0  # classes drawn as often as count**-balance says: 0 as they come, 1 all equally often
    oversample: Mapping[str, float] = field(default_factory=dict)  # emotion -> how often its faces come in an epoch
    folds: int = 0  # k: validate on one of k parts of Training instead of PublicTest; copies stay in one part
    fold: int = 0  # which of them, from 0
    expand: float = 0.0  # share of extra faces made once, each by exactly one transform (document 003)
    expand_first: bool = False  # ... before a random fifth is split off to validate on: shows document 003's leak


@dataclass(frozen=True, slots=True)
class TargetConfig:
    """Soft targets: ``(1 - vote_weight) * smoothed label + vote_weight * FER+ votes``, or the teachers' predictions."""

    label_smoothing: float = 0.0  # share of the label that all classes share (Szegedy et al., CVPR 2016)
    vote_weight: float = 0.0  # share of the FER+ distribution, where a face has votes (Barsoum et al., ICMI 2016)
    class_weight_power: float = 0.0  # each class's loss is multiplied by its inverse frequency to this power
    effective_number_beta: float = (
        0.0  # beta: by the inverse effective number of samples instead (Cui et al., CVPR 2019)
    )
    distillation: float = 0.0  # share of the teachers' answer in the target
    teachers: tuple[str, ...] = ()  # finished runs (their mean probability is taught) or files of cached logits
    distillation_temperature: float = 1.0  # that softens the teachers


@dataclass(frozen=True, slots=True)
class LossConfig:
    """What is minimised: the loss of the class and, with weights above 0, auxiliary losses."""

    name: str = "cross-entropy"  # or "focal"
    gamma: float = 2.0  # of the focal loss (Lin et al., ICCV 2017)
    contrastive: float = 0.0  # weight of the supervised contrastive loss (Khosla et al., NeurIPS 2020)
    contrastive_temperature: float = 0.1  # of the contrastive loss
    text_alignment: float = 0.0  # weight of the alignment with the emotions' descriptions in words
    text_temperature: float = 0.1  # of the alignment
    face_region: float = 0.0  # weight of the penalty on the share of the class's map outside of the face oval


@dataclass(frozen=True, slots=True)
class MinorityConfig:
    """Classes that are augmented otherwise and more: ``augment`` changes keys of ``[augment]`` for them alone."""

    classes: tuple[str, ...] = ()  # emotions
    oversample: float = 1.0  # how often their faces come in an epoch
    augment: Mapping[str, Any] = field(default_factory=dict)  # key of `[augment]` -> its value for them


@dataclass(frozen=True, slots=True)
class NetConfig:
    """The module of ``mien.lab.nets`` (or ``timm/NAME``), the options of its ``build``, the weights it starts from."""

    name: str = "mien"  # a module of `mien.lab.nets`, dashes or underscores, or `timm/NAME`
    options: Mapping[str, Any] = field(default_factory=dict)  # of the module's `build`
    weights: str = ""  # "imagenet": fetched at run time, for ResNet backbones; or the folder of a finished run


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training, whole. ``about`` says what it reproduces, from what figure, at what cost."""

    name: str  # of the run's folder and of its results
    about: str  # what it reproduces, the published figure and split, what was chosen, the cost
    seed: int = 0  # of weights, order and augmentation
    checkpoint: str = (
        "last"  # the epoch whose (averaged) weights are the result; "best": of the highest PublicTest accuracy
    )
    tta: str = "none"  # test-time augmentation of the validation faces: none, flip, six or ten
    validate_every: int = (
        1  # every how many epochs the (averaged) weights are judged; after the last one they always are
    )
    calibration: str = "vector"  # on PublicTest, factor and offset a class; "temperature": no answer changes
    claim: Claim = field(default_factory=Claim)
    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    minority: MinorityConfig = field(default_factory=MinorityConfig)
    net: NetConfig = field(default_factory=NetConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    phases: tuple[Phase, ...] = ()

    def __post_init__(self) -> None:
        """Checks what types alone cannot: raises ``RecipeError`` naming the key."""
        for key, value, allowed in (
            ("checkpoint", self.checkpoint, CHECKPOINTS),
            ("tta", self.tta, tuple(TTA)),
            ("calibration", self.calibration, CALIBRATIONS),
            ("claim.variant", self.claim.variant, VARIANTS),
            ("loss.name", self.loss.name, LOSSES),
        ):
            if value not in allowed:
                raise self._wrong(f"{key} is one of {', '.join(allowed)}, not {value!r}")
        if self.validate_every < 1:
            raise self._wrong(f"validate_every is at least 1, not {self.validate_every}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise self._wrong(f"seed is from 0 to {LARGEST_SEED}, not {self.seed}")
        self._check_data()
        self._check_shares()
        for phase in self.phases:
            if phase.dropout > 1:
                raise self._wrong(f"phase {phase.name!r}: dropout is a share up to 1, not {phase.dropout}")
            if phase.size != 0 and phase.size < 8:
                raise self._wrong(f"phase {phase.name!r}: size is at least 8, or 0 for data.size, not {phase.size}")
        check_train(self.train, f"recipe {self.name}: train")
        check_augment(self.augment, f"recipe {self.name}: augment")
        self._check_minority()
        if self.target.distillation > 0 and not self.target.teachers:
            raise self._wrong(f"target.distillation is {self.target.distillation} but target.teachers names no run")
        if self.target.class_weight_power > 0 and self.target.effective_number_beta > 0:
            raise self._wrong(
                "target.class_weight_power and target.effective_number_beta both weigh the classes; leave one at 0"
            )
        mixed = self.augment.mixup > 0 or self.augment.cutmix > 0
        if mixed and (self.loss.contrastive > 0 or self.loss.face_region > 0):
            raise self._wrong(
                "loss.contrastive and loss.face_region need unmixed faces; set augment.mixup and cutmix to 0"
            )

    def _check_data(self) -> None:
        data = self.data
        try:
            class_set(data.classes)
        except ValueError as error:
            raise self._wrong(f"data.{error}") from error
        if data.size < 8 or not 0 < data.fraction <= 1 or data.max_per_class < 0 or data.expand < 0:
            raise self._wrong(
                "data.size is at least 8, data.fraction in (0, 1], data.max_per_class and data.expand at least 0"
            )
        if data.folds < 0 or data.folds == 1:
            raise self._wrong(f"data.folds is 0, for none, or at least 2, not {data.folds}")
        if not 0 <= data.fold < max(data.folds, 1):
            raise self._wrong(f"data.fold is 0 to {max(data.folds, 1) - 1} of {data.folds} data.folds, not {data.fold}")
        for key, names in (("data.oversample", data.oversample), ("minority.classes", self.minority.classes)):
            strange = [name for name in names if name not in tuple(Emotion)]
            if strange:
                raise self._wrong(f"{key} names no emotion: {', '.join(strange)}; there are {', '.join(Emotion)}")

    def _check_minority(self) -> None:
        minority = self.minority
        check_augment(minority_augment(self), f"recipe {self.name}: minority.augment")
        if {"mixup", "cutmix"} & set(minority.augment):
            raise self._wrong("minority.augment cannot change mixup and cutmix: whole batches are mixed")

    def _check_shares(self) -> None:
        """The numbers of ``[target]`` and ``[loss]``."""
        target, loss = self.target, self.loss
        shares = {
            "label_smoothing": target.label_smoothing,
            "vote_weight": target.vote_weight,
            "distillation": target.distillation,
        }
        for key, value in shares.items():
            if not 0 <= value <= 1:
                raise self._wrong(f"target.{key} is a share from 0 to 1, not {value}")
        if target.class_weight_power < 0:
            raise self._wrong(f"target.class_weight_power is at least 0, not {target.class_weight_power}")
        if not 0 <= target.effective_number_beta < 1:
            raise self._wrong(
                f"target.effective_number_beta is at least 0 and below 1, as 0.999, not {target.effective_number_beta}"
            )
        for key in ("gamma", "contrastive", "text_alignment", "face_region"):
            if not 0 <= getattr(loss, key) < math.inf:
                raise self._wrong(f"loss.{key} is at least 0, not {getattr(loss, key)}")
        for name, value in (
            ("target.distillation_temperature", target.distillation_temperature),
            ("loss.contrastive_temperature", loss.contrastive_temperature),
            ("loss.text_temperature", loss.text_temperature),
        ):
            if not 0 < value < math.inf:
                raise self._wrong(f"{name} is above 0, not {value}")

    def _wrong(self, what: str) -> RecipeError:
        return RecipeError(f"recipe {self.name}: {what}")


def minority_augment(recipe: Recipe) -> AugmentConfig:
    """The strengths of the minority's classes. Raises ``RecipeError`` for keys that ``[augment]`` does not have."""
    return change(recipe.augment, recipe.minority.augment, where=f"recipe {recipe.name}: minority.augment")


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The same recipe under another seed."""
    return replace(recipe, seed=seed)
