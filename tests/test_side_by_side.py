"""Trainings in processes of their own: the same runs, one failure, Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor

import mlkd
from mlkd import side_by_side
from mlkd.config import Config
from mlkd.data import MultiLabelData
from mlkd.methods import METHODS, create
from mlkd.parts import train_parts
from mlkd.plugins import plugins, run_plugin
from mlkd.progress import PROGRESS_FILE
from mlkd.runs import all_runs
from mlkd.side_by_side import Training, fit_all

Data = Mapping[str, MultiLabelData]

PLUGIN = """
from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from mlkd.methods import Vanilla, register
from mlkd.models.cifar_resnet import CifarResNet
from timm.models import register_model


@register_model
def net_of_side_by_side(pretrained=False, **settings):
    return CifarResNet(blocks=1, widths=(4, 8, 12))


@register("ends")
@dataclass
class Ends(Vanilla):
    with_process: bool = False

    def terms(self, student, batch):
        if self.with_process:
            os._exit(9)
        return {name: term * float("nan") for name, term in super().terms(student, batch).items()}


@register("slow")
@dataclass
class Slow(Vanilla):
    pid: str = ""

    def terms(self, student, batch):
        Path(self.pid).write_text(str(os.getpid()))
        time.sleep(1)
        return super().terms(student, batch)
"""


@pytest.fixture(scope="module", autouse=True)
def plugin(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A plug-in file that this process has run. All tests have the same one, so they share their processes."""
    path = tmp_path_factory.mktemp("plugin") / "mine.py"
    path.write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLKD_CACHE", str(cache))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv(PROGRESS_FILE, str(path.with_name("status")))
        run_plugin(path)
        yield path
    get_reusable_executor().shutdown(kill_workers=True)
    for name in ("ends", "slow"):
        METHODS.pop(name)
    for module in [module for module in sys.modules if module.startswith("mlkd_plugin_mine")]:
        del sys.modules[module]


def test_side_by_side_gives_the_same_runs_as_one_after_another(
    plugin: Path, toy_data: Data, toy_config: Config, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    config = toy_config.but(epochs=2, augment=("flip",))
    train_parts(toy_data, config, "cgp", 2, runs=tmp_path / "together", jobs=2)
    out = capfd.readouterr().out.splitlines()
    for number in (1, 2):
        for epoch in (1, 2):
            (line,) = (
                line for line in out if line.startswith(f"cgp, part {number} of 2: vanilla") and f" {epoch}/" in line
            )
            assert f"vanilla part, seed 0: epoch {epoch}/2, asl" in line
    assert plugin.with_name("status").read_text().startswith("vanilla part, seed 0: epoch ")

    train_parts(toy_data, config, "cgp", 2, runs=tmp_path / "alone", jobs=1)
    together, alone = list(all_runs(tmp_path / "together")), list(all_runs(tmp_path / "alone"))
    assert [run.path.name for run in together] == [run.path.name for run in alone]
    for one, other in zip(together, alone, strict=True):
        assert "1 threads" in (one.path / "environment.json").read_text()
        np.testing.assert_allclose(one.predictions().logits, other.predictions().logits, rtol=1e-4, atol=1e-4)
        assert one.history.drop(columns=["seconds", "images_per_second"]).to_numpy() == pytest.approx(
            other.history.drop(columns=["seconds", "images_per_second"]).to_numpy(), rel=1e-4
        )
    capfd.readouterr()
    again = train_parts(toy_data, config, "cgp", 2, runs=tmp_path / "together", jobs=2)
    assert capfd.readouterr().out.count("found complete") == 2
    assert again.classes == toy_data["train"].classes


def test_processes_know_what_plugins_register(plugin: Path, toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    assert str(plugin) in plugins()
    config = toy_config.but(epochs=1, backbone="net_of_side_by_side", backbone_settings={})
    trainings = [Training(f"seed {seed}", create("vanilla"), toy_data, config.but(seed=seed)) for seed in (0, 1)]
    runs = fit_all(trainings, runs=tmp_path / "runs", jobs=2)
    assert [run.config["training"]["seed"] for run in runs] == [0, 1]
    assert all(run.complete for run in runs)


def test_a_failure_is_told_with_its_training(plugin: Path, toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    good = Training("good", create("vanilla"), toy_data, toy_config.but(epochs=1))
    bad = Training("bad", create("ends"), toy_data, toy_config)
    for jobs in (1, 2):
        with pytest.raises(mlkd.TrainingError, match=r"^bad: The loss term 'bce' is nan at epoch 1, step 1"):
            fit_all([good, bad], runs=tmp_path / "runs", jobs=jobs)


def test_a_process_that_is_ended_is_told(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    dead = Training("dead", create("ends", with_process=True), toy_data, toy_config)
    good = Training("good", create("vanilla"), toy_data, toy_config)
    with pytest.raises(mlkd.TrainingError, match=r"one of dead, good was ended. Was there enough memory\?.*`jobs=1`"):
        fit_all([dead, good], runs=tmp_path, jobs=2)


def test_wrong_data_are_told_before_a_process_is_started(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    empty = {**toy_data, "train": toy_data["train"].subset([])}
    trainings = [Training("a", create("vanilla"), data, toy_config) for data in (toy_data, empty)]
    with pytest.raises(mlkd.DataError, match="the split is empty"):
        fit_all(trainings, runs=tmp_path, jobs=2)
    with pytest.raises(ValueError, match="`jobs` is -1"):
        fit_all(trainings, runs=tmp_path, jobs=-1)


@pytest.mark.parametrize(
    ("cores", "gpu", "processes", "expected"),
    [(1, False, 1, 1), (2, False, 1, 1), (9, False, 1, 4), (8, True, 1, 1), (8, False, 2, 1)],
)
def test_one_for_every_two_cores(
    cores: int, gpu: bool, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert side_by_side._places() == expected


def test_ctrl_c_stops_all_processes(plugin: Path, toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    pids = [tmp_path / f"{seed}.pid" for seed in (0, 1)]
    trainings = [
        Training(f"seed {seed}", create("slow", pid=str(pids[seed])), toy_data, toy_config.but(epochs=50, seed=seed))
        for seed in (0, 1)
    ]

    def press() -> None:
        while not all(pid.is_file() for pid in pids):
            time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        fit_all(trainings, runs=tmp_path / "runs", jobs=2)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid.read_text()}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.1)
    runs = list(all_runs(tmp_path / "runs"))
    assert len(runs) == 2
    assert not any(run.complete for run in runs)
