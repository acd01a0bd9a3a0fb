"""The run store: runs are complete or resumable, and damaged files are reported."""

from __future__ import annotations

import json
import os
import pickle
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout

from mlkd.errors import RunError
from mlkd.models import MultiLabelModel, save_model
from mlkd.training import runs
from mlkd.training.runs import Predictions, Run, environment, iter_runs, open_run, summarize_runs

UNUSUAL = ('a "quoted", name', "tab\tand\nline", " spaces ", "", "日本語", "Ünïcödé", "a/b\\c", "🦓", "0", "%s {x} $1")

TRAINING = {"role": "student", "backbone": "resnet8_cifar", "seed": 3, "epochs": 2}


def description(**changes) -> dict:
    made = {"method": "vanilla", "settings": {"teacher": None}, "data": {"name": "toy"}, "training": TRAINING}
    return {**made, **changes}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(tmp_path / "runs", description())


def test_the_folder_has_its_description(run: Run) -> None:
    assert run.path.name.startswith("vanilla-student-resnet8_cifar-s3-")
    assert run.config == description()
    assert json.loads((run.path / "environment.json").read_text()) == environment()
    assert {"mlkd", "python", "torch", "torchvision", "timm", "machine"} <= environment().keys()


def test_the_same_description_is_the_same_folder(run: Run, tmp_path: Path) -> None:
    turned = json.loads(json.dumps(description(), sort_keys=True))
    assert open_run(tmp_path / "runs", dict(reversed(turned.items()))).path == run.path
    others = [
        open_run(tmp_path / "runs", description(settings={"teacher": "x"})),
        open_run(tmp_path / "runs", description(data={"name": "other"})),
        open_run(tmp_path / "runs", description(training={**TRAINING, "backbone": "hub/of/nets", "seed": 4})),
    ]
    assert len({run.path, *(other.path for other in others)}) == 4
    assert all(other.path.parent == run.path.parent for other in others)


def test_no_train_reads_finished_runs_and_creates_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLKD_NO_TRAIN", "1")
    root, other = run.path.parent, description(training={**TRAINING, "seed": 4})
    with pytest.raises(RunError, match=r"-s4-\w+: no finished run, and with --no-train nothing is trained;"):
        open_run(root, other)
    assert [found.path for found in iter_runs(root)] == [run.path]
    with pytest.raises(RunError, match="no finished run"):
        open_run(root, description())
    run.finish({})
    assert open_run(root, description()).path == run.path


def test_errors_of_an_unfinished_run_name_its_folder(run: Run) -> None:
    assert not run.complete
    assert repr(run) == f"Run({str(run.path)!r}, unfinished)"
    assert len(run.history) == 0
    assert run.load_checkpoint() is None
    for ask in (lambda: run.metrics, lambda: run.mean_ap, run.model):
        with pytest.raises(RunError, match=r"not finished.*again") as caught:
            ask()
        assert str(run.path) in str(caught.value)
    with pytest.raises(RunError, match="no predictions for the split 'test'") as caught:
        run.predictions()
    assert str(run.path) in str(caught.value)


def test_the_error_for_a_folder_that_is_no_run_names_it(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunError, match=r"no run here, its config\.json is missing") as caught:
            Run(path)
        assert str(path) in str(caught.value)


def test_finish_completes_the_run_and_removes_the_checkpoint(run: Run) -> None:
    run.save_checkpoint(1, {"w": torch.arange(3)}, {"epoch": 1, "history": [{"bce": 0.5}]})
    checkpoint = run.load_checkpoint()
    assert checkpoint is not None
    weights, state = checkpoint
    assert state == {"epoch": 1, "history": [{"bce": 0.5}]}
    assert torch.equal(weights["w"], torch.arange(3))
    run.finish({"best_epoch": 1, "val": {"mAP": 0.25}, "test": {"mAP": 0.5}, "seconds": 3.0})
    assert run.complete
    assert repr(run) == f"Run({str(run.path)!r}, complete)"
    assert run.mean_ap == {"val": 0.25, "test": 0.5}
    assert run.load_checkpoint() is None


def test_summarize_runs_lists_every_run(run: Run, tmp_path: Path) -> None:
    started = open_run(tmp_path / "runs", description(training={**TRAINING, "seed": 4}))
    run.write_history([{"epoch": 1, "bce": 0.5}, {"epoch": 2, "bce": 0.4}])
    run.finish({"best_epoch": 1, "val": {"mAP": 0.254321}, "test": {"mAP": 0.5}, "seconds": 3.0})
    started.write_history([{"epoch": 1, "bce": 0.5}])
    absent = open_run(tmp_path / "runs", description(training={**TRAINING, "seed": 5}))
    assert [list(line.values()) for line in summarize_runs(tmp_path / "runs")] == [
        [run.path.name, "toy", "2/2", "25.43", "50.00"],
        [started.path.name, "toy", "1/2", "", ""],
        [absent.path.name, "toy", "0/2", "", ""],
    ]
    assert [listed.epochs_done for listed in (run, started, absent)] == [
        len(listed.history) for listed in (run, started, absent)
    ]
    assert summarize_runs(tmp_path / "absent") == []


def test_iter_runs_yields_the_folders_with_a_config(run: Run, tmp_path: Path) -> None:
    other = open_run(tmp_path / "runs", description(method="a"))
    (tmp_path / "runs" / "no run").mkdir()
    (tmp_path / "runs" / "file").write_text("")
    assert [found.path for found in iter_runs(tmp_path / "runs")] == [other.path, run.path]
    assert list(iter_runs(tmp_path / "absent")) == []


def test_unusual_class_names_and_ids_are_preserved(run: Run) -> None:
    q = len(UNUSUAL)
    logits = np.linspace(-3, 3, q * q, dtype=np.float32).reshape(q, q)
    given = Predictions(np.array(UNUSUAL[::-1]), np.eye(q, dtype=np.uint8), logits, UNUSUAL)
    run.write_predictions("test", given)
    found = run.predictions("test")
    assert found.classes == UNUSUAL
    assert tuple(found.ids.tolist()) == UNUSUAL[::-1]
    assert (found.targets.dtype, found.logits.dtype) == (np.uint8, np.float32)
    assert np.array_equal(found.targets, given.targets)
    assert np.array_equal(found.logits, logits)
    assert open_run(run.path.parent, description(data={"classes": UNUSUAL})).config["data"]["classes"] == list(UNUSUAL)


def test_unusual_class_names_are_preserved_in_the_model(run: Run, toy_teacher: MultiLabelModel) -> None:
    toy_teacher.classes = UNUSUAL[:4]
    save_model(toy_teacher, run.path / "model.safetensors")
    run.finish({})
    assert run.model().classes == UNUSUAL[:4]


def test_the_history_preserves_its_numbers(run: Run) -> None:
    rows = [{"epoch": 1, "bce": 1 / 3, "val_mAP": 0.1 + 0.2}, {"epoch": 2, "bce": 1e-30, "val_mAP": float("nan")}]
    run.write_history(rows)
    assert run.history["bce"].tolist() == [1 / 3, 1e-30]
    assert run.history["val_mAP"].tolist()[0] == 0.1 + 0.2
    assert np.isnan(run.history["val_mAP"][1])


# Damaged and malicious files


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
@pytest.mark.parametrize("text", ["", '{"method": "van', "\x00\x01", "not json"])
def test_the_error_for_a_damaged_file_names_it(run: Run, name: str, text: str) -> None:
    (run.path / name).write_text(text)
    with pytest.raises(RunError, match=r"not valid JSON.*remove the folder .* to restart the training") as caught:
        _ = run.config if name == "config.json" else run.metrics
    assert str(run.path / name) in str(caught.value)


def test_predictions_with_a_pickle_are_refused(run: Run, tmp_path: Path) -> None:
    path = run.path / "predictions" / "test.npz"
    path.parent.mkdir()
    np.savez(path, ids=np.array([Payload(tmp_path / "executed")], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        run.predictions()
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_with_a_pickle_is_refused(run: Run, tmp_path: Path) -> None:
    run.save_checkpoint(1, {"w": torch.arange(3)}, {})
    (folder,) = run.checkpoints
    pickle.loads(pickle.dumps(Payload(tmp_path / "works")))  # noqa: S301
    assert (tmp_path / "works").exists()
    torch.save({"epoch": 1, "model": Payload(tmp_path / "executed")}, folder / "state.pt")
    with pytest.raises(RunError) as caught:
        run.load_checkpoint()
    assert not (tmp_path / "executed").exists()
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("file", ["weights.safetensors", "state.pt"])
@pytest.mark.parametrize("content", [None, b"", b"no checkpoint", b"PK\x03\x04cut off"])
def test_the_error_for_a_damaged_checkpoint_names_it(run: Run, file: str, content: bytes | None) -> None:
    run.save_checkpoint(2, {"w": torch.ones(3)}, {"epoch": 2})
    (path,) = run.checkpoints
    (path / file).unlink()
    if content is not None:
        (path / file).write_bytes(content)
    with pytest.raises(RunError, match=r"not a readable checkpoint .*; remove the folder .* to restart") as caught:
        run.load_checkpoint()
    assert str(path) in str(caught.value)


def test_a_checkpoint_replaces_the_previous_one(run: Run) -> None:
    for epoch in (9, 10, 11):
        run.save_checkpoint(epoch, {"w": torch.ones(1)}, {"epoch": epoch})
    assert [path.name for path in run.checkpoints] == ["epoch-0011"]


def test_the_later_of_two_checkpoints_is_loaded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed between writing a checkpoint and removing the previous one leaves both."""
    monkeypatch.setattr(runs, "remove", lambda path: None)
    for epoch in (9, 10):
        run.save_checkpoint(epoch, {"w": torch.ones(1)}, {"epoch": epoch})
    assert len(run.checkpoints) == 2
    checkpoint = run.load_checkpoint()
    assert checkpoint is not None
    assert checkpoint[1] == {"epoch": 10}


def test_a_process_waits_for_a_locked_run(run: Run) -> None:
    """The second process logs whom it waits for, and gets the run when the first one is killed."""
    code = (
        "import sys, time; from mlkd.training.runs import Run\n"
        "with Run(sys.argv[1]).locked():\n"
        "    print('locked', flush=True); time.sleep(float(sys.argv[2]))"
    )

    def lock_for(seconds: int) -> subprocess.Popen:
        command = [sys.executable, "-c", code, str(run.path), str(seconds)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with lock_for(100) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "locked\n"
        (run.path / ".config.json.1.unfinished").write_text("half of")  # as a killed process leaves
        with lock_for(0) as second:
            assert second.stdout is not None
            assert second.stderr is not None
            assert second.stderr.readline() == (
                f"{run.path}: process {first.pid} on {platform.node()} is training this run; waiting for it to end.\n"
            )
            first.kill()
            assert second.stdout.readline() == "locked\n"
            assert second.wait(timeout=60) == 0
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", "config.json", "environment.json"]


def test_a_locked_run_is_an_error_without_waiting(run: Run) -> None:
    message = rf"process {os.getpid()} on .* is training this run; start the same command again"
    with run.locked(), pytest.raises(RunError, match=message), Run(run.path).locked(wait=False):
        pass


def test_two_processes_create_a_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the first, already training, would remove the unfinished files of the second."""

    def written_under_a_lock() -> dict[str, str]:
        (folder,) = tmp_path.iterdir()
        with pytest.raises(Timeout):
            FileLock(folder / ".config.json.lock").acquire(blocking=False)
        return {}

    monkeypatch.setattr(runs, "environment", written_under_a_lock)
    run = open_run(tmp_path, description())
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "environment.json"]


def test_the_state_of_a_run(run: Run) -> None:
    assert run.state == "not finished"
    with run.locked():
        assert run.state == "training"
    assert run.state == "not finished"
    (run.path / ".lock_holder").write_text("process 1 on elsewhere")  # as a killed process leaves it
    assert run.state == "not finished"
    run.finish({})
    assert run.state == "finished"


def test_the_error_for_a_damaged_model_names_it(run: Run) -> None:
    (run.path / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    run.finish({})
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable weights file") as caught:
        run.model()
    assert str(run.path) in str(caught.value)


def test_a_failed_write_keeps_the_previous_files(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.finish({"best_epoch": 1})
    run.save_checkpoint(1, {"w": torch.ones(1)}, {"epoch": 1})
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(TypeError):
        run.write_json("metrics.json", {"best_epoch": object()})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        run.save_checkpoint(2, {"w": torch.ones(1)}, {"epoch": lambda: None})
    monkeypatch.setattr("os.replace", None)  # killed at the last moment
    with pytest.raises(TypeError):
        run.write_history([{"epoch": 1}])
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
