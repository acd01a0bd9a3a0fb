"""Warm-up of the learning rate, and which parameters have weight decay."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from mlkd.models import MultiLabelModel, create_model
from mlkd.training.config import Config
from mlkd.training.optimizers import create_optimizer, create_scheduler

STEPS, EPOCHS = 20, 4


def start(**settings) -> tuple[torch.optim.Optimizer, LRScheduler]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=settings.get("lr", 1.0), momentum=0.9)
    return optimizer, create_scheduler(optimizer, Config(**{"epochs": EPOCHS, **settings}), STEPS // EPOCHS)


def learning_rates(steps: int = STEPS, **settings) -> list[float]:
    optimizer, scheduler = start(**settings)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_default_warmup_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, STEPS + 1)
    expected = []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert learning_rates(schedule="one_cycle", lr=1.0) == expected == learning_rates(warmup=0.3, lr=1.0)
    assert learning_rates(schedule="cosine", lr=1.0) == learning_rates(schedule="cosine", warmup=0.0, lr=1.0)


def test_warmup_of_one_cycle_moves_the_maximum() -> None:
    for warmup in (0.1, 0.5, 0.8):
        rates = learning_rates(schedule="one_cycle", warmup=warmup, lr=1.0)
        assert abs(int(np.argmax(rates)) - warmup * STEPS) <= 1
    rates = learning_rates(schedule="one_cycle", warmup=0.0, lr=1.0)
    assert rates == sorted(rates, reverse=True)


def test_training_that_stops_before_the_end_of_its_schedule() -> None:
    for schedule in ("one_cycle", "cosine"):
        whole = learning_rates(schedule=schedule, lr=1.0)
        assert learning_rates(10, schedule=schedule, epochs=2, schedule_epochs=4, lr=1.0) == whole[:10]
    with pytest.raises(
        ValueError, match="`schedule_epochs` is 3, expected at least the number of epochs: `epochs` is 4"
    ):
        Config(epochs=4, schedule_epochs=3)


@pytest.mark.parametrize(("name", "nesterov"), [("sgd", True), ("momentum", False)])
def test_momentum_with_and_without_nesterov(name: str, nesterov: bool) -> None:
    model = create_model("resnet8_cifar", ("a", "b"), image_size=16, embed_dim=8)
    group = create_optimizer(model, nn.Identity(), Config(optimizer=name)).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.9, nesterov)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_warmup_is_linear_before_the_schedule(schedule: str) -> None:
    rates = learning_rates(schedule=schedule, warmup=0.2, lr=0.5)
    main = [(1 + np.cos(np.pi * k / 16)) / 2 if schedule == "cosine" else 1.0 for k in range(16)]
    np.testing.assert_allclose(rates, 0.5 * np.array([1 / 5, 2 / 5, 3 / 5, 4 / 5, *main]), rtol=1e-6)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("steps", [2, 4, 9])
def test_schedule_resumes_from_its_state(schedule: str, steps: int) -> None:
    expected = learning_rates(schedule=schedule, warmup=0.2, lr=0.5)
    optimizer, scheduler = start(schedule=schedule, warmup=0.2, lr=0.5)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    state = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    optimizer, scheduler = start(schedule=schedule, warmup=0.2, lr=0.5)
    optimizer.load_state_dict(state[0])
    scheduler.load_state_dict(state[1])
    for rate in expected[steps:]:
        assert optimizer.param_groups[0]["lr"] == rate
        optimizer.step()
        scheduler.step()


def test_weight_decay_of_all_parameters_by_default(toy_teacher: MultiLabelModel) -> None:
    optimizer = create_optimizer(toy_teacher, nn.Identity(), Config(weight_decay=0.25, lr=0.5, backbone_lr_scale=0.1))
    assert [(group["weight_decay"], group["lr"]) for group in optimizer.param_groups] == [(0.25, 0.5), (0.25, 0.05)]
    for group, module in zip(optimizer.param_groups, (toy_teacher.head, toy_teacher.backbone), strict=True):
        assert all(a is b for a, b in zip(group["params"], module.parameters(), strict=True))


def test_filter_excludes_biases_and_parameters_with_one_dimension(toy_teacher: MultiLabelModel) -> None:
    auxiliary = nn.Linear(3, 2)
    config = Config(weight_decay=0.25, lr=0.5, backbone_lr_scale=0.1, filter_bias_and_bn=True)
    optimizer = create_optimizer(toy_teacher, auxiliary, config)
    groups = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(groups) == sum(len(list(m.parameters())) for m in (toy_teacher, auxiliary))
    excluded = 0
    for prefix, module in {"head": toy_teacher.head, "auxiliary": auxiliary, "backbone": toy_teacher.backbone}.items():
        for name, parameter in module.named_parameters():
            no_decay = parameter.ndim == 1 or name.endswith(".bias")
            lr = 0.05 if prefix == "backbone" else 0.5
            assert groups[id(parameter)] == (pytest.approx(lr), 0.0 if no_decay else 0.25)
            excluded += no_decay
    assert excluded > 10
    assert optimizer.param_groups[0]["lr"] == 0.5  # the history's learning rate
