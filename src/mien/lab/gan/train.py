"""A conditional GAN and its training: hinge loss, differentiable augmentation, an averaged generator, checkpoints.

Generator and discriminator are small enough for two CPU cores. Both are trained on all classes, so that common classes
help to learn rare ones. The generator is conditioned by batch norm, the discriminator by projection (Miyato and Koyama,
ICLR 2018). Faces are float ``[N, 1, 48, 48]`` in -1..1.

The random numbers of a step depend only on the seed and the number of the step. So a run that was killed and resumed
ends with the same weights as an uninterrupted run (on one CPU in fp32: to the bit). All learning rates are constant, so
a finished run can be continued with more steps.
"""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from mien._emotions import Emotion
from mien._errors import DataError, DivergedError, RecipeError, first_line
from mien._progress import Progress, no_progress
from mien._suggest import require_known
from mien.lab.data import FaceSet
from mien.lab.files import check_kinds, load_checkpoint, save_checkpoint
from mien.lab.recipe.schema import TRAIN_PRECISIONS
from mien.lab.train.devices import computed_precision
from mien.lab.train.optim import ModelEma

FACE_SIDE = 48
_BASE = 6  # side of the first map of the generator; each stage doubles it


class Generator(nn.Module):
    """Noise and class -> face: a linear layer to 6 x 6, transposed convolutions to 24 x 24, pixel shuffle to 48 x 48.

    Args:
        classes: Number of classes.
        noise: Length of the noise vector.
        widths: Channels at 6, 12 and 24 pixels.

    Raises:
        TypeError: ``widths`` are not three.
    """

    def __init__(self, classes: int, *, noise: int = 64, widths: Sequence[int] = (128, 64, 32)) -> None:
        super().__init__()
        if len(widths) != 3:
            raise TypeError(f"a generator has widths at 6, 12 and 24 pixels: three, not {len(widths)}")
        self.noise, self.classes = noise, classes
        self.name = nn.Embedding(classes, noise)
        self.base = nn.Linear(2 * noise, widths[0] * _BASE * _BASE)
        self.norms = nn.ModuleList(_StyledNorm(width, 2 * noise) for width in widths)
        pairs = list(pairwise(widths))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairs)
        # A convolution at half the side with four channels costs a quarter of one at full side (Shi et al., CVPR 2016).
        self.last = nn.Conv2d(widths[-1], 4, 3, padding=1)
        # Orthogonal first weights (Brock et al., ICLR 2019). The classes start almost equal, so that common features
        # are learned once, and the noise makes the faces differ.
        for name, module in self.named_modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                nn.init.orthogonal_(module.weight, gain=0.5 if "norms" in name else 1.0)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.25)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Generate faces.

        Args:
            z: Standard normal noise ``[N, noise]``.
            labels: Classes, int64 ``[N]``.

        Returns:
            Faces ``[N, 1, 48, 48]`` in -1..1.
        """
        style = torch.cat([z, self.name(labels)], dim=1)
        x = self.base(style).unflatten(1, (-1, _BASE, _BASE))
        for up, norm in zip(self.ups, self.norms, strict=False):
            x = up(F.relu(norm(x, style)))
        x = F.relu(self.norms[-1](x, style))
        return torch.tanh(F.pixel_shuffle(self.last(x), 2).float())


class Discriminator(nn.Module):
    """Face and class -> score: strided convolutions under spectral norm, a projection on the class.

    Args:
        classes: Number of classes.
        widths: Channels at 24, 12, 6 and 3 pixels.

    Raises:
        TypeError: ``widths`` are not four.
    """

    def __init__(self, classes: int, *, widths: Sequence[int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        if len(widths) != 4:
            raise TypeError(f"a discriminator has widths at 24, 12, 6 and 3 pixels: four, not {len(widths)}")
        pairs = list(pairwise((1, *widths)))
        self.downs = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairs)
        self.mix = spectral_norm(nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1))
        self.real = spectral_norm(nn.Linear(widths[-1], 1))
        self.name = spectral_norm(nn.Embedding(classes, widths[-1]))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Score faces.

        Args:
            x: Faces ``[N, 1, 48, 48]`` in -1..1.
            labels: Classes, int64 ``[N]``.

        Returns:
            Scores ``[N]``, high for real faces.
        """
        for down in self.downs:
            x = F.leaky_relu(down(x), 0.2)
        # One more channel, the mean deviation within the batch, exposes a collapsed generator (Karras et al., 2018).
        deviation = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
        x = torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], dim=1)
        x = F.leaky_relu(self.mix(x), 0.2).sum(dim=(2, 3))
        scores: Tensor = self.real(x).squeeze(1) + (self.name(labels) * x).sum(1)
        return scores.float()


class _StyledNorm(nn.Module):
    """Batch norm with gain and bias computed from noise and class (self-modulation; Chen et al., ICLR 2019)."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = nn.Linear(style, channels), nn.Linear(style, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gain, bias = self.gain(style)[:, :, None, None], self.bias(style)[:, :, None, None]
        styled: Tensor = self.norm(x) * (1 + gain) + bias
        return styled


# Seconds between two checkpoints, and steps between two reports of progress.
SAVE_EVERY, REPORT_EVERY = 30.0, 20
# As shares of the side of the face: the largest shift, as in the paper, and the side of the square that is cut out. The
# paper cuts out a half, which is too much for a discriminator that is trained for minutes only.
_SHIFT, _CUT = 1 / 8, 1 / 4

_State = dict[str, Any]

_KINDS: dict[str, type] = {  # of the values in a checkpoint
    **dict.fromkeys(("generator", "discriminator", "average"), dict),
    **dict.fromkeys(("average_steps", "step"), int),
    **dict.fromkeys(("optimizers", "history"), list),
}


@dataclass(frozen=True, slots=True)
class GanConfig:
    """Settings of a training. Trainings with the same settings and faces differ only in their number of steps."""

    seed: int = 0
    batch_size: int = 32
    balance: float = 0.75  # classes are drawn in proportion to count**(1 - balance); 1: all equally often
    noise: int = 64
    widths: tuple[int, ...] = (128, 64, 32)  # of the generator, at 6, 12 and 24 pixels
    discriminator_widths: tuple[int, ...] = (24, 48, 96, 128)  # at 24, 12, 6 and 3 pixels
    lr: float = 3e-4  # of the generator
    discriminator_lr: float = 8e-4  # two time scales (Heusel et al., NeurIPS 2017)
    betas: tuple[float, ...] = (0.0, 0.9)  # of Adam
    ema_decay: float = 0.999
    precision: str = "bf16-mixed"  # fp32 on devices without bf16 instructions; or "32-true"

    def __post_init__(self) -> None:
        """Check the precision."""
        require_known("precision", self.precision, TRAIN_PRECISIONS, RecipeError)


@dataclass
class Gan:
    """The state of a training.

    Attributes:
        config: The settings.
        emotions: The classes.
        generator: The generator.
        discriminator: The discriminator.
        average: The averaged generator.
        optimizers: Those of the generator and of the discriminator.
        step: Number of finished steps.
        history: Mean losses and speed of every ``REPORT_EVERY`` steps.
    """

    config: GanConfig
    emotions: tuple[Emotion, ...]
    generator: Generator
    discriminator: Discriminator
    average: ModelEma
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    step: int = 0
    history: list[_State] = field(default_factory=list)

    @property
    def averaged(self) -> Generator:
        """The averaged generator in eval mode, which generates the faces."""
        self.average.finish_epoch()
        assert isinstance(self.average.net, Generator)
        return self.average.net


def train_gan(
    faces: FaceSet,
    folder: Path,
    *,
    steps: int,
    config: GanConfig | None = None,
    device: torch.device | str = "cpu",
    time_limit: float = math.inf,
    progress: Progress = no_progress,
) -> Gan:
    """Train a GAN on all of ``faces``, from the checkpoint in ``folder`` where there is one.

    Args:
        faces: Faces of 48 x 48 pixels.
        folder: The folder of the checkpoint.
        steps: Total number of steps. A checkpoint of at least as many steps is not trained further.
        config: Settings of the training.
        device: The device of the training.
        time_limit: Seconds after which it stops with a checkpoint; ``gan.step`` is then below ``steps``.
        progress: Called with the number of finished steps.

    Returns:
        The trained GAN.

    Raises:
        DataError: The faces have another size, or the folder holds another training.
        DivergedError: A loss is not finite. The folder holds the last checkpoint.
        OutputError: The folder cannot be written.
    """
    started = saved_at = time.monotonic()
    if faces.images.shape[1:] != (FACE_SIDE, FACE_SIDE):
        raise DataError(f"{faces.source}: the faces are {faces.images.shape[-1]} pixels a side; {FACE_SIDE} are needed")
    faces = faces.to(device)
    gan = open_gan(faces, folder, config or GanConfig(), device)
    weights = sampling_weights(faces, gan.config.balance)
    losses: list[Tensor] = []
    first, total, reported = gan.step, max(steps, gan.step), _State()
    kind = faces.images.device.type
    precision = computed_precision(gan.config.precision, kind)
    if gan.step < steps:  # raises now if the folder cannot be written
        save_checkpoint(folder, gan_state(gan, faces))
    try:
        while gan.step < steps and (losses or time.monotonic() - started < time_limit):
            with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16-mixed"):
                losses.append(_take_step(gan, faces, weights))
            gan.step += 1
            if gan.step % REPORT_EVERY == 0 or gan.step == steps:
                images = (gan.step - first) * gan.config.batch_size
                _log_losses(gan, losses, images / max(time.monotonic() - started, 1e-9))
                progress("training the GAN", gan.step, total)
                losses.clear()
                reported = copy.deepcopy(gan_state(gan, faces))
                if time.monotonic() - saved_at > SAVE_EVERY:
                    save_checkpoint(folder, reported)
                    saved_at = time.monotonic()
    finally:  # also after Ctrl-C, which may end a step in its middle
        if reported:
            save_checkpoint(folder, reported)
    return gan


def open_gan(faces: FaceSet, folder: Path, config: GanConfig, device: torch.device | str = "cpu") -> Gan:
    """Build the nets for the classes of ``faces``, or load those in ``folder``.

    Args:
        faces: The training faces.
        folder: The folder of the checkpoint.
        config: Settings of the training.
        device: The device of the training.

    Returns:
        The state of the training.

    Raises:
        DataError: The folder holds another training.
    """
    torch.manual_seed(config.seed)
    classes = len(faces.emotions)
    generator = Generator(classes, noise=config.noise, widths=config.widths)
    discriminator = Discriminator(classes, widths=config.discriminator_widths)
    for net in (generator, discriminator):
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    first, second = config.betas
    optimizers = (
        torch.optim.Adam(generator.parameters(), config.lr, (first, second)),
        torch.optim.Adam(discriminator.parameters(), config.discriminator_lr, (first, second)),
    )
    gan = Gan(config, faces.emotions, generator, discriminator, ModelEma(generator, config.ema_decay), optimizers)
    state = load_checkpoint(folder, lambda state: check_kinds(state, _KINDS, folder))
    if state is None:
        return gan
    for key, value in _identity(gan, faces).items():
        if state.get(key) != value:
            raise DataError(
                f"{folder}: holds another training (its {key} differ); choose another folder, or remove this one"
            )
    try:
        generator.load_state_dict(state["generator"])
        discriminator.load_state_dict(state["discriminator"])
        gan.average.net.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: damaged ({first_line(error)}); choose another folder, or remove it") from error
    if min(state["average_steps"], state["step"]) < 0 or not all(isinstance(each, dict) for each in state["history"]):
        raise DataError(f"{folder}: damaged (wrong steps); choose another folder, or remove it")
    gan.average.steps, gan.step, gan.history = state["average_steps"], state["step"], state["history"]
    return gan


def gan_state(gan: Gan, faces: FaceSet) -> _State:
    """Return the content of a checkpoint. Its tensors are those of the training, not copies.

    Args:
        gan: The state of the training.
        faces: The training faces.

    Returns:
        Tensors and plain values.
    """
    gan.average.finish_epoch()
    return {
        **_identity(gan, faces),
        "generator": gan.generator.state_dict(),
        "discriminator": gan.discriminator.state_dict(),
        "average": gan.average.net.state_dict(),
        "average_steps": gan.average.steps,
        "optimizers": [optimizer.state_dict() for optimizer in gan.optimizers],
        "step": gan.step,
        "history": gan.history,
    }


def sampling_weights(faces: FaceSet, balance: float) -> Tensor:
    """Return the sampling weights of faces: each class is drawn in proportion to ``count ** (1 - balance)``.

    Args:
        faces: The training faces.
        balance: From 0 (classes are drawn as often as they occur) to 1 (all are drawn equally often).

    Returns:
        float32 ``[N]``.
    """
    counts = torch.bincount(faces.labels, minlength=len(faces.emotions)).float()
    return counts.clamp(min=1)[faces.labels] ** -balance


def _take_step(gan: Gan, faces: FaceSet, weights: Tensor) -> Tensor:
    """Train the discriminator, then the generator, and return the losses of generator and discriminator."""
    device, batch = faces.images.device, gan.config.batch_size
    generator = torch.Generator(device).manual_seed(gan.config.seed * 1_000_003 + gan.step)
    real = torch.multinomial(weights, batch, replacement=True, generator=generator)
    labels = faces.labels[real]  # generated faces get the classes of the real ones
    x = flip_half(faces.images[real].unsqueeze(1).float() / 127.5 - 1, generator)
    z, other = torch.randn(2, batch, gan.config.noise, device=device, generator=generator)
    generator_optimizer, discriminator_optimizer = gan.optimizers

    gan.discriminator.requires_grad_(True)
    with torch.no_grad():
        fake = gan.generator(z, labels)
    real_scores = gan.discriminator(diff_augment(x, generator), labels)
    fake_scores = gan.discriminator(diff_augment(fake, generator), labels)
    discriminator_loss = F.relu(1 - real_scores).mean() + F.relu(1 + fake_scores).mean()
    discriminator_optimizer.zero_grad()
    torch.autograd.backward(discriminator_loss)
    discriminator_optimizer.step()

    gan.discriminator.requires_grad_(False)
    loss = -gan.discriminator(diff_augment(gan.generator(other, labels), generator), labels).mean()
    generator_optimizer.zero_grad()
    torch.autograd.backward(loss)
    generator_optimizer.step()
    gan.average.update()
    return torch.stack([loss.detach(), discriminator_loss.detach()])


def _log_losses(gan: Gan, losses: list[Tensor], images_per_second: float) -> None:
    """Append the mean losses of some steps to the history."""
    loss, discriminator_loss = torch.stack(losses).mean(0).tolist()
    if not math.isfinite(loss + discriminator_loss):
        raise DivergedError(
            f"the losses are {loss} and {discriminator_loss} at step {gan.step}; try another seed (the last "
            "checkpoint is saved)"
        )
    metrics = {"loss": loss, "discriminator_loss": discriminator_loss, "images_per_second": images_per_second}
    gan.history.append({"step": gan.step, **metrics})


def _identity(gan: Gan, faces: FaceSet) -> _State:
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(gan.config).items()}
    return {"config": plain, "emotions": [str(e) for e in gan.emotions], "data": faces.sha256, "faces": len(faces)}


def diff_augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness and contrast, shift, and cut out a square of each image: DiffAugment (Zhao et al., 2020).

    Shifts are in whole pixels. The border and the square are mid-grey.

    Args:
        x: Images ``[N, 1, S, S]`` in -1..1.
        generator: Source of randomness, on the device of ``x``.

    Returns:
        Images of the same shape; the operation is differentiable.
    """
    side, pixels = x.shape[-1], torch.arange(x.shape[-1], device=x.device)
    brightness, contrast = torch.rand(2, len(x), 1, 1, 1, device=x.device, generator=generator)
    x = x + brightness - 0.5
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * (contrast + 0.5) + mean

    reach = round(_SHIFT * side)
    rows, columns = pixels + torch.randint(0, 2 * reach + 1, (2, len(x), 1), device=x.device, generator=generator)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    x = F.pad(x, (reach,) * 4)[image, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)

    centres = torch.randint(0, side, (2, len(x), 1), device=x.device, generator=generator)
    rows, columns = (pixels - centres).abs() < _CUT * side / 2
    square: Tensor = rows[:, :, None] & columns[:, None, :]
    return x * ~square[:, None]


def flip_half(x: Tensor, generator: torch.Generator) -> Tensor:
    """Flip about half of the images horizontally.

    Args:
        x: Images ``[N, 1, S, S]``.
        generator: Source of randomness, on the device of ``x``.

    Returns:
        Images of the same shape.
    """
    flipped = torch.rand(len(x), device=x.device, generator=generator) < 0.5
    return torch.where(flipped[:, None, None, None], x.flip(3), x)
