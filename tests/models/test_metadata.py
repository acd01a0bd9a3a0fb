"""Class names, preprocessing and thresholds in a model file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mlkd.errors import WeightsError
from mlkd.models import ModelMetadata, MultiLabelModel, load_model, save_model


def rewrite(path: Path, **changes: str) -> None:
    """Changes texts in the metadata of a safetensors file."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | changes)


@pytest.fixture
def file(toy_teacher: MultiLabelModel, tmp_path: Path) -> Path:
    toy_teacher.thresholds = np.array([0.1, 0.25, 1 / 3, 0.9])
    save_model(toy_teacher, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_model_file_keeps_the_thresholds_and_states_the_preprocessing(file: Path) -> None:
    model = load_model(file)
    assert model.thresholds.tolist() == [0.1, 0.25, 1 / 3, 0.9]
    assert model.metadata.preprocessing["image_size"] == 32
    assert model.metadata.preprocessing["mean"] == model.mean.flatten().tolist()
    assert ModelMetadata.from_texts(model.metadata.to_texts(), file) == model.metadata


def test_a_model_without_thresholds_has_none_in_its_file(toy_teacher: MultiLabelModel, tmp_path: Path) -> None:
    save_model(toy_teacher, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").thresholds is None


def test_another_preprocessing_is_an_error_that_shows_the_difference(file: Path) -> None:
    stored = load_model(file).metadata.preprocessing | {"mean": [0.1, 0.2, 0.3], "image_size": 64}
    rewrite(file, preprocessing=json.dumps(stored))
    with pytest.raises(WeightsError) as caught:
        load_model(file)
    message = str(caught.value)
    assert f"{file}: the preprocessing of its model differs" in message
    assert "image_size is 64 in the file and 32 here; mean is [0.1, 0.2, 0.3] in the file and [0.5" in message
    assert "std" not in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": "[0.5]"}, "has 1 `thresholds` for 4 classes"),
        ({"thresholds": '["high"]'}, "no valid class names"),
        ({"classes": "cat"}, "no valid class names"),
        ({"preprocessing": "3"}, "no valid class names"),
    ],
)
def test_metadata_that_is_not_valid_is_an_error(file: Path, changes: dict[str, str], message: str) -> None:
    rewrite(file, **changes)
    with pytest.raises(WeightsError, match=message):
        load_model(file)
