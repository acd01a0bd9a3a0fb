"""Distributed training: the gradient of the whole batch, one run folder, and a restart after a process was killed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from programs import one_step
from programs.one_step import write_gradients
from safetensors.torch import load_file
from typer.testing import CliRunner

from mlkd.cli import cli
from mlkd.training.distributed import even_rank_slice, rank_slice
from mlkd.training.runs import Run, iter_runs

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"),
]

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PAPERS = ("l2d", "mdkd", "mskd")
OTHER_METHODS = ("cam-kd", "cpsd", "dist", "rkd", "pkt", "ps", "ddgsd", "dlb", "ps-kd", "tf-kd", "uskd")
"""Without the methods whose auxiliary module has batch norm, which uses the statistics of each process's slice."""


def test_two_processes_compute_what_one_computes(tmp_path: Path) -> None:
    """The gradients of the first step, the collective operations, and a run: both in one start of torchrun."""
    # SGD, because Adam's division by small second moments amplifies rounding errors.
    arguments = train_arguments(tmp_path / "runs", optimizer="sgd", lr=0.02, ema_decay=0.5, grad_accum_steps=2)
    output = check_gradients(PAPERS, tmp_path, "--", "mlkd", *arguments)
    (two,) = iter_runs(tmp_path / "runs")
    one_process = CliRunner().invoke(cli, [*arguments, "--runs", str(tmp_path / "one-process")])
    assert one_process.exit_code == 0
    for text in (output, one_process.output):
        assert text.count("epoch 2/3") == 1  # by one process only
    (one,) = iter_runs(tmp_path / "one-process")
    assert one.path.name == two.path.name
    first, second = one.predictions("test"), two.predictions("test")
    assert np.array_equal(first.ids, second.ids)
    assert np.allclose(first.logits, second.logits, atol=1e-3)
    times = ["seconds", "images_per_second"]
    np.testing.assert_allclose(one.history.drop(columns=times), two.history.drop(columns=times), rtol=1e-3)


@pytest.mark.soak
def test_gradients_of_the_other_methods(tmp_path: Path) -> None:
    check_gradients(OTHER_METHODS, tmp_path)


def check_gradients(names: Sequence[str], folder: Path, *arguments: str) -> str:
    """Compares the gradients of two processes with those of this process; the output of the two."""
    for name in ("one", "two"):
        (folder / name).mkdir()
    write_gradients(folder / "one", names)
    command = [*TORCHRUN, one_step.__file__, str(folder / "two"), *names, *arguments]
    output = subprocess.run(command, check=True, timeout=300, stdout=subprocess.PIPE, text=True).stdout
    wrong = {}
    for name in names:
        one, two = (load_file(folder / processes / name) for processes in ("one", "two"))
        assert one.keys() == two.keys()
        norm = sum(float(gradient.double().square().sum()) for gradient in one.values()) ** 0.5
        difference = sum(float((one[key].double() - two[key]).square().sum()) for key in one) ** 0.5
        if not (norm > 0 and difference <= 1e-5 * norm):  # dist divides by small standard deviations
            wrong[name] = difference / norm
    assert not wrong
    for rank in range(2):  # both processes have the rows of both, and the buffers of the first
        with np.load(folder / "two" / f"collectives-{rank}.npz") as arrays:
            assert arrays["gathered"].tolist() == [[0, 0]] * 2 + [[1, 1]] * 3
            assert arrays["running_mean"].tolist() == [1, 1, 1]
    return output


def train_arguments(runs: Path, **settings: object) -> list[str]:
    """The arguments of `mlkd` for a small training."""
    values = {"epochs": 3, "batch_size": 16, "augmentations": json.dumps(["flip", "cutout"]), **settings}
    pairs = [text for name, value in values.items() for text in ("--set", f"student.{name}={value}")]
    pairs += ["--set", "student.backbone=test_convnext"]
    return ["train", "--study", "smoke", "--runs", str(runs), *pairs]


def command(runs: Path, launcher: list[str], **settings: object) -> list[str]:
    return [*launcher, "-m", "mlkd", *train_arguments(runs, **settings)]


def test_slices_of_the_ranks_cover_the_batch() -> None:
    distributed = [SimpleNamespace(num_processes=3, process_index=rank) for rank in range(3)]
    for count in (0, 2, 3, 10, 12):
        slices = [range(count)[rank_slice(accelerator, count)] for accelerator in distributed]
        assert list(itertools.chain(*slices)) == list(range(count))
        assert max(map(len, slices)) - min(map(len, slices)) <= 1
    assert [even_rank_slice(accelerator, 6) for accelerator in distributed] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(ValueError, match="`batch_size` is 16, expected a multiple of the number of processes, 3"):
        even_rank_slice(distributed[0], 16)


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_restarted_job_resumes_after_a_process_was_killed(tmp_path: Path) -> None:
    restarting = [*TORCHRUN[:3], "--max-restarts", "1", *TORCHRUN[3:]]
    job = subprocess.Popen(
        command(tmp_path / "killed", restarting, epochs=6),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},  # docs/training.md says why
    )
    until = time.monotonic() + 200
    while not any(len(path.read_text().splitlines()) >= 3 for path in tmp_path.glob("killed/*/history.csv")):
        assert job.poll() is None, "it ended before a process was killed"
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(workers_of(job.pid)[-1], signal.SIGKILL)
    out, errors = job.communicate(timeout=300)
    assert job.returncode == 0, errors
    assert "exitcode: -9" in errors or "SIGKILL" in errors or "-9" in errors
    assert out.count("epoch 1/6") == 1  # not trained again
    subprocess.run(command(tmp_path / "whole", TORCHRUN, epochs=6), check=True, timeout=300)
    (killed,), (whole,) = iter_runs(tmp_path / "killed"), iter_runs(tmp_path / "whole")
    assert same_weights(killed, whole)


def workers_of(parent: int) -> list[int]:
    """The processes that torchrun started, in the order of their starts."""
    return sorted(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))


def same_weights(one: Run, other: Run) -> bool:
    first, second = (load_file(run.path / "model.safetensors") for run in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)
