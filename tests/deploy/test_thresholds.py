"""Thresholds per class: those of the protocol "tuned", as probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from mlkd.deploy.load import load_run_model
from mlkd.deploy.thresholds import tuned_thresholds
from mlkd.errors import RunError
from mlkd.metrics import binarize, tune_thresholds
from mlkd.training.runs import Predictions, Run, open_run


def write_run(folder: Path, predictions: Predictions, split: str = "val") -> Run:
    training = {"role": "student", "backbone": "net", "seed": 0}
    run = open_run(folder, {"method": "vanilla", "settings": {}, "data": {"name": "toy"}, "training": training})
    run.write_predictions(split, predictions)
    run.finish({"test": {"mAP": 0.5}, split: {"mAP": 0.5}})
    return run


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 12), st.booleans())
def test_probabilities_in_float32_predict_the_labels_of_the_tuned_protocol(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, ties: bool
) -> None:
    rng, classes = np.random.default_rng(seed), ("a", "b", "c")
    logits = (rng.integers(-2, 3, (n, 3)) if ties else rng.normal(0, 2, (n, 3))).astype(np.float32)
    targets = (rng.random((n, 3)) < 0.5).astype(np.uint8)
    run = write_run(tmp_path_factory.mktemp("run"), Predictions(np.arange(n), targets, logits, classes))
    thresholds = tuned_thresholds(run, classes)
    probabilities = 1 / (1 + np.exp(-logits))
    assert probabilities.dtype == np.float32
    expected = binarize(targets, logits, "tuned", validation=(targets, logits))
    assert np.array_equal(probabilities >= thresholds, expected)
    tuned = tune_thresholds(targets, logits)
    assert np.all(thresholds <= expit(tuned))
    assert np.allclose(thresholds, expit(tuned), atol=1e-4)
    assert np.all(thresholds[~targets.any(axis=0)] == 0.5)


def test_a_run_without_val_has_no_thresholds(tmp_path: Path) -> None:
    predictions = Predictions(np.arange(1), np.ones((1, 1), np.uint8), np.ones((1, 1)), ("a",))
    assert tuned_thresholds(write_run(tmp_path, predictions, "test"), ("a",)) is None


def test_predictions_of_other_classes_are_an_error(tmp_path: Path) -> None:
    predictions = Predictions(np.arange(1), np.ones((1, 2), np.uint8), np.ones((1, 2)), ("a", "b"))
    run = write_run(tmp_path, predictions)
    with pytest.raises(RunError, match=r"predictions have the classes a, b, its model has a, c"):
        tuned_thresholds(run, ("a", "c"))


def test_the_model_of_a_run_has_its_thresholds(toy_run: Run) -> None:
    model, val = load_run_model(toy_run), toy_run.predictions("val")
    expected = binarize(val.targets, val.logits, "tuned", validation=(val.targets, val.logits))
    assert np.array_equal(expit(val.logits) >= model.thresholds, expected)
