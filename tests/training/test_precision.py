"""precision="auto" is measured once and stored with the run; autocast, loss scaling and compiling."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from interruption import interrupt

from mlkd.data import MultiLabelData
from mlkd.models import MultiLabelModel
from mlkd.training import loop, precision
from mlkd.training.config import Config
from mlkd.training.loop import fit
from mlkd.training.precision import CANDIDATES, ComputeFormat, autotune_precision
from mlkd.training.runs import iter_runs

pytestmark = pytest.mark.usefixtures("own_cache")

Data = Mapping[str, MultiLabelData]
NAMES = ["float32, channels first", "float32, channels last", "bf16, channels last"]


@pytest.mark.parametrize("winner", range(3))
def test_the_fastest_format_is_chosen(
    winner: int, toy_teacher: MultiLabelModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {candidate[:2]: 0.5 if number == winner else 1.0 for number, candidate in enumerate(CANDIDATES)}
    monkeypatch.setattr(precision, "_seconds_per_step", lambda model, candidate, *_: seconds[candidate[:2]])
    chosen = autotune_precision(toy_teacher, 16, torch.device("cpu"))
    assert (chosen.precision, chosen.channels_last) == CANDIDATES[winner][:2]
    assert chosen.images_per_second == {name: 32.0 if n == winner else 16.0 for n, name in enumerate(NAMES)}


def test_the_measurement_uses_a_copy_of_the_model(toy_teacher: MultiLabelModel) -> None:
    before = {name: value.clone() for name, value in toy_teacher.state_dict().items()}
    measured = autotune_precision(toy_teacher, 4, torch.device("cpu")).images_per_second
    assert list(measured) == NAMES
    assert all(value > 0 for value in measured.values())
    assert all(torch.equal(before[name], value) for name, value in toy_teacher.state_dict().items())
    assert not toy_teacher.training
    assert all(parameter.grad is None for parameter in toy_teacher.parameters())


def test_the_measurement_restores_the_random_state(toy_teacher: MultiLabelModel) -> None:
    """Otherwise a random auxiliary module would be initialized differently in a resumed run."""
    with torch.random.fork_rng():
        before = torch.get_rng_state()
        autotune_precision(toy_teacher, 4, torch.device("cpu"))
        assert torch.equal(torch.get_rng_state(), before)


def test_the_measured_format_is_stored_with_the_run(
    toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run keeps its format, even if another one would be the fastest now."""
    chosen = ComputeFormat("bf16", True, {"bf16, channels last": 100.0})
    monkeypatch.setattr(precision, "autotune_precision", lambda *_: chosen)
    config = toy_config.replace(precision="auto")
    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "finish", None)
        with pytest.raises(TypeError):
            fit("vanilla", toy_data, config, runs=tmp_path)
    monkeypatch.setattr(precision, "autotune_precision", lambda *_: ComputeFormat("float32"))
    run = fit("vanilla", toy_data, config, runs=tmp_path)
    assert run.compute_format == chosen._asdict()
    named = fit("vanilla", toy_data, toy_config.replace(precision="bf16"), runs=tmp_path)
    assert np.array_equal(run.predictions().logits, named.predictions().logits)
    assert named.compute_format == {}


def test_channels_first_is_the_same_training(
    toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = []
    for last in (True, False):
        monkeypatch.setattr(precision, "autotune_precision", lambda *_, last=last: ComputeFormat("float32", last))
        run = fit("vanilla", toy_data, toy_config.replace(precision="auto", epochs=1), runs=tmp_path / str(last))
        logits.append(run.predictions().logits)
    np.testing.assert_allclose(*logits, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.half)]
)
def test_autocast_and_loss_scaling(name: str, dtype: torch.dtype) -> None:
    compute_format, device = ComputeFormat(name), torch.device("cpu")
    with compute_format.autocast(device):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    scaler = compute_format.grad_scaler(device)
    assert scaler.is_enabled() == (name == "fp16")
    assert bool(scaler.state_dict()) == (name == "fp16")


def test_one_process_trains_in_several_precisions(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    """The second float32 training equals the first one, although a bf16 training ran in between."""
    logits = [
        fit("vanilla", toy_data, toy_config.replace(precision=name), runs=tmp_path / str(n)).predictions().logits
        for n, name in enumerate(("float32", "bf16", "float32"))
    ]
    assert np.array_equal(logits[0], logits[2])
    assert not np.array_equal(logits[0], logits[1])


class TestLossScaling:
    """fp16 with `torch.amp.GradScaler`, which scales the loss up and skips the step when a gradient overflows."""

    def test_a_step_with_an_overflow_is_skipped_and_the_scale_halved(
        self, toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Weights, schedule and the growth of the scale continue from the state before the step."""
        start_scale(monkeypatch, 2.0**40)  # overflows at the first steps
        config = toy_config.replace(precision="fp16", epochs=1, schedule="cosine")
        states = record_steps(monkeypatch)
        fit("vanilla", toy_data, config, runs=tmp_path)
        before, after = states[0], states[1]
        assert (before["scale"], after["scale"]) == (2.0**40, 2.0**39)
        assert before["lr"] == after["lr"] == config.lr
        assert torch.equal(before["weight"], after["weight"])

    def test_the_scale_survives_an_interruption(
        self, toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The resumed training has the state of the scaler, not a new one, and ends with the same weights."""
        start_scale(monkeypatch, 2.0**30)
        config = toy_config.replace(precision="fp16")
        uninterrupted = fit("vanilla", toy_data, config, runs=tmp_path / "uninterrupted")
        with interrupt(1, loop.Progress, "epoch"):
            fit("vanilla", toy_data, config, runs=tmp_path / "resumed")
        (run,) = iter_runs(tmp_path / "resumed")
        scaler = run.load_checkpoint()[1]["scaler"]
        assert scaler["scale"] < 2.0**30  # it was halved at least once
        states = record_steps(monkeypatch)
        resumed = fit("vanilla", toy_data, config, runs=tmp_path / "resumed")
        assert states[0]["scale"] == scaler["scale"]
        assert np.array_equal(resumed.predictions().logits, uninterrupted.predictions().logits)
        times = ["seconds", "images_per_second"]
        assert resumed.history.drop(columns=times).equals(uninterrupted.history.drop(columns=times))


def start_scale(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    """Trainings begin with this scale."""
    scaler = partial(torch.amp.GradScaler, "cpu", init_scale=scale)
    monkeypatch.setattr(ComputeFormat, "grad_scaler", lambda self, device: scaler())


def record_steps(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Records scale, learning rate and one weight before each step."""
    train_step, states = loop.Trainer.train_step, []

    def recording(trainer: loop.Trainer, step: int) -> dict[str, float]:
        state = trainer.state
        weight = next(trainer.model.parameters()).detach().clone()
        states.append({"scale": state.scaler.get_scale(), "lr": state.scheduler.get_last_lr()[0], "weight": weight})
        return train_step(trainer, step)

    monkeypatch.setattr(loop.Trainer, "train_step", recording)
    return states


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_training_is_the_same(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    runs = [fit("vanilla", toy_data, toy_config.replace(compile=on), runs=tmp_path) for on in (False, True)]
    np.testing.assert_allclose(*(run.history["bce"] for run in runs), rtol=1e-3)
    np.testing.assert_allclose(*(run.predictions().logits for run in runs), atol=1e-2)
    assert set(runs[0].model().state_dict()) == set(runs[1].model().state_dict())
