"""Damaged run folders: one line that names the run and the file, and the other runs are still listed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlkd.analysis import group_runs, runs_on, summary_table
from mlkd.data import MultiLabelData
from mlkd.errors import RunError
from mlkd.training.run_files import Predictions
from mlkd.training.runs import Run, iter_runs, open_run, summarize_runs

TRAINING = {"role": "student", "backbone": "resnet8_cifar", "seed": 3, "epochs": 2}
DESCRIPTION = {"method": "vanilla", "settings": {"teacher": None}, "data": {"name": "toy"}, "training": TRAINING}
METRICS = {"select": "best", "selected_epoch": 1, "parameters": 10, "seconds": 1.5, "memory_gb": 0.1}
METRICS |= {"val": {"mAP": 0.5}, "test": {"mAP": 0.25}}


def write_run(root: Path, data: MultiLabelData, **training: Any) -> Run:
    """A finished run with every file that tables and figures read."""
    run = open_run(root, DESCRIPTION | {"training": TRAINING | training})
    for split in ("val", "test"):
        logits = (data.targets - 0.5).astype(np.float32)
        run.write_predictions(
            split, Predictions(np.array(data.ids), data.targets, logits, data.classes, data.ignore_mask)
        )
    run.write_history(
        [{"epoch": n, "lr": 0.1, "bce": 0.5, "val_mAP": 0.5, "selected": 1, "seconds": 1.0} for n in (1, 2)]
    )
    run.finish(METRICS)
    return run


@pytest.fixture
def run(tmp_path: Path, toy_data: dict[str, MultiLabelData]) -> Run:
    return write_run(tmp_path / "runs", toy_data["test"])


def changed(content: dict[str, Any], key: str, value: Any = ...) -> str:
    """JSON of a mapping with one entry, by its dotted key, replaced or (with ...) removed."""
    content = json.loads(json.dumps(content))
    section = content
    *sections, name = key.split(".")
    for other in sections:
        section = section[other]
    section[name] = value
    if value is ...:
        del section[name]
    return json.dumps(content)


CONFIGS = {
    "a list": ("[]", "has list in place of a mapping"),
    "empty": ("{}", "`method` of the run is missing"),
    "cut off": ('{"method": "van', "not valid JSON"),
    "deeply nested": ("[" * 100_000, "not valid JSON"),
    "no method": (changed(DESCRIPTION, "method"), "`method` of the run is missing"),
    "no training": (changed(DESCRIPTION, "training"), "`training` of the run is missing"),
    "training a list": (changed(DESCRIPTION, "training", []), "`training` of the run is [], expected"),
    "no epochs": (changed(DESCRIPTION, "training.epochs"), "`epochs` of `training` is missing"),
    "epochs a text": (changed(DESCRIPTION, "training.epochs", "2"), "`epochs` of `training` is '2'"),
    "seed true": (changed(DESCRIPTION, "training.seed", True), "`seed` of `training` is True"),
    "data a text": (changed(DESCRIPTION, "data", "toy"), "`data` of the run is 'toy'"),
    "settings null": (changed(DESCRIPTION, "settings", None), "`settings` of the run is None"),
}
METRICS_FILES = {
    "a list": ("[]", "has list in place of a mapping"),
    "without test": (changed(METRICS, "test"), "`test` of the metrics is missing"),
    "test a number": (changed(METRICS, "test", 0.5), "`test` of the metrics is 0.5"),
    "no mAP": (changed(METRICS, "val", {}), "`mAP` of a split is missing"),
    "mAP a text": (changed(METRICS, "test.mAP", "high"), "`mAP` of a split is 'high'"),
    "mAP in percent": (changed(METRICS, "test.mAP", 55.0), "`mAP` of a split is 55.0, expected a fraction"),
    "seconds a list": (changed(METRICS, "seconds", [1]), "`seconds` of the metrics is [1]"),
}


@pytest.mark.parametrize(("name", "cases"), [("config.json", CONFIGS), ("metrics.json", METRICS_FILES)])
def test_a_damaged_description_is_named(
    run: Run, toy_data: dict[str, MultiLabelData], caplog: pytest.LogCaptureFixture, name: str, cases: dict
) -> None:
    other = write_run(run.path.parent, toy_data["test"], seed=4)
    for text, problem in cases.values():
        (run.path / name).write_text(text)
        with pytest.raises(RunError) as caught:
            _ = run.config, run.mean_ap
        message = str(caught.value)
        assert message.startswith(f"{run.path / name}: ")
        assert problem in message
        assert message.endswith(f"; remove the folder {run.path} to restart the training.")
        assert "\n" not in message
        assert [line["run"] for line in summarize_runs(run.path.parent)] == [other.path.name]
        assert caplog.messages.count(f"Left out: {message}") == 1
        assert [each.path for each in runs_on(run.path.parent, toy_data["test"])] == [other.path]


def test_entries_that_an_older_version_lacks_have_defaults(run: Run) -> None:
    (run.path / "metrics.json").write_text('{"best_epoch": 1, "test": {"mAP": NaN}}')
    assert run.metrics["parameters"] == run.metrics["seconds"] == 0
    assert np.isnan(run.mean_ap["test"])
    assert list(run.metrics)[:2] == ["best_epoch", "test"]


def rewrite(**arrays: Any) -> Callable[[Path], None]:
    """Replaces arrays of a file of predictions; None removes one."""

    def change(path: Path) -> None:
        with np.load(path) as file:
            content = {**file, **arrays}
        np.savez(path, **{name: value for name, value in content.items() if value is not None})

    return change


def cut(length: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:length]) and None


PREDICTIONS = {
    "empty": (cut(0), "not a readable file of predictions"),
    "cut off": (cut(300), "not a readable file of predictions"),
    "no archive": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00") and None, "not a readable file of predictions"),
    "no logits": (rewrite(logits=None), "not a readable file of predictions"),
    "other shape": (rewrite(logits=np.zeros((3, 4), np.float32)), "`logits` is invalid (float32, shape (3, 4)"),
    "nan": (rewrite(logits=np.full((40, 4), np.nan, np.float32)), "`logits` is invalid"),
    "logits texts": (rewrite(logits=np.full((40, 4), "1")), "`logits` is invalid"),
    "targets 2": (rewrite(targets=np.full((40, 4), 2, np.uint8)), "`targets` is invalid"),
    "ids numbers": (
        rewrite(ids=np.arange(40)),
        "`ids` is invalid (int64, shape (40,), expected a text for each image)",
    ),
    "no classes": (rewrite(classes=np.array([], np.str_)), "`classes` is invalid"),
    "mask of numbers": (rewrite(ignore_mask=np.zeros((40, 4))), "`ignore_mask` is invalid"),
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_damaged_predictions_are_named(run: Run, toy_data: dict[str, MultiLabelData], case: str) -> None:
    change, problem = PREDICTIONS[case]
    other = write_run(run.path.parent, toy_data["test"], seed=4)
    path = run.path / "predictions" / "val.npz"
    change(path)
    with pytest.raises(
        RunError, match=rf"; remove the folder {re.escape(str(run.path))} to restart the training\.$"
    ) as e:
        run.predictions("val")
    assert str(e.value).startswith(f"{path}: ")
    assert problem in str(e.value)
    runs = runs_on(run.path.parent, toy_data["test"])
    assert [each.path for each in runs] == [other.path]
    assert summary_table(group_runs(runs))["seeds"].tolist() == [1]


TABLES = {
    "empty": "",
    "no epoch": "lr,bce\n0.1,0.5\n",
    "a text": "epoch,bce\n1,low\n",
    "an empty epoch": "epoch,bce\n,0.5\n1,0.5\n",
    "cut off": "epoch,bce\n1,0.5\n2,0.4",
    "too many columns": "epoch,bce\n1,0.5,3,4\n2,1,1\n",
    "binary": "\x00\x01\x02",
}


@pytest.mark.parametrize("case", TABLES)
def test_a_damaged_history_is_named(run: Run, case: str) -> None:
    for name, read in (("history.csv", lambda: run.history), ("gradients.csv", lambda: run.gradients)):
        (run.path / name).write_text(TABLES[case])
        with pytest.raises(RunError, match="remove the folder") as caught:
            read()
        assert str(caught.value).startswith(f"{run.path / name}: ")


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"precision": "int8", "channels_last": true, "images_per_second": null}', "{"]
)
def test_a_damaged_compute_format_is_named(run: Run, text: str) -> None:
    (run.path / "compute_format.json").write_text(text)
    with pytest.raises(RunError, match=r"compute_format\.json: .*; remove the folder"):
        _ = run.compute_format


def test_a_run_without_its_model_says_what_to_do(run: Run) -> None:
    with pytest.raises(RunError, match=r"model\.safetensors: no such weights file\. Remove the folder .* to restart"):
        run.model()


def test_a_folder_in_place_of_a_file_is_named(run: Run) -> None:
    for name in ("history.csv", "metrics.json"):
        (run.path / name).unlink()
        (run.path / name).mkdir()
    assert not run.complete
    assert run.history.empty
    shutil.rmtree(run.path / "metrics.json")
    assert [each.path for each in iter_runs(run.path.parent)] == [run.path]
