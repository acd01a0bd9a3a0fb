"""The run store: whole or resumable, never believed blindly."""

from __future__ import annotations

import json
import os
import pickle
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout

from mlkd.models import MultiLabelModel, save_model
from mlkd.training import runs
from mlkd.training.runs import Predictions, Run, RunError, environment, iter_runs, open_run, summarize_runs

ODD = ('a "quoted", name', "tab\tand\nline", " spaces ", "", "日本語", "Ünïcödé", "a/b\\c", "🦓", "0", "%s {x} $1")

TRAINING = {"role": "student", "backbone": "resnet8_cifar", "seed": 3, "epochs": 2}


def description(**changes) -> dict:
    made = {"method": "vanilla", "settings": {"teacher": None}, "data": {"name": "toy"}, "training": TRAINING}
    return {**made, **changes}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(tmp_path / "runs", description())


def test_the_folder_says_what_made_it(run: Run) -> None:
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


def test_from_runs_reads_what_is_finished_and_begins_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLKD_NO_TRAIN", "1")
    root, other = run.path.parent, description(training={**TRAINING, "seed": 4})
    with pytest.raises(RunError, match=r"-s4-\w+: no finished run here, and with --no-train nothing is trained;"):
        open_run(root, other)
    assert [found.path for found in iter_runs(root)] == [run.path]
    with pytest.raises(RunError, match="no finished run here"):
        open_run(root, description())
    run.finish({})
    assert open_run(root, description()).path == run.path


def test_an_unfinished_run_says_so_and_names_its_folder(run: Run) -> None:
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


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunError, match=r"no run here, its config\.json is missing") as caught:
            Run(path)
        assert str(path) in str(caught.value)


def test_finishing_completes_it_and_takes_the_checkpoint_away(run: Run) -> None:
    run.save_checkpoint(1, {"w": torch.arange(3)}, {"epoch": 1, "history": [{"bce": 0.5}]}, keep=1)
    found = run.load_checkpoint()
    assert found is not None
    weights, state = found
    assert state == {"epoch": 1, "history": [{"bce": 0.5}]}
    assert torch.equal(weights["w"], torch.arange(3))
    run.finish({"best_epoch": 1, "val": {"mAP": 0.25}, "test": {"mAP": 0.5}, "seconds": 3.0})
    assert run.complete
    assert repr(run) == f"Run({str(run.path)!r}, complete)"
    assert run.mean_ap == {"val": 0.25, "test": 0.5}
    assert run.load_checkpoint() is None


def test_every_run_is_listed(run: Run, tmp_path: Path) -> None:
    begun = open_run(tmp_path / "runs", description(training={**TRAINING, "seed": 4}))
    run.write_history([{"epoch": 1, "bce": 0.5}, {"epoch": 2, "bce": 0.4}])
    run.finish({"best_epoch": 1, "val": {"mAP": 0.254321}, "test": {"mAP": 0.5}, "seconds": 3.0})
    begun.write_history([{"epoch": 1, "bce": 0.5}])
    absent = open_run(tmp_path / "runs", description(training={**TRAINING, "seed": 5}))
    assert [list(line.values()) for line in summarize_runs(tmp_path / "runs")] == [
        [run.path.name, "toy", "2/2", "25.43", "50.00"],
        [begun.path.name, "toy", "1/2", "", ""],
        [absent.path.name, "toy", "0/2", "", ""],
    ]
    assert [found.epochs_done for found in (run, begun, absent)] == [
        len(found.history) for found in (run, begun, absent)
    ]
    assert summarize_runs(tmp_path / "absent") == []


def test_all_runs_are_those_with_a_config(run: Run, tmp_path: Path) -> None:
    other = open_run(tmp_path / "runs", description(method="a"))
    (tmp_path / "runs" / "no run").mkdir()
    (tmp_path / "runs" / "file").write_text("")
    assert [found.path for found in iter_runs(tmp_path / "runs")] == [other.path, run.path]
    assert list(iter_runs(tmp_path / "absent")) == []


def test_odd_class_names_and_ids_come_back(run: Run) -> None:
    q = len(ODD)
    logits = np.linspace(-3, 3, q * q, dtype=np.float32).reshape(q, q)
    given = Predictions(np.array(ODD[::-1]), np.eye(q, dtype=np.uint8), logits, ODD)
    run.write_predictions("test", given)
    found = run.predictions("test")
    assert found.classes == ODD
    assert tuple(found.ids.tolist()) == ODD[::-1]
    assert (found.targets.dtype, found.logits.dtype) == (np.uint8, np.float32)
    assert np.array_equal(found.targets, given.targets)
    assert np.array_equal(found.logits, logits)
    assert open_run(run.path.parent, description(data={"classes": ODD})).config["data"]["classes"] == list(ODD)


def test_odd_class_names_come_back_with_the_model(run: Run, toy_teacher: MultiLabelModel) -> None:
    toy_teacher.classes = ODD[:4]
    save_model(toy_teacher, run.path / "model.safetensors")
    run.finish({})
    assert run.model().classes == ODD[:4]


def test_the_history_keeps_its_numbers(run: Run) -> None:
    rows = [{"epoch": 1, "bce": 1 / 3, "val_mAP": 0.1 + 0.2}, {"epoch": 2, "bce": 1e-30, "val_mAP": float("nan")}]
    run.write_history(rows)
    assert run.history["bce"].tolist() == [1 / 3, 1e-30]
    assert run.history["val_mAP"].tolist()[0] == 0.1 + 0.2
    assert np.isnan(run.history["val_mAP"][1])


# What cannot be trusted


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
@pytest.mark.parametrize("text", ["", '{"method": "van', "\x00\x01", "not json"])
def test_a_damaged_file_is_named(run: Run, name: str, text: str) -> None:
    (run.path / name).write_text(text)
    with pytest.raises(RunError, match=r"not valid JSON.*remove the folder") as caught:
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
    run.save_checkpoint(1, {"w": torch.arange(3)}, {}, keep=1)
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
def test_a_damaged_checkpoint_is_named(run: Run, file: str, content: bytes | None) -> None:
    for epoch in (1, 2):
        run.save_checkpoint(epoch, {"w": torch.full((3,), epoch)}, {"epoch": epoch}, keep=2)
    path = run.checkpoints[-1]
    (path / file).unlink()
    if content is not None:
        (path / file).write_bytes(content)
    with pytest.raises(RunError, match="Remove it to go on from the one before") as caught:
        run.load_checkpoint()
    assert str(path) in str(caught.value)
    shutil.rmtree(path)
    found = run.load_checkpoint()
    assert found is not None
    assert found[1] == {"epoch": 1}


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_last_checkpoints_stay(run: Run, keep: int) -> None:
    for epoch in range(9, 13):
        run.save_checkpoint(epoch, {"w": torch.ones(1)}, {"epoch": epoch}, keep)
    assert [path.name for path in run.checkpoints] == [f"epoch-{epoch:04d}" for epoch in range(9, 13)][-keep:]


def test_a_held_run_is_waited_for(run: Run) -> None:
    """The second process says for whom it waits, and has the run when the first one is killed."""
    code = (
        "import sys, time; from mlkd.training.runs import Run\n"
        "with Run(sys.argv[1]).locked():\n"
        "    print('mine', flush=True); time.sleep(float(sys.argv[2]))"
    )

    def holding(seconds: int) -> subprocess.Popen:
        command = [sys.executable, "-c", code, str(run.path), str(seconds)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with holding(100) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "mine\n"
        (run.path / ".config.json.1.unfinished").write_text("half of")  # as a killed process leaves
        with holding(0) as second:
            assert second.stdout is not None
            waits = second.stdout.readline()
            assert waits == (
                f"{run.path}: process {first.pid} on {platform.node()} is training this run; waiting for it to end.\n"
            )
            first.kill()
            assert second.stdout.readline() == "mine\n"
            assert second.wait(timeout=60) == 0
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", "config.json", "environment.json"]


def test_a_held_run_is_told_where_nobody_waits(run: Run) -> None:
    told = rf"process {os.getpid()} on .* is training this run; give the same command again"
    with run.locked(), pytest.raises(RunError, match=told), Run(run.path).locked(wait=False):
        pass


def test_two_processes_begin_a_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first, already training, would take away what the second is writing."""

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
    (run.path / ".held").write_text("process 1 on elsewhere")  # as a killed process leaves it
    assert run.state == "not finished"
    run.finish({})
    assert run.state == "finished"


def test_a_damaged_model_is_named(run: Run) -> None:
    (run.path / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    run.finish({})
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable weights file") as caught:
        run.model()
    assert str(run.path) in str(caught.value)


def test_a_write_that_fails_leaves_what_was_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.finish({"best_epoch": 1})
    run.save_checkpoint(1, {"w": torch.ones(1)}, {"epoch": 1}, keep=1)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(TypeError):
        run.write_json("metrics.json", {"best_epoch": object()})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        run.save_checkpoint(2, {"w": torch.ones(1)}, {"epoch": lambda: None}, keep=1)
    monkeypatch.setattr("os.replace", None)  # killed at the last moment
    with pytest.raises(TypeError):
        run.write_history([{"epoch": 1}])
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
