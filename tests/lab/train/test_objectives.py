"""Losses combined: sums, gradients, refusals, and training."""

import hashlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from mien._errors import RecipeError
from mien.lab import nets
from mien.lab import recipe as recipes
from mien.lab.files import load_state
from mien.lab.nets import to_meta
from mien.lab.recipe import LossConfig, TrainConfig
from mien.lab.train.devices import Devices
from mien.lab.train.logging import EpochRecord
from mien.lab.train.loop import fit
from mien.lab.train.losses import Objective, class_loss, class_maps, face_region_loss
from mien.lab.train.optim import build_optimizer
from mien.lab.train.run import build_net, load_final
from support.objectives import ONES, TINY, objective, one_hot
from support.paths import TESTS
from support.short_runs import SHORT, with_everything
from support.synthetic_faces import cartoon_set

ALL = LossConfig(contrastive=0.2, text_alignment=0.5, face_region=0.5)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def view(faces: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    oval = torch.zeros(faces, 1, 48, 48)
    oval[:, :, 8:44, 8:40] = 1
    return torch.randn(faces, 1, 48, 48), one_hot(torch.arange(faces) % 3), oval


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    module, (x, target, oval) = objective(ALL, **TINY), view()
    loss, logits = module(x, target, oval)
    features = module.net.features(x)
    pooled, classes = features.mean(dim=(2, 3)), target.argmax(dim=1)
    contrast, aligned = (module.auxiliary[name](pooled, target) for name in ("contrastive", "text_alignment"))
    outside = face_region_loss(class_maps(features, module.net.head.linear.weight, classes), oval)
    expected = functional.cross_entropy(logits, classes) + 0.2 * contrast + 0.5 * aligned + 0.5 * outside
    torch.testing.assert_close(loss, expected)


def test_auxiliary_losses_leave_the_net_of_the_same_seed_as_it_is() -> None:
    plain, more = objective(LossConfig(), **TINY).net.state_dict(), objective(ALL, **TINY).net.state_dict()
    assert all(torch.equal(plain[key], more[key]) for key in plain)


@pytest.mark.parametrize("classes", [3, 8])
def test_every_parameter_gets_a_gradient_as_distributed_training_needs(classes: int) -> None:
    """Also where no face has another of its class in the batch, so that there is nothing to contrast."""
    module, (x, _, oval) = objective(ALL, **TINY).train(), view()
    target = functional.one_hot(torch.arange(8) % classes, 8)[:, :7].float()
    module(x, target, oval)[0].backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []


def test_auxiliary_losses_are_computed_in_full_precision_under_bf16_autocast() -> None:
    module, (x, target, oval) = objective(ALL, **TINY).eval(), view()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, logits = module(x, target, oval)
        features = module.net.features(x)
    assert features.dtype == torch.bfloat16
    pooled = features.mean(dim=(2, 3), dtype=torch.float32)
    extra = 0.2 * module.auxiliary["contrastive"](pooled, target) + 0.5 * module.auxiliary["text_alignment"](
        pooled, target
    )
    maps = class_maps(features, module.net.head.linear.weight, target.argmax(dim=1))
    expected = class_loss(logits, target, ONES, ALL) + extra + 0.5 * face_region_loss(maps, oval)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


def test_true_half_precision_runs() -> None:
    module, parts = objective(ALL, **TINY).bfloat16(), [part.bfloat16() for part in view()]
    loss, _ = module(*parts)
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("name", nets.net_names())
def test_any_net_has_features_to_contrast_and_align(name: str) -> None:
    with torch.device("meta"):
        net = nets.build(name, channels=1, classes=7)
        width = to_meta(net.features).eval()(torch.empty(2, 1, 48, 48)).shape[1]
    module = Objective(net, LossConfig(contrastive=0.1, text_alignment=0.1), ONES)
    assert module.auxiliary["contrastive"].project[0].in_features == width
    assert module.auxiliary["text_alignment"].project.in_features == width


def test_auxiliary_parameters_are_optimised_under_their_own_names() -> None:
    module = objective(ALL, **TINY)
    optimiser = build_optimizer(module, TrainConfig(lr_factors={"auxiliary.text_alignment": 0.5, "auxiliary": 2.0}))
    shares = {id(p): group["lr_factor"] for group in optimiser.param_groups for p in group["params"]}
    assert len(shares) == len(list(module.parameters()))
    assert shares[id(module.auxiliary["text_alignment"].project.weight)] == 0.5
    assert shares[id(module.auxiliary["contrastive"].project[0].weight)] == 2.0
    assert shares[id(module.net.head.linear.weight)] == 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("target.label_smoothing=1.5", r"target\.label_smoothing is in \[0, 1\], not 1\.5"),
        ("target.vote_weight=-0.1", r"target\.vote_weight is in \[0, 1\]"),
        ("target.effective_number_beta=1.0", r"target\.effective_number_beta is in \[0, 1\), not 1"),
        ("target.distillation_temperature=0", r"target\.distillation_temperature is in \(0, inf\)"),
        ("loss.gamma=-1", r"loss\.gamma is in \[0, inf\)"),
        ("loss.text_alignment=nan", "loss: text_alignment is a finite number"),
        ("loss.contrastive_temperature=0", r"loss\.contrastive_temperature is in \(0, inf\)"),
    ],
)
def test_invalid_numbers_are_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipes.load("mien-plain", [override])


FAMILY = {"mien-contrast": "loss", "mien-words": "loss", "mien-oval": "loss", "mien-regions": "net"}


@pytest.mark.parametrize(("name", "section"), FAMILY.items())
def test_each_recipe_differs_from_the_plain_one_in_one_thing(name: str, section: str) -> None:
    plain, other = (recipes.dump(recipes.load(each)) for each in ("mien-plain", name))
    assert {key for key in plain if plain[key] != other[key]} == {"name", "about", section}
    if section == "net":
        assert plain["net"]["options"] == other["net"]["options"]


@pytest.mark.parametrize("name", ["mien-plain", *FAMILY])
def test_each_recipe_trains_and_its_loss_falls(name: str, tmp_path: Path) -> None:
    chosen = recipes.load(name, SHORT)
    faces = cartoon_set(per_split=(70, 14, 0))
    records: list[EpochRecord] = []
    assert fit(chosen, faces, tmp_path, devices=Devices("cpu"), on_epoch=records.append)
    losses = [record.loss for record in records]
    assert losses[-1] < losses[0]
    assert load_final(tmp_path).net.state_dict().keys() == build_net(chosen).state_dict().keys()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import mien.lab.train.loop as loop
from support.synthetic_faces import cartoon_set
from mien.lab.train.devices import Devices
from support.short_runs import with_everything
loop.SAVE_EVERY = 0
loop.fit(with_everything(), cartoon_set(per_split=(70, 14, 0)), Path(sys.argv[1]), devices=Devices("cpu"),
         on_epoch=lambda r: print(r, flush=True))
"""


@pytest.mark.release
def test_a_killed_run_with_auxiliary_losses_ends_with_the_same_bits(tmp_path: Path) -> None:
    folder, whole, faces = tmp_path / "killed", tmp_path / "whole", cartoon_set(per_split=(70, 14, 0))
    code = [sys.executable, "-c", KILLED, str(folder), str(TESTS)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if "epoch=3," in line:  # the epochs before it are written
                break
        os.kill(child.pid, signal.SIGKILL)
    state = load_state(folder / "checkpoint.pt")
    assert 2 <= state["epoch"] <= 6
    assert {name.split(".")[1] for name in state["objective"] if name.startswith("auxiliary")} == {
        "contrastive",
        "text_alignment",
    }
    for place in (folder, whole):
        assert fit(with_everything(), faces, place, devices=Devices("cpu"))
    assert digest(folder) == digest(whole)


def test_an_interrupted_run_with_auxiliary_losses_ends_with_the_same_bits(tmp_path: Path) -> None:
    folder, whole, faces = tmp_path / "interrupted", tmp_path / "whole", cartoon_set(per_split=(35, 7, 0))

    def interrupt(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(with_everything(), faces, folder, devices=Devices("cpu"), on_epoch=interrupt)
    assert 1 <= load_state(folder / "checkpoint.pt")["epoch"] <= 3
    for place in (folder, whole):
        assert fit(with_everything(), faces, place, devices=Devices("cpu"))
    assert digest(folder) == digest(whole)


def digest(folder: Path) -> str:
    """Of all that learned: the net, its average, and the auxiliary parts."""
    state = load_state(folder / "checkpoint.pt")
    tensors = [state[part][key] for part in ("objective", "ema") for key in sorted(state[part])]
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


def test_a_fallback_restores_auxiliary_layers_too(tmp_path: Path) -> None:
    """A first rate that diverges after a good epoch; the fallback continues from the weights of that epoch."""
    changes = ["train.schedule=plateau", "train.ema_decay=0", "loss.contrastive=0.2", "train.epochs=8"]
    chosen = recipes.load(
        "mien-plain", [*SHORT, *changes, "train.warmup=0.99", "train.lr=1e8", "train.fallback.lr=0.001"]
    )
    records: list[EpochRecord] = []
    assert fit(chosen, cartoon_set(per_split=(70, 14, 0)), tmp_path, devices=Devices("cpu"), on_epoch=records.append)
    fallen = next(i for i, record in enumerate(records) if record.fallback)
    assert all(math.isfinite(record.loss) for record in records[fallen + 1 :])
    assert fallen < len(records) - 1
