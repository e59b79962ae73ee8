"""The adversarial training: hinge loss, differentiable augmentation, averaged generator; resumable after any kill.

Everything random in a step follows from the seed and the step's number alone, so a run that was killed and resumed
from its last checkpoint ends with the same weights as one that never stopped (on one CPU in fp32: to the bit). All
rates are constant, so a finished run can be trained on by asking for more steps.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mien._emotions import Emotion
from mien._errors import DataError, DivergedError, RecipeError
from mien.lab.data import FaceSet
from mien.lab.files import load_state, save_state
from mien.lab.gan.nets import SIDE, Discriminator, Generator
from mien.lab.train.optim import Average

# In sides of the face: the largest shift, as in the paper, and the side of the square that is cut out. The paper cuts
# out a half; a discriminator that has minutes to learn tells too little under that.
SHIFT, CUT = 1 / 8, 1 / 4


def perturb(x: Tensor, generator: torch.Generator) -> Tensor:
    """``x`` ``[N, 1, S, S]`` in -1..1, each in another light, shifted and with a square cut out; differentiable."""
    return _cut(_shift(_relight(x, generator), generator), generator)


def mirror(x: Tensor, generator: torch.Generator) -> Tensor:
    """Half of ``x`` ``[N, 1, S, S]`` mirrored, left to right."""
    turned = torch.rand(len(x), device=x.device, generator=generator) < 0.5
    return torch.where(turned[:, None, None, None], x.flip(3), x)


def _relight(x: Tensor, generator: torch.Generator) -> Tensor:
    light, contrast = torch.rand(2, len(x), 1, 1, 1, device=x.device, generator=generator)
    x = x + light - 0.5
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    lit: Tensor = (x - mean) * (contrast + 0.5) + mean
    return lit


def _shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Whole pixels, mid-grey moving in."""
    side = x.shape[-1]
    reach = round(SHIFT * side)
    steps = torch.randint(0, 2 * reach + 1, (2, len(x), 1), device=x.device, generator=generator)
    rows, columns = steps + torch.arange(side, device=x.device)
    padded = F.pad(x, (reach,) * 4)
    each = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[each, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def _cut(x: Tensor, generator: torch.Generator) -> Tensor:
    """A square, its centre anywhere in the face, becomes mid-grey."""
    side = x.shape[-1]
    centres = torch.randint(0, side, (2, len(x), 1), device=x.device, generator=generator)
    inside = (torch.arange(side, device=x.device) - centres).abs() < CUT * side / 2
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return x * ~hole[:, None]


# Seconds between two checkpoints, and steps between two reports of progress.
SAVE_EVERY, REPORT_EVERY = 30.0, 20


# As Lightning Fabric names them. On processors without bf16 instructions the second is the faster one.
PRECISIONS = ("bf16-mixed", "32-true")


State = dict[str, Any]


Report = Callable[[State], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a training is. Two of the same settings on the same faces are the same training, however long."""

    seed: int = 0
    batch: int = 32
    balance: float = 0.75  # classes are drawn as often as count**(1 - balance) says: 1 is all equally often
    noise: int = 64
    widths: tuple[int, ...] = (128, 64, 32)  # of the generator, at 6, 12 and 24 pixels
    critic_widths: tuple[int, ...] = (24, 48, 96, 128)  # of the discriminator, at 24, 12, 6 and 3 pixels
    rate: float = 3e-4  # of the generator
    critic_rate: float = 8e-4  # of the discriminator (Heusel et al., NeurIPS 2017: two time scales)
    betas: tuple[float, ...] = (0.0, 0.9)  # of Adam
    ema: float = 0.999
    precision: str = "bf16-mixed"  # one of PRECISIONS

    def __post_init__(self) -> None:
        """Refuses a precision that is unknown."""
        if self.precision not in PRECISIONS:
            raise RecipeError(f"the precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}")


@dataclass
class Gan:
    """The moving parts of a training."""

    settings: Settings
    emotions: tuple[Emotion, ...]
    generator: Generator
    discriminator: Discriminator
    average: Average
    optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]  # of generator and discriminator
    step: int = 0
    history: list[State] = field(default_factory=list)

    @property
    def maker(self) -> Generator:
        """The averaged generator in eval mode, which faces are made with."""
        self.average.settle()
        assert isinstance(self.average.net, Generator)
        return self.average.net


def train(
    faces: FaceSet,
    folder: Path,
    *,
    steps: int,
    settings: Settings | None = None,
    device: torch.device | str = "cpu",
    time_limit: float = math.inf,
    report: Report = lambda _: None,
) -> Gan:
    """Train on all of ``faces`` until ``steps`` are done, from the checkpoint in ``folder`` where there is one.

    A checkpoint of as many steps or more is taken as it is. Stops with a checkpoint after ``time_limit`` seconds; then
    ``gan.step`` is below ``steps``. ``report`` gets step, steps, both losses and images a second. Raises ``DataError``
    for faces that are not 48 x 48 or a folder of another training, ``DivergedError`` when a loss is not finite (the
    last good checkpoint stays), ``OutputError`` when the folder cannot be written.
    """
    started = saved_at = time.monotonic()
    faces = _checked(faces).to(device)
    gan = open_gan(faces, folder, settings or Settings(), device)
    weights = class_draw(faces, gan.settings.balance)
    kept: list[Tensor] = []
    first, total = gan.step, max(steps, gan.step)
    while gan.step < steps and (kept or time.monotonic() - started < time_limit):
        if gan.step == first:  # a folder that cannot be written shows before anything is lost
            save(gan, faces, folder)
        with torch.autocast(faces.images.device.type, torch.bfloat16, enabled=gan.settings.precision == "bf16-mixed"):
            kept.append(_step(gan, faces, weights))
        gan.step += 1
        if gan.step % REPORT_EVERY == 0 or gan.step == steps:
            _note(gan, kept, faces_per_second(gan, first, started))
            report({**gan.history[-1], "steps": total})
            kept.clear()
        if time.monotonic() - saved_at > SAVE_EVERY and not kept:
            save(gan, faces, folder)
            saved_at = time.monotonic()
    if gan.step > first:
        save(gan, faces, folder)
    return gan


def open_gan(faces: FaceSet, folder: Path, settings: Settings, device: torch.device | str = "cpu") -> Gan:
    """A new pair of nets for the classes of ``faces``, or the one in ``folder``. Raises ``DataError``."""
    torch.manual_seed(settings.seed)
    classes = len(faces.emotions)
    generator = Generator(classes, noise=settings.noise, widths=settings.widths)
    discriminator = Discriminator(classes, widths=settings.critic_widths)
    for net in (generator, discriminator):
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    first, second = settings.betas
    optimisers = (
        torch.optim.Adam(generator.parameters(), settings.rate, (first, second)),
        torch.optim.Adam(discriminator.parameters(), settings.critic_rate, (first, second)),
    )
    gan = Gan(settings, faces.emotions, generator, discriminator, Average(generator, settings.ema), optimisers)
    path = folder / "checkpoint.pt"
    if path.exists():
        _restore(gan, faces, load_state(path), folder)
    return gan


def save(gan: Gan, faces: FaceSet, folder: Path) -> None:
    """Write the checkpoint, atomically. Raises ``OutputError``."""
    gan.average.settle()
    state = {
        **_identity(gan, faces),
        "generator": gan.generator.state_dict(),
        "discriminator": gan.discriminator.state_dict(),
        "average": gan.average.net.state_dict(),
        "average_steps": gan.average.steps,
        "optimisers": [optimiser.state_dict() for optimiser in gan.optimisers],
        "step": gan.step,
        "history": gan.history,
    }
    save_state(folder / "checkpoint.pt", state)


def class_draw(faces: FaceSet, balance: float) -> Tensor:
    """float32 ``[N]``: how likely each face is drawn; each class as often as ``count ** (1 - balance)`` says."""
    counts = torch.bincount(faces.labels, minlength=len(faces.emotions)).float()
    return counts.clamp(min=1)[faces.labels] ** -balance


def _checked(faces: FaceSet) -> FaceSet:
    if faces.images.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{faces.source}: the faces are {faces.images.shape[-1]} pixels a side; {SIDE} are needed")
    return faces


def _step(gan: Gan, faces: FaceSet, weights: Tensor) -> Tensor:
    """One step of the discriminator, one of the generator; their losses, ``[2]``."""
    device, batch = faces.images.device, gan.settings.batch
    generator = torch.Generator(device).manual_seed(gan.settings.seed * 1_000_003 + gan.step)
    real = torch.multinomial(weights, batch, replacement=True, generator=generator)
    labels = faces.labels[real]  # the made faces are of the classes of the real ones
    x = mirror(as_signed(faces.images[real]), generator)
    z, other = torch.randn(2, batch, gan.settings.noise, device=device, generator=generator)
    of_generator, of_discriminator = gan.optimisers

    gan.discriminator.requires_grad_(True)
    with torch.no_grad():
        made = gan.generator(z, labels)
    scores_real = gan.discriminator(perturb(x, generator), labels)
    scores_made = gan.discriminator(perturb(made, generator), labels)
    critic_loss = F.relu(1 - scores_real).mean() + F.relu(1 + scores_made).mean()
    of_discriminator.zero_grad()
    torch.autograd.backward(critic_loss)
    of_discriminator.step()

    gan.discriminator.requires_grad_(False)
    loss = -gan.discriminator(perturb(gan.generator(other, labels), generator), labels).mean()
    of_generator.zero_grad()
    torch.autograd.backward(loss)
    of_generator.step()
    gan.average.update()
    return torch.stack([loss.detach(), critic_loss.detach()])


def as_signed(images: Tensor) -> Tensor:
    """uint8 ``[N, S, S]`` -> float32 ``[N, 1, S, S]`` in -1..1."""
    return images.unsqueeze(1).float() / 127.5 - 1


def faces_per_second(gan: Gan, first: int, started: float) -> float:
    """Real faces shown a second since the step ``first``, at the time ``started``."""
    return (gan.step - first) * gan.settings.batch / max(time.monotonic() - started, 1e-9)


def _note(gan: Gan, kept: list[Tensor], speed: float) -> None:
    loss, critic_loss = torch.stack(kept).mean(0).tolist()
    if not math.isfinite(loss + critic_loss):
        raise DivergedError(
            f"the losses are {loss} and {critic_loss} at step {gan.step}; try another --seed (the last good checkpoint "
            "is kept)"
        )
    gan.history.append({"step": gan.step, "loss": loss, "critic_loss": critic_loss, "images_per_second": speed})


def _identity(gan: Gan, faces: FaceSet) -> State:
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(gan.settings).items()}
    return {"settings": plain, "emotions": [str(e) for e in gan.emotions], "data": faces.sha256, "faces": len(faces)}


def _restore(gan: Gan, faces: FaceSet, state: State, folder: Path) -> None:
    for key, value in _identity(gan, faces).items():
        if state.get(key) != value:
            raise DataError(
                f"{folder}: holds a training of another kind (its {key} differ); name another --out, or remove the "
                "folder to start again"
            )
    gan.generator.load_state_dict(state["generator"])
    gan.discriminator.load_state_dict(state["discriminator"])
    gan.average.net.load_state_dict(state["average"])
    gan.average.steps = state["average_steps"]
    for optimiser, saved in zip(gan.optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    gan.step, gan.history = state["step"], state["history"]
