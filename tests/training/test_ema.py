"""The moving average of the weights: its value, that it is what is evaluated, and that it resumes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from interruption import interrupt
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from mlkd.data import MultiLabelData
from mlkd.methods import create_method
from mlkd.training.config import Config
from mlkd.training.evaluate import mean_average_precision, predict
from mlkd.training.loop import fit
from mlkd.training.runs import Run, iter_runs

pytestmark = pytest.mark.usefixtures("own_cache")

Data = Mapping[str, MultiLabelData]
TIMES = ["seconds", "images_per_second"]


def weights(run: Run) -> dict[str, Tensor]:
    return load_file(run.path / "model.safetensors")


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_average_of_the_weights_of_all_steps_is_what_is_evaluated(
    toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config.replace(epochs=2, select="last")
    steps: list[dict[str, Tensor]] = []
    update = ModelEmaV3.update

    def record(self: ModelEmaV3, model: nn.Module, step: int | None = None) -> None:
        steps.append({name: value.clone() for name, value in model.state_dict().items()})
        update(self, model, step)

    monkeypatch.setattr(ModelEmaV3, "update", record)
    plain = fit("vanilla", toy_data, config, runs=tmp_path)
    assert not steps
    run = fit("vanilla", toy_data, config.replace(ema_decay=0.75), runs=tmp_path)
    assert len(steps) == 8
    assert same(steps[-1], weights(plain))  # the training of the student is the same
    columns = ["lr", "bce"]
    assert run.history[columns].equals(plain.history[columns])

    average = weights(fit("vanilla", toy_data, config.replace(epochs=0), runs=tmp_path))  # the initial weights
    for step in steps:
        for name, value in step.items():
            average[name] = 0.75 * average[name] + 0.25 * value if value.is_floating_point() else value
    saved = weights(run)
    for name, value in average.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-6)
    assert not same(saved, weights(plain))
    predictions = predict(run.model(), toy_data["val"])
    assert run.history["val_mAP"].iloc[-1] == pytest.approx(mean_average_precision(predictions))
    for split in ("val", "test"):
        assert np.array_equal(run.predictions(split).logits, predict(run.model(), toy_data[split]).logits)


@pytest.mark.parametrize("name", ["vanilla", "mskd", "ps-kd"])
def test_resumed_training_has_the_same_average(
    name: str, toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of methods with a state of their own: the previous step's weights, past logits."""
    config = toy_config.replace(epochs=2, ema_decay=0.9, warmup=0.25, schedule="cosine", filter_bias_and_bn=True)
    expected = fit(create_method(name), toy_data, config, runs=tmp_path / "uninterrupted")
    with interrupt(6):  # in epoch 2
        fit(create_method(name), toy_data, config, runs=tmp_path / "interrupted")
    (run,) = iter_runs(tmp_path / "interrupted")
    assert run.epochs_done == 1
    fit(create_method(name), toy_data, config, runs=tmp_path / "interrupted")
    assert same(weights(run), weights(expected))
    assert run.history.drop(columns=TIMES).equals(expected.history.drop(columns=TIMES))
