"""Sweeps on a real Ray cluster of two nodes, one of which dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlkd.study.executors import Ray
from mlkd.study.run_sweep import TaskStatus, run_tasks
from mlkd.study.sweep import Sweep, expand_tasks
from mlkd.training.runs import iter_runs

ray = pytest.importorskip("ray", reason="requires the extra 'ray'")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

PLUGIN = """
import time

from mlkd.methods import Vanilla, register_method


@register_method("slow")
class Slow(Vanilla):
    def loss_terms(self, student, batch):
        time.sleep(0.15)
        return super().loss_terms(student, batch)
"""

TINY = {
    "student.backbone_settings": ({"widths": [8, 8, 8], "stem_stride": 3},),
    "student.embed_dim": (8,),
    "student.image_size": (32,),
    "student.batch_size": (16,),
}
"""With these settings, study smoke trains in a second."""


NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A head, and a node as `cluster.other`, of one core each; a death is noticed within ten seconds."""
    # Ray loads jsonschema, which builds a grammar of addresses where Jupyter brings one: 3 s in each of a dozen
    # processes, of which some must answer within 15 s.
    absent = tmp_path_factory.mktemp("absent")
    (absent / "rfc3987_syntax.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(absent))
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "120000")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    checks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 10}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"_system_config": checks, **NODE})
    cluster.other = cluster.add_node(**NODE)
    cluster.wait_for_nodes(120)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def raylet(node) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def trainings(node) -> list[str]:
    """The command lines of the trainings on a node."""
    lines = [" ".join(process.cmdline()) for process in raylet(node).children(recursive=True)]
    return [line for line in lines if "-m mlkd train" in line]


def kill(node) -> None:
    """Kills all processes of a node, as a power failure does."""
    top = raylet(node)
    for process in [top, *top.children(recursive=True)]:
        process.kill()


def sweep_while_a_node_dies(cluster, grid: Sweep, epochs: int) -> tuple[dict[str, TaskStatus], Sequence[str]]:
    """Kills the other node when a run on it has finished an epoch; returns what it was training."""
    lost: list[str] = []

    def watch() -> None:
        while not lost:
            time.sleep(0.1)
            for run in iter_runs(grid.runs):
                seed = run.config["training"]["seed"]
                commands = [line for line in trainings(cluster.other) if f"--seed {seed} " in line]
                if commands and run.checkpoints and len(run.history) < epochs:
                    time.sleep(0.2)  # its log has the epoch too
                    kill(cluster.other)
                    lost.extend(commands)
                    return

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    progress = run_tasks(expand_tasks(grid), grid.folder, Ray(cluster.address, grid.cpus, grid.gpus))
    watching.join(5)
    return progress, lost


def slow_sweep(methods: tuple[str, ...], grid: dict[str, tuple], seeds: tuple[int, ...]) -> Sweep:
    """A sweep of tiny students, in study smoke, with the method "slow" from the plugin."""
    return Sweep(name="mine", study="smoke", methods=methods, grid=TINY | grid, seeds=seeds, plugins=("mine.py",))


def check(progress: dict[str, TaskStatus], lost: Sequence[str], grid: Sweep) -> None:
    assert lost, "no run was on the other node"
    assert {status.state for status in progress.values()} == {"done"}
    runs = list(iter_runs(grid.runs))
    assert all(run.complete for run in runs)
    assert sorted(run.path.name for run in runs) == sorted(status.run.path.name for status in progress.values())
    for run in runs:
        assert run.history["epoch"].tolist() == list(range(1, run.config["training"]["epochs"] + 1))


@pytest.mark.soak
def test_sweep_continues_after_a_node_failed(cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PLUGIN)
    epochs = 6
    grid = slow_sweep(("slow",), {"student.epochs": (epochs,)}, (0, 1, 2))
    progress, lost = sweep_while_a_node_dies(cluster, grid, epochs)
    check(progress, lost, grid)
    (again,) = [log.read_text() for log in grid.folder.glob("*.log") if log.read_text().count("$ mlkd train") > 1]
    first, second = again.split("$ mlkd train")[1:]
    assert f"--seed {lost[0].partition('--seed ')[2].split()[0]} " in first
    assert "epoch 1/6" in first
    assert "epoch 1/6" not in second  # it was resumed
    assert "epoch 6/6" in second


@pytest.mark.soak
def test_sweep_with_teachers_continues_after_repeated_failures(
    cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rounds on one runs folder; in each a new node joins, takes runs and dies, while students are pending."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PLUGIN)
    epochs = 8
    rounds = 3
    for number in range(rounds):
        seeds = tuple(range(4 * number, 4 * number + 4))
        grid = slow_sweep(("slow", "cgpd"), {"student.epochs": (epochs,)}, seeds)
        progress, lost = sweep_while_a_node_dies(cluster, grid, epochs)
        assert lost
        assert all(status.finished for status in progress.values())
        assert all(run.complete for run in iter_runs(grid.runs))
        ray.shutdown()
        cluster.other = cluster.add_node(**NODE)
    students = [run for run in iter_runs("runs") if run.config["training"]["role"] == "student"]
    assert len(students) == rounds * 4 * 2
    assert len(list(iter_runs("runs"))) == len(students) + 2
    for run in students:
        assert run.history["epoch"].tolist() == list(range(1, epochs + 1))
