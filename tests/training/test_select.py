"""Which epoch is kept, and training without a validation split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from interruption import interrupt
from safetensors import safe_open
from safetensors.torch import load_file

from mlkd.data import DataError, MultiLabelData
from mlkd.data.splits import train_on_trainval
from mlkd.errors import TrainingError
from mlkd.training import loop
from mlkd.training.config import Config
from mlkd.training.loop import fit
from mlkd.training.runs import Run, iter_runs, summarize_runs

pytestmark = pytest.mark.usefixtures("own_cache")

Data = Mapping[str, MultiLabelData]


@contextmanager
def scores(values: Sequence[float]) -> Iterator[None]:
    """mAP of the epochs on `val`, then of the final evaluation."""
    remaining = iter([*values, 0.0, 0.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "mean_average_precision", lambda _: next(remaining))
        yield


def same_weights(first: Run, second: Run) -> bool:
    one, two = (load_file(run.path / "model.safetensors") for run in (first, second))
    return all(torch.equal(one[name], two[name]) for name in one)


def notes(run: Run) -> dict[str, str]:
    with safe_open(run.path / "model.safetensors", "pt") as file:
        return file.metadata()


def test_last_keeps_the_last_epoch(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    config = toy_config.replace(epochs=2)
    with scores([0.9, 0.3]):
        best = fit("vanilla", toy_data, config, runs=tmp_path)
    with scores([0.9, 0.3]):
        last = fit("vanilla", toy_data, config.replace(select="last"), runs=tmp_path)
    with scores([0.3, 0.9]):
        expected = fit("vanilla", toy_data, config.replace(role="teacher"), runs=tmp_path)
    assert not same_weights(best, last)
    assert same_weights(last, expected)
    assert [run.metrics["selected_epoch"] for run in (best, last, expected)] == [1, 2, 2]
    assert [run.metrics["select"] for run in (best, last, expected)] == ["best", "last", "best"]
    assert [run.history["selected"].tolist() for run in (best, last, expected)] == [[1, 0], [0, 1], [1, 1]]
    assert [(notes(run)["epoch"], notes(run)["select"]) for run in (best, last)] == [("1", "best"), ("2", "last")]
    assert last.history["val_mAP"].tolist() == [0.9, 0.3]  # validated all the same


def test_training_without_a_validation_split(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    data, config = train_on_trainval(toy_data), toy_config.replace(epochs=2, select="last", batch_size=26)
    assert {name: len(split) for name, split in data.items()} == {"train": 104, "test": 40}
    run = fit("vanilla", data, config, runs=tmp_path / "uninterrupted")
    assert run.metrics["selected_epoch"] == 2
    assert "val_mAP" not in run.history
    assert list(run.mean_ap) == ["test"]
    assert not (run.path / "predictions" / "val.npz").exists()
    assert "val_mAP" not in notes(run)
    assert summarize_runs(tmp_path / "uninterrupted")[0]["val mAP %"] == ""

    with interrupt(6):  # in epoch 2
        fit("vanilla", data, config, runs=tmp_path / "interrupted")
    resumed = fit("vanilla", data, config, runs=tmp_path / "interrupted")
    assert same_weights(resumed, run)


def test_best_requires_validation_images_that_are_not_trained_on(
    toy_data: Data, toy_config: Config, tmp_path: Path
) -> None:
    data = train_on_trainval(toy_data)
    with pytest.raises(
        DataError, match=r"'val' is missing, which select=\"best\" chooses the epoch on; found train, test"
    ):
        fit("vanilla", data, toy_config, runs=tmp_path)
    for select in ("best", "last"):
        with pytest.raises(DataError, match=r"40 image\(s\) in both train and val"):
            fit("vanilla", {**data, "val": toy_data["val"]}, toy_config.replace(select=select), runs=tmp_path)
    assert not list(iter_runs(tmp_path))


def test_logits_that_are_not_finite_are_an_error_without_validation(
    toy_data: Data, toy_config: Config, tmp_path: Path
) -> None:
    config = toy_config.replace(optimizer="sgd", schedule="constant", lr=1e30, batch_size=104, epochs=1, select="last")
    with pytest.raises(TrainingError, match="logits on `test` are not finite after epoch 1: lower `lr`"):
        fit("vanilla", train_on_trainval(toy_data), config, runs=tmp_path)
