"""Schedules: phases, frozen modules, learning rates against torch's schedulers, and weight averages."""

import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from mien._errors import RecipeError
from mien.lab.recipe import Phase, TrainConfig
from mien.lab.train.optim import ModelEma, build_optimizer, set_lr
from mien.lab.train.run import build_net
from mien.lab.train.schedule import all_configs, build_schedule, freeze, lr_factor, plateau, segment_at, set_train_mode
from support.tiny_recipe import tiny


def rates(choice: TrainConfig, at: list[float]) -> list[float]:
    return [lr_factor(choice, progress, []) for progress in at]


def test_the_rate_rises_then_falls_to_zero_or_stays() -> None:
    at = [0.05, 0.1, 0.55, 1.0]
    assert rates(TrainConfig(warmup=0.1), at) == pytest.approx([0.5, 1.0, 0.5, 0.0])
    assert rates(TrainConfig(warmup=0.1, schedule="constant"), at) == pytest.approx([0.5, 1.0, 1.0, 1.0])
    assert rates(TrainConfig(warmup=0, schedule="constant"), at) == [1.0] * 4
    assert rates(TrainConfig(warmup=0), [0.0, 0.5]) == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("warmup", [0.1, 0.3])
def test_one_cycle_is_torchs(warmup: float) -> None:
    steps, rate = 4000, 0.2
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    theirs = OneCycleLR(optimiser, rate, steps, pct_start=warmup, cycle_momentum=False, final_div_factor=1e9)
    choice = TrainConfig(lr=rate, schedule="one-cycle", warmup=warmup)
    for step in range(steps):
        ours = rate * lr_factor(choice, (step + 0.5) / steps, [])
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"], abs=rate * 2e-3)
        optimiser.step()
        if step + 1 < steps:
            theirs.step()


@pytest.mark.parametrize("seed", range(40))
def test_a_plateau_is_torchs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    losses = (torch.rand(60, generator=generator) * (1 + 2 * torch.arange(60, 0, -1) / 60)).tolist()
    losses[7] = losses[21] = math.nan
    choice = TrainConfig(schedule="plateau", patience=seed % 5, factor=(0.1, 0.5)[seed % 2], min_lr_factor=1e-2)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = ReduceLROnPlateau(optimiser, factor=choice.factor, patience=choice.patience, min_lr=choice.min_lr_factor)
    for epoch, loss in enumerate(losses):
        theirs.step(loss)
        assert plateau(losses[: epoch + 1], choice)[0] == pytest.approx(optimiser.param_groups[0]["lr"])


def test_a_nan_first_loss_does_not_change_the_plateau() -> None:
    choice = TrainConfig(schedule="plateau", patience=1)
    assert plateau([math.nan, 3.0, 2.0, 1.0, 0.5], choice) == (1.0, False)


def test_a_plateau_is_over_after_the_patience_at_the_smallest_rate() -> None:
    choice = TrainConfig(schedule="plateau", patience=0, factor=0.1, min_lr_factor=1e-2)
    assert [plateau([1.0] * n, choice) for n in range(1, 5)] == [
        (1.0, False),
        (0.1, False),
        (pytest.approx(0.01), False),
        (pytest.approx(0.01), True),
    ]


def test_phases_follow_each_other_with_changes_of_their_own() -> None:
    changes = [{"name": "warm", "train": {"epochs": 2, "lr": 0.5}}, {"train": {"optimizer": "adam"}}]
    first, second = build_schedule(tiny(phases=changes, train={"epochs": 4}))
    assert (first.first, first.last, second.first, second.last) == (0, 2, 2, 6)
    assert (first.config.lr, first.config.optimizer, second.config.optimizer) == (0.5, "sgd", "adam")
    assert [segment_at((first, second), epoch) for epoch in (0, 1, 2, 5, 6)] == [first, first, second, second, second]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": [{"name": "warm", "train": {"epoch": 2}}]}, "phase 'warm': train: unknown key 'epoch'"),
        ({"phases": [{"train": {"lr": -1}}]}, r"lr is in \(0, inf\), not -1"),
        ({"phases": [{"train": {"precision": "bf16-mixed"}}]}, "precision cannot change in a training"),
        (
            {"train": {"schedule": "plateau", "fallback": {"optimize": "sgd"}}},
            "unknown key 'optimize'; did you mean 'optimizer'?",
        ),
        ({"train": {"schedule": "plateau", "fallback": {"epochs": 3}}}, "fallback: the epochs are those"),
    ],
)
def test_wrong_phases_and_fallbacks_raise_before_the_first_epoch(changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("?", r"\?")):
        build_schedule(tiny(**changes))


def test_all_configs_are_listed() -> None:
    recipe = tiny(train={"schedule": "plateau", "fallback": {"optimizer": "sgd", "batch_size": 14}})
    assert [choice.batch_size for choice in all_configs(build_schedule(recipe))] == [28, 14]


def test_frozen_modules_do_not_learn_and_keep_their_statistics() -> None:
    net = build_net(tiny())
    freeze(net, ["features"])
    assert {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad} == {"head"}
    set_train_mode(net, Phase(freeze=("features",), dropout=0.7))
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    before = [norm.running_mean.clone() for norm in norms]
    net(torch.rand(4, 1, 16, 16))
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
    freeze(net, [])
    assert all(p.requires_grad for p in net.parameters())


def test_a_phases_dropout_ends_with_it() -> None:
    net = build_net(tiny())
    dropouts = [m for m in net.modules() if isinstance(m, nn.Dropout)]
    set_train_mode(net, Phase(dropout=0.7))
    assert [m.p for m in dropouts] == [0.7]
    set_train_mode(net, Phase(dropout=0.0))
    assert [m.p for m in dropouts] == [0.0]
    set_train_mode(net, Phase())
    assert [m.p for m in dropouts] == [0.2]


def test_an_unknown_module_names_the_nearest() -> None:
    net = build_net(tiny())
    with pytest.raises(RecipeError, match=r"no module 'feature'; did you mean 'features'\?"):
        freeze(net, ["feature"])
    for key in ("lr_factors", "weight_decays"):
        with pytest.raises(RecipeError, match=r"no module 'heat'; did you mean 'head'\?"):
            build_optimizer(net, TrainConfig(**{key: {"heat": 0.1}}))
    freeze(net, ["features", "head"])
    with pytest.raises(RecipeError, match="must leave a module to train"):
        build_optimizer(net, TrainConfig())


def groups(net: nn.Module, choice: TrainConfig) -> dict[str, tuple[float, float]]:
    """Parameter -> its rate and its decay."""
    optimiser = build_optimizer(net, choice)
    names = {parameter: name for name, parameter in net.named_parameters()}
    return {names[p]: (group["lr"], group["weight_decay"]) for group in optimiser.param_groups for p in group["params"]}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_the_longest_prefix_gives_rate_and_decay_and_vectors_have_none(name: str) -> None:
    net = build_net(tiny())
    choice = TrainConfig(
        optimizer=name,
        lr=0.1,
        weight_decay=1e-3,
        lr_factors={"features": 0.1, "features.4": 0.5},
        weight_decays={"head": 1e-2, "head.layers.3": 0.0},
    )
    found = groups(net, choice)
    assert found.keys() == dict(net.named_parameters()).keys()
    expected = {
        "features.0.weight": (0.01, 1e-3),
        "features.1.weight": (0.01, 0.0),  # a batch norm
        "features.4.weight": (0.05, 1e-3),
        "features.5.bias": (0.01, 0.0),
        "head.layers.0.weight": (0.1, 1e-2),
        "head.layers.0.bias": (0.1, 0.0),
        "head.layers.3.weight": (0.1, 0.0),
    }
    assert {key: found[key] for key in expected} == {key: pytest.approx(value) for key, value in expected.items()}


def test_a_rate_reaches_every_group_as_its_share() -> None:
    net = build_net(tiny())
    optimiser = build_optimizer(net, TrainConfig(lr_factors={"features": 0.1}))
    set_lr(optimiser, 3.0)
    assert {round(group["lr"], 6) for group in optimiser.param_groups} == {0.3, 3.0}


def test_sgd_is_nesterovs_and_adam_torchs_own() -> None:
    weight = nn.Linear(3, 2, bias=False)
    for name, kind in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        assert type(build_optimizer(weight, TrainConfig(optimizer=name))) is kind
    assert build_optimizer(weight, TrainConfig()).param_groups[0]["nesterov"]
    assert not build_optimizer(weight, TrainConfig(momentum=0)).param_groups[0]["nesterov"]


def test_an_average_forgets_the_first_weights_and_follows_the_last() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = ModelEma(net, 0.99)
    start = average.net[0].weight.clone()
    expected = start.clone()
    for step in range(1, 30):
        with torch.no_grad():
            net[0].weight += 1
        average.update()
        expected = expected.lerp(net[0].weight.detach(), 1 - min(0.99, (1 + step) / (10 + step)))
    assert torch.allclose(average.net[0].weight, expected)
    net[1].num_batches_tracked += 5
    average.finish_epoch()
    assert int(average.net[1].num_batches_tracked) == 5


def test_an_average_of_decay_zero_is_the_net_itself() -> None:
    net = nn.Linear(2, 2)
    average = ModelEma(net, 0.0)
    with torch.no_grad():
        net.weight += 1
    average.update()
    average.finish_epoch()
    assert torch.equal(average.net.weight, net.weight)
    assert average.net.weight.data_ptr() != net.weight.data_ptr()
