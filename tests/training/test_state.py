"""The checkpoint of a training: one that does not fit is refused in one line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from mlkd.errors import RunError
from mlkd.models import create_model
from mlkd.training.config import Config
from mlkd.training.distributed import StudentWithAuxiliary
from mlkd.training.optimizers import create_optimizer, create_scheduler
from mlkd.training.runs import Run, open_run
from mlkd.training.state import TrainState

CONFIG = Config(
    backbone="resnet8_cifar", backbone_settings={"widths": [8, 8, 8]}, pretrained=False, image_size=32, embed_dim=8
)


def create_state(config: Config = CONFIG) -> TrainState:
    model = create_model(config.backbone, ("a", "b"), image_size=32, embed_dim=8, **config.backbone_settings)
    networks = StudentWithAuxiliary(model, nn.Identity())
    optimizer = create_optimizer(model, networks.auxiliary, config)
    ema = ModelEmaV3(model, config.ema_decay) if config.ema_decay else None
    scaler = torch.amp.GradScaler("cpu", enabled=config.precision == "fp16")
    return TrainState(networks, ema, optimizer, create_scheduler(optimizer, config, 4), scaler)


def step(state: TrainState, epochs: int = 1) -> None:
    for parameter in state.networks.parameters():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(4 * epochs):
        state.optimizer.step()
        state.scheduler.step()
    state.epoch, state.selected_epoch, state.best_score = epochs, 1, 0.5
    state.history = [{"epoch": n, "lr": 0.1, "seconds": 1.0} for n in range(1, epochs + 1)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    training = {"role": "student", "backbone": "resnet8_cifar", "seed": 3, "epochs": 2}
    return open_run(tmp_path / "runs", {"method": "vanilla", "training": training})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule": "cosine", "warmup": 0.2, "optimizer": "sgd", "ema_decay": 0.9},
        {"schedule": "constant", "optimizer": "momentum", "filter_bias_and_bn": True, "precision": "fp16"},
        {"schedule": "cosine", "optimizer": "adamw"},
    ],
)
def test_a_checkpoint_of_the_same_training_is_loaded(run: Run, changes: dict[str, Any]) -> None:
    config = CONFIG.replace(epochs=2, **changes)
    saved, resumed = create_state(config), create_state(config)
    resumed.save(run)  # before the first step
    create_state(config).load(run)
    step(saved)
    saved.save(run)
    resumed.load(run)
    assert (resumed.epoch, resumed.selected_epoch, resumed.best_score) == (1, 1, 0.5)
    assert resumed.history == saved.history
    assert resumed.scheduler.state_dict() == saved.scheduler.state_dict()
    for state in (saved, resumed):
        step(state)
    for name, value in saved.networks.state_dict().items():
        assert torch.equal(value, resumed.networks.state_dict()[name])


def put(path: str, value: Any = ...) -> Callable[[dict], None]:
    """Replaces an entry of a nested state, or with ... removes it."""

    def change(state: Any) -> None:
        *sections, name = [int(key) if key.isdecimal() else key for key in path.split(".")]
        for section in sections:
            state = state[section]
        if value is ...:
            del state[name]
        else:
            state[name] = value

    return change


DAMAGE = {
    "no epoch": (put("epoch"), "`state` lacks epoch"),
    "another entry": (put("loss", 1), "`state` has loss"),
    "epoch a text": (put("epoch", "1"), "`epoch` is str, expected int"),
    "epoch true": (put("epoch", True), "`epoch` is bool, expected int"),
    "another epoch": (put("epoch", 7), "of another training than `epoch`, 7"),
    "selected later": (put("selected_epoch", 2), "`history` or `selected_epoch` is of another training"),
    "no score": (put("best_score", None), "`best_score` is NoneType, expected float"),
    "history a mapping": (put("history", {}), "`history` or `selected_epoch`"),
    "history of texts": (put("history", ["a"]), "row 1 of `history` is 'a'"),
    "history without seconds": (put("history", [{"epoch": 1}]), "row 1 of `history`"),
    "an average": (put("ema", {"a": 1}), "`ema` is dict, expected NoneType"),
    "no optimizer": (put("optimizer", None), "`optimizer` is NoneType, expected a mapping"),
    "an empty optimizer": (put("optimizer", {}), "`optimizer` lacks param_groups, state"),
    "no learning rate": (put("optimizer.param_groups.0.lr"), "`optimizer.param_groups.0` lacks lr"),
    "fewer groups": (put("optimizer.param_groups.1"), "`optimizer.param_groups` is list, expected a list of 2 entries"),
    "fewer parameters": (put("optimizer.param_groups.0.params.0"), "`optimizer.param_groups.0.params`"),
    "another optimizer": (put("optimizer.state.0", {"momentum_buffer": torch.ones(3)}), "`optimizer.state.0` lacks"),
    "another shape": (put("optimizer.state.0.exp_avg", torch.ones(3)), "`optimizer.state.0.exp_avg` is (3,), expected"),
    "an unknown parameter": (put("optimizer.state.999", {}), "`optimizer.state` has 999"),
    "an empty schedule": (put("scheduler", {}), "`scheduler` lacks"),
    "a schedule of texts": (put("scheduler._last_lr", "0.1"), "`scheduler._last_lr` is str, expected a list"),
    "a step as text": (put("scheduler.last_epoch", "3"), "`scheduler.last_epoch` is str, expected int"),
    "a scaler": (put("scaler", {"scale": 2.0}), "`scaler` has scale"),
}


@pytest.fixture(scope="module")
def saved_state() -> TrainState:
    state = create_state()
    step(state)
    return state


@pytest.mark.parametrize("case", DAMAGE)
def test_a_state_of_another_form_is_refused(run: Run, saved_state: TrainState, case: str) -> None:
    change, problem = DAMAGE[case]
    saved_state.save(run)
    (folder,) = run.checkpoints
    state = torch.load(folder / "state.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "state.pt")
    resumed = copy.deepcopy(saved_state)
    with pytest.raises(RunError) as caught:
        resumed.load(run)
    assert str(caught.value).startswith(f"{folder}: the checkpoint does not fit (")
    assert problem in str(caught.value)
    assert str(caught.value).endswith(f"; remove the folder {run.path} to restart the training.")


@pytest.mark.parametrize("state", [[1], {1: 2}, torch.ones(3)])
def test_a_state_that_is_no_mapping_of_names_is_refused(run: Run, saved_state: TrainState, state: Any) -> None:
    saved_state.save(run)
    torch.save(state, run.checkpoints[0] / "state.pt")
    with pytest.raises(RunError, match=r"state\.pt: not the state of a training; remove the folder"):
        create_state().load(run)


def test_weights_of_another_network_are_refused(run: Run, saved_state: TrainState) -> None:
    saved_state.save(run)
    other = create_state(CONFIG.replace(backbone_settings={"widths": [8, 8, 16]}))
    with pytest.raises(RunError, match=r"the checkpoint does not fit \(.*; remove the folder"):
        other.load(run)
