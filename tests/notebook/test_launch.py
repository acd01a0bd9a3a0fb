"""Trainings in several processes that a notebook starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mlkd
from mlkd.notebook import launch as launch_module
from mlkd.notebook.launch import build_command, error_message
from mlkd.training.runs import open_run


def replace_command(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Lets `launch` start a Python process with this code and the run file as argument instead of torchrun."""
    monkeypatch.setattr(
        launch_module, "build_command", lambda arguments, processes, file: [sys.executable, "-c", code, str(file)]
    )


def test_command(tmp_path: Path) -> None:
    command = build_command(["--method", "l2d", "--set", "l2d.lambda_cd=0.1"], 4, tmp_path / "run")
    assert command[:5] == [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    assert command[5:8] == ["-m", "mlkd", "train"]
    assert command[8:] == ["--method", "l2d", "--set", "l2d.lambda_cd=0.1", "--run-file", str(tmp_path / "run")]


def test_finished_run_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = open_run(
        tmp_path, {"method": "vanilla", "training": {"role": "student", "backbone": "net", "seed": 0, "epochs": 2}}
    )
    run.write_history([{"epoch": epoch, "bce": 1.0, "val_mAP": 0.25 * epoch} for epoch in (1, 2)])
    replace_command(monkeypatch, f"import sys; open(sys.argv[1], 'w').write({str(run.path)!r})")
    assert mlkd.launch(processes=2).path == run.path
    progress = capsys.readouterr().err
    assert f"{run.path.name}: 100%" in progress
    assert "2/2" in progress
    assert "val mAP 50.0 %" in progress


def test_failed_process_gives_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_command(monkeypatch, "import sys; print('Traceback'); sys.exit('mlkd: There is no setting.')")
    with pytest.raises(mlkd.TrainingError, match=r"^The training failed: There is no setting\.$"):
        mlkd.launch(processes=2)


def test_error_without_a_message_is_the_end_of_the_output() -> None:
    output = "".join(f"line {number}\n" for number in range(30))
    assert error_message(output).splitlines() == ["", *(f"line {number}" for number in range(10, 30))]
    assert error_message(f"{output}mlkd: No data.\nmlkd: No data.\n{output}") == "No data."


def test_interrupt_ends_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = []

    def interrupt(process: subprocess.Popen, run_file: Path) -> None:
        processes.append(process)
        raise KeyboardInterrupt

    replace_command(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(launch_module, "_show_progress", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mlkd.launch(processes=1)
    assert processes[0].returncode != 0


def test_invalid_option_of_a_real_training(tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(mlkd.TrainingError, match=r"^The training failed: .*'epoch'.*Did you mean 'epochs'\?$"):
        mlkd.launch("--study", "smoke", "--runs", str(tmp_path), "--set", "student.epoch=2", processes=1)


@pytest.mark.soak
def test_real_training_in_two_processes(tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "student.epochs=2", "--set", "student.batch_size=16"]
    run = mlkd.launch("--study", "smoke", "--runs", str(tmp_path), *settings, processes=2)
    assert run.complete
    assert run.path.parent == tmp_path
    assert "2/2" in capsys.readouterr().err
