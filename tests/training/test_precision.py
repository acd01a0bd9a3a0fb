"""precision="auto": measured once, the fastest kept with the run; and compiling."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from mlkd.data import MultiLabelData
from mlkd.models import MultiLabelModel
from mlkd.training import loop, precision
from mlkd.training.config import Config
from mlkd.training.loop import fit
from mlkd.training.precision import CANDIDATES, ComputeFormat, autotune_precision

pytestmark = pytest.mark.usefixtures("own_cache")

Data = Mapping[str, MultiLabelData]
NAMES = ["float32, channels first", "float32, channels last", "bf16, channels last"]


@pytest.mark.parametrize("winner", range(3))
def test_the_fastest_is_chosen(winner: int, toy_teacher: MultiLabelModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {speed[:2]: 0.5 if number == winner else 1.0 for number, speed in enumerate(CANDIDATES)}
    monkeypatch.setattr(precision, "_seconds", lambda model, speed, *_: seconds[speed[:2]])
    speed = autotune_precision(toy_teacher, 16, torch.device("cpu"))
    assert (speed.precision, speed.channels_last) == CANDIDATES[winner][:2]
    assert speed.images_per_second == {name: 32.0 if n == winner else 16.0 for n, name in enumerate(NAMES)}


def test_it_is_measured_on_a_copy(toy_teacher: MultiLabelModel) -> None:
    before = {name: value.clone() for name, value in toy_teacher.state_dict().items()}
    speed = autotune_precision(toy_teacher, 4, torch.device("cpu"))
    assert list(speed.images_per_second) == NAMES
    assert all(value > 0 for value in speed.images_per_second.values())
    assert all(torch.equal(before[name], value) for name, value in toy_teacher.state_dict().items())
    assert not toy_teacher.training
    assert all(parameter.grad is None for parameter in toy_teacher.parameters())


def test_measuring_changes_nothing_that_is_random_later(toy_teacher: MultiLabelModel) -> None:
    """Else what begins at random beside the student would begin otherwise in a run that goes on."""
    with torch.random.fork_rng():
        before = torch.get_rng_state()
        autotune_precision(toy_teacher, 4, torch.device("cpu"))
        assert torch.equal(torch.get_rng_state(), before)


def test_what_was_measured_stays_with_the_run(
    toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on computes in what it began with, whatever would be the fastest now."""
    chosen = ComputeFormat("bf16", True, {"bf16, channels last": 100.0})
    monkeypatch.setattr(loop, "fastest", lambda *_: chosen)
    config = toy_config.replace(precision="auto")
    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "finish", None)
        with pytest.raises(TypeError):
            fit("vanilla", toy_data, config, runs=tmp_path)
    monkeypatch.setattr(loop, "fastest", lambda *_: ComputeFormat("float32"))
    run = fit("vanilla", toy_data, config, runs=tmp_path)
    assert run.speed == chosen._asdict()
    named = fit("vanilla", toy_data, toy_config.replace(precision="bf16"), runs=tmp_path)
    assert np.array_equal(run.predictions().logits, named.predictions().logits)
    assert named.speed == {}


def test_channels_first_is_the_same_training(
    toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = []
    for last in (True, False):
        monkeypatch.setattr(loop, "fastest", lambda *_, last=last: ComputeFormat("float32", last))
        run = fit("vanilla", toy_data, toy_config.replace(precision="auto", epochs=1), runs=tmp_path / str(last))
        logits.append(run.predictions().logits)
    np.testing.assert_allclose(*logits, atol=1e-3)


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_training_is_the_same(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    runs = [fit("vanilla", toy_data, toy_config.replace(compile=on), runs=tmp_path) for on in (False, True)]
    np.testing.assert_allclose(*(run.history["bce"] for run in runs), rtol=1e-3)
    np.testing.assert_allclose(*(run.predictions().logits for run in runs), atol=1e-2)
    assert set(runs[0].model().state_dict()) == set(runs[1].model().state_dict())
