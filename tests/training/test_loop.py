"""The training loop: it learns, it can be stopped anywhere, and only validation chooses."""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from interruption import interrupt
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

import mlkd
from mlkd.cli import cli
from mlkd.data import DataError, ImageFiles, MultiLabelData
from mlkd.errors import RunError
from mlkd.methods import L2D, Batch, Method, Vanilla, create_method
from mlkd.models import MultiLabelModel, Output, load_model
from mlkd.progress import Progress
from mlkd.training import loop
from mlkd.training.config import Config
from mlkd.training.loop import TrainingError, find_run, fit
from mlkd.training.runs import Run, iter_runs

pytestmark = pytest.mark.usefixtures("own_cache")

Data = Mapping[str, MultiLabelData]
ALL_AUGMENTATIONS = ("flip", "cutout", "randaugment")
TIMES = ["seconds", "images_per_second"]
NAMES = ("vanilla", "l2d")


def method_named(name: str, teacher: MultiLabelModel) -> Method:
    if name == "vanilla":
        return create_method("vanilla")
    return create_method("l2d", teacher=teacher, lambda_mld=1.0, lambda_cd=0.5, lambda_id=0.5)


def weights(run: Run) -> dict[str, Tensor]:
    return load_file(run.path / "model.safetensors")


def same_weights(one: Run, other: Run) -> bool:
    mine, its = weights(one), weights(other)
    return mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)


def assert_same_run(one: Run, other: Run) -> None:
    """Everything but the times is equal, bit for bit."""
    assert one.path.name == other.path.name
    assert one.complete
    assert other.complete
    assert same_weights(one, other)
    notes = []
    for run in (one, other):
        with safe_open(run.path / "model.safetensors", "pt") as file:
            notes.append(file.metadata())
    assert notes[0] == notes[1]
    assert one.history.drop(columns=TIMES).equals(other.history.drop(columns=TIMES))
    measured = {"seconds": 0, "memory_gb": 0}
    assert one.metrics | measured == other.metrics | measured
    splits = sorted(path.stem for path in (one.path / "predictions").iterdir())
    assert splits == sorted(path.stem for path in (other.path / "predictions").iterdir())
    for split in splits:
        mine, its = one.predictions(split), other.predictions(split)
        assert mine.classes == its.classes
        assert all(np.array_equal(a, b) for a, b in zip(mine[:3], its[:3], strict=True))


# What a training leaves


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_and_the_folder_has_all_its_files(
    name: str, toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    run = fit(method_named(name, toy_teacher), toy_data, toy_config.replace(epochs=6), runs=tmp_path)
    history = run.history
    terms = {"vanilla": ["bce"], "l2d": ["bce", "mld", "cd", "id"]}[name]
    assert list(history.columns) == ["epoch", "lr", *terms, "val_mAP", "selected", *TIMES]
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    total = history[terms].sum(axis=1)
    assert total.iloc[-1] < total.iloc[0]
    assert history["bce"].iloc[-1] < history["bce"].iloc[0]
    assert run.metrics["val"]["mAP"] > toy_data["val"].targets.mean() + 0.05  # better than a random order
    files = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert files == {
        *(".lock", "config.json", "environment.json", "history.csv", "metrics.json", "model.safetensors"),
        *("predictions/val.npz", "predictions/test.npz"),
    }
    assert run.metrics["parameters"] == sum(p.numel() for p in run.model().parameters())
    assert run.metrics["seconds"] == pytest.approx(history["seconds"].sum())


def test_stored_predictions_equal_those_of_the_model(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    run = fit("vanilla", toy_data, toy_config, runs=tmp_path)
    model = run.model()
    assert not model.training
    for split in ("val", "test"):
        data, found = toy_data[split], run.predictions(split)
        assert found.classes == data.classes
        assert tuple(found.ids.tolist()) == data.ids
        assert np.array_equal(found.targets, data.targets)
        images = torch.from_numpy(np.array(data.images)).permute(0, 3, 1, 2)
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found.logits), model(images).logits, rtol=0, atol=1e-5)
        assert np.array_equal(mlkd.predict(model, data).logits, found.logits)
    one_by_one = mlkd.evaluate(found.targets, found.logits, bootstrap=0)
    assert run.mean_ap["test"] == pytest.approx(one_by_one["mAP"], abs=1e-12)


def test_each_image_is_used_once_per_epoch_and_smaller_batches_are_dropped(
    toy_data: Data, toy_config: Config, tmp_path: Path
) -> None:
    seen: list[Tensor] = []

    class Watches(Vanilla):
        def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
            seen.append(batch.images.clone())
            return super().loss_terms(student, batch)

    fit(Watches(), toy_data, toy_config.replace(epochs=2, batch_size=20), runs=tmp_path)
    assert [len(images) for images in seen] == [20] * 6  # 64 images: 3 steps, the last 4 are dropped
    keys = [[image.numpy().tobytes() for image in images] for images in seen]
    known = {image.tobytes(): row for row, image in enumerate(np.array(toy_data["train"].images).transpose(0, 3, 1, 2))}
    rows = [[known[key] for key in batch] for batch in keys]
    first, second = np.concatenate(rows[:3]).tolist(), np.concatenate(rows[3:]).tolist()
    assert len(set(first)) == len(set(second)) == 60
    assert first != second  # another order in each epoch


# Validation chooses, test does not


def test_weights_of_the_best_epoch_on_val_are_saved(
    toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fit("vanilla", toy_data, toy_config.replace(epochs=5), runs=tmp_path)
    scores = run.history["val_mAP"]
    assert (run.metrics["select"], run.metrics["selected_epoch"]) == ("best", int(scores.argmax()) + 1)
    assert run.mean_ap["val"] == pytest.approx(scores.max(), abs=1e-9)

    def use_scores(values: list[float]) -> None:
        scores_left = iter(values)
        monkeypatch.setattr(loop, "mean_average_precision", lambda *_: next(scores_left))

    constant = toy_config.replace(schedule="constant")
    use_scores([0.3, 0.9, 0.9, 0, 0])  # of two equal ones the first
    three = fit("vanilla", toy_data, constant.replace(epochs=3), runs=tmp_path)
    use_scores([0.3, 0.9, 0, 0])
    two = fit("vanilla", toy_data, constant.replace(epochs=2), runs=tmp_path)
    use_scores([0.9, 0.3, 0, 0])
    one = fit("vanilla", toy_data, constant.replace(epochs=2, role="teacher"), runs=tmp_path)
    assert [run.metrics["selected_epoch"] for run in (three, two, one)] == [2, 2, 1]
    assert same_weights(three, two)
    assert not same_weights(two, one)


def test_the_test_split_has_no_influence(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(len(toy_data["test"]))
    shuffled = replace(toy_data["test"], targets=toy_data["test"].targets[order])
    one = fit("vanilla", toy_data, toy_config, runs=tmp_path)
    other = fit("vanilla", {**toy_data, "test": shuffled}, toy_config, runs=tmp_path)
    assert one.path != other.path
    assert same_weights(one, other)
    assert one.metrics["selected_epoch"] == other.metrics["selected_epoch"]
    assert np.array_equal(one.predictions("test").logits, other.predictions("test").logits)
    assert one.mean_ap["test"] != other.mean_ap["test"]


# Interruption and resume

PLACES = {
    "in the middle of epoch 1": (Progress, "step", 2),
    "in the middle of epoch 2": (Progress, "step", 6),
    "before the checkpoint of epoch 2": (Run, "save_checkpoint", 2),
    "after the checkpoint of epoch 2": (Run, "write_history", 2),
    "after epoch 2": (Progress, "epoch", 2),
    "after the checkpoint of the last epoch": (Run, "write_history", 3),
    "after the last epoch": (Progress, "epoch", 3),
    "while it is scored": (Run, "write_predictions", 2),
    "before it is complete": (Run, "finish", 1),
}


@pytest.mark.parametrize("name", NAMES)
def test_resumed_training_equals_an_uninterrupted_one(
    name: str, toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    config = toy_config.replace(augmentations=ALL_AUGMENTATIONS, batch_size=8)
    data = {split: images.subset(range(32)) for split, images in toy_data.items()}
    method = method_named(name, toy_teacher)
    whole = fit(method, data, config, runs=tmp_path / "whole")
    failed = []
    for number, (place, (owner, function, call)) in enumerate(PLACES.items()):
        runs = tmp_path / str(number)
        with interrupt(call, owner, function):
            fit(method, data, config, runs=runs)
        (stopped,) = iter_runs(runs)
        assert not stopped.complete
        run = fit(method, data, config, runs=runs)
        try:
            assert_same_run(run, whole)
        except AssertionError as error:
            failed.append(f"{place}: {error}")
        assert not list(run.path.rglob("*unfinished"))
        assert not (run.path / "checkpoint").exists()
    assert not failed, "\n".join(failed)


def test_finished_epochs_are_not_trained_again(
    toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interrupt(10):  # in epoch 3
        fit("vanilla", toy_data, toy_config, runs=tmp_path)
    (run,) = iter_runs(tmp_path)
    assert run.history["epoch"].tolist() == [1, 2]
    steps = []
    monkeypatch.setattr(Progress, "step", lambda self, epoch, losses: steps.append(epoch))
    fit("vanilla", toy_data, toy_config, runs=tmp_path)
    assert steps == [2, 2, 2, 2]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_loses_no_finished_epoch(tmp_path: Path) -> None:
    def arguments(runs: str) -> list[str]:
        settings = ("epochs=6", "batch_size=16", f"augmentations={json.dumps(ALL_AUGMENTATIONS)}")
        pairs = [text for setting in settings for text in ("--set", f"student.{setting}")]
        return ["train", "--study", "smoke", "--set", "max_images=32", "--runs", str(tmp_path / runs), *pairs]

    command = [sys.executable, "-c", "from mlkd.cli import app; app()", *arguments("killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ.copy())
    try:
        until = time.monotonic() + 120
        while not any(len(path.read_text().splitlines()) >= 3 for path in tmp_path.glob("killed/*/history.csv")):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < until
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    (killed,) = iter_runs(tmp_path / "killed")
    assert not killed.complete
    for runs in ("killed", "whole"):
        result = CliRunner().invoke(cli, arguments(runs))
        assert result.exit_code == 0, result.output
    assert "epoch 1/6" in result.output
    (whole,) = iter_runs(tmp_path / "whole")
    assert_same_run(killed, whole)


# The same training is the same run


def test_a_complete_run_is_returned_and_logged(
    toy_data: Data,
    toy_config: Config,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = fit("vanilla", toy_data, toy_config.replace(epochs=1), runs=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    caplog.set_level("INFO", logger="mlkd")
    monkeypatch.setattr(loop.Trainer, "train", None)  # a call would fail
    again = fit(create_method("vanilla"), toy_data, toy_config.replace(epochs=1), runs=tmp_path)
    assert caplog.messages == [f"vanilla student, seed 0: found complete in {first.path}, not trained again."]
    assert again.path == first.path
    assert before == {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}


def test_whatever_makes_another_run_has_another_folder(
    toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Trainer, "train", lambda *_: None)

    def folder(method: str | Method = "vanilla", data: Data = toy_data, **changes) -> Path:
        return fit(method, data, toy_config.replace(**changes), runs=tmp_path).path

    def with_train(**changes) -> Data:
        return {**toy_data, "train": replace(toy_data["train"], **changes)}

    split = toy_data["train"]
    box = np.array([[0, 1, 1, 5, 5]], np.float32)
    boxes = [box if row[0] else box[:0] for row in split.targets]
    other_teacher = copy.deepcopy(toy_teacher)
    assert folder() == folder(create_method("vanilla"), dict(toy_data), seed=0, augmentations=[])
    folders = [
        folder(),
        folder(seed=1),
        folder(epochs=4),
        folder(role="teacher"),
        folder(create_method("vanilla", reduction="batchmean")),
        folder(create_method("l2d", teacher=toy_teacher)),
        folder(create_method("l2d", teacher=toy_teacher, lambda_cd=1.0)),
        folder(data=with_train(targets=1 - split.targets)),
        folder(data=with_train(ids=tuple(f"x{i}" for i in split.ids))),
        folder(data=with_train(boxes=boxes)),
        folder(data=with_train(boxes=[found + np.eye(5, dtype=np.float32)[4] for found in boxes])),
        folder(data=with_train(ignore_mask=split.targets == 0)),
        folder(data={name: part.subset(np.arange(30)) for name, part in toy_data.items()}),
    ]
    assert folder(create_method("l2d", teacher=other_teacher)) == folders[5]  # the same weights are the same teacher
    with torch.no_grad():
        other_teacher.head.bias += 1.0
    folders.append(folder(create_method("l2d", teacher=other_teacher)))
    assert len(set(folders)) == len(folders)


def test_a_run_from_a_model_file_follows_the_file_not_its_name(
    toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    """A model file that changes under the same name gives another run."""
    file = tmp_path / "teacher.safetensors"
    runs = []
    for shift in (0.0, 1.0):
        with torch.no_grad():
            toy_teacher.head.bias += shift
        mlkd.save_model(toy_teacher, file)
        runs.append(fit("vanilla", toy_data, toy_config.replace(init_from=str(file), epochs=0), runs=tmp_path))
    gap = runs[1].predictions("test").logits - runs[0].predictions("test").logits
    np.testing.assert_allclose(gap, 1.0, atol=1e-4)


def test_global_random_states_are_left_alone(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    def states() -> list[bytes]:
        return [
            torch.get_rng_state().numpy().tobytes(),
            str(np.random.get_state()).encode(),
            repr(random.getstate()).encode(),
        ]

    before = states()
    one = fit("vanilla", toy_data, toy_config.replace(augmentations=ALL_AUGMENTATIONS), runs=tmp_path / "1")
    assert states() == before
    torch.manual_seed(123)  # and they have no influence
    other = fit("vanilla", toy_data, toy_config.replace(augmentations=ALL_AUGMENTATIONS), runs=tmp_path / "2")
    assert_same_run(one, other)


# Errors


class Fails(Vanilla):
    """Has a second term, which is not finite at the sixth step."""

    value: Literal["nan", "inf"] = "nan"
    steps: list = Field(default_factory=list)

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        self.steps.append(1)
        odd = student.logits.sum() * (float(self.value) if len(self.steps) == 6 else 0.0)
        return {**super().loss_terms(student, batch), "odd": odd}

    def settings(self) -> dict:
        return {}


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_loss_term_that_is_not_finite_is_named_and_the_checkpoint_remains(
    value: str, toy_data: Data, toy_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"'odd' is (nan|-?inf) at epoch 2, step 2: lower `lr`"):
        fit(Fails(value=value), toy_data, toy_config, runs=tmp_path)
    (run,) = iter_runs(tmp_path)
    noted = json.loads((run.path / "not_finite.json").read_text())
    assert (noted["epoch"], noted["step"]) == (2, 2)
    assert noted["terms"]["odd"] in (value, f"-{value}")
    assert np.isfinite(float(noted["terms"]["bce"]))
    assert len(set(noted["ids"])) == 16
    assert set(noted["ids"]) <= set(toy_data["train"].ids)
    found = run.load_checkpoint()
    assert found is not None
    tensors, state = found
    assert state["epoch"] == 1
    assert run.history["epoch"].tolist() == [1]
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert fit(Fails(steps=[1] * 6), toy_data, toy_config, runs=tmp_path).complete


@pytest.mark.parametrize("batch_size", [16, 64])
def test_a_learning_rate_far_too_high_is_a_training_error(
    batch_size: int, toy_data: Data, toy_config: Config, tmp_path: Path
) -> None:
    """With one step an epoch it is not the loss that is nan first, but what the net says of `val`."""
    config = toy_config.replace(optimizer="sgd", schedule="constant", lr=1e30, batch_size=batch_size)
    with pytest.raises(TrainingError, match="lower `lr`"):
        fit("vanilla", toy_data, config, runs=tmp_path)


def missing_file(data: MultiLabelData, folder: Path) -> MultiLabelData:
    return replace(data, images=ImageFiles(folder, [f"{i}.jpg" for i in data.ids]))


WRONG: dict[str, tuple[Callable[[Data, Path], Data], str]] = {
    "no val": (lambda data, _: {k: data[k] for k in ("train", "test")}, "val"),
    "no train": (lambda data, _: {k: data[k] for k in ("val", "test")}, "train"),
    "no test": (lambda data, _: {k: data[k] for k in ("train", "val")}, "test"),
    "empty val": (lambda data, _: {**data, "val": data["val"].subset(np.arange(0))}, "toy val: the split is empty"),
    "empty train": (lambda data, _: {**data, "train": data["train"].subset(np.arange(0))}, "the split is empty"),
    "no positives": (
        lambda data, _: {**data, "val": replace(data["val"], targets=np.zeros_like(data["val"].targets))},
        "toy val: no image has any label",
    ),
    "no file": (
        lambda data, folder: {**data, "test": missing_file(data["test"], folder)},
        r"p2000\.jpg: no such file",
    ),
    "shared": (lambda data, _: {**data, "test": replace(data["train"], split="test")}, "in both train and test"),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_data_is_an_error_before_the_first_step(
    case: str, toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, message = WRONG[case]
    monkeypatch.setattr(loop.Trainer, "make_batch", None)  # a step would fail
    with pytest.raises(DataError, match=message):
        fit("vanilla", change(toy_data, tmp_path / "images"), toy_config, runs=tmp_path)


def test_method_without_its_teacher_is_an_error(
    toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="'l2d' requires a teacher"):
        fit("l2d", toy_data, toy_config, runs=tmp_path)
    with pytest.raises(ValueError, match=r"`method` is 'vanila'.*Did you mean 'vanilla'"):
        fit("vanila", toy_data, toy_config, runs=tmp_path)
    with pytest.raises(ValueError, match="student's head 'gap'"):
        fit(L2D(teacher=toy_teacher), toy_data, toy_config.replace(head="gap"), runs=tmp_path)
    toy_teacher.classes = ("red", "blue", "green", "dark")
    with pytest.raises(ValueError, match="The teacher has the classes red, blue, green, dark"):
        fit(L2D(teacher=toy_teacher), toy_data, toy_config, runs=tmp_path)


# The parts of a step


def test_the_teacher_stays_as_it_is(
    toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    outputs = []

    class Watches(L2D):
        def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
            assert batch.teacher.embeddings is not None
            outputs.append(batch.teacher)
            with torch.no_grad():
                expected = toy_teacher(batch.images)
            torch.testing.assert_close(batch.teacher.logits, expected.logits)  # of the images the student sees
            return super().loss_terms(student, batch)

    before = {name: value.clone() for name, value in toy_teacher.state_dict().items()}
    toy_teacher.train()  # wherever it comes from, it teaches in eval mode
    fit(Watches(teacher=toy_teacher), toy_data, toy_config.replace(augmentations=ALL_AUGMENTATIONS), runs=tmp_path)
    assert not toy_teacher.training
    assert all(torch.equal(value, before[name]) for name, value in toy_teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in toy_teacher.parameters())
    assert len(outputs) == 12
    assert not any(value.requires_grad for output in outputs for value in output if value is not None)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_with_every_schedule(
    optimizer: str, schedule: str, toy_data: Data, toy_config: Config, tmp_path: Path
) -> None:
    config = toy_config.replace(optimizer=optimizer, schedule=schedule, epochs=4, batch_size=32, lr=1e-3)
    rates = fit("vanilla", toy_data, config, runs=tmp_path).history["lr"].tolist()
    assert len(rates) == 4
    if schedule == "constant":
        assert rates == [1e-3] * 4
    elif schedule == "cosine":
        assert rates == pytest.approx([1e-3 * (1 + np.cos(np.pi * k / 4)) / 2 for k in (1, 2, 3, 4)])
    else:
        assert max(rates) <= 1e-3
        assert rates[0] > rates[1] > rates[2] > rates[3]
        assert rates[3] < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_float32_under_bf16(
    name: str, toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    seen = set()

    class Watches:
        def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
            outputs = [student, *batch.teachers.values()]
            seen.update(value.dtype for output in outputs for value in output if value is not None)
            terms = super().loss_terms(student, batch)  # type: ignore[misc]
            seen.update(value.dtype for value in terms.values())
            return terms

    method = method_named(name, toy_teacher)
    method.__class__ = type("Watching", (Watches, type(method)), {})
    half = fit(method, toy_data, toy_config.replace(precision="bf16"), runs=tmp_path)
    assert seen == {torch.float32}
    assert {value.dtype for value in half.model().parameters()} == {torch.float32}
    assert half.predictions("test").logits.dtype == np.float32
    full = fit(method, toy_data, toy_config, runs=tmp_path)
    assert full.history["bce"].tolist() != half.history["bce"].tolist()
    np.testing.assert_allclose(half.history["bce"], full.history["bce"], rtol=0.1)


def test_no_epochs_only_scores_the_given_model(
    toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    mlkd.save_model(toy_teacher, tmp_path / "teacher.safetensors")
    config = toy_config.replace(init_from=str(tmp_path / "teacher.safetensors"), epochs=0, role="teacher")
    run = fit("vanilla", toy_data, config, runs=tmp_path)
    assert run.complete
    assert run.metrics["selected_epoch"] == 0
    assert len(run.history) == 0
    state, saved = toy_teacher.state_dict(), weights(run)
    assert saved.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in saved.items())
    assert run.predictions("test").logits.shape == (40, 4)
    assert load_model(run.path / "model.safetensors").classes == toy_teacher.classes


def test_a_model_of_other_labels_is_refused(
    toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    """Also one with as many labels, whose scores would mean nothing."""
    mlkd.save_model(toy_teacher, tmp_path / "teacher.safetensors")
    config = toy_config.replace(init_from=str(tmp_path / "teacher.safetensors"), epochs=0, role="teacher")
    names = toy_data["train"].classes
    turned = {name: replace(split, classes=(names[0], *names[:0:-1])) for name, split in toy_data.items()}
    with pytest.raises(
        ValueError,
        match=f"label 2 is '{names[1]}' in the model and '{names[-1]}' in the data.* Was the model of `init_",
    ):
        fit("vanilla", turned, config, runs=tmp_path)
    with pytest.raises(ValueError, match=f"not those of toy: only the model has {names[3]}. Both"):
        mlkd.predict(toy_teacher, toy_data["test"].select_classes([0, 1, 2]))


def test_other_weights_under_the_same_name_are_another_run(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    config = toy_config.replace(pretrained=str(file))
    found = []
    for content in (b"one", b"two!", b"one"):
        file.write_bytes(content)
        os.utime(file, ns=(len(found), len(found)))
        found.append(find_run(create_method("vanilla"), toy_data, config, runs=tmp_path).path)
    assert found[0] == found[2] != found[1]


def test_a_training_can_start_from_a_model_file(
    toy_data: Data, toy_config: Config, toy_teacher: MultiLabelModel, tmp_path: Path
) -> None:
    mlkd.save_model(toy_teacher, tmp_path / "teacher.safetensors")
    config = toy_config.replace(init_from=str(tmp_path / "teacher.safetensors"), epochs=1, lr=0.0, schedule="constant")
    run = fit("vanilla", toy_data, config, runs=tmp_path)
    trained = dict(run.model().named_parameters())
    assert all(torch.equal(value, trained[name]) for name, value in toy_teacher.named_parameters())


def test_gradients_are_clipped(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    """Nesterov's first step with momentum 0.9 is 1.9 times the gradient."""
    one_step = toy_config.replace(
        optimizer="sgd", schedule="constant", lr=1.0, weight_decay=0.0, batch_size=64, epochs=1, max_grad_norm=0.01
    )
    start = dict(fit("vanilla", toy_data, one_step.replace(epochs=0), runs=tmp_path).model().named_parameters())
    end = fit("vanilla", toy_data, one_step, runs=tmp_path).model().named_parameters()
    moved = torch.cat([(value - start[name]).detach().flatten() for name, value in end])
    assert moved.norm().item() == pytest.approx(1.9 * 0.01, rel=1e-3)
    free = (
        fit("vanilla", toy_data, one_step.replace(max_grad_norm=0.0, lr=1e-3), runs=tmp_path).model().named_parameters()
    )
    moved = torch.cat([(value - start[name]).detach().flatten() for name, value in free])
    assert moved.norm().item() > 10 * 1.9 * 0.01 * 1e-3


# Ignored labels


@pytest.mark.parametrize("name", NAMES)
def test_ignored_labels_have_no_gradient_from_the_labels(name: str, toy_teacher: MultiLabelModel) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(6, 4, generator=generator) < 0.5).float()
    ignore_mask = (torch.rand(6, 4, generator=generator) < 0.5) & (targets == 0)
    logits = torch.randn(6, 4, generator=generator, requires_grad=True)
    embeddings = torch.randn(6, 4, 8, generator=generator, requires_grad=True)
    teacher = Output(torch.randn(6, 4), torch.randn(6, 4, 8), torch.zeros(6, 1, 1, 1))
    method = (
        create_method("vanilla") if name == "vanilla" else create_method("l2d", teacher=toy_teacher, lambda_mld=0.0)
    )
    batch = Batch(torch.zeros(6, 3, 8, 8), targets, ignore_mask, {"teacher": teacher})
    terms = method.loss_terms(Output(logits, embeddings, torch.zeros(6, 1, 1, 1)), batch)
    torch.stack(list(terms.values())).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[ignore_mask] == 0).all()
    assert (logits.grad[~ignore_mask] != 0).all()
    if name == "l2d":
        assert embeddings.grad is not None
        assert (embeddings.grad[ignore_mask] == 0).all()


def test_the_loop_hands_on_what_is_ignored(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    def trained(ignore_mask: np.ndarray | None, folder: str) -> Run:
        data = {**toy_data, "train": replace(toy_data["train"], ignore_mask=ignore_mask)}
        return fit("vanilla", data, toy_config.replace(epochs=1), runs=tmp_path / folder)

    absent = toy_data["train"].targets == 0
    none, nothing, some = trained(None, "1"), trained(absent & False, "2"), trained(absent, "3")
    assert same_weights(none, nothing)
    assert not same_weights(none, some)
    assert some.predictions("test").logits.mean() > none.predictions("test").logits.mean()  # nothing is ever absent


def test_ignored_labels_of_a_scored_split_do_not_count(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    ignore_mask = toy_data["test"].targets == 0
    ignore_mask[:, 1:] = False
    data = {**toy_data, "test": replace(toy_data["test"], ignore_mask=ignore_mask)}
    run = fit("vanilla", data, toy_config.replace(epochs=1), runs=tmp_path)
    found = run.predictions("test")
    expected = mlkd.evaluate(found.targets, found.logits, ignore_mask=ignore_mask, bootstrap=0)
    assert expected["AP"]["0"] == 1.0  # only positives are left of the first class
    assert run.mean_ap["test"] == pytest.approx(expected["mAP"], abs=1e-12)


def test_the_backbone_may_have_a_learning_rate_of_its_own(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    before = mlkd.fit("vanilla", toy_data, toy_config.replace(epochs=0), runs=tmp_path)
    run = mlkd.fit("vanilla", toy_data, toy_config.replace(epochs=1, backbone_lr_scale=0.0), runs=tmp_path)
    learned = {name for name, _ in run.model().named_parameters()}
    moved = {name for name in learned if not torch.equal(weights(run)[name], weights(before)[name])}
    assert moved
    assert all(name.startswith("head.") for name in moved)


def test_a_checkpoint_of_another_version_is_refused(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    with interrupt(10):
        fit("vanilla", toy_data, toy_config, runs=tmp_path)
    (run,) = iter_runs(tmp_path)
    path = run.checkpoints[-1] / "state.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "networks": 1}, path)
    with pytest.raises(RunError, match=r"does not fit \(`state` has networks\); remove .* to restart"):
        fit("vanilla", toy_data, toy_config, runs=tmp_path)
