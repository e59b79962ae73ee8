"""The sections of a recipe, their defaults and limits. The defaults are those of the `mien` family."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mien._emotions import Emotion, class_set
from mien._errors import RecipeError
from mien._suggest import require_known
from mien.lab.augment import AugmentConfig, check_augment, check_values
from mien.lab.inference import TTA

OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
SCHEDULES = ("cosine", "constant", "plateau", "one-cycle")
TRAIN_PRECISIONS = ("32-true", "bf16-mixed")
VARIANTS = ("faithful", "tuned", "own")
LOSSES = ("cross-entropy", "focal")
CHECKPOINTS = ("last", "best")
CALIBRATIONS = ("vector", "temperature")
_LONGEST_NAME = 120
_NAME_PART = re.compile(r"[\w+-][\w+. -]*")
LARGEST_SEED = 2**32 - 1  # the largest that torch's generators accept for every epoch
_POSITIVE, _NOT_NEGATIVE, _SHARE, _BELOW_1, _FACTOR = "(0, inf)", "[0, inf)", "[0, 1]", "[0, 1)", "[0, 1000]"
# The values of each key, as ``check_values`` takes them. The largest numbers are the largest that make sense: the work
# and the memory of a training grow with them.
_LIMITS: Mapping[str, Mapping[str, str | tuple[Any, ...]]] = {
    "": {
        **{"checkpoint": CHECKPOINTS, "tta": tuple(TTA), "calibration": CALIBRATIONS},
        **{"validate_every": "[1, inf)", "seed": f"[0, {LARGEST_SEED}]"},
    },
    "claim": {"variant": VARIANTS},
    "data": {
        **{"size": "[8, 1024]", "fraction": "(0, 1]", "max_per_class": _NOT_NEGATIVE, "expand": "[0, 100]"},
        **{"folds": "[0, 1000]", "balance_power": _FACTOR, "oversample": _FACTOR},
    },
    "target": {
        **dict.fromkeys(("label_smoothing", "vote_weight", "distillation"), _SHARE),
        **{"class_weight_power": _NOT_NEGATIVE, "effective_number_beta": _BELOW_1},
        **{"distillation_temperature": _POSITIVE},
    },
    "loss": {
        **{"name": LOSSES, "contrastive_temperature": _POSITIVE, "text_temperature": _POSITIVE},
        **dict.fromkeys(("gamma", "contrastive", "text_alignment", "face_region", "consistency"), _NOT_NEGATIVE),
    },
    "minority": {"oversample": _FACTOR},
}
_TRAIN_LIMITS: Mapping[str, str | tuple[Any, ...]] = {
    **{"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": TRAIN_PRECISIONS},
    **{"epochs": "[1, 1000000]", "batch_size": "[2, 1000000]", "accumulate_steps": "[1, inf)"},
    **{"lr": _POSITIVE, "factor": "(0, 1)", "min_lr_factor": "(0, 1]"},
    **dict.fromkeys(("warmup", "momentum", "ema_decay"), _BELOW_1),
    **dict.fromkeys(("weight_decay", "patience", "clip_grad", "lr_factors", "weight_decays"), _NOT_NEGATIVE),
}
_MOST_SECTIONS = 100  # phases, or further data sets
_LARGEST = 1e30  # of any number
_MOST_ITEMS = 10_000  # of a list or table
_SHRINKING = ("shrink", "shrink_to", "shrink_softness")  # of [augment], applied to batches of mixed faces
_DEEPEST = 4  # lists and tables within an option of a net

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The optimiser, the learning-rate schedule and the length of the training."""

    optimizer: str = "sgd"  # "sgd" (Nesterov), "adam" (decay as L2 penalty), "adamw" (decoupled decay) or
    # "muon" (orthogonal steps for convolutions, decoupled decay; Nesterov SGD for the rest)
    lr: float = 0.1  # the largest learning rate
    momentum: float = 0.9  # of SGD and Muon; Adam and AdamW have betas (0.9, 0.999)
    weight_decay: float = 5e-4  # weight decay of convolution and linear weights; norms and biases have none
    lr_factors: Mapping[str, float] = field(default_factory=dict)  # module prefix -> factor on its learning rate
    weight_decays: Mapping[str, float] = field(default_factory=dict)  # module prefix -> its own weight decay
    epochs: int = 100  # of the training, or of the phase
    schedule: str = "cosine"  # "cosine" to zero, "constant", "plateau" or "one-cycle"
    warmup: float = 0.1  # share of all steps with a linear warm-up; for one-cycle the share with a rising rate
    patience: int = 5  # plateau: epochs without a better validation loss before the rate is lowered
    factor: float = 0.1  # plateau: factor on the rate at each lowering
    min_lr_factor: float = 1e-3  # plateau: lowest rate as a share of the first
    fallback: Mapping[str, Any] = field(default_factory=dict)  # plateau: changes of this section with which training
    # continues from the best epoch when the lowest rate brings no better loss either, or when the loss is not finite
    batch_size: int = 128  # faces per step, over all devices
    accumulate_steps: int = 1  # parts in which the gradient of a batch is computed
    clip_grad: float = 0.0  # largest gradient norm; 0: no clipping
    ema_decay: float = 0.999  # decay of the averaged weights; 0: no averaging
    precision: str = "bf16-mixed"  # fp32 on devices without bf16 instructions; or "32-true"


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training with its own epochs, learning rate and optimiser; ``train`` changes keys of `[train]`."""

    name: str = ""  # shown in logs
    freeze: tuple[str, ...] = ()  # module prefixes that are not trained, and whose batch norms keep their statistics
    dropout: float = -1.0  # of every dropout layer; below 0: as in the net
    size: int = 0  # side of training faces in pixels; 0: that of `[data]`, at which the net is always evaluated
    train: Mapping[str, Any] = field(default_factory=dict)  # key of `[train]` -> its value in this phase


@dataclass(frozen=True, slots=True)
class Claim:
    """What a document reports of the system that a recipe reproduces; never a result of mien."""

    document: str = ""  # "000" to "004", as in docs/reference/systems.md; empty for mien's own systems
    variant: str = "own"  # "faithful": trained as in the document; "tuned": with the changes in `about`; "own"
    split: str = ""  # the faces that the document evaluates on, in its words
    metrics: Mapping[str, float] = field(default_factory=dict)  # accuracy = 0.518, "recall.angry" = 0.467, ...
    cost: str = ""  # cost of the whole training, and the machine


@dataclass(frozen=True, slots=True)
class ExtraData:
    """A further data set of training faces, in any form that `mien train` reads."""

    path: str = ""  # a folder or file
    weight: float = 1.0  # mean number of times that each of its faces is in an epoch
    labels: Mapping[str, str] = field(default_factory=dict)  # as in `[data]`


@dataclass(frozen=True, slots=True)
class DataConfig:
    """The training faces. Except for ``folds`` and ``expand_first``, no key changes the validation faces."""

    classes: str = "seven"  # a class set, or emotions: "happy, sad"
    size: int = 48  # side of the net's input in pixels
    exclude_leaked: bool = True  # leave out Training rows whose pixels are in a test split
    exclude: str = ""  # a text file of rows to leave out: one number per line, as in `FaceSet.rows`
    labels: Mapping[str, str] = field(default_factory=dict)  # label of a custom set -> emotion; "": leave out
    skip_unreadable: bool = False  # leave out images of a folder or list that cannot be read, and count them
    votes: str = ""  # FER+'s fer2013new.csv, for a table of FER-2013 without votes
    extra: tuple[ExtraData, ...] = ()  # further sets, mixed into Training
    max_per_class: int = 0  # largest number of faces per class (the first in an order drawn by the seed); 0: all
    fraction: float = 1.0  # share of the training faces to use, for trials
    balance_power: float = 0.0  # classes are drawn in proportion to count**(1 - power); 1: all equally often
    oversample: Mapping[str, float] = field(default_factory=dict)  # emotion -> times that its faces are in an epoch
    folds: int = 0  # k: validate on one of k parts of Training instead of PublicTest; copies are always in one part
    fold: int = 0  # which part, from 0
    fold_public: bool = False  # the parts are of Training and PublicTest together, and PublicTest is learned from
    expand: float = 0.0  # share of transformed copies, made once with one transform each (document 003)
    expand_first: bool = False  # expand before a random fifth is split off for validation: the leak of document 003

    @property
    def leak(self) -> str:
        """The key that lets a net learn from test faces; empty without one."""
        folds_public = "data.fold_public" if self.folds and self.fold_public else ""
        return "data.expand_first" if self.expand_first else folds_public


@dataclass(frozen=True, slots=True)
class TargetConfig:
    """Soft targets: ``(1 - vote_weight) * smoothed label + vote_weight * FER+ votes``, or the teachers' predictions."""

    label_smoothing: float = 0.0  # probability that is spread over all classes (Szegedy et al., CVPR 2016)
    vote_weight: float = 0.0  # share of the FER+ distribution, where a face has votes (Barsoum et al., ICMI 2016)
    class_weight_power: float = 0.0  # power of the inverse class frequency that is the weight of a class's loss
    effective_number_beta: float = 0.0  # beta: the inverse effective number of samples is the weight instead
    # (Cui et al., CVPR 2019)
    distillation: float = 0.0  # share of the teachers' predictions in the target
    teachers: tuple[str, ...] = ()  # runs, embedded models, .onnx files or files of cached logits, averaged
    distillation_temperature: float = 1.0  # temperature of the teachers' softmax
    undamaged_teachers: bool = False  # teachers that are runs see each face before blur, noise, JPEG and erasing


@dataclass(frozen=True, slots=True)
class LossConfig:
    """The loss: that of the class and, with weights above 0, auxiliary losses."""

    name: str = "cross-entropy"  # or "focal"
    gamma: float = 2.0  # of the focal loss (Lin et al., ICCV 2017)
    contrastive: float = 0.0  # weight of the supervised contrastive loss (Khosla et al., NeurIPS 2020)
    contrastive_temperature: float = 0.1  # of the contrastive loss
    text_alignment: float = 0.0  # weight of the alignment with sentences that describe the emotions
    text_temperature: float = 0.1  # of the alignment
    face_region: float = 0.0  # weight of the penalty on class activation outside of the face oval
    consistency: float = 0.0  # weight of the symmetric KL divergence between two views of each face, of which the
    # second is moved by up to 4 % of the side, 4 % of the size and 3 degrees; both are classified: twice the cost


@dataclass(frozen=True, slots=True)
class MinorityConfig:
    """Classes with their own augmentation and oversampling: ``augment`` changes keys of `[augment]` for them."""

    classes: tuple[str, ...] = ()  # emotions
    oversample: float = 1.0  # times that their faces are in an epoch
    augment: Mapping[str, Any] = field(default_factory=dict)  # key of `[augment]` -> its value for them


@dataclass(frozen=True, slots=True)
class NetConfig:
    """The network and the weights it starts from."""

    name: str = "mien"  # a module of `mien.lab.nets`, with dashes or underscores, of `$MIEN_NETS`, or `timm/NAME`
    options: Mapping[str, Any] = field(default_factory=dict)  # of the module's `build`
    weights: str = ""  # "imagenet", for ResNet backbones and EfficientNet-Lite0; or the folder of a finished run


@dataclass(frozen=True, slots=True)
class Recipe:
    """All settings of one training."""

    name: str  # name of the run's folder and of its results
    about: str  # what the recipe reproduces, the published metric and split, what was chosen, the cost
    family: str = ""  # recipes whose figures on PrivateTest are counted together; empty: of one document and net
    seed: int = 0  # of initial weights, order of faces and augmentation
    checkpoint: str = "last"  # epoch whose (averaged) weights are the result: "last", or "best" of PublicTest accuracy
    tta: str = "none"  # test-time augmentation of the validation faces: none, flip, six or ten
    validate_every: int = 1  # epochs between evaluations of the (averaged) weights; the last epoch is always evaluated
    calibration: str = "vector"  # on PublicTest: factor and offset per class; "temperature" changes no prediction
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
        """Check the values of all sections.

        Raises:
            RecipeError: A value is not valid; the message names its key.
        """
        # The name is that of folders and files.
        if len(self.name) > _LONGEST_NAME or not all(map(_NAME_PART.fullmatch, self.name.split("/"))):
            parts = f"up to {_LONGEST_NAME} letters, digits and - _ + . in parts between single slashes"
            raise RecipeError(f"recipe name {self.name!r:.80}: names folders; write {parts}")
        for section, limits in _LIMITS.items():
            path = f"recipe {self.name}: {section}{'.' if section else ''}"
            check_values(getattr(self, section) if section else self, limits, path)
        for key, sections in (("phases", self.phases), ("data.extra", self.data.extra)):
            if len(sections) > _MOST_SECTIONS:
                raise self._wrong(f"{key} is at most {_MOST_SECTIONS}, not {len(sections)}")
        for phase in self.phases:
            if phase.dropout > 1:
                raise self._wrong(f"phase {phase.name!r}: dropout is a share up to 1, not {phase.dropout}")
            if phase.size != 0 and phase.size < 8:
                raise self._wrong(f"phase {phase.name!r}: size is at least 8, or 0 for data.size, not {phase.size}")
        check_train(self.train, f"recipe {self.name}: train")
        check_augment(self.augment, f"recipe {self.name}: augment")
        check_augment(minority_augment(self), f"recipe {self.name}: minority.augment")
        self._check_data()
        self._check_target_and_loss()

    def _check_data(self) -> None:
        data, minority = self.data, self.minority
        try:
            class_set(data.classes)
        except ValueError as error:
            raise self._wrong(f"data.{error}") from error
        if data.folds == 1:
            raise self._wrong(f"data.folds is 0, for none, or at least 2, not {data.folds}")
        if not 0 <= data.fold < max(data.folds, 1):
            raise self._wrong(f"data.fold is 0 to {max(data.folds, 1) - 1} of {data.folds} data.folds, not {data.fold}")
        for key, names in (("data.oversample", data.oversample), ("minority.classes", minority.classes)):
            unknown = [name for name in names if name not in tuple(Emotion)]
            if unknown:
                raise self._wrong(f"{key} names no emotion: {', '.join(unknown)}; there are {', '.join(Emotion)}")
        if {"mixup", "cutmix", *_SHRINKING} & set(minority.augment):
            raise self._wrong(
                f"minority.augment cannot change mixup, cutmix and {', '.join(_SHRINKING)}: "
                "whole batches are mixed and then shrunk"
            )

    def _check_target_and_loss(self) -> None:
        target, loss = self.target, self.loss
        if target.distillation > 0 and not target.teachers:
            raise self._wrong(f"target.distillation is {target.distillation} but target.teachers names no run")
        if target.undamaged_teachers and self.minority.augment:
            raise self._wrong("target.undamaged_teachers damages all faces alike; remove minority.augment")
        if target.class_weight_power > 0 and target.effective_number_beta > 0:
            raise self._wrong(
                "target.class_weight_power and target.effective_number_beta both weigh the classes; leave one at 0"
            )
        if max(self.augment.mixup, self.augment.cutmix) > 0 and max(loss.contrastive, loss.face_region) > 0:
            raise self._wrong(
                "loss.contrastive and loss.face_region need unmixed faces; set augment.mixup and cutmix to 0"
            )

    def _wrong(self, what: str) -> RecipeError:
        return RecipeError(f"recipe {self.name}: {what}")


def check_train(config: TrainConfig, where: str) -> None:
    """Check the values of a section ``[train]``.

    Args:
        config: The section.
        where: Its place, for error messages.

    Raises:
        RecipeError: A value is not valid; the message names its key.
    """
    check_values(config, _TRAIN_LIMITS, f"{where}.")
    if config.batch_size % config.accumulate_steps:
        raise RecipeError(
            f"{where}.batch_size ({config.batch_size}) must be a multiple of accumulate_steps {config.accumulate_steps}"
        )
    if config.fallback and config.schedule != "plateau":
        raise RecipeError(f"{where}.fallback needs a plateau: set schedule = 'plateau'")


def minority_augment(recipe: Recipe) -> AugmentConfig:
    """Return the augmentation of the minority classes.

    Args:
        recipe: The recipe.

    Returns:
        Its ``[augment]`` with the changes of ``minority.augment``.

    Raises:
        RecipeError: ``minority.augment`` has a key that ``[augment]`` does not have.
    """
    return change(recipe.augment, recipe.minority.augment, where=f"recipe {recipe.name}: minority.augment")


def fold_recipes(recipe: Recipe, folds: int, *, public: bool = False) -> list[Recipe]:
    """Return the recipe of each fold of a cross-validation.

    The weights of the last epoch are used, so that no fold chooses those that it is evaluated with.

    Args:
        recipe: The recipe.
        folds: Number of folds, at least 2.
        public: Whether the folds are of Training and PublicTest together, instead of Training alone.

    Returns:
        One recipe for each fold.

    Raises:
        RecipeError: With this recipe a net could be influenced by the faces it predicts.
    """
    where = f"recipe {recipe.name}"
    if recipe.data.extra or recipe.data.expand_first:
        raise RecipeError(f"{where}: folds are of one set alone; leave out data.extra and data.expand_first")
    if recipe.target.distillation > 0 or recipe.net.weights not in ("", "imagenet"):
        raise RecipeError(
            f"{where}: its teachers or initial weights may have been trained on the faces to predict; "
            "take a recipe without target.distillation and net.weights"
        )
    own = recipe.train.schedule
    if "plateau" in ([phase.train.get("schedule", own) for phase in recipe.phases] or [own]):
        raise RecipeError(
            f"{where}: a plateau would let each fold set the learning rate of the net that predicts it; "
            "take another train.schedule"
        )
    last = replace(recipe, checkpoint="last")
    parts = [replace(recipe.data, folds=folds, fold=fold, fold_public=public) for fold in range(folds)]
    return [replace(last, data=part) for part in parts]


def read(kind: type[T], table: Mapping[str, Any], *, where: str) -> T:
    """Build a section from plain values.

    Args:
        kind: Dataclass of the section.
        table: Its keys and values.
        where: Source of the values, for error messages.

    Returns:
        An instance of ``kind``.

    Raises:
        RecipeError: A key is unknown or missing, a type is wrong, or a number is not finite.
    """
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        require_known("key", key, known, RecipeError, where=where)
    values = {key: _value(hints[key], value, where=f"{where}: {key}") for key, value in table.items()}
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name not in values and each.default is MISSING and each.default_factory is MISSING:
            raise RecipeError(f"{where}: the key {each.name!r} is missing")
    return kind(**values)


def change(base: T, changes: Mapping[str, Any], *, where: str) -> T:
    """Change keys of a section.

    Args:
        base: The section.
        changes: Key -> new value.
        where: Source of the changes, for error messages.

    Returns:
        The changed copy.

    Raises:
        RecipeError: As for ``read``.
    """
    values = {f.name: getattr(base, f.name) for f in fields(base)}  # type: ignore[arg-type]
    return read(type(base), {**values, **changes}, where=where)


def _value(kind: Any, value: Any, *, where: str) -> Any:
    """``value`` as the type ``kind`` of a key."""
    _check_size(value, where, is_free=kind is Any)
    if is_dataclass(kind):
        if isinstance(value, kind):  # type: ignore[arg-type]
            return value
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} is a section with keys, not {value!r:.80}")
        return read(kind, value, where=where)  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise RecipeError(f"{where} is a list, not {value!r:.80}")
        return tuple(_value(get_args(kind)[0], each, where=where) for each in value)
    if get_origin(kind) is not None:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} is a table with keys, not {value!r:.80}")
        return {key: _value(get_args(kind)[1], each, where=f"{where}: {key}") for key, each in value.items()}
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecipeError(f"{where} is of type {kind.__name__}, not {value!r:.80}")
    return value


def _check_size(value: Any, where: str, *, is_free: bool, depth: int = 0) -> None:
    """Refuse numbers, texts, lists and tables that are too large to be meant; of a free value also those within."""
    if isinstance(value, str | list | tuple | Mapping) and len(value) > _MOST_ITEMS:
        raise RecipeError(f"{where} has {len(value):,} items or characters, more than {_MOST_ITEMS:,}")
    if isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST:
        number = f"{value}" if isinstance(value, float) else f"a number of {value.bit_length():,} bits"
        raise RecipeError(f"{where} is a finite number up to {_LARGEST:g}, not {number}")
    if is_free and isinstance(value, list | tuple | Mapping):
        if depth > _DEEPEST:
            raise RecipeError(f"{where} is nested too deeply")
        for each in value.values() if isinstance(value, Mapping) else value:
            _check_size(each, where, is_free=True, depth=depth + 1)
